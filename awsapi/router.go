package awsapi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxPath bounds the path that is looked at. The longest legal one of AWS IoT,
// a confirmation token of 2048 characters, has under 7000 bytes.
const maxPath = 8 << 10

// router finds operations by method and escaped path. It never changes after
// it was built.
type router struct {
	methods map[string]*node
	// depth is the most segments that a path without greedy label has.
	depth int
}

// node is one place in the tree of segments.
type node struct {
	literals map[string]*node
	label    *node      // what follows one label
	here     *Operation // the path ends here
	rest     *Operation // a greedy label takes the rest
}

func newRouter(operations []Operation) (*router, error) {
	r := &router{methods: make(map[string]*node)}
	names := make(map[string]bool)
	for i := range operations {
		op := &operations[i]
		if names[op.Name] {
			return nil, fmt.Errorf("the operation %s is there twice", op.Name)
		}
		names[op.Name] = true
		if err := r.add(op, op.Path); err != nil {
			return nil, fmt.Errorf("couldn't route %s %s: %w", op.Method, op.Path, err)
		}
	}
	// Without its last slash a path is found too, unless it has its own meaning.
	for i := range operations {
		op := &operations[i]
		short, cut := strings.CutSuffix(op.Path, "/")
		if !cut || short == "" {
			continue
		}
		if err := r.add(op, short); err != nil && !errors.Is(err, errTaken) {
			return nil, fmt.Errorf("couldn't route %s %s: %w", op.Method, short, err)
		}
	}
	return r, nil
}

var errTaken = errors.New("another operation has this method and path")

func (r *router) add(op *Operation, path string) error {
	if !strings.HasPrefix(path, "/") {
		return errors.New("the path doesn't begin with a slash")
	}
	at, ok := r.methods[op.Method]
	if !ok {
		at = &node{}
		r.methods[op.Method] = at
	}
	segments := strings.Split(path[1:], "/")
	r.depth = max(r.depth, len(segments))
	for i, segment := range segments {
		if strings.HasSuffix(segment, "+}") {
			if i != len(segments)-1 {
				return errors.New("a greedy label isn't the last segment")
			}
			if at.rest != nil {
				return errTaken
			}
			at.rest = op
			return nil
		}
		at = at.child(segment)
	}
	if at.here != nil {
		return errTaken
	}
	at.here = op
	return nil
}

func (n *node) child(segment string) *node {
	if strings.HasPrefix(segment, "{") {
		if n.label == nil {
			n.label = &node{}
		}
		return n.label
	}
	if n.literals == nil {
		n.literals = make(map[string]*node)
	}
	next, ok := n.literals[segment]
	if !ok {
		next = &node{}
		n.literals[segment] = next
	}
	return next
}

// find gives the operation of a method and wire path, or nil.
func (r *router) find(method, path string) *Operation {
	root, ok := r.methods[method]
	if !ok || len(path) > maxPath || !strings.HasPrefix(path, "/") {
		return nil
	}
	// Segments beyond the depth can only belong to a greedy label.
	return root.find(strings.SplitN(path[1:], "/", r.depth+1))
}

// knows tells whether an operation of any method has a wire path.
func (r *router) knows(path string) bool {
	for method := range r.methods {
		if r.find(method, path) != nil {
			return true
		}
	}
	return false
}

// find prefers literals; its recursion is as deep as the longest path of the
// table.
func (n *node) find(segments []string) *Operation {
	if len(segments) == 0 {
		return n.here
	}
	if next, ok := n.literals[segments[0]]; ok {
		if op := next.find(segments[1:]); op != nil {
			return op
		}
	}
	if segments[0] != "" && n.label != nil {
		if op := n.label.find(segments[1:]); op != nil {
			return op
		}
	}
	// The rest isn't empty, but may begin with a slash.
	if segments[0] != "" || len(segments) > 1 {
		return n.rest
	}
	return nil
}

// labels gives the unescaped labels of a wire path that op was found for.
func labels(op *Operation, path string) (map[string]string, error) {
	pattern := strings.Split(op.Path, "/")
	segments := strings.SplitN(path, "/", len(pattern))
	found := make(map[string]string)
	for i, segment := range pattern {
		name, ok := strings.CutPrefix(segment, "{")
		if !ok || i >= len(segments) {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "+")
		value, err := url.PathUnescape(segments[i])
		if err != nil {
			return nil, &APIError{Code: CodeSerialization, Status: 400, Message: fmt.Sprintf("The path has a malformed escape at %s.", name)}
		}
		found[name] = value
	}
	return found, nil
}

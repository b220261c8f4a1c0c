package awsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/restjson"
)

// Operation is one operation of an API.
type Operation struct {
	Name   string // such as CreateThing
	Method string
	// Path is the model's URI: literal segments, {label} and a last {label+}.
	Path string
	// Action is the IAM action, such as iot:CreateThing.
	Action string
	// Resource is the ARN of what the action is about, with {partition},
	// {region}, {account} and path labels to be filled in, or "*".
	Resource string
	// Deprecated says that AWS marks the operation so.
	Deprecated bool
	// Status is that of a success. Zero means 200; 204 has no body.
	Status int
	// MaxBody bounds a request's body in bytes. Zero means Config.MaxBody.
	MaxBody int64
}

// Op is an Operation with the types of its input and output.
type Op[In, Out any] struct {
	Operation
	codec *restjson.Codec
}

// Define makes an Op. In and Out are structs with the tags of package restjson.
func Define[In, Out any](codec *restjson.Codec, op Operation) Op[In, Out] {
	return Op[In, Out]{Operation: op, codec: codec}
}

// Func answers an operation. The input's constraints hold, and the caller may
// do what it asks.
type Func[In, Out any] func(ctx context.Context, caller Caller, in *In) (*Out, error)

// Route is an operation together with the function that answers it.
type Route struct {
	operation Operation
	serve     func(ctx context.Context, call call) (Answer, error)
}

// Answer is a success as it goes over the wire.
type Answer struct {
	Status int         // zero: the operation's
	Header http.Header // beside those of every response
	Body   []byte
}

// call is what a Route gets of one request.
type call struct {
	caller    Caller
	source    restjson.Source
	authorize func(ctx context.Context, ask Ask) error
}

// Ask is one thing that a caller must be allowed before an operation is done.
type Ask struct {
	// Action is the IAM action, such as iot:CreateThing. Empty: the operation's.
	Action string
	// Resource is what it is done to: an ARN as the server itself writes it, or "*".
	// A spelling of the caller's would let it step around a Deny. Or Anywhere.
	Resource string
	// Keys are condition keys with the request's values, beside those of the caller.
	Keys map[string][]string
}

// Anywhere, as an Ask's resource, is whatever one a caller has a statement that allows the
// action on: it is asked before one that only those may know of who can do it at all. Deny
// statements and conditions aren't looked at: what is done is asked for by its resource, too.
const Anywhere = "*anywhere"

// Handle binds a function to an operation. The resource that Config.Authorize
// sees is the operation's own.
func Handle[In, Out any](op Op[In, Out], fn Func[In, Out]) Route {
	return HandleFor(op, nil, fn)
}

// HandleFor is Handle for operations whose resource isn't named by the path:
// resource gives its ARN.
func HandleFor[In, Out any](op Op[In, Out], resource func(Caller, *In) string, fn Func[In, Out]) Route {
	return HandleForAll(op, one(resource), fn)
}

// HandleForAll is HandleFor for operations that are about several resources: the
// caller must be allowed the action on each.
func HandleForAll[In, Out any](op Op[In, Out], resources func(Caller, *In) []string, fn Func[In, Out]) Route {
	return HandleAsking(op, listed(resources), fn)
}

// HandleAsking is Handle for operations whose asks follow from what is stored, or that
// have condition keys: the caller must be allowed all of them. An error of asks is the
// request's.
func HandleAsking[In, Out any](op Op[In, Out], asks func(context.Context, Caller, *In) ([]Ask, error), fn Func[In, Out]) Route {
	if fn == nil {
		return Route{operation: op.Operation}
	}
	return handle(op, asks, func(ctx context.Context, caller Caller, in *In) (Answer, error) {
		out, err := fn(ctx, caller, in)
		if err != nil {
			return Answer{}, err
		}
		if out == nil {
			out = new(Out)
		}
		data, err := op.codec.Encode(out)
		if err != nil {
			return Answer{}, fmt.Errorf("couldn't encode the output of %s: %w", op.Name, err)
		}
		return Answer{Body: data}, nil
	})
}

// HandleRaw is HandleFor for operations whose answer isn't the JSON of their
// output: fn gives it as it goes over the wire. A nil resource means the
// operation's own.
func HandleRaw[In, Out any](op Op[In, Out], resource func(Caller, *In) string, fn func(ctx context.Context, caller Caller, in *In) (Answer, error)) Route {
	return handle(op, listed(one(resource)), fn)
}

// one makes a list of one resource; nil stays nil.
func one[In any](resource func(Caller, *In) string) func(Caller, *In) []string {
	if resource == nil {
		return nil
	}
	return func(caller Caller, in *In) []string { return []string{resource(caller, in)} }
}

// listed makes asks of resources; nil stays nil.
func listed[In any](resources func(Caller, *In) []string) func(context.Context, Caller, *In) ([]Ask, error) {
	if resources == nil {
		return nil
	}
	return func(_ context.Context, caller Caller, in *In) ([]Ask, error) {
		var asks []Ask
		for _, arn := range resources(caller, in) {
			asks = append(asks, Ask{Resource: arn})
		}
		return asks, nil
	}
}

func handle[In, Out any](op Op[In, Out], asks func(context.Context, Caller, *In) ([]Ask, error), fn func(ctx context.Context, caller Caller, in *In) (Answer, error)) Route {
	serve := func(ctx context.Context, call call) (Answer, error) {
		in := new(In)
		if err := op.codec.Decode(call.source, in); err != nil {
			return Answer{}, err
		}
		all := []Ask{{Resource: expandResource(op.Resource, call)}}
		if asks != nil {
			var err error
			all, err = asks(ctx, call.caller, in)
			if err != nil {
				return Answer{}, err
			}
		}
		for _, ask := range all {
			if err := call.authorize(ctx, ask); err != nil {
				return Answer{}, err
			}
		}
		return fn(ctx, call.caller, in)
	}
	if fn == nil || op.codec == nil {
		serve = nil
	}
	return Route{operation: op.Operation, serve: serve}
}

// Operation gives what the Route answers.
func (r Route) Operation() Operation { return r.operation }

// check says why a Route can't be served.
func (r Route) check() error {
	if r.operation.Name == "" {
		return errors.New("a route has no operation")
	}
	if r.serve == nil {
		return fmt.Errorf("the route of %s has no function, or its operation wasn't made by Define", r.operation.Name)
	}
	return nil
}

// expandResource fills in an Operation's Resource.
func expandResource(resource string, call call) string {
	if !strings.Contains(resource, "{") {
		return resource
	}
	pairs := []string{
		"{partition}", Partition(call.caller.Region),
		"{region}", call.caller.Region,
		"{account}", call.caller.Account,
	}
	for label, value := range call.source.Path {
		pairs = append(pairs, "{"+label+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(resource)
}

// Partition gives the ARN partition of a region: aws, aws-cn or aws-us-gov.
func Partition(region string) string { return imprint.Region(region).Partition() }

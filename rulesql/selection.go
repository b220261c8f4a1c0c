package rulesql

// selection is the list behind SELECT.
type selection struct {
	items []item
	value bool // SELECT VALUE: one item, and its value is the result
}

// item is one entry of the list. A spread puts the members of an object into the result: of the
// payload or element where node is a starNode without a path.
type item struct {
	node   node
	path   []string // the keys that it goes to
	spread bool
}

// star says that nothing but "*" is selected.
func (s *selection) star() bool {
	if len(s.items) != 1 {
		return false
	}
	_, star := s.items[0].node.(*starNode)
	return star && (s.value || s.items[0].spread)
}

// eval gives the result for an element of a nested SELECT.
func (s *selection) eval(ev *Evaluation, sc *scope) value {
	if s.value || s.star() {
		return s.items[0].node.eval(ev, sc)
	}
	out := &object{members: make([]member, 0, len(s.items))}
	for i := range s.items {
		v := s.items[i].node.eval(ev, sc)
		if s.items[i].spread {
			ev.spread(out, v)
			continue
		}
		ev.place(out, s.items[i].path, v)
	}
	return objectValue(out)
}

// result evaluates the outermost selection.
func (ev *Evaluation) result() (Result, error) {
	s := &ev.statement.selection
	if s.star() {
		return ev.unchanged()
	}
	if s.value {
		v := s.items[0].node.eval(ev, nil)
		payload, _ := ev.encode(nil, v)
		return Result{Matched: true, Payload: payload}, ev.limit()
	}
	out := &object{members: make([]member, 0, len(s.items)+8)}
	for i := range s.items {
		it := &s.items[i]
		if _, star := it.node.(*starNode); star && it.spread {
			root := ev.root()
			if root.kind != kindObject {
				ev.problem("SELECT", nil, "the payload is no JSON object: it goes to the actions as it is, without the items beside *")
				return ev.unchanged()
			}
			ev.spread(out, root)
			continue
		}
		v := it.node.eval(ev, nil)
		if it.spread {
			ev.spread(out, v)
			continue
		}
		if v.kind == kindBytes {
			ev.problem("SELECT", nil, "the payload is no JSON: it can't be a member of the result; encode(*, 'base64') can")
			continue
		}
		ev.place(out, it.path, v)
	}
	payload, _ := ev.encode(make([]byte, 0, len(ev.message.Payload)+64), objectValue(out))
	return Result{Matched: true, Payload: payload}, ev.limit()
}

// limit gives err as an error that is nil when there is none.
func (ev *Evaluation) limit() error { return ev.err }

func (ev *Evaluation) unchanged() (Result, error) {
	if ev.err != nil {
		return Result{}, ev.err
	}
	if len(ev.message.Payload) == 0 {
		return Result{Matched: true, Payload: []byte("{}")}, nil
	}
	return Result{Matched: true, Payload: ev.message.Payload, Unchanged: true}, nil
}

// spread puts the members of an object into out.
func (ev *Evaluation) spread(out *object, v value) {
	if v.kind != kindObject {
		return
	}
	from := v.object()
	if !ev.spend(len(from.members)) {
		return
	}
	if len(out.members) == 0 {
		*out = from.clone(4)
		return
	}
	for i := range from.members {
		out.set(from.members[i].key, from.members[i].val)
	}
}

// place puts v under a path of keys; what is in the way and no object is replaced. Objects on the
// path may belong to the payload, so they are copied.
func (ev *Evaluation) place(out *object, path []string, v value) {
	if v.isUndefined() {
		return
	}
	for ; len(path) > 1; path = path[1:] {
		inner := &object{}
		old := ev.look(out.get(path[0]))
		if old.kind == kindObject {
			if !ev.spend(len(old.object().members)) {
				return
			}
			*inner = old.object().clone(1)
		}
		out.set(path[0], objectValue(inner))
		out = inner
	}
	out.set(path[0], v)
}

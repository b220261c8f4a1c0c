package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
)

// limits are the constraints that a shape can carry.
type limits struct {
	Min     *int64   `json:"min"`
	Max     *int64   `json:"max"`
	Pattern string   `json:"pattern"`
	Enum    []string `json:"enum"`
}

func (l limits) set() bool {
	return l.Min != nil || l.Max != nil || l.Pattern != "" || len(l.Enum) > 0
}

// member is one member of an operation's input or output, or of a structure.
type member struct {
	name         string
	Location     string   `json:"location"`
	LocationName string   `json:"locationName"`
	Type         string   `json:"type"`
	Shape        string   `json:"shape"`
	Required     bool     `json:"required"`
	Constraints  limits   `json:"constraints"`
	Enum         []string `json:"enum"`
}

// wire is the member's name on the wire.
func (m member) wire() string {
	if m.LocationName != "" {
		return m.LocationName
	}
	return m.name
}

// members keep the order of the model file.
type members []member

// UnmarshalJSON reads an object of members in its order.
func (ms *members) UnmarshalJSON(data []byte) error {
	return eachEntry(data, func(name string, raw json.RawMessage) error {
		m := member{name: name}
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		*ms = append(*ms, m)
		return nil
	})
}

type operation struct {
	name        string
	Method      string  `json:"method"`
	URI         string  `json:"uri"`
	SuccessCode int     `json:"successCode"`
	Deprecated  bool    `json:"deprecated"`
	Request     members `json:"request"`
	Response    members `json:"response"`
}

type shape struct {
	name string
	Type string `json:"type"`
	limits
	Members   members `json:"members"`
	Member    string  `json:"member"`
	Key       string  `json:"key"`
	Value     string  `json:"value"`
	Sensitive bool    `json:"sensitive"`
}

type operations []operation

// UnmarshalJSON reads an object of operations in its order.
func (ops *operations) UnmarshalJSON(data []byte) error {
	return eachEntry(data, func(name string, raw json.RawMessage) error {
		op := operation{name: name}
		if err := json.Unmarshal(raw, &op); err != nil {
			return fmt.Errorf("operation %s: %w", name, err)
		}
		*ops = append(*ops, op)
		return nil
	})
}

type shapes []shape

// UnmarshalJSON reads an object of shapes in its order.
func (ss *shapes) UnmarshalJSON(data []byte) error {
	return eachEntry(data, func(name string, raw json.RawMessage) error {
		s := shape{name: name}
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("shape %s: %w", name, err)
		}
		*ss = append(*ss, s)
		return nil
	})
}

type model struct {
	Operations operations `json:"operations"`
	Shapes     shapes     `json:"shapes"`

	byName map[string]*shape
	// fromClient holds the structures that occur in requests; in them, absent
	// and empty must differ.
	fromClient map[string]bool
}

func readModel(path string) (*model, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the model: %w", err)
	}
	m := &model{byName: make(map[string]*shape), fromClient: make(map[string]bool)}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("couldn't parse the model: %w", err)
	}
	for i := range m.Shapes {
		m.byName[m.Shapes[i].name] = &m.Shapes[i]
	}
	if err := m.addInlineShapes(); err != nil {
		return nil, err
	}
	for _, op := range m.Operations {
		for _, mem := range op.Request {
			m.markFromClient(mem.Shape)
		}
	}
	return m, nil
}

// addInlineShapes gives a row to each shape that the model describes only where
// an operation's member uses it.
func (m *model) addInlineShapes() error {
	for _, op := range m.Operations {
		if op.SuccessCode != 200 {
			return fmt.Errorf("operation %s: success code %d isn't understood", op.name, op.SuccessCode)
		}
		for _, mem := range append(append(members{}, op.Request...), op.Response...) {
			c := mem.Constraints
			c.Enum = mem.Enum
			known, ok := m.byName[mem.Shape]
			if !ok {
				known = &shape{name: mem.Shape, Type: mem.Type, limits: c}
				m.byName[mem.Shape] = known
				m.Shapes = append(m.Shapes, *known)
			}
			if known.Type != mem.Type {
				return fmt.Errorf("operation %s: member %s is a %s, its shape %s a %s", op.name, mem.name, mem.Type, mem.Shape, known.Type)
			}
			if c.set() && !reflect.DeepEqual(known.limits, c) {
				return fmt.Errorf("operation %s: member %s has other constraints than its shape %s", op.name, mem.name, mem.Shape)
			}
		}
	}
	return nil
}

func (m *model) markFromClient(name string) {
	if m.fromClient[name] {
		return
	}
	m.fromClient[name] = true
	s := m.byName[name]
	for _, mem := range s.Members {
		m.markFromClient(mem.Shape)
	}
	for _, inner := range []string{s.Member, s.Value} {
		if inner != "" {
			m.markFromClient(inner)
		}
	}
}

// shape gives a row by name.
func (m *model) shape(name string) (*shape, error) {
	s, ok := m.byName[name]
	if !ok {
		return nil, fmt.Errorf("the model has no shape %s", name)
	}
	return s, nil
}

// eachEntry calls fn for each member of a JSON object in its order.
func eachEntry(data []byte, fn func(name string, raw json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok {
			return fmt.Errorf("a member's name is %v", token)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if err := fn(name, raw); err != nil {
			return err
		}
	}
	return nil
}

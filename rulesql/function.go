package rulesql

import (
	"fmt"
	"sort"
	"strings"
)

// function is a row of the table of functions.
type function struct {
	name        string
	least, most int  // arguments
	second      bool // not in SQL version 2015-10-08
	external    bool // served by the outside
	bytes       bool // "*" as first argument means the payload's bytes
	call        func(ev *Evaluation, n *callNode, args []value) value
	// prepare turns constant arguments into what call finds in n.prepared; a problem makes the
	// statement wrong.
	prepare func(args []node) (prepared any, problem, hint string)
}

// anyNumber is the most arguments of functions that take as many as there are.
const anyNumber = MaxNodes

func (f *function) takes() string {
	switch {
	case f.most == anyNumber:
		return fmt.Sprintf("at least %d", f.least)
	case f.least != f.most:
		return fmt.Sprintf("%d to %d", f.least, f.most)
	case f.most == 1:
		return "one"
	}
	return fmt.Sprint(f.most)
}

// functions is the table, by name in lower case. It is never changed.
var functions = tabulate(textFunctions, numberFunctions, messageFunctions, valueFunctions, outsideFunctions)

func tabulate(groups ...[]function) map[string]*function {
	table := make(map[string]*function, 96)
	for _, group := range groups {
		for i := range group {
			table[group[i].name] = &group[i]
		}
	}
	return table
}

func functionNamed(name string) *function {
	if f, ok := functions[name]; ok {
		return f
	}
	if len(name) > 40 {
		return nil
	}
	return functions[strings.ToLower(name)]
}

// functionNames lists what can be called, in order.
func functionNames() []string {
	names := []string{"cast", "exists"}
	for name := range functions {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// literalText gives the text of a constant argument.
func literalText(args []node, i int) (string, bool) {
	if i >= len(args) {
		return "", false
	}
	n, ok := args[i].(*literalNode)
	if !ok || n.v.kind != kindString {
		return "", false
	}
	return n.v.text, true
}

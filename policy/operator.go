package policy

import (
	"strings"

	"github.com/imprint-iot/imprint/internal/nearest"
)

// operatorKind is what an operator compares; negation is kept apart from it.
type operatorKind uint8

const (
	opString operatorKind = iota
	opStringFold
	opStringLike
	opNumeric
	opDate
	opBool
	opBinary
	opIP
	opARN
	opNull
)

// relation is how a number or a date must stand to the policy's value.
type relation uint8

const (
	relEqual relation = iota
	relLess
	relLessEqual
	relGreater
	relGreaterEqual
)

// quantifier is the prefix of an operator for keys with several values.
type quantifier uint8

const (
	quantNone quantifier = iota
	quantAll
	quantAny
)

type operator struct {
	kind     operatorKind
	relation relation
	negated  bool
	ifExists bool
	quant    quantifier
}

type operatorName struct {
	name string
	op   operator
}

// operatorTable is the table of IAM user guide, "IAM JSON policy elements: Condition operators".
func operatorTable() []operatorName {
	return []operatorName{
		{"StringEquals", operator{kind: opString}},
		{"StringNotEquals", operator{kind: opString, negated: true}},
		{"StringEqualsIgnoreCase", operator{kind: opStringFold}},
		{"StringNotEqualsIgnoreCase", operator{kind: opStringFold, negated: true}},
		{"StringLike", operator{kind: opStringLike}},
		{"StringNotLike", operator{kind: opStringLike, negated: true}},
		{"NumericEquals", operator{kind: opNumeric}},
		{"NumericNotEquals", operator{kind: opNumeric, negated: true}},
		{"NumericLessThan", operator{kind: opNumeric, relation: relLess}},
		{"NumericLessThanEquals", operator{kind: opNumeric, relation: relLessEqual}},
		{"NumericGreaterThan", operator{kind: opNumeric, relation: relGreater}},
		{"NumericGreaterThanEquals", operator{kind: opNumeric, relation: relGreaterEqual}},
		{"DateEquals", operator{kind: opDate}},
		{"DateNotEquals", operator{kind: opDate, negated: true}},
		{"DateLessThan", operator{kind: opDate, relation: relLess}},
		{"DateLessThanEquals", operator{kind: opDate, relation: relLessEqual}},
		{"DateGreaterThan", operator{kind: opDate, relation: relGreater}},
		{"DateGreaterThanEquals", operator{kind: opDate, relation: relGreaterEqual}},
		{"Bool", operator{kind: opBool}},
		{"BinaryEquals", operator{kind: opBinary}},
		{"IpAddress", operator{kind: opIP}},
		{"NotIpAddress", operator{kind: opIP, negated: true}},
		{"ArnEquals", operator{kind: opARN}},
		{"ArnLike", operator{kind: opARN}},
		{"ArnNotEquals", operator{kind: opARN, negated: true}},
		{"ArnNotLike", operator{kind: opARN, negated: true}},
		{"Null", operator{kind: opNull}},
	}
}

// parseOperator reads an operator with its prefix and suffix. When it fails, the second
// result is a hint.
func parseOperator(s string) (operator, string, bool) {
	base := s
	quant := quantNone
	if before, after, found := strings.Cut(s, ":"); found {
		base = after
		switch before {
		case "ForAllValues":
			quant = quantAll
		case "ForAnyValue":
			quant = quantAny
		default:
			return operator{}, didYouMean(before, []string{"ForAllValues", "ForAnyValue"}), false
		}
	}
	base, ifExists := strings.CutSuffix(base, "IfExists")
	table := operatorTable()
	for _, row := range table {
		if row.name != base {
			continue
		}
		op := row.op
		op.quant, op.ifExists = quant, ifExists
		if op.kind == opNull && (ifExists || quant != quantNone) {
			return operator{}, "Null tests whether the key exists; it takes no prefix and no suffix", false
		}
		return op, "", true
	}
	names := make([]string, len(table))
	for i, row := range table {
		names[i] = row.name
	}
	hint := nearest.Name(base, names)
	if hint == "" {
		return operator{}, "use an IAM condition operator such as StringEquals, Bool or IpAddress", false
	}
	return operator{}, "did you mean \"" + strings.TrimSuffix(s, base+suffixIf(ifExists)) + hint + suffixIf(ifExists) + "\"?", false
}

func suffixIf(ifExists bool) string {
	if ifExists {
		return "IfExists"
	}
	return ""
}

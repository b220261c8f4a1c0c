package rulesql

import "fmt"

// Limits of what Parse and ParseSubstitution take.
const (
	// MaxStatementBytes is the longest statement or text with substitutions: a whole rule has at
	// most 256 KiB (AWS IoT Core limits).
	MaxStatementBytes = 256 << 10
	// MaxDepth is the deepest nesting of expressions: parentheses, calls, right sides of operators,
	// literals, CASE and nested SELECTs.
	MaxDepth = 128
	// MaxNodes is the most operators, calls, names and literals of one statement.
	MaxNodes = 16384
	// MaxVariables is the most variables of a SET clause.
	MaxVariables = 64
	// MaxVariableCharacters is the longest name of a variable (developer guide, "SET clause").
	MaxVariableCharacters = 64
	// MaxSubstitutions is the most "${...}" of one text.
	MaxSubstitutions = 64
	// MaxPatternBytes is the longest regular expression or date pattern.
	MaxPatternBytes = 2048
)

// Limits of one Evaluation, substitutions included.
const (
	// MaxSteps bounds the work: each operator, call, name, element and each few characters
	// that are looked at is a step.
	MaxSteps = 1_000_000
	// MaxResultBytes is the longest payload, and the longest text that any expression gives.
	MaxResultBytes = 256 << 10
	// MaxTextBytes is the sum of all texts that an evaluation makes.
	MaxTextBytes = 8 << 20
	// MaxPayloadDepth is the deepest nesting of a payload; a deeper one is no JSON document.
	MaxPayloadDepth = 128
	// MaxExternalCalls is the most calls of functions that are served from outside.
	MaxExternalCalls = 16
	// MaxProblems is the most problems that an evaluation keeps; it counts them all.
	MaxProblems = 16
	// MaxTransformBytes is the longest result of transform() (developer guide, "transform").
	MaxTransformBytes = 128 << 10

	maxPatternCost  = 4000 // instructions of a compiled regular expression, about
	patternCharging = 16   // instructions times characters that are one step
	textCharging    = 16   // characters that are one step
	longNumber      = 20   // steps of computing with a number that isn't a small one, or of a function of doubles
)

// LimitError says that an evaluation needed more than one of its limits. The message's rule
// didn't run; its error action may.
type LimitError struct {
	Msg  string
	Hint string
}

// Error gives "what was exceeded (hint)".
func (e *LimitError) Error() string {
	if e.Hint == "" {
		return e.Msg
	}
	return fmt.Sprintf("%s (%s)", e.Msg, e.Hint)
}

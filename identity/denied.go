package identity

import (
	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// Denial is the cause of a refusal by a policy. The trace reads from it what was
// asked.
type Denial struct {
	Action   policy.Action
	Resource string
	Words    string
}

// Error gives the words.
func (d *Denial) Error() string { return d.Words }

// Asked gives what a policy was asked.
func (d *Denial) Asked() (action, resource string) { return string(d.Action), d.Resource }

// Denied makes the refusal of a policy decision, with the decision in words.
func Denied(code imprint.Code, why policy.Explanation) *imprint.Error {
	return &imprint.Error{Code: code, Err: &Denial{Action: why.Action, Resource: why.Resource, Words: why.Paragraph()}, Hint: why.Hint}
}

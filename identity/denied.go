package identity

import (
	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// Denied makes the refusal of a policy decision, with the decision in words.
func Denied(code imprint.Code, why policy.Explanation) *imprint.Error {
	err := imprint.Errorf(code, "%s", why.Paragraph())
	err.Hint = why.Hint
	return err
}

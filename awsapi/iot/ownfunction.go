package iot

import (
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// checkOwnFunction refuses a function of another tenant, which would refuse each call. One that
// runs elsewhere is a function of the tenant that has the ARN as its handler. Errors:
// CodeInvalidRequest.
func checkOwnFunction(tx imprint.ReadTx, tenant imprint.Tenant, arn string) error {
	owner, _, _, err := imprint.ParseFunctionARN(arn)
	if err != nil || owner == tenant {
		return err
	}
	_, err = tx.FunctionByHandler(tenant, functions.RuntimeRemote, arn)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.Errorf(imprint.CodeInvalidRequest, "The function %s isn't one of account %s in %s", imprint.Excerpt(arn), tenant.Account, tenant.Region).
			WithHint("Name a function of this account and region; one that runs elsewhere needs a function with the runtime %s first, whose handler is its ARN.", functions.RuntimeRemote)
	}
	if err != nil {
		return fmt.Errorf("couldn't look for a remote function: %w", err)
	}
	return nil
}

package provisioning

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/imprint-iot/imprint"
)

// hookPrincipal is the service that functions are asked to let in.
const hookPrincipal = "iot.amazonaws.com"

// hookEvent is what a pre-provisioning hook is given (developer guide,
// "Pre-provisioning hooks", payload version 2020-04-01).
type hookEvent struct {
	Claim          string            `json:"claimCertificateId"`
	Certificate    string            `json:"certificateId"`
	CertificatePEM string            `json:"certificatePem"`
	Template       string            `json:"templateArn"`
	ClientID       string            `json:"clientId"`
	Parameters     map[string]string `json:"parameters"`
}

// hookResult is its answer. A pointer tells false from absent.
type hookResult struct {
	Allow     *bool
	Overrides texts
}

// askHook asks the template's hook, if it has one, before anything is made, and
// gives the parameters to go on with. Anything but a clear yes is a no.
func (d *demand) askHook(ctx context.Context, t imprint.ProvisioningTemplate, cert imprint.Certificate, parameters map[string]string) (map[string]string, error) {
	if t.HookTargetARN == "" {
		return parameters, nil
	}
	if parameters == nil {
		parameters = map[string]string{}
	}
	payload, err := json.Marshal(hookEvent{
		Claim: string(d.Claim), Certificate: string(cert.ID), CertificatePEM: cert.PEM, Template: t.ARN(),
		ClientID: string(d.ClientID), Parameters: parameters,
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the hook's event: %w", err)
	}
	result, took, err := d.invoke(ctx, t.HookTargetARN, t.ARN(), payload)
	if err != nil {
		return nil, wrapFunction(imprint.CodeHookFailed, "hook "+t.HookTargetARN, t.HookTargetARN, err)
	}
	var answer hookResult
	err = readMembers(result.Payload, map[string]any{"allowProvisioning": &answer.Allow, "parameterOverrides": &answer.Overrides})
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeHookFailed, "hook %s answered something else than it should after %s: %w: %s",
			t.HookTargetARN, took, err, imprint.Excerpt(string(result.Payload))).
			WithHint(`The function must answer {"allowProvisioning": true or false} with texts as parameterOverrides; look at %s`, byHand(t.HookTargetARN))
	}
	if answer.Allow == nil || !*answer.Allow {
		said := "allowProvisioning false"
		if answer.Allow == nil {
			said = "no allowProvisioning"
		}
		return nil, imprint.Errorf(imprint.CodeHookDenied, "hook %s answered %s after %s", t.HookTargetARN, said, took).
			WithHint(`If the device may come, the function must answer {"allowProvisioning": true}; look at %s`, byHand(t.HookTargetARN))
	}
	start := "warm"
	if result.Cold {
		start = "cold"
	}
	d.Rec.OK("claim.hook", "%s allowed it in %s (%s), with %d parameter override(s)", t.HookTargetARN, took, start, len(answer.Overrides))
	if len(answer.Overrides) == 0 {
		return parameters, nil
	}
	merged := maps.Clone(parameters)
	maps.Copy(merged, answer.Overrides)
	return merged, nil
}

// invoke calls a function for a template or a certificate provider.
func (d *demand) invoke(ctx context.Context, arn, source string, payload []byte) (imprint.FunctionResult, time.Duration, error) {
	if d.rooms.Functions == nil {
		return imprint.FunctionResult{}, 0, imprint.Errorf(imprint.CodeFunctionMissing, "function %s can't be run: this server has no host for functions", arn).
			WithHint("Start the server with functions, or take the hook or certificate provider away.")
	}
	limited, cancel := context.WithTimeout(ctx, d.opts.HookTimeout)
	defer cancel()
	began := time.Now()
	result, err := d.rooms.Functions.Invoke(limited, imprint.FunctionCall{
		Tenant: d.Tenant, ARN: arn, Payload: payload, Timeout: d.opts.HookTimeout,
		Principal: hookPrincipal, SourceARN: source, AttemptID: d.Rec.ID(),
	})
	took := time.Since(began).Round(time.Millisecond)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = imprint.Errorf(imprint.CodeFunctionTimeout, "it didn't answer in %s: %w", d.opts.HookTimeout, err).
			WithHint("It has %s (--hook-timeout), with the start of a process: make the function quicker, or keep a process warm.", d.opts.HookTimeout)
	}
	if err != nil && ctx.Err() != nil {
		err = imprint.Errorf(imprint.CodeUnavailable, "the device's connection ended before it answered").
			WithHint("Let the device stay connected until it is answered on the topic's /accepted or /rejected.")
	}
	if err != nil {
		return result, took, fmt.Errorf("after %s: %w", took, err)
	}
	return result, took, nil
}

// wrapFunction gives a function's failure the code of what it was asked for,
// with the hint of the failure itself.
func wrapFunction(code imprint.Code, what, arn string, err error) error {
	hint := imprint.HintOf(err)
	if imprint.CodeOf(err) == imprint.CodeFunctionFailed {
		hint = "The detail has the end of its log; run it by hand: " + byHand(arn)
	}
	return &imprint.Error{Code: code, Op: what, Err: err, Hint: hint}
}

// byHand is the command that runs a function as a person would.
func byHand(arn string) string {
	return "aws lambda invoke --function-name " + arn + " --cli-binary-format raw-in-base64-out --payload file://event.json answer.json"
}

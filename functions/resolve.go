package functions

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
)

// target is a function that a name or ARN was resolved to.
type target struct {
	function  imprint.Function
	qualifier string // as it was asked for
	limit     int    // runs at once; -1: the server's
}

// arn is the function's name as the caller said it.
func (t target) arn() string {
	arn := t.function.Tenant.FunctionARN(t.function.Name)
	if t.qualifier == "" {
		return arn
	}
	return arn + ":" + t.qualifier
}

// ParseName reads what the API takes for a function's name: name, name:qualifier,
// account:function:name and a whole ARN, each with a qualifier or without; a
// qualifier beside it must not contradict. Errors: CodeInvalidRequest, and
// CodeNotFound for a function of another tenant.
func ParseName(tenant imprint.Tenant, text, qualifier string) (imprint.FunctionName, string, error) {
	if len(text) > 256 {
		return "", "", imprint.Errorf(imprint.CodeInvalidRequest, "the function name is longer than 256 characters")
	}
	parts := strings.Split(text, ":")
	if parts[0] == "arn" {
		owner, name, named, err := imprint.ParseFunctionARN(text)
		if err != nil {
			return "", "", err
		}
		if owner != tenant {
			return "", "", imprint.Errorf(imprint.CodeNotFound, "Function not found: %s", imprint.Excerpt(text))
		}
		qualifier, err = oneQualifier(named, qualifier)
		return name, qualifier, err
	}
	if len(parts) >= 3 && parts[1] == "function" {
		if parts[0] != string(tenant.Account) {
			return "", "", imprint.Errorf(imprint.CodeNotFound, "Function not found: %s", imprint.Excerpt(text))
		}
		parts = parts[2:]
	} else if len(parts) >= 2 && parts[0] == "function" {
		parts = parts[1:]
	}
	if len(parts) > 2 {
		return "", "", imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't the name of a function", imprint.Excerpt(text))
	}
	name, err := imprint.ParseFunctionName(parts[0])
	if err != nil {
		return "", "", err
	}
	if len(parts) == 2 {
		qualifier, err = oneQualifier(parts[1], qualifier)
	}
	return name, qualifier, err
}

func oneQualifier(named, beside string) (string, error) {
	if named != "" && beside != "" && named != beside {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "the derived qualifier from the function name does not match the specified qualifier")
	}
	if named == "" {
		return beside, nil
	}
	return named, nil
}

// lookUp finds the version that a name and a qualifier mean. Errors: CodeNotFound.
func lookUp(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.FunctionName, qualifier string) (target, error) {
	latest, err := tx.Function(tenant, name, imprint.LatestVersion)
	if err != nil {
		return target{}, missing(err, tenant, name, qualifier)
	}
	found := target{function: latest, qualifier: qualifier, limit: latest.Concurrency}
	if qualifier == "" || qualifier == imprint.LatestVersion {
		return found, nil
	}
	version := qualifier
	_, numbered := imprint.ParseFunctionVersion(qualifier)
	if !numbered {
		alias, err := tx.FunctionAlias(tenant, name, qualifier)
		if err != nil {
			return target{}, missing(err, tenant, name, qualifier)
		}
		version = alias.Version
	}
	if version == imprint.LatestVersion {
		return found, nil
	}
	found.function, err = tx.Function(tenant, name, version)
	if err != nil {
		return target{}, missing(err, tenant, name, qualifier)
	}
	return found, nil
}

// missing words an absent function as AWS Lambda does.
func missing(err error, tenant imprint.Tenant, name imprint.FunctionName, qualifier string) error {
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("couldn't read function %s: %w", name, err)
	}
	arn := tenant.FunctionARN(name)
	if qualifier != "" {
		arn += ":" + qualifier
	}
	return imprint.Errorf(imprint.CodeNotFound, "Function not found: %s", arn)
}

// resolveCall finds the function of a call and decides whether the caller may
// invoke it. Errors: CodeFunctionMissing, CodeFunctionDenied.
func (s *Service) resolveCall(tx imprint.ReadTx, call imprint.FunctionCall) (target, error) {
	found, err := resolveARN(tx, call)
	if imprint.CodeOf(err) == imprint.CodeNotFound || imprint.CodeOf(err) == imprint.CodeInvalidRequest {
		return target{}, imprint.Errorf(imprint.CodeFunctionMissing, "%w", err)
	}
	if err != nil {
		return target{}, err
	}
	err = s.admit(found.function)
	if err != nil {
		return target{}, err
	}
	if call.Principal == "" || s.opts.AllowOwnAccount {
		return found, nil
	}
	qualifier := found.qualifier
	if qualifier == imprint.LatestVersion {
		qualifier = ""
	}
	statements, err := tx.FunctionPermissions(call.Tenant, found.function.Name, qualifier)
	if err != nil {
		return target{}, fmt.Errorf("couldn't read the permissions of function %s: %w", found.function.Name, err)
	}
	for _, statement := range statements {
		if statement.Allows(call.Principal, call.SourceARN, call.Tenant.Account) {
			return found, nil
		}
	}
	return target{}, imprint.Errorf(imprint.CodeFunctionDenied, "no permission of %s lets %s invoke it for %s", found.arn(), call.Principal, call.SourceARN).
		WithHint("%s", permissionHint(found, call))
}

// permissionHint is the command that allows a call.
func permissionHint(found target, call imprint.FunctionCall) string {
	hint := "aws lambda add-permission --function-name " + string(found.function.Name)
	if found.qualifier != "" {
		hint += " --qualifier " + found.qualifier
	}
	hint += " --statement-id iot --action lambda:InvokeFunction --principal " + call.Principal
	if call.SourceARN != "" {
		hint += " --source-arn " + call.SourceARN
	}
	return hint
}

// resolveARN finds the function of the tenant that an ARN means: its own, or one
// that runs elsewhere under that ARN.
func resolveARN(tx imprint.ReadTx, call imprint.FunctionCall) (target, error) {
	owner, name, qualifier, err := imprint.ParseFunctionARN(call.ARN)
	if err != nil {
		return target{}, err
	}
	if owner == call.Tenant {
		return lookUp(tx, call.Tenant, name, qualifier)
	}
	remote, err := tx.FunctionByHandler(call.Tenant, RuntimeRemote, call.ARN)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return target{}, imprint.Errorf(imprint.CodeNotFound, "%s isn't a function of %s, and no function of %s with the runtime %s has it as its handler",
			imprint.Excerpt(call.ARN), call.Tenant, call.Tenant, RuntimeRemote)
	}
	if err != nil {
		return target{}, fmt.Errorf("couldn't look for a remote function: %w", err)
	}
	return target{function: remote, limit: remote.Concurrency}, nil
}

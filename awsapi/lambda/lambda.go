// Package lambda answers the part of AWS Lambda's API (version 2015-03-31) that
// puts functions onto this server, changes, shows and invokes them: what makes
// `aws lambda create-function --zip-file`, `invoke` and `add-permission` work.
// The tenant is that of the signature: account of the access key, region of the
// scope.
//
// A function is ready when CreateFunction returns: its State is Active, its
// LastUpdateStatus Successful.
//
// What it does not do: code from S3 and container images, layers, file systems,
// dead-letter queues, routing of an alias over two versions, function URLs (all
// refused); VPCs, tracing, SnapStart, KMS keys (ignored); code signing; streaming
// answers and the client context of an invocation.
package lambda

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/functions"
)

// TooLarge is the model's name of the refusal of a large body.
const TooLarge = "RequestTooLargeException"

// maxUpload bounds a request with a zip in base64; maxInvoke one with an event: a
// little more than allowed, so that what is over is told exactly.
const (
	maxUpload = functions.MaxZip/3*4 + 64<<10
	maxInvoke = 6<<20 + 1<<10
)

const (
	base      = "/2015-03-31/functions"
	oneOf     = base + "/{FunctionName}"
	tagged    = "/2017-03-31/tags/{Resource}"
	resources = "arn:{partition}:lambda:{region}:{account}:function:*"
)

// The operations. The resource of each is the ARN of the function that it names.
var (
	opCreate = awsapi.Define[CreateFunctionInput, Configuration](codec, awsapi.Operation{
		Name: "CreateFunction", Method: "POST", Path: base, Action: "lambda:CreateFunction", Resource: resources, Status: http.StatusCreated, MaxBody: maxUpload})
	opUpdateCode = awsapi.Define[UpdateCodeInput, Configuration](codec, awsapi.Operation{
		Name: "UpdateFunctionCode", Method: "PUT", Path: oneOf + "/code", Action: "lambda:UpdateFunctionCode", Resource: resources, MaxBody: maxUpload})
	opUpdateConfiguration = awsapi.Define[UpdateConfigurationInput, Configuration](codec, awsapi.Operation{
		Name: "UpdateFunctionConfiguration", Method: "PUT", Path: oneOf + "/configuration", Action: "lambda:UpdateFunctionConfiguration", Resource: resources})
	opGet = awsapi.Define[NameInput, GetFunctionOutput](codec, awsapi.Operation{
		Name: "GetFunction", Method: "GET", Path: oneOf, Action: "lambda:GetFunction", Resource: resources})
	opGetConfiguration = awsapi.Define[NameInput, Configuration](codec, awsapi.Operation{
		Name: "GetFunctionConfiguration", Method: "GET", Path: oneOf + "/configuration", Action: "lambda:GetFunctionConfiguration", Resource: resources})
	opList = awsapi.Define[ListInput, ListOutput](codec, awsapi.Operation{
		Name: "ListFunctions", Method: "GET", Path: base + "/", Action: "lambda:ListFunctions", Resource: "*"})
	opListVersions = awsapi.Define[ListVersionsInput, ListVersionsOutput](codec, awsapi.Operation{
		Name: "ListVersionsByFunction", Method: "GET", Path: oneOf + "/versions", Action: "lambda:ListVersionsByFunction", Resource: resources})
	opDelete = awsapi.Define[NameInput, Nothing](codec, awsapi.Operation{
		Name: "DeleteFunction", Method: "DELETE", Path: oneOf, Action: "lambda:DeleteFunction", Resource: resources, Status: http.StatusNoContent})
	opInvoke = awsapi.Define[InvokeInput, Nothing](codec, awsapi.Operation{
		Name: "Invoke", Method: "POST", Path: oneOf + "/invocations", Action: "lambda:InvokeFunction", Resource: resources, MaxBody: maxInvoke})
	opPublish = awsapi.Define[PublishInput, Configuration](codec, awsapi.Operation{
		Name: "PublishVersion", Method: "POST", Path: oneOf + "/versions", Action: "lambda:PublishVersion", Resource: resources, Status: http.StatusCreated})
	opAddPermission = awsapi.Define[AddPermissionInput, AddPermissionOutput](codec, awsapi.Operation{
		Name: "AddPermission", Method: "POST", Path: oneOf + "/policy", Action: "lambda:AddPermission", Resource: resources, Status: http.StatusCreated})
	opRemovePermission = awsapi.Define[RemovePermissionInput, Nothing](codec, awsapi.Operation{
		Name: "RemovePermission", Method: "DELETE", Path: oneOf + "/policy/{StatementId}", Action: "lambda:RemovePermission", Resource: resources, Status: http.StatusNoContent})
	opGetPolicy = awsapi.Define[NameInput, GetPolicyOutput](codec, awsapi.Operation{
		Name: "GetPolicy", Method: "GET", Path: oneOf + "/policy", Action: "lambda:GetPolicy", Resource: resources})
	opCreateAlias = awsapi.Define[CreateAliasInput, Alias](codec, awsapi.Operation{
		Name: "CreateAlias", Method: "POST", Path: oneOf + "/aliases", Action: "lambda:CreateAlias", Resource: resources, Status: http.StatusCreated})
	opGetAlias = awsapi.Define[AliasInput, Alias](codec, awsapi.Operation{
		Name: "GetAlias", Method: "GET", Path: oneOf + "/aliases/{Name}", Action: "lambda:GetAlias", Resource: resources})
	opListAliases = awsapi.Define[ListAliasesInput, ListAliasesOutput](codec, awsapi.Operation{
		Name: "ListAliases", Method: "GET", Path: oneOf + "/aliases", Action: "lambda:ListAliases", Resource: resources})
	opUpdateAlias = awsapi.Define[UpdateAliasInput, Alias](codec, awsapi.Operation{
		Name: "UpdateAlias", Method: "PUT", Path: oneOf + "/aliases/{Name}", Action: "lambda:UpdateAlias", Resource: resources})
	opDeleteAlias = awsapi.Define[AliasInput, Nothing](codec, awsapi.Operation{
		Name: "DeleteAlias", Method: "DELETE", Path: oneOf + "/aliases/{Name}", Action: "lambda:DeleteAlias", Resource: resources, Status: http.StatusNoContent})
	opPutConcurrency = awsapi.Define[PutConcurrencyInput, Concurrency](codec, awsapi.Operation{
		Name: "PutFunctionConcurrency", Method: "PUT", Path: "/2017-10-31/functions/{FunctionName}/concurrency", Action: "lambda:PutFunctionConcurrency", Resource: resources})
	opGetConcurrency = awsapi.Define[NameInput, Concurrency](codec, awsapi.Operation{
		Name: "GetFunctionConcurrency", Method: "GET", Path: "/2019-09-30/functions/{FunctionName}/concurrency", Action: "lambda:GetFunctionConcurrency", Resource: resources})
	opCodeSigning = awsapi.Define[NameInput, CodeSigningOutput](codec, awsapi.Operation{
		Name: "GetFunctionCodeSigningConfig", Method: "GET", Path: "/2020-06-30/functions/{FunctionName}/code-signing-config", Action: "lambda:GetFunctionCodeSigningConfig", Resource: resources})
	opListTags = awsapi.Define[TagsInput, TagsOutput](codec, awsapi.Operation{
		Name: "ListTags", Method: "GET", Path: tagged, Action: "lambda:ListTags", Resource: resources})
	opTag = awsapi.Define[TagInput, Nothing](codec, awsapi.Operation{
		Name: "TagResource", Method: "POST", Path: tagged, Action: "lambda:TagResource", Resource: resources, Status: http.StatusNoContent})
	opUntag = awsapi.Define[UntagInput, Nothing](codec, awsapi.Operation{
		Name: "UntagResource", Method: "DELETE", Path: tagged, Action: "lambda:UntagResource", Resource: resources, Status: http.StatusNoContent})
	opDeleteConcurrency = awsapi.Define[NameInput, Nothing](codec, awsapi.Operation{
		Name: "DeleteFunctionConcurrency", Method: "DELETE", Path: "/2017-10-31/functions/{FunctionName}/concurrency", Action: "lambda:DeleteFunctionConcurrency", Resource: resources, Status: http.StatusNoContent})
)

// absent are operations of the model that clients are likely to try.
var absent = []awsapi.Operation{
	{Name: "InvokeWithResponseStream", Method: "POST", Path: "/2021-11-15/functions/{FunctionName}/response-streaming-invocations"},
	{Name: "CreateFunctionUrlConfig", Method: "POST", Path: "/2021-10-31/functions/{FunctionName}/url"},
	{Name: "PutFunctionCodeSigningConfig", Method: "PUT", Path: "/2020-06-30/functions/{FunctionName}/code-signing-config"},
	{Name: "ListLayers", Method: "GET", Path: "/2018-10-31/layers"},
	{Name: "PutFunctionEventInvokeConfig", Method: "PUT", Path: "/2019-09-25/functions/{FunctionName}/event-invoke-config"},
	{Name: "CreateEventSourceMapping", Method: "POST", Path: "/2015-03-31/event-source-mappings"},
	{Name: "GetAccountSettings", Method: "GET", Path: "/2016-08-19/account-settings"},
}

// Operations lists what the package knows.
func Operations() []awsapi.Operation {
	routes := (&Service{}).Routes()
	list := make([]awsapi.Operation, 0, len(routes)+len(absent))
	for _, route := range routes {
		list = append(list, route.Operation())
	}
	return append(list, absent...)
}

// dated is how the paths of this API begin, and of no other on the server.
var dated = regexp.MustCompile(`^/20[0-9]{2}-[0-9]{2}-[0-9]{2}/`)

// Owns tells whether a wire path belongs to this API.
func Owns(path string) bool { return dated.MatchString(path) }

// Service answers the operations.
type Service struct{ functions *functions.Service }

// NewService makes a Service.
func NewService(f *functions.Service) *Service { return &Service{functions: f} }

// Routes binds the operations.
func (s *Service) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleFor(opCreate, named(func(in *CreateFunctionInput) (string, *string) { return in.FunctionName, nil }), s.create),
		awsapi.HandleFor(opUpdateCode, named(func(in *UpdateCodeInput) (string, *string) { return in.FunctionName, nil }), s.updateCode),
		awsapi.HandleFor(opUpdateConfiguration, named(func(in *UpdateConfigurationInput) (string, *string) { return in.FunctionName, nil }), s.updateConfiguration),
		awsapi.HandleFor(opGet, named(nameOf), s.get),
		awsapi.HandleFor(opGetConfiguration, named(nameOf), s.getConfiguration),
		awsapi.Handle(opList, s.list),
		awsapi.HandleFor(opListVersions, named(func(in *ListVersionsInput) (string, *string) { return in.FunctionName, nil }), s.listVersions),
		awsapi.HandleFor(opDelete, named(nameOf), s.delete),
		awsapi.HandleRaw(opInvoke, named(func(in *InvokeInput) (string, *string) { return in.FunctionName, in.Qualifier }), s.invoke),
		awsapi.HandleFor(opPublish, named(func(in *PublishInput) (string, *string) { return in.FunctionName, nil }), s.publish),
		awsapi.HandleFor(opAddPermission, named(func(in *AddPermissionInput) (string, *string) { return in.FunctionName, in.Qualifier }), s.addPermission),
		awsapi.HandleFor(opRemovePermission, named(func(in *RemovePermissionInput) (string, *string) { return in.FunctionName, in.Qualifier }), s.removePermission),
		awsapi.HandleFor(opGetPolicy, named(nameOf), s.getPolicy),
		awsapi.HandleFor(opCreateAlias, named(func(in *CreateAliasInput) (string, *string) { return in.FunctionName, nil }), s.createAlias),
		awsapi.HandleFor(opGetAlias, named(func(in *AliasInput) (string, *string) { return in.FunctionName, nil }), s.getAlias),
		awsapi.HandleFor(opListAliases, named(func(in *ListAliasesInput) (string, *string) { return in.FunctionName, nil }), s.listAliases),
		awsapi.HandleFor(opUpdateAlias, named(func(in *UpdateAliasInput) (string, *string) { return in.FunctionName, nil }), s.updateAlias),
		awsapi.HandleFor(opDeleteAlias, named(func(in *AliasInput) (string, *string) { return in.FunctionName, nil }), s.deleteAlias),
		awsapi.HandleFor(opPutConcurrency, named(func(in *PutConcurrencyInput) (string, *string) { return in.FunctionName, nil }), s.putConcurrency),
		awsapi.HandleFor(opGetConcurrency, named(wholeOf), s.getConcurrency),
		awsapi.HandleFor(opDeleteConcurrency, named(wholeOf), s.deleteConcurrency),
		awsapi.HandleFor(opCodeSigning, named(wholeOf), s.codeSigning),
		awsapi.HandleFor(opListTags, named(func(in *TagsInput) (string, *string) { return in.Resource, nil }), s.listTags),
		awsapi.HandleFor(opTag, named(func(in *TagInput) (string, *string) { return in.Resource, nil }), s.tag),
		awsapi.HandleFor(opUntag, named(func(in *UntagInput) (string, *string) { return in.Resource, nil }), s.untag),
	}
}

func nameOf(in *NameInput) (string, *string) { return in.FunctionName, in.Qualifier }

// wholeOf is nameOf for operations that are about the function itself, whatever qualifier stands
// beside its name.
func wholeOf(in *NameInput) (string, *string) { return in.FunctionName, nil }

// named gives the resource of an operation: the ARN of the function that it
// names, in whatever form. A version or an alias is part of it, whether the request has
// it in the name or beside it; $LATEST isn't, which is the function itself: no spelling
// gets past a policy.
func named[In any](said func(*In) (name string, qualifier *string)) func(awsapi.Caller, *In) string {
	return func(caller awsapi.Caller, in *In) string {
		tenant := tenantOf(caller)
		name, beside := said(in)
		found, qualifier, err := functions.ParseName(tenant, name, text(beside))
		if err != nil {
			return "*" // the operation refuses it
		}
		qualifier = functions.PolicyQualifier(qualifier)
		if qualifier != "" {
			return tenant.FunctionARN(found) + ":" + qualifier
		}
		return tenant.FunctionARN(found)
	}
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

// text and isTrue give members that may be absent.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func isTrue(b *bool) bool { return b != nil && *b }

// Translate gives the outward form of the errors of functions.
func Translate(err error) awsapi.APIError {
	out := awsapi.APIError{Message: imprint.MessageOf(err), Extra: map[string]string{"Type": "User"}}
	var e *imprint.Error
	if errors.As(err, &e) && e.Hint != "" {
		out.Message = strings.TrimSuffix(out.Message, ".") + ". " + e.Hint
	}
	switch imprint.CodeOf(err) {
	case imprint.CodeInvalidRequest, imprint.CodeLimitExceeded:
		out.Code, out.Status = "InvalidParameterValueException", http.StatusBadRequest
	case imprint.CodeNotFound, imprint.CodeFunctionMissing:
		out.Code, out.Status = "ResourceNotFoundException", http.StatusNotFound
	case imprint.CodeAlreadyExists, imprint.CodeDeleteConflict, imprint.CodeConflictingUpdate:
		out.Code, out.Status = "ResourceConflictException", http.StatusConflict
	case imprint.CodeVersionConflict:
		out.Code, out.Status = "PreconditionFailedException", http.StatusPreconditionFailed
	case imprint.CodePacketTooLarge:
		out.Code, out.Status = TooLarge, http.StatusRequestEntityTooLarge
	case imprint.CodeFunctionStorage:
		out.Code, out.Status = "CodeStorageExceededException", http.StatusBadRequest
	case imprint.CodeThrottled, imprint.CodeFunctionThrottled, imprint.CodeFunctionTimeout:
		out.Code, out.Status = "TooManyRequestsException", http.StatusTooManyRequests
	case imprint.CodeAccessDenied, imprint.CodeUnauthorized, imprint.CodeFunctionDenied:
		out.Code, out.Status = "AccessDeniedException", http.StatusForbidden
	default:
		return awsapi.APIError{Code: "ServiceException", Status: http.StatusInternalServerError,
			Message: "An internal error occurred. The server's log has the reason under this request id.", Extra: map[string]string{"Type": "Service"}}
	}
	return out
}

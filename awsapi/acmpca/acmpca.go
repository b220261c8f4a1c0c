// Package acmpca answers AWS Private CA's API (version 2017-08-22, protocol JSON 1.1) for
// the certificate authorities of package ca: `aws acm-pca` makes roots and subordinates,
// signs with them and revokes. The tenant is that of the signature: account of the access
// key, region of the scope.
//
// What is asynchronous at AWS is done when the answer comes: GetCertificateAuthorityCsr and
// GetCertificate may be called at once.
//
// A template's ARN chooses a profile: those of AWS's base templates have profiles of their
// own (aws-root-ca, aws-end-entity, ...), and arn:aws:acm-pca:::template/imprint-NAME/V1 is
// profile NAME. Policies limit templates by the condition key acm-pca:TemplateArn.
//
// What it does not do: API passthrough and CSR passthrough (a profile decides what a
// certificate has), buckets for CRLs, key storage standards, sharing with other accounts,
// audit reports. Each is refused in words.
package acmpca

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
)

// Target begins the header X-Amz-Target of requests.
const Target = "ACMPrivateCA"

// Owns tells whether a request belongs to this API, by its header X-Amz-Target.
func Owns(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("X-Amz-Target"), Target+".")
}

func operation(name, resource string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: http.MethodPost, Path: "/", Action: "acm-pca:" + name, Resource: resource}
}

// The operations. The resource of each is the ARN of the authority that it names.
var (
	opCreate       = awsapi.Define[createInput, arnOutput](codec, operation("CreateCertificateAuthority", "*"))
	opDescribe     = awsapi.Define[arnInput, describeOutput](codec, operation("DescribeCertificateAuthority", "*"))
	opList         = awsapi.Define[listInput, listOutput](codec, operation("ListCertificateAuthorities", "*"))
	opCSR          = awsapi.Define[arnInput, csrOutput](codec, operation("GetCertificateAuthorityCsr", "*"))
	opImport       = awsapi.Define[importInput, nothing](codec, operation("ImportCertificateAuthorityCertificate", "*"))
	opCertificates = awsapi.Define[arnInput, certificateOutput](codec, operation("GetCertificateAuthorityCertificate", "*"))
	opIssue        = awsapi.Define[issueInput, issueOutput](codec, operation("IssueCertificate", "*"))
	opGet          = awsapi.Define[getInput, certificateOutput](codec, operation("GetCertificate", "*"))
	opRevoke       = awsapi.Define[revokeInput, nothing](codec, operation("RevokeCertificate", "*"))
	opUpdate       = awsapi.Define[updateInput, nothing](codec, operation("UpdateCertificateAuthority", "*"))
	opDelete       = awsapi.Define[deleteInput, nothing](codec, operation("DeleteCertificateAuthority", "*"))
	opRestore      = awsapi.Define[arnInput, nothing](codec, operation("RestoreCertificateAuthority", "*"))
	opTag          = awsapi.Define[tagInput, nothing](codec, operation("TagCertificateAuthority", "*"))
	opUntag        = awsapi.Define[tagInput, nothing](codec, operation("UntagCertificateAuthority", "*"))
	opListTags     = awsapi.Define[listTagsInput, listTagsOutput](codec, operation("ListTags", "*"))
)

// absent are the other operations of the model.
func absent() []awsapi.Operation {
	var all []awsapi.Operation
	for _, name := range []string{
		"CreateCertificateAuthorityAuditReport", "DescribeCertificateAuthorityAuditReport",
		"CreatePermission", "DeletePermission", "ListPermissions", "PutPolicy", "GetPolicy", "DeletePolicy",
	} {
		all = append(all, operation(name, "*"))
	}
	return all
}

// Operations lists what the package knows.
func Operations() []awsapi.Operation {
	routes := (&Service{}).Routes()
	list := make([]awsapi.Operation, 0, len(routes))
	for _, route := range routes {
		list = append(list, route.Operation())
	}
	return append(list, absent()...)
}

// Service answers the operations.
type Service struct {
	Engine *ca.Engine
	Clock  imprint.Clock
}

// Routes binds the operations.
func (s *Service) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(opCreate, s.create),
		awsapi.HandleAsking(opDescribe, about(theARN), s.describe),
		awsapi.Handle(opList, s.list),
		awsapi.HandleAsking(opCSR, about(theARN), s.csr),
		awsapi.HandleAsking(opImport, about(func(in *importInput) string { return in.ARN }), s.importCertificate),
		awsapi.HandleAsking(opCertificates, about(theARN), s.authorityCertificate),
		awsapi.HandleAsking(opIssue, issues, s.issue),
		awsapi.HandleAsking(opGet, about(func(in *getInput) string { return in.ARN }), s.get),
		awsapi.HandleAsking(opRevoke, s.revokes, s.revoke),
		awsapi.HandleAsking(opUpdate, about(func(in *updateInput) string { return in.ARN }), s.update),
		awsapi.HandleAsking(opDelete, about(func(in *deleteInput) string { return in.ARN }), s.remove),
		awsapi.HandleAsking(opRestore, about(theARN), s.restore),
		awsapi.HandleAsking(opTag, about(func(in *tagInput) string { return in.ARN }), s.tag),
		awsapi.HandleAsking(opUntag, about(func(in *tagInput) string { return in.ARN }), s.untag),
		awsapi.HandleAsking(opListTags, about(func(in *listTagsInput) string { return in.ARN }), s.listTags),
	}
}

func theARN(in *arnInput) string { return in.ARN }

// about gives what a caller of an operation must be allowed: its action on the authority
// that it names, by the one ARN that this has. Another spelling of that would step around
// a Deny.
func about[In any](arn func(*In) string) func(context.Context, awsapi.Caller, *In) ([]awsapi.Ask, error) {
	return func(_ context.Context, caller awsapi.Caller, in *In) ([]awsapi.Ask, error) {
		id, err := authorityID(caller, arn(in))
		if err != nil {
			return nil, err
		}
		return []awsapi.Ask{{Resource: tenantOf(caller).AuthorityARN(id)}}, nil
	}
}

// issues is about for IssueCertificate, which brings the template that it is by.
func issues(_ context.Context, caller awsapi.Caller, in *issueInput) ([]awsapi.Ask, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	profile, err := profileName(caller, text(in.Template))
	if err != nil {
		return nil, err
	}
	return []awsapi.Ask{{Resource: tenantOf(caller).AuthorityARN(id), Keys: ConditionKeys(caller, profile)}}, nil
}

// revokes is about for RevokeCertificate, and asks for the authority, too, whose certificate
// it is, for those that have its key, and for those whose certificates go along: a serial
// number of the one that is named must not take back what is denied to the caller.
func (s *Service) revokes(ctx context.Context, caller awsapi.Caller, in *revokeInput) ([]awsapi.Ask, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	tenant := tenantOf(caller)
	asks := []awsapi.Ask{{Resource: tenant.AuthorityARN(id)}}
	found, _, err := s.Engine.Certificate(ctx, tenant, id, in.Serial)
	var concerned []string
	if err == nil {
		concerned, err = s.Engine.Concerned(ctx, tenant, found.Certificate, imprint.RevocationReason(in.Reason))
	}
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return asks, nil // the operation says so, to who may know
	}
	if err != nil {
		return nil, err
	}
	for _, arn := range concerned {
		if arn != asks[0].Resource {
			asks = append(asks, awsapi.Ask{Resource: arn})
		}
	}
	return asks, nil
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

// refuse makes an exception of the model.
func refuse(exception, message string) error {
	return &awsapi.APIError{Code: exception, Status: http.StatusBadRequest, Message: message}
}

// as gives an error of the domain an exception's name; errors without a code stay.
func as(exception string, err error) error {
	if err == nil || imprint.CodeOf(err) == imprint.CodeInternal {
		return err
	}
	return refuse(exception, message(err))
}

// asWhere is as for some codes alone.
func asWhere(exception string, err error, codes ...imprint.Code) error {
	for _, code := range codes {
		if err != nil && imprint.CodeOf(err) == code {
			return as(exception, err)
		}
	}
	return err
}

func message(err error) string {
	text := imprint.MessageOf(err)
	var e *imprint.Error
	if errors.As(err, &e) && e.Hint != "" {
		text = strings.TrimSuffix(text, ".") + ". " + e.Hint
	}
	return text
}

// Translate gives the outward form of the errors of functions.
func Translate(err error) awsapi.APIError {
	out := awsapi.APIError{Message: message(err), Status: http.StatusBadRequest}
	switch imprint.CodeOf(err) {
	case imprint.CodeInvalidRequest, imprint.CodeAlreadyExists, imprint.CodeCertificateValidation:
		out.Code = "InvalidArgsException"
	case imprint.CodeNotFound:
		out.Code = "ResourceNotFoundException"
	case imprint.CodeAuthorityState, imprint.CodeCAExpired:
		out.Code = "InvalidStateException"
	case imprint.CodeCertificateWeak, imprint.CodeKeyReused:
		out.Code = "MalformedCSRException"
	case imprint.CodeLimitExceeded:
		out.Code = "LimitExceededException"
	case imprint.CodeConflictingUpdate, imprint.CodeVersionConflict:
		out.Code = "ConcurrentModificationException"
	case imprint.CodeAccessDenied, imprint.CodeUnauthorized:
		out.Code = "AccessDeniedException"
	case imprint.CodeThrottled:
		out.Code = awsapi.CodeThrottling
	case imprint.CodeUnavailable:
		out.Code, out.Status = "RequestFailedException", http.StatusServiceUnavailable
	default:
		return awsapi.APIError{}
	}
	return out
}

var arnPattern = regexp.MustCompile(`^arn:(aws[a-z-]*):acm-pca:([a-z0-9-]+):([0-9]{12}):certificate-authority/([^/]+)$`)

// authorityID reads the ARN of an authority of the caller's tenant. One of another tenant,
// or of another partition than its region's, doesn't exist for it.
func authorityID(caller awsapi.Caller, arn string) (imprint.AuthorityID, error) {
	parts := arnPattern.FindStringSubmatch(arn)
	if parts == nil {
		return "", refuse("InvalidArnException", "The ARN "+imprint.Excerpt(arn)+" isn't that of a certificate authority.")
	}
	id, err := imprint.ParseAuthorityID(parts[4])
	if err != nil {
		return "", refuse("InvalidArnException", "The ARN "+imprint.Excerpt(arn)+" isn't that of a certificate authority.")
	}
	if parts[1] != awsapi.Partition(caller.Region) || parts[2] != caller.Region || parts[3] != caller.Account {
		return "", refuse("ResourceNotFoundException", "Could not find the certificate authority "+arn+" in this account and region.")
	}
	return id, nil
}

// authority reads the one that an ARN names.
func (s *Service) authority(ctx context.Context, caller awsapi.Caller, arn string) (imprint.CertificateAuthority, error) {
	id, err := authorityID(caller, arn)
	if err != nil {
		return imprint.CertificateAuthority{}, err
	}
	return s.Engine.Authority(ctx, tenantOf(caller), id)
}

// text gives a member that may be absent.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

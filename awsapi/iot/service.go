package iot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/rules"
)

// Rooms are what the functions of this package work with. All are required but
// Logger.
type Rooms struct {
	Store imprint.Store
	Clock imprint.Clock
	// Authority signs device certificates by Profile; Keys are the pre-made
	// keys of CreateKeysAndCertificate.
	Authority *pki.Authority
	Profile   *pki.Profile
	Keys      *pki.KeyPool
	// Known are keys that no device may have, beside the built-in ones.
	Known *pki.KnownKeys
	// Endpoint gives the host name of a tenant for an endpoint type of
	// DescribeEndpoint.
	Endpoint func(imprint.TenantSettings, string) (string, error)
	// Claims make trusted users' claims, and register things.
	Claims *provisioning.Claims
	// Bulk runs bulk registrations, and ReportURL names where one of their reports is
	// read.
	Bulk      *provisioning.Bulk
	ReportURL func(tenant imprint.Tenant, task, kind string) string
	// Audit runs audits.
	Audit *audit.Auditor
	// TenantMade is told of each tenant that a caller's first request made.
	TenantMade func(imprint.TenantSettings)
	// RuleActions are the actions that topic rules may have here.
	RuleActions rules.Offered
	// ThingTypeDeletionDelay is how long a deprecated thing type stays.
	ThingTypeDeletionDelay time.Duration // [imprint.ThingTypeDeletionDelay]; below 0: no time
	Logger                 *slog.Logger  // [slog.Default]
}

// Service answers the operations of the control plane. Each resource is one
// file; each function is one store transaction.
type Service struct {
	rooms Rooms
	// tenants has those whose settings were seen; settings are never deleted.
	tenants sync.Map // of imprint.Tenant
}

// NewService makes a service.
func NewService(rooms Rooms) *Service {
	if rooms.Logger == nil {
		rooms.Logger = slog.Default()
	}
	if rooms.ThingTypeDeletionDelay == 0 {
		rooms.ThingTypeDeletionDelay = imprint.ThingTypeDeletionDelay
	}
	return &Service{rooms: rooms}
}

// Routes binds every operation that the service offers.
func (s *Service) Routes() []awsapi.Route {
	var routes []awsapi.Route
	for _, resource := range [][]awsapi.Route{
		s.endpointRoutes(), s.caRoutes(), s.certificateRoutes(), s.tagRoutes(),
		s.thingRoutes(), s.thingPrincipalRoutes(), s.thingGroupRoutes(), s.thingGroupMemberRoutes(), s.policyRoutes(), s.policyAttachmentRoutes(), s.templateRoutes(),
		s.topicRuleRoutes(), s.ruleDestinationRoutes(),
		s.thingTypeRoutes(), s.billingGroupRoutes(), s.eventConfigurationRoutes(),
		s.claimRoutes(), s.certificateProviderRoutes(),
		s.registrationTaskRoutes(),
		s.auditConfigurationRoutes(), s.auditTaskRoutes(), s.auditFindingRoutes(), s.auditSuppressionRoutes(), s.scheduledAuditRoutes(),
		s.mitigationActionRoutes(), s.mitigationTaskRoutes(),
	} {
		routes = append(routes, resource...)
	}
	return routes
}

// tenantOf is the tenant that a caller asks for. The Mux has checked its parts.
func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

// newGeneration makes the generationId of a changed resource.
func newGeneration() string { return uuid.NewString() }

// defaultPageSize is AWS IoT Core's for lists of certificates and policies;
// maxPageSize bounds every list.
const (
	defaultPageSize = 25
	maxPageSize     = 250
)

// page reads the paging members that list operations share. The flag of
// operations without an order is nil.
func page(size *int, cursor *string, ascending *bool) imprint.Page {
	p := imprint.Page{Limit: defaultPageSize}
	if size != nil {
		p.Limit = min(max(*size, 1), maxPageSize)
	}
	if cursor != nil {
		p.Cursor = *cursor
	}
	if ascending != nil {
		p.Ascending = *ascending
	}
	return p
}

// view runs a read and names the operation in errors without a code.
func view[T any](ctx context.Context, s *Service, fn func(tx imprint.ReadTx) (T, error)) (T, error) {
	var result T
	err := s.rooms.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := fn(tx)
		result = found
		return err
	})
	return result, err
}

// update runs a change. fn may run more than once; its result is that of the
// run that was committed.
func update[T any](ctx context.Context, s *Service, fn func(tx imprint.Tx) (T, error)) (T, error) {
	var result T
	err := s.rooms.Store.Update(ctx, func(tx imprint.Tx) error {
		made, err := fn(tx)
		result = made
		return err
	})
	return result, err
}

// Translate gives the outward form of an error of the domain, by its table. It
// is the Config.Translate of the control plane's Mux.
func Translate(err error) awsapi.APIError {
	row := imprint.Describe(imprint.CodeOf(err))
	if row.Exception == "" || row.Code == imprint.CodeInternal {
		return awsapi.APIError{}
	}
	out := awsapi.APIError{Code: row.Exception, Status: row.Status, Message: imprint.MessageOf(err)}
	if hint := imprint.HintOf(err); hint != "" && hint != row.Hint {
		out.Message = strings.TrimSuffix(out.Message, ".") + ". " + hint
	}
	var e *imprint.Error
	if errors.As(err, &e) && (e.ResourceID != "" || e.ResourceARN != "") {
		out.Extra = map[string]string{"resourceId": e.ResourceID, "resourceArn": e.ResourceARN}
	}
	return out
}

// notFound names what is missing in AWS's manner.
func notFound(kind, name string) error {
	return imprint.Errorf(imprint.CodeNotFound, "%s %s cannot be found.", kind, name)
}

// explainNotFound replaces the store's not-found error by one that names the
// resource as the caller knows it; other errors are wrapped.
func explainNotFound(err error, kind, name string) error {
	if err == nil {
		return nil
	}
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return notFound(kind, name)
	}
	return fmt.Errorf("couldn't read %s %s: %w", kind, name, err)
}

// readNamed finds what a request names. Errors: those of parse for a text that is no
// such name; CodeNotFound, which says of what kind it should be.
func readNamed[N, V any](kind string, tenant imprint.Tenant, text string, parse func(string) (N, error), read func(imprint.Tenant, N) (V, error)) (V, error) {
	var none V
	name, err := parse(text)
	if err != nil {
		return none, err
	}
	found, err := read(tenant, name)
	if err != nil {
		return none, explainNotFound(err, kind, text)
	}
	return found, nil
}

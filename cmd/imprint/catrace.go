package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
)

// caOperations are those whose refusals are attempts in the trace: nothing was issued, and
// whoever waits for a certificate should learn why.
var caOperations = map[string]bool{
	"IssueCertificate": true, "IssueByProfile": true, "CreateCertificateAuthority": true, "CreateAuthority": true, "AdoptAuthority": true,
	"ImportCertificateAuthorityCertificate": true,
}

// maxTold bounds the requests whose refusal was recorded and that aren't answered yet.
const maxTold = 10_000

// toldRefusals are requests whose refusal is in the trace already: the engine of CAs knows
// more of it than their answer does.
type toldRefusals struct {
	mu   sync.Mutex
	told map[string]bool // by request id
}

func (t *toldRefusals) add(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == nil || len(t.told) >= maxTold {
		t.told = map[string]bool{}
	}
	t.told[id] = true
}

// take says whether a request's refusal was told, and forgets it.
func (t *toldRefusals) take(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	told := t.told[id]
	delete(t.told, id)
	return told
}

// refusedByCA records a refusal that the engine of CAs tells of. Who enrols by another door
// than an API has an attempt of its own.
func (s *server) refusedByCA(ctx context.Context, r ca.Refusal) {
	caller, asked := awsapi.CallerOf(ctx)
	if !asked {
		return
	}
	s.toldRefusals.add(caller.RequestID)
	authority := string(r.Authority)
	a, err := s.authorities.Authority(ctx, r.Tenant, r.Authority)
	if err == nil && a.Name != "" {
		authority = a.Name
	}
	s.recordRefusal(caller, r.Subject, "asks CA "+imprint.Excerpt(authority)+" for a certificate by profile "+imprint.Excerpt(r.Profile), r.Err)
}

// refusedRequest records refusals of the APIs of CAs that never came to the engine.
func (s *server) refusedRequest(a awsapi.Access) {
	if !caOperations[a.Operation] {
		return
	}
	told := s.toldRefusals.take(a.Caller.RequestID)
	if told || a.Err == nil || a.Code == awsapi.CodeThrottling || a.Caller.Account == "" || a.Status < http.StatusBadRequest {
		return
	}
	err := a.Err
	if imprint.CodeOf(err) == imprint.CodeInternal && a.Status < http.StatusInternalServerError {
		// What the API itself refuses has its AWS name alone.
		code := imprint.CodeInvalidRequest
		if a.Status == http.StatusForbidden {
			code = imprint.CodeAccessDenied
		}
		err = &imprint.Error{Code: code, Err: err}
	}
	s.recordRefusal(a.Caller, "", "asks for "+a.Operation, err)
}

// caStep names the step at which a request for a certificate ends.
func caStep(err error) string {
	switch imprint.CodeOf(err) {
	case imprint.CodeKeyReused, imprint.CodeCertificateWeak:
		return "ca.key"
	case imprint.CodeAuthorityState, imprint.CodeNotFound:
		return "ca.authority"
	case imprint.CodeKeyUnavailable, imprint.CodeKeyRefused:
		return "ca.sign"
	case imprint.CodeCertificateValidation, imprint.CodeAccessDenied:
		return "ca.profile"
	}
	return "ca.request"
}

func (s *server) recordRefusal(caller awsapi.Caller, subject, what string, err error) {
	rec := s.trace.Begin(caller.SourceIP)
	rec.Describe(func(a *imprint.Attempt) {
		a.Tenant = imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
		a.Subject = imprint.Excerpt(subject)
	})
	rec.Info("ca.asked", "%s %s", caller.PrincipalARN, what)
	rec.Fail(caStep(err), err)
	rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
}

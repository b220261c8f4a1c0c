package ca

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Refusal is a request for a certificate that was refused.
type Refusal struct {
	Tenant    imprint.Tenant
	Authority imprint.AuthorityID
	Profile   string
	Subject   string // RFC 2253 text
	Err       error
}

// ByReason names what refusals are counted by.
type ByReason struct {
	Profile string
	Code    imprint.Code
}

// Counters are what an engine has done since it was made.
type Counters struct {
	Issued      map[string]uint64 // by profile
	Refused     map[ByReason]uint64
	OCSP        map[string]uint64 // by the answer: good, revoked, unauthorized, malformed, try_later, internal_error
	KeyFailures map[imprint.Code]uint64
	// ListsSigned are CRLs; ListsFailed the times that an authority's couldn't be signed.
	ListsSigned, ListsFailed uint64
}

// tally counts.
type tally struct {
	mu                       sync.Mutex
	issued                   map[string]uint64
	refused                  map[ByReason]uint64
	ocsp                     map[string]uint64
	keyFailures              map[imprint.Code]uint64
	listsSigned, listsFailed atomic.Uint64
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	t := &e.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	return Counters{
		Issued: maps.Clone(t.issued), Refused: maps.Clone(t.refused), OCSP: maps.Clone(t.ocsp), KeyFailures: maps.Clone(t.keyFailures),
		ListsSigned: t.listsSigned.Load(), ListsFailed: t.listsFailed.Load(),
	}
}

func (t *tally) countIssued(profile string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.issued == nil {
		t.issued = map[string]uint64{}
	}
	t.issued[profile]++
}

// countKey counts a failure that is the key store's.
func (t *tally) countKey(err error) {
	code := imprint.CodeOf(err)
	if code != imprint.CodeKeyUnavailable && code != imprint.CodeKeyRefused {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keyFailures == nil {
		t.keyFailures = map[imprint.Code]uint64{}
	}
	t.keyFailures[code]++
}

// countLists counts what came of signing an authority's CRLs.
func (t *tally) countLists(signed int, err error) {
	t.listsSigned.Add(uint64(signed))
	if err != nil {
		t.listsFailed.Add(1)
		t.countKey(err)
	}
}

// unknownProfile stands for names that callers made up: they are no labels.
const unknownProfile = "unknown"

// refuse counts and tells a refusal.
func (e *Engine) refuse(ctx context.Context, r Refusal) {
	t, by := &e.tally, ByReason{Profile: r.Profile, Code: imprint.CodeOf(r.Err)}
	_, err := e.opts.Profiles.Profile(r.Profile)
	if err != nil {
		by.Profile = unknownProfile
	}
	t.mu.Lock()
	if t.refused == nil {
		t.refused = map[ByReason]uint64{}
	}
	t.refused[by]++
	t.mu.Unlock()
	t.countKey(r.Err)
	if e.opts.Refused != nil {
		e.opts.Refused(ctx, r)
	}
}

// IssueInto is Issue for who has to store something with the certificate: also runs in the
// transaction that makes it one, perhaps again, and its error keeps it from becoming one.
func (e *Engine) IssueInto(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, profile string, request pki.Request, also func(imprint.Tx, *pki.Issued) error) (Issued, error) {
	issued, err := e.issueFor(ctx, tenant, id, profile, request, also)
	if err != nil {
		e.refuse(ctx, Refusal{Tenant: tenant, Authority: id, Profile: profile, Subject: pki.SubjectText(request.RawSubject), Err: err})
	}
	return issued, err
}

// SelfSign lets a root sign its own request by a profile of the kind root: the first time
// while it waits for a certificate, later to renew that. The certificate is the root's
// when Import is given it. Errors: CodeInvalidRequest for an authority that isn't a root
// and a request that isn't its own, CodeAuthorityState, those of Issue.
func (e *Engine) SelfSign(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, profile string, request pki.Request) (Issued, error) {
	issued, err := e.selfSign(ctx, tenant, id, profile, request)
	if err != nil {
		e.refuse(ctx, Refusal{Tenant: tenant, Authority: id, Profile: profile, Subject: pki.SubjectText(request.RawSubject), Err: err})
	}
	return issued, err
}

// countOCSP counts an answer by what it says.
func (t *tally) countOCSP(der []byte, err error) {
	word := ocspWord(der)
	t.mu.Lock()
	if t.ocsp == nil {
		t.ocsp = map[string]uint64{}
	}
	t.ocsp[word]++
	t.mu.Unlock()
	t.countKey(err)
}

// ocspWord reads what an answer of our own says: its status, and of a good one that of the
// certificate (RFC 6960 section 4.2.1).
func ocspWord(der []byte) string {
	input := cryptobyte.String(der)
	var response, status, bytes, basic, tbs, responses, one cryptobyte.String
	var ignored cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !input.ReadASN1(&response, cryptobyte_asn1.SEQUENCE) || !response.ReadASN1(&status, cryptobyte_asn1.ENUM) || len(status) != 1 {
		return "internal_error"
	}
	switch status[0] {
	case 0:
	case 1:
		return "malformed"
	case 3:
		return "try_later"
	case 6:
		return "unauthorized"
	default:
		return "internal_error"
	}
	explicit := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed() }
	read := response.ReadASN1(&bytes, explicit(0)) && bytes.ReadASN1(&bytes, cryptobyte_asn1.SEQUENCE) && bytes.SkipASN1(cryptobyte_asn1.OBJECT_IDENTIFIER) &&
		bytes.ReadASN1(&basic, cryptobyte_asn1.OCTET_STRING) && basic.ReadASN1(&basic, cryptobyte_asn1.SEQUENCE) && basic.ReadASN1(&tbs, cryptobyte_asn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(explicit(0)) && tbs.ReadAnyASN1(&ignored, &tag) && // who answers
		tbs.SkipASN1(cryptobyte_asn1.GeneralizedTime) && tbs.ReadASN1(&responses, cryptobyte_asn1.SEQUENCE) && responses.ReadASN1(&one, cryptobyte_asn1.SEQUENCE) &&
		one.SkipASN1(cryptobyte_asn1.SEQUENCE) && one.ReadAnyASN1(&ignored, &tag) // what of the certificate
	switch {
	case !read:
		return "internal_error"
	case tag == cryptobyte_asn1.Tag(0).ContextSpecific():
		return "good"
	case tag == explicit(1):
		return "revoked"
	}
	return "unknown"
}

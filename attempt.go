package imprint

import (
	"net"
	"strings"
	"time"
)

// Verdict is how one step of an attempt ended.
type Verdict string

// The verdicts of a step.
const (
	VerdictOK     Verdict = "ok"
	VerdictFailed Verdict = "failed"
	VerdictInfo   Verdict = "info"
)

// Outcome is how an attempt ended as a whole.
type Outcome string

// The outcomes of an attempt.
const (
	// OutcomeRefused: the device was not let in.
	OutcomeRefused Outcome = "refused"
	// OutcomeProvisioned: a first connection that was provisioned and closed.
	OutcomeProvisioned Outcome = "provisioned"
	// OutcomeEnrolled: a request over EST was given a certificate.
	OutcomeEnrolled Outcome = "enrolled"
	// OutcomeRegistered: a line of a bulk registration was registered.
	OutcomeRegistered Outcome = "registered"
	// OutcomeConnected: CONNACK with success was sent; the connection lives.
	OutcomeConnected Outcome = "connected"
	// OutcomeClosed: the connection lived and has ended.
	OutcomeClosed Outcome = "closed"
)

// Step is one thing that happened in an attempt.
type Step struct {
	At      time.Time `json:"at"`
	Name    string    `json:"step"` // such as tls.hello, certificate, ca, template.parameter, policy.connect
	Verdict Verdict   `json:"verdict"`
	Code    Code      `json:"code,omitempty"` // set when the verdict is failed
	Detail  string    `json:"detail,omitempty"`
	Fix     string    `json:"fix,omitempty"` // what a person can type; set when the verdict is failed

	// Action and Resource, an ARN, are what a policy was asked; empty in steps that
	// are no decision of a policy.
	Action   string `json:"action,omitempty"`
	Resource string `json:"resource,omitempty"`

	// Wire is what the device's own log has of the step, by name and number: what it was
	// sent, such as "sent CONNACK 0x87 (Not authorized)", or what it sent, such as
	// "received TLS alert 48 (unknown_ca)"; empty: nothing that tells.
	Wire string `json:"wire,omitempty"`
	// Certificate is what the step made; empty in all others.
	Certificate CertificateID `json:"certificate,omitempty"`

	// Repeats is how often the same happened again after At, and LastAt when it did last,
	// where a device that is on fails in one way again and again. Others says that what
	// is counted has the name and the code in common, and that the rest is of the last.
	Repeats int       `json:"repeats,omitempty"`
	LastAt  time.Time `json:"lastAt,omitzero"`
	Others  bool      `json:"others,omitempty"`
}

// Last is when the step happened last.
func (s *Step) Last() time.Time {
	if s.Repeats > 0 {
		return s.LastAt
	}
	return s.At
}

// Attempt is one connection by a device, from its first byte on, or one line of a bulk
// registration, with every step that it went through.
type Attempt struct {
	ID      string // sorts by time
	Tenant  Tenant // zero when the connection died before a tenant was known
	At      time.Time
	EndedAt time.Time // zero while a connected device is on

	Address       string // peer, ip:port; of a line of a bulk registration task:line
	SNI, ALPN     string
	TLSVersion    string
	CertificateID CertificateID
	Serial        string
	Subject       string
	Thing         ThingName
	ClientID      ClientID

	Outcome Outcome
	Code    Code // the reason of a refusal or of the end of a connection
	Steps   []Step

	// Repeats is how many earlier attempts ended in the same way and are counted here
	// instead of being kept, and FirstAt when the first of them began. Fold names
	// them together, whichever of them is the latest and so the one that is kept;
	// empty: none are counted here.
	Repeats int
	FirstAt time.Time
	Fold    string
	// Devices, where the attempts that are counted are of many devices, is how many of
	// these were told apart, and Sample names the latest few: by the certificate, or by
	// the address where none is known.
	Devices int
	Sample  []string
}

// AttemptAlias is a word that finds an attempt by its Fold: the id of an attempt that is
// counted there, or what its device is known by. One word leads to one fold of a tenant,
// the latest.
type AttemptAlias struct {
	Tenant Tenant
	Word   string
	Fold   string
}

// StepBulkLine is the first step of a line of a bulk registration, and of no connection.
const StepBulkLine = "bulk.line"

// OfLine says that no device came: a line of a bulk registration was read.
func (a *Attempt) OfLine() bool { return len(a.Steps) > 0 && a.Steps[0].Name == StepBulkLine }

// ChangedAt is when the attempt began, when something failed in it last, or when it ended:
// the latest of these.
func (a *Attempt) ChangedAt() time.Time {
	at := a.At
	if a.EndedAt.After(at) {
		at = a.EndedAt
	}
	for i := range a.Steps {
		s := &a.Steps[i]
		if s.Verdict == VerdictFailed && s.Last().After(at) {
			at = s.Last()
		}
	}
	return at
}

// Host is the peer's address without port and brackets; of a line of a bulk registration
// its task.
func (a *Attempt) Host() string { return HostOf(a.Address) }

// Failure gives the step that somebody has to mend: the last that failed, unless that
// only tells that the link broke after something else had failed. Its verdict is empty
// when none failed.
func (a *Attempt) Failure() Step {
	var failure, broken Step
	for _, s := range a.Steps {
		switch {
		case s.Verdict != VerdictFailed:
		case s.Code == CodeConnectionLost || s.Code == CodeKeepAliveTimeout:
			broken = s
		case !s.Last().Before(failure.Last()):
			failure = s
		}
	}
	if failure.Verdict == "" {
		return broken
	}
	return failure
}

// Reason names in a few words why an attempt failed, by the step's code: what failures
// are counted by; empty when nothing did.
func (a *Attempt) Reason() string {
	s := a.Failure()
	switch {
	case s.Verdict == "" && a.Outcome == OutcomeRefused:
		return string(a.Code)
	case s.Verdict == "":
		return ""
	case s.Code == "":
		return string(a.Code) + " at " + s.Name
	}
	return string(s.Code) + " at " + s.Name
}

// HostOf gives an address without its port and brackets.
func HostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return strings.Trim(address, "[]")
	}
	return host
}

// AttemptFilter selects attempts. Empty members select all; Match selects those
// whose own id, certificate id, serial, thing, client id, or peer address (with or
// without port) equals it. Of devices that were let in without a failure, thing and
// serial number find those whose certificate they lead to in the tenant's registry. What
// is an AttemptAlias also finds the attempt that it leads to.
type AttemptFilter struct {
	Tenant Tenant // zero: all tenants
	// Unassigned also selects attempts that died before a tenant was known,
	// when Tenant is set.
	Unassigned bool
	Match      string
	FailedOnly bool
	// Since selects attempts that began, failed or ended then or later (Attempt.ChangedAt).
	Since time.Time
}

// Event is a message that the service owes its subscribers. It is stored in
// the transaction of the change that it tells of and removed once it is
// published, so that it goes out at least once.
type Event struct {
	ID      string // sorts by time
	Tenant  Tenant
	Topic   string
	Payload []byte // JSON
	At      time.Time
	// AttemptID is the attempt that caused it; empty: none.
	AttemptID string
}

package imprint

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What fleet provisioning keeps: certificates that were given out and wait for
// their registration, the five-minute claims of trusted users, the guards of
// claim certificates, and who signs instead of the built-in CA.

// PendingCertificate is a certificate that the fleet provisioning API gave out
// and that RegisterThing hasn't taken up.
type PendingCertificate struct {
	Tenant      Tenant
	Certificate CertificateID
	Claim       CertificateID // that asked for it
	ClientID    ClientID
	// TokenHash is the SHA-256 of the ownership token's secret, in lowercase hex.
	TokenHash string
	CreatedAt time.Time
	// ExpiresAt is when the token ends, and the certificate with it unless it is
	// activated or attached by then.
	ExpiresAt time.Time
	// Used: the token is used up, and the certificate still waits for activation.
	Used bool
}

// ProvisioningClaim is the temporary claim certificate of a trusted user
// (CreateProvisioningClaim). It is no device certificate: lists don't have it.
type ProvisioningClaim struct {
	Tenant               Tenant
	Certificate          CertificateID
	Template             TemplateName
	RequestedBy          string // ARN of the user
	CreatedAt, ExpiresAt time.Time
	// Device and Thing are what came of it, the last one of Devices; empty
	// before that.
	Device  CertificateID
	Thing   ThingName
	Devices int
}

// CertificateProvider lets a function sign the requests of
// CreateCertificateFromCsr in place of the built-in CA.
type CertificateProvider struct {
	Tenant                Tenant
	Name                  string
	FunctionARN           string
	Operations            []string // that it answers
	CreatedAt, ModifiedAt time.Time
}

// ARN names the provider.
func (p CertificateProvider) ARN() string { return p.Tenant.ARN("certificateprovider/" + p.Name) }

// MaxClaimNetworks bounds ClaimGuard.Networks.
const MaxClaimNetworks = 64

// ClaimGuard bounds what one claim certificate may bring about. Zero members
// bound nothing.
type ClaimGuard struct {
	Tenant Tenant
	Claim  CertificateID

	Quota               int // devices that may be registered in all
	NotBefore, NotAfter time.Time
	Networks            []netip.Prefix // that requests may come from
	// SerialParameter is the template parameter whose value must stand in the
	// claim's allow list.
	SerialParameter string
	SerialReuse     bool // a serial may be registered more than once
	// The claim is stopped when it makes more than MaxRequests requests, or more
	// than MaxRefusals that are refused, in Window.
	MaxRequests, MaxRefusals int
	Window                   time.Duration

	Devices int // registered so far
	Serials int // in the allow list
	// StoppedAt is when it was stopped, by Code and Reason; zero: it isn't.
	StoppedAt             time.Time
	StopCode              Code
	StopReason            string
	CreatedAt, ModifiedAt time.Time
}

// Check says why a request from an address can't be taken now; nil: it can.
// Errors: CodeClaimStopped, CodeClaimNotAllowed.
func (g ClaimGuard) Check(from netip.Addr, now time.Time) *Error {
	from = from.Unmap()
	switch {
	case !g.StoppedAt.IsZero():
		quota := ""
		if g.UsedUp() {
			quota = " --quota N"
		}
		return Errorf(CodeClaimStopped, "claim certificate %s was stopped at %s: %s", g.Claim, g.StoppedAt.UTC().Format(time.RFC3339), g.StopReason).
			WithHint("Find out why; then: imprint claim guard %s%s --resume", g.Claim, quota)
	case !g.NotBefore.IsZero() && now.Before(g.NotBefore):
		return Errorf(CodeClaimNotAllowed, "claim certificate %s may be used from %s on", g.Claim, g.NotBefore.UTC().Format(time.RFC3339)).
			WithHint("Check the server's clock; or: imprint claim guard %s --not-before none", g.Claim)
	case !g.NotAfter.IsZero() && now.After(g.NotAfter):
		return Errorf(CodeClaimNotAllowed, "claim certificate %s could be used until %s", g.Claim, g.NotAfter.UTC().Format(time.RFC3339)).
			WithHint("Give the devices another claim, or let them use it longer: imprint claim guard %s --not-after none", g.Claim)
	case len(g.Networks) > 0 && !slices.ContainsFunc(g.Networks, func(n netip.Prefix) bool { return n.Contains(from) }):
		return Errorf(CodeClaimNotAllowed, "claim certificate %s may not be used from %s", g.Claim, from).
			WithHint("If devices may come from there: imprint claim guard %s --network %s", g.Claim, g.networksWith(from))
	}
	return nil
}

// UsedUp says whether the claim has registered as many devices as its quota allows.
func (g ClaimGuard) UsedUp() bool { return g.Quota > 0 && g.Devices >= g.Quota }

// networksWith lists the guard's networks and an address, as --network takes them.
func (g ClaimGuard) networksWith(from netip.Addr) string {
	var b strings.Builder
	for _, n := range g.Networks {
		b.WriteString(n.String())
		b.WriteByte(',')
	}
	b.WriteString(netip.PrefixFrom(from, from.BitLen()).String())
	return b.String()
}

// Stop gives the guard as a reason to stop the claim leaves it. The first reason
// stays.
func (g ClaimGuard) Stop(why error, now time.Time) ClaimGuard {
	if g.StoppedAt.IsZero() {
		g.StoppedAt, g.StopCode, g.StopReason = now, CodeOf(why), Excerpt(why.Error())
		g.ModifiedAt = now
	}
	return g
}

// ClaimSerial is one serial number of a claim's allow list.
type ClaimSerial struct {
	Tenant Tenant
	Claim  CertificateID
	Serial string
	Device CertificateID // that was registered with it; empty: none yet
}

// MaxClaimSerial bounds the bytes of a ClaimSerial.Serial.
const MaxClaimSerial = 128

// ClaimReader reads what fleet provisioning keeps.
type ClaimReader interface {
	PendingCertificate(Tenant, CertificateID) (PendingCertificate, error)
	// PendingCertificatesDue lists those of all tenants whose time has ended before
	// a time, the longest ago first, at most limit.
	PendingCertificatesDue(before time.Time, limit int) ([]PendingCertificate, error)
	ProvisioningClaim(Tenant, CertificateID) (ProvisioningClaim, error)
	// ProvisioningClaimsDue is PendingCertificatesDue for claims.
	ProvisioningClaimsDue(before time.Time, limit int) ([]ProvisioningClaim, error)
	CertificateProviders(Tenant) ([]CertificateProvider, error) // by name, at most 100
	ClaimGuard(Tenant, CertificateID) (ClaimGuard, error)
	ClaimGuards(Tenant, Page) ([]ClaimGuard, string, error) // by claim
	ClaimSerial(t Tenant, claim CertificateID, serial string) (ClaimSerial, error)
}

// ClaimWriter writes it.
type ClaimWriter interface {
	PutPendingCertificate(PendingCertificate) error
	DeletePendingCertificate(Tenant, CertificateID) error
	// PutProvisioningClaim tells no watcher: what a claim may do never changes, and
	// nobody has its certificate before it is put.
	PutProvisioningClaim(ProvisioningClaim) error
	// DeleteProvisioningClaim is a change of the certificate of that id.
	DeleteProvisioningClaim(Tenant, CertificateID) error
	PutCertificateProvider(CertificateProvider) error
	DeleteCertificateProvider(t Tenant, name string) error
	PutClaimGuard(ClaimGuard) error
	DeleteClaimGuard(Tenant, CertificateID) error // not its serials
	PutClaimSerial(ClaimSerial) error
	// AddClaimSerials adds those that aren't in the list yet, and says how many.
	AddClaimSerials(t Tenant, claim CertificateID, serials []string) (int, error)
	// DeleteClaimSerials deletes at most limit of a claim's serials and says how
	// many.
	DeleteClaimSerials(t Tenant, claim CertificateID, limit int) (int, error)
}

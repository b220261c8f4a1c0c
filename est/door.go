package est

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/trace"
)

// Options are what a Door needs. Store, Engine, Clock and Trace must be set.
type Options struct {
	Store  imprint.Store
	Engine *ca.Engine
	Clock  imprint.Clock
	Trace  *trace.Log
	// Anchors are the roots of the server's own certificates: cacerts has them beside the
	// label's, because devices verify this server by what cacerts gives (RFC 7030 section
	// 4.1.1). Nil: none.
	Anchors func() []*x509.Certificate
	// Window is when certificates may be renewed whose label doesn't say.
	Window imprint.RenewalWindow
	// Rate is how many requests a second one address may send; twice as many may come at
	// once [10]. Negative: no bound.
	Rate int
	// WrongPasswords is how many wrong passwords a minute one address may send [10].
	WrongPasswords int
	// StationRate is how many certificates an hour one station's certificate may get [3600].
	StationRate int
	// MaxPerAddress bounds the connections of one address, handshakes among them [64], and
	// MaxConnections those of all [1024].
	MaxPerAddress, MaxConnections int
	Logger                        *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	for _, one := range []struct {
		value    *int
		fallback int
	}{{&o.Rate, 10}, {&o.WrongPasswords, 10}, {&o.StationRate, 3600}, {&o.MaxPerAddress, 64}, {&o.MaxConnections, 1024}} {
		if *one.value == 0 {
			*one.value = one.fallback
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Anchors == nil {
		o.Anchors = func() []*x509.Certificate { return nil }
	}
	return o
}

// Door answers EST requests. It is safe for concurrent use.
type Door struct {
	opts     Options
	requests *perAddress
	failures *perAddress
	// renewals are those of each certificate, whatever address they come from, with what a
	// device's certificate of another CA enrols for; stations what a station's does.
	renewals, stations *rates
	// making bounds the RSA keys that are made at once: each takes a processor for up to a
	// second.
	making chan struct{}

	failed, refused atomic.Uint64 // handshakes

	mu     sync.Mutex
	counts map[Count]uint64
}

// Count is what requests are counted by.
type Count struct {
	Operation string // such as simpleenroll; unknown
	Status    int    // of HTTP
}

// Handshakes gives how many TLS handshakes failed, and how many connections were closed
// because there were too many.
func (d *Door) Handshakes() (failed, refused uint64) { return d.failed.Load(), d.refused.Load() }

// maxRenewals is how many new keys one device's certificate may be renewed for, or get a
// certificate for, in an hour. A device needs one; a stolen key, or a firmware that asks in a loop, must not fill the record.
const maxRenewals = 10

// maxRSAKeys is how many RSA keys are made at once.
const maxRSAKeys = 2

// New makes a Door.
func New(opts Options) *Door {
	opts = opts.withDefaults()
	requests := rate.Limit(opts.Rate)
	if opts.Rate < 0 {
		requests = rate.Inf
	}
	return &Door{
		opts: opts, requests: newPerAddress(requests, 2*opts.Rate), failures: newPerAddress(rate.Limit(opts.WrongPasswords)/60, opts.WrongPasswords),
		renewals: newRates(anHour(maxRenewals), maxRenewals), stations: newRates(anHour(opts.StationRate), opts.StationRate), making: make(chan struct{}, maxRSAKeys), counts: map[Count]uint64{},
	}
}

func anHour(n int) rate.Limit { return rate.Limit(n) / rate.Limit(time.Hour/time.Second) }

// Counts gives how many requests of each kind there were.
func (d *Door) Counts() map[Count]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make(map[Count]uint64, len(d.counts))
	for what, n := range d.counts {
		all[what] = n
	}
	return all
}

func (d *Door) count(operation string, status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[Count{operation, status}]++
}

// trimEvery is how often passwords are taken away that ended keepEnded ago: until then who
// comes late is told that his has ended.
const (
	trimEvery = time.Hour
	keepEnded = 7 * 24 * time.Hour
	trimPage  = 1000
)

// Run takes passwords away whose time is over, until the context ends.
func (d *Door) Run(ctx context.Context) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	for {
		d.trim(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (d *Door) trim(ctx context.Context) {
	for {
		gone := 0
		err := d.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			var err error
			gone, err = tx.TrimEnrolmentPasswords(d.opts.Clock().Add(-keepEnded), trimPage)
			return err
		})
		if err != nil && ctx.Err() == nil {
			d.opts.Logger.Error("couldn't take one-time passwords away that have ended", "error", err)
		}
		if err != nil || gone < trimPage {
			return
		}
	}
}

// prefix is where all operations are (RFC 7030 section 3.2.2).
const prefix = "/.well-known/est/"

// Operations of EST.
const (
	opCACerts   = "cacerts"
	opEnroll    = "simpleenroll"
	opReenroll  = "simplereenroll"
	opServerKey = "serverkeygen"
	opAttrs     = "csrattrs"
	opCMC       = "fullcmc"
)

// methods are those of the operations.
var methods = map[string]string{
	opCACerts: http.MethodGet, opAttrs: http.MethodGet, opEnroll: http.MethodPost, opReenroll: http.MethodPost, opServerKey: http.MethodPost, opCMC: http.MethodPost,
}

// place gives label and operation of a path.
func place(path string) (label, operation string, ok bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", "", false
	}
	label, operation, labelled := strings.Cut(rest, "/")
	if !labelled {
		label, operation = string(imprint.DefaultLabel), rest
	}
	return label, operation, methods[operation] != "" && label != ""
}

// visit is one request.
type visit struct {
	door      *Door
	w         http.ResponseWriter
	r         *http.Request
	rec       *trace.Recorder
	operation string
	label     imprint.EnrolmentLabel
	authority imprint.CertificateAuthority
	signer    *x509.Certificate // the authority's certificate
	profile   *pki.Profile
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{door: d, w: w, r: r, rec: d.opts.Trace.Begin(r.RemoteAddr), operation: "unknown"}
	v.describe()
	err := v.serve()
	if err == nil {
		return
	}
	v.refuse(err)
}

// describe tells the trace of the connection.
func (v *visit) describe() {
	state := v.r.TLS
	if state == nil {
		return
	}
	v.rec.Describe(func(a *imprint.Attempt) {
		a.SNI, a.ALPN, a.TLSVersion = imprint.Excerpt(state.ServerName), state.NegotiatedProtocol, versionName(state.Version)
		if len(state.PeerCertificates) > 0 {
			leaf := state.PeerCertificates[0]
			a.CertificateID, a.Serial, a.Subject = pki.CertificateID(leaf.Raw), imprint.Excerpt(pki.SerialHex(leaf.SerialNumber)), pki.SubjectText(leaf.RawSubject)
		}
	})
}

func (v *visit) serve() error {
	if !v.door.requests.allow(v.r.RemoteAddr) {
		return imprint.Errorf(imprint.CodeEnrolmentRate, "this address sends more than %d requests a second", v.door.opts.Rate)
	}
	label, operation, known := place(v.r.URL.Path)
	if !known {
		return imprint.Errorf(imprint.CodeEnrolmentLabel, "there is nothing at %q", imprint.Excerpt(v.r.URL.Path)).
			WithHint("Paths are %sLABEL/OPERATION, and operations %s, %s, %s, %s and %s.", prefix, opCACerts, opEnroll, opReenroll, opServerKey, opAttrs)
	}
	v.operation = operation
	if v.r.Method != methods[operation] {
		v.w.Header().Set("Allow", methods[operation])
		return withStatus(http.StatusMethodNotAllowed, imprint.Errorf(imprint.CodeEnrolmentRequest, "%s is asked for by %s, not by %s", operation, methods[operation], imprint.Excerpt(v.r.Method)).
			WithHint("Use the method %s.", methods[operation]))
	}
	if operation == opCMC {
		return withStatus(http.StatusNotImplemented, imprint.Errorf(imprint.CodeNotOffered, "full CMC isn't offered").WithHint("Use %s.", opEnroll))
	}
	err := v.find(label)
	if err != nil {
		return err
	}
	switch operation {
	case opCACerts:
		return v.cacerts()
	case opAttrs:
		return v.attributes()
	}
	return v.enrol()
}

// find reads the label with what it names.
func (v *visit) find(text string) error {
	name, err := imprint.ParseLabelName(text)
	if err == nil {
		err = v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
			var err error
			v.label, err = tx.EnrolmentLabel(name)
			if err != nil {
				return err
			}
			v.authority, err = tx.Authority(v.label.Tenant, v.label.Authority)
			return err
		})
	}
	switch {
	case imprint.CodeOf(err) == imprint.CodeInvalidRequest, imprint.CodeOf(err) == imprint.CodeNotFound && v.label.Name == "":
		return imprint.Errorf(imprint.CodeEnrolmentLabel, "label %q doesn't exist", imprint.Excerpt(text))
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return imprint.Errorf(imprint.CodeAuthorityState, "the certificate authority of label %s is gone", v.label.Name).
			WithHint("Name another one: imprint est update %s --authority CA", v.label.Name)
	case err != nil:
		return err
	}
	v.rec.Describe(func(a *imprint.Attempt) { a.Tenant = v.label.Tenant })
	v.profile, err = v.door.opts.Engine.Profiles().Profile(v.label.Profile)
	if err != nil {
		return imprint.Errorf(imprint.CodeAuthorityState, "the profile %s of label %s is gone", v.label.Profile, v.label.Name).
			WithHint("Name another one: imprint est update %s --profile NAME", v.label.Name)
	}
	if v.authority.Certificate == "" {
		return imprint.Errorf(imprint.CodeAuthorityState, "the certificate authority of label %s has no certificate yet", v.label.Name).WithHint("imprint ca import")
	}
	v.signer, err = pki.ParseCertificatePEM(v.authority.Certificate)
	if err != nil {
		return err
	}
	v.rec.OK("est.label", "label %s: authority %s, profile %s", v.label.Name, v.authority.ID, v.label.Profile)
	return nil
}

// perAddress is a rate of each address, or each /64 network of IPv6.
type perAddress struct{ rates *rates }

func newPerAddress(limit rate.Limit, burst int) *perAddress {
	return &perAddress{newRates(limit, burst)}
}

func (p *perAddress) allow(remote string) bool { return p.rates.bucket(networkOf(remote)).Allow() }

// spent says whether nothing is left, and takes nothing.
func (p *perAddress) spent(remote string) bool {
	return p.rates.bucket(networkOf(remote)).Tokens() < 1
}

// rates is a rate of each key.
type rates struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

// maxBuckets bounds the memory of a rate; beyond it any one begins anew.
const maxBuckets = 20_000

func newRates(limit rate.Limit, burst int) *rates {
	return &rates{limit: limit, burst: max(burst, 1), buckets: map[string]*rate.Limiter{}}
}

func (p *rates) bucket(key string) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.buckets[key]
	if found == nil {
		if len(p.buckets) >= maxBuckets {
			for old := range p.buckets {
				delete(p.buckets, old)
				break
			}
		}
		found = rate.NewLimiter(p.limit, p.burst)
		p.buckets[key] = found
	}
	return found
}

// networkOf is what one party is counted by: a host with IPv6 has a whole /64.
func networkOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	address = address.WithZone("").Unmap()
	if address.Is4() {
		return address.String()
	}
	network, err := address.Prefix(64)
	if err != nil {
		return host
	}
	return network.String()
}

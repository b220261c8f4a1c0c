package provisioning

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/internal/stackroom"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/trace"
)

// Fleet provisioning by claim. Devices that share a claim certificate ask, over
// MQTT, for certificates of their own and register with them:
//
//	$aws/certificates/create/{format}                          keys and certificate
//	$aws/certificates/create-from-csr/{format}                 certificate
//	$aws/provisioning-templates/{template}/provision/{format}  RegisterThing
//
// A certificate is given out PENDING_ACTIVATION with an ownership token. The
// token is 32 random bytes whose SHA-256 is in the store: it outlives a restart,
// and nobody can read it there. It is good for one registration, within an hour,
// by the claim that asked for it. A certificate that is neither activated nor
// attached by then is deleted.
//
// Source: AWS IoT Core developer guide, "Device provisioning MQTT API" and
// "Provisioning devices that don't have device certificates using fleet
// provisioning".

// ClaimOptions tune Claims. Zero values give the defaults in brackets.
type ClaimOptions struct {
	TokenLifetime time.Duration // of an ownership token, and of a certificate without registration [1 h]
	HookTimeout   time.Duration // of a pre-provisioning hook or a certificate provider [5 s]
	ClaimLifetime time.Duration // of a trusted user's claim certificate [5 min]
	KeepClaims    time.Duration // how long what came of such a claim is kept [7 days]
	// CreateRate and RegisterRate are the requests of each operation in a second of
	// one tenant, and of one claim certificate of it; negative ones don't limit
	// [10; 10].
	CreateRate, RegisterRate int
	// AnyClaim lets a token be used with another claim certificate of the tenant
	// than the one that asked for it.
	AnyClaim   bool
	SweepEvery time.Duration // how often what has ended is looked for [30 s]
	Logger     *slog.Logger  // [slog.Default]
}

func (o ClaimOptions) withDefaults() ClaimOptions {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&o.TokenLifetime, time.Hour}, {&o.HookTimeout, 5 * time.Second}, {&o.ClaimLifetime, 5 * time.Minute},
		{&o.KeepClaims, 7 * 24 * time.Hour}, {&o.SweepEvery, 30 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	for _, n := range []*int{&o.CreateRate, &o.RegisterRate} {
		if *n == 0 {
			*n = 10
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// ClaimRooms are what Claims work with. All are required but Functions.
type ClaimRooms struct {
	Engine    *Engine
	Authority *pki.Authority
	Profile   *pki.Profile // of the devices' certificates
	Keys      *pki.KeyPool
	Functions imprint.Functions // nil: hooks and certificate providers can't be run
	// Along gives the certificates that are to take the place of one by renewal: what
	// RegisterThing and bulk registration attach to that goes to these, too. nil: there are none.
	Along func(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) ([]imprint.CertificateID, error)
}

// Claims answers the fleet provisioning API. It is safe for use by many
// goroutines.
type Claims struct {
	rooms  ClaimRooms
	engine *Engine
	store  imprint.Store
	clock  imprint.Clock
	opts   ClaimOptions
	claim  *pki.Profile // of trusted users' claims

	templates fleetTemplates
	tenants   rates[imprint.Tenant]
	holders   rates[guardKey] // of claim certificates
	anomalies anomalies
	free      freeClaims
	count     claimCounters

	stop      chan struct{}
	stopWatch func()
	ended     sync.WaitGroup
}

// Profile is the one by which claims of trusted users are signed.
func (c *Claims) Profile() *pki.Profile { return c.claim }

// NewClaims makes the API and begins to sweep what has ended. Close ends it.
func NewClaims(rooms ClaimRooms, opts ClaimOptions) (*Claims, error) {
	opts = opts.withDefaults()
	profile, err := pki.NewProfile(pki.ProfileConfig{Name: "claim", Lifetime: opts.ClaimLifetime})
	if err != nil {
		return nil, err
	}
	c := &Claims{
		rooms: rooms, engine: rooms.Engine, store: rooms.Engine.store, clock: rooms.Engine.clock, opts: opts, claim: profile,
		stop: make(chan struct{}),
	}
	c.templates.known = fair.NewMemory[fleetKey, *fleetTemplate](maxFleetTemplates)
	c.tenants.buckets = fair.NewMemory[imprint.Tenant, *limiters](maxRates)
	c.holders.buckets = fair.NewMemory[guardKey, *limiters](maxRates)
	c.anomalies.seen, c.anomalies.unread = fair.NewMemory[guardKey, *usage](maxGuarded), fair.NewMemory[guardKey, *usage](maxGuarded)
	c.free.known = fair.NewMemory[freeClaim, struct{}](maxFreeClaims)
	c.stopWatch = c.store.Watch(c.free.committed)
	c.ended.Go(c.sweeper)
	return c, nil
}

// Close ends the sweeping, and stops listening to the store.
func (c *Claims) Close() {
	c.stopWatch()
	close(c.stop)
	c.ended.Wait()
}

// ClaimCounters are what Claims have done since they were made.
type ClaimCounters struct {
	// Created certificates, Registered devices, Rejected requests, of which
	// Throttled came too quickly; Expired certificates were deleted, and Stopped
	// claims are those that a guard stopped. Claims of trusted users were made.
	Created, Registered, Rejected, Throttled, Expired, Stopped, Claims uint64
}

type claimCounters struct {
	created, registered, rejected, throttled, expired, stopped, claims atomic.Uint64
}

// Counters gives the present counts.
func (c *Claims) Counters() ClaimCounters {
	n := &c.count
	return ClaimCounters{
		Created: n.created.Load(), Registered: n.registered.Load(), Rejected: n.rejected.Load(), Throttled: n.throttled.Load(),
		Expired: n.expired.Load(), Stopped: n.stopped.Load(), Claims: n.claims.Load(),
	}
}

// ClaimRequest is a message to one of the API's topics.
type ClaimRequest struct {
	Tenant   imprint.Tenant
	Topic    string
	Payload  []byte
	Claim    imprint.CertificateID // that the connection has; empty: none
	ClientID imprint.ClientID
	Address  netip.Addr
	Rec      *trace.Recorder // of the connection
}

// ClaimAnswer is what the connection that asked is to get. The payload may hold a
// private key.
type ClaimAnswer struct {
	Topic   string
	Payload []byte
	Refused imprint.Code // why it is a rejection; empty: it is none
	// Says is the rejection's status and name, such as "400 InvalidParameters".
	Says string
}

// requestTimeout bounds the whole of a request: a key that must be made, a hook,
// the store.
const requestTimeout = 30 * time.Second

// Answer does what a request asks for. Everything that it tells is durable.
func (c *Claims) Answer(ctx context.Context, r ClaimRequest) ClaimAnswer {
	stackroom.Reserve() // the broker gives each request a goroutine
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	call, found := parseClaimTopic(r.Topic)
	if !found {
		return c.reject(r.Topic, imprint.Errorf(imprint.CodeReservedTopic, "topic %q is none of fleet provisioning", r.Topic))
	}
	r.Rec.Info("claim.request", "%s from %q, %d bytes of %s", call.name(), r.ClientID, len(r.Payload), call.format)
	body, err := c.serve(ctx, call, r)
	if err == nil {
		var payload []byte
		payload, err = call.format.encode(body)
		if err == nil {
			return ClaimAnswer{Topic: r.Topic + "/accepted", Payload: payload}
		}
	}
	return c.reject(r.Topic, err)
}

// Refuse gives the answer to a request that was refused before it came here. One
// that came too quickly counts under the claim's guard all the same.
func (c *Claims) Refuse(r ClaimRequest, why error) ClaimAnswer {
	if imprint.CodeOf(why) == imprint.CodeThrottled {
		c.count.throttled.Add(1)
		c.anomalies.miss(guardKey{r.Tenant, r.Claim}, c.clock())
	}
	return c.reject(r.Topic, why)
}

// reject makes a rejection.
func (c *Claims) reject(topic string, why error) ClaimAnswer {
	c.count.rejected.Add(1)
	format := formatJSON
	call, found := parseClaimTopic(topic)
	if found {
		format = call.format
	}
	if imprint.CodeOf(why) == imprint.CodeInternal {
		c.opts.Logger.Error("a fleet provisioning request failed", "topic", topic, "error", why)
	}
	body := rejection(why)
	payload, err := format.encode(body)
	if err != nil {
		c.opts.Logger.Error("couldn't encode a rejection", "topic", topic, "error", err)
	}
	return ClaimAnswer{Topic: topic + "/rejected", Payload: payload, Refused: imprint.CodeOf(why), Says: fmt.Sprintf("%d %s", body.StatusCode, body.ErrorCode)}
}

// serve admits a request, and has it done. The claim's own rate is looked at first
// and needs no store; the tenant's last, so that a claim that is stopped, or that
// its guard refuses, takes nothing from the others.
func (c *Claims) serve(ctx context.Context, call claimCall, r ClaimRequest) (any, error) {
	d := &demand{Claims: c, ClaimRequest: r, call: call, now: c.clock()}
	holder := guardKey{r.Tenant, r.Claim}
	if !c.holders.take(r.Tenant.Account, holder, call.operation, c.rateOf(call.operation), d.now) {
		c.anomalies.miss(holder, d.now)
		return nil, d.throttled("the claim certificate")
	}
	err := d.admit(ctx)
	if err != nil {
		return nil, d.refused(ctx, err)
	}
	if !c.tenants.take(r.Tenant.Account, r.Tenant, call.operation, c.rateOf(call.operation), d.now) {
		return nil, d.throttled("the account's devices")
	}
	var body any
	switch call.operation {
	case createKeys:
		body, err = d.createKeys(ctx)
	case createFromCSR:
		body, err = d.createFromCSR(ctx)
	default:
		body, err = d.register(ctx)
	}
	if err != nil {
		return nil, d.refused(ctx, err)
	}
	return body, nil
}

// demand is one request that is being done.
type demand struct {
	*Claims
	ClaimRequest
	call claimCall
	now  time.Time

	guard     *imprint.ClaimGuard          // nil: the claim has none
	temporary *imprint.ProvisioningClaim   // nil: it isn't a trusted user's
	provider  *imprint.CertificateProvider // of createFromCSR; nil: the built-in CA signs
}

// throttled refuses a request that came too quickly.
func (d *demand) throttled(who string) error {
	d.count.throttled.Add(1)
	return d.step("claim.request", imprint.Errorf(imprint.CodeThrottled, "%s called %s more than %d times a second", who, d.call.name(), d.rateOf(d.call.operation)).
		WithHint("Let devices try again with back-off, or raise --claim-rate."))
}

// step fails a step of the attempt and gives the error on.
func (d *demand) step(name string, err error) error {
	d.Rec.Fail(name, err)
	return err
}

// admit reads what binds the claim, and refuses what needs no look at the
// request.
func (d *demand) admit(ctx context.Context) error {
	if d.Claim == "" {
		return d.step("claim", imprint.Errorf(imprint.CodeClaimDenied, "the connection has no certificate"))
	}
	err := d.readBounds(ctx)
	if err != nil {
		return d.step("claim", err)
	}
	err = d.checkTemporary()
	if err != nil {
		return d.step("claim", err)
	}
	return d.checkGuard()
}

// readBounds reads what binds the claim, unless nothing is known to. Each row is
// looked at by itself: what must hold together is read again where it is changed.
func (d *demand) readBounds(ctx context.Context) error {
	claim := freeClaim{guardKey{d.Tenant, d.Claim}, d.call.operation == createFromCSR}
	free, generation := d.free.free(claim)
	if free {
		return nil
	}
	err := d.store.Glance(ctx, func(tx imprint.ReadTx) error {
		d.guard, d.temporary, d.provider = nil, nil, nil
		guard, err := tx.ClaimGuard(d.Tenant, d.Claim)
		switch {
		case err == nil:
			d.guard = &guard
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return err
		}
		temporary, err := tx.ProvisioningClaim(d.Tenant, d.Claim)
		switch {
		case err == nil:
			d.temporary = &temporary
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return err
		}
		if claim.signing {
			d.provider, err = signingProvider(tx, d.Tenant)
			return err
		}
		return nil
	})
	if err == nil && d.guard == nil && d.temporary == nil && d.provider == nil {
		d.free.remember(claim, generation)
	}
	return err
}

// checkTemporary applies what a trusted user's claim is good for. Its connection
// may outlive it, but a certificate must have been given out in its time
// (developer guide, "Provisioning by trusted user").
func (d *demand) checkTemporary() error {
	t := d.temporary
	switch {
	case t == nil:
		return nil
	case d.call.operation == register && d.call.template != string(t.Template):
		return imprint.Errorf(imprint.CodeClaimDenied, "the claim certificate is good for template %s, and not for %s", t.Template, d.call.template)
	case d.call.operation != register && d.now.After(t.ExpiresAt):
		return imprint.Errorf(imprint.CodeClaimExpired, "the claim certificate expired at %s", t.ExpiresAt.UTC().Format(time.RFC3339)).
			WithHint("aws iot create-provisioning-claim --template-name %s", t.Template)
	}
	return nil
}

func (c *Claims) rateOf(op claimOperation) int {
	if op == register {
		return c.opts.RegisterRate
	}
	return c.opts.CreateRate
}

// rates bound the requests of each key.
type rates[K comparable] struct {
	mu      sync.Mutex
	buckets *fair.Memory[K, *limiters]
}

type limiters [operations]*rate.Limiter

// maxRates bounds the memory of rates.
const maxRates = 10_000

func (r *rates[K]) take(account imprint.AccountID, key K, op claimOperation, perSecond int, now time.Time) bool {
	if perSecond < 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	buckets := r.buckets.Of(account, key, func() *limiters { return &limiters{} })
	if buckets[op] == nil {
		buckets[op] = rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	return buckets[op].AllowN(now, 1)
}

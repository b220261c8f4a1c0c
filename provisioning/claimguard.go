package provisioning

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/trace"
)

// A claim's guard bounds what one claim certificate may bring about, so that a
// key that leaks out of one batch of devices stops that batch and not the fleet.
// Who meets a rule is refused; a quota that is exceeded, or use that looks like
// misuse, stops the claim until an operator lets it go on.

// guardKey names a claim.
type guardKey struct {
	tenant imprint.Tenant
	claim  imprint.CertificateID
}

// usage counts a claim's requests in its present window.
type usage struct {
	began              time.Time
	requests, refusals int
}

// anomalies counts for guarded claims. It is in memory: a start begins anew.
type anomalies struct {
	mu   sync.Mutex
	seen *fair.Memory[guardKey, *usage]
	// unread are requests that were refused before anybody looked for a guard. The
	// next request for which one is read counts them.
	unread *fair.Memory[guardKey, *usage]
}

// miss counts a request of a claim whose guard isn't read.
func (a *anomalies) miss(key guardKey, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unread.Of(key.tenant.Account, key, func() *usage { return &usage{began: now} }).requests++
}

// maxGuarded bounds the memory of counts.
const maxGuarded = 10_000

// add counts a request, or that it was refused, and says what is odd about it.
func (a *anomalies) add(g *imprint.ClaimGuard, refused bool, now time.Time) error {
	if g.Window <= 0 || g.MaxRequests == 0 && g.MaxRefusals == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := guardKey{g.Tenant, g.Claim}
	u := a.seen.Of(g.Tenant.Account, key, func() *usage { return &usage{began: now} })
	if now.Sub(u.began) >= g.Window || now.Before(u.began) {
		*u = usage{began: now}
	}
	if refused {
		u.refusals++
	} else {
		u.requests++
		missed, ok := a.unread.Known(g.Tenant.Account, key)
		if ok && now.Sub(missed.began) < g.Window {
			u.requests += missed.requests
		}
		a.unread.Forget(g.Tenant.Account, key)
	}
	switch {
	case g.MaxRequests > 0 && u.requests > g.MaxRequests:
		return imprint.Errorf(imprint.CodeClaimAnomaly, "claim certificate %s made more than %d requests in %s", g.Claim, g.MaxRequests, g.Window)
	case g.MaxRefusals > 0 && u.refusals > g.MaxRefusals:
		return imprint.Errorf(imprint.CodeClaimAnomaly, "more than %d requests of claim certificate %s were refused in %s", g.MaxRefusals, g.Claim, g.Window)
	}
	return nil
}

// forget begins a claim's count anew, when it is let go on.
func (a *anomalies) forget(tenant imprint.Tenant, claim imprint.CertificateID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen.Forget(tenant.Account, guardKey{tenant, claim})
	a.unread.Forget(tenant.Account, guardKey{tenant, claim})
}

// checkGuard applies what needs no look at the request.
func (d *demand) checkGuard() error {
	g := d.guard
	if g == nil {
		return nil
	}
	refusal := g.Check(d.Address, d.now)
	if refusal != nil {
		return d.step("claim.guard", refusal)
	}
	err := d.anomalies.add(g, false, d.now)
	if err == nil {
		err = overQuota(g)
	}
	if err != nil {
		return d.step("claim.guard", err)
	}
	d.Rec.OK("claim.guard", "%d of %s device(s) registered", g.Devices, unlimited(g.Quota))
	return nil
}

func unlimited(quota int) string {
	if quota == 0 {
		return "any number of"
	}
	return fmt.Sprint(quota)
}

func overQuota(g *imprint.ClaimGuard) error {
	if !g.UsedUp() {
		return nil
	}
	return imprint.Errorf(imprint.CodeClaimQuota, "claim certificate %s has registered %d devices, as many as its guard allows", g.Claim, g.Devices).
		WithHint("imprint claim guard %s --quota N --resume", g.Claim)
}

// checkSerial looks whether the device's serial number is in the claim's allow
// list, before anybody else is asked.
func (d *demand) checkSerial(ctx context.Context, parameters map[string]string) error {
	if d.guard == nil || d.guard.SerialParameter == "" {
		return nil
	}
	return d.store.Glance(ctx, func(tx imprint.ReadTx) error {
		_, err := allowedSerial(tx, d.guard, parameters)
		return err
	})
}

// allowedSerial gives the serial's row in the allow list. Errors:
// CodeClaimNotAllowed.
func allowedSerial(tx imprint.ReadTx, g *imprint.ClaimGuard, parameters map[string]string) (imprint.ClaimSerial, error) {
	serial := parameters[g.SerialParameter]
	if serial == "" {
		return imprint.ClaimSerial{}, imprint.Errorf(imprint.CodeClaimNotAllowed, "the request has no parameter %s, which the claim's guard looks up", g.SerialParameter)
	}
	row, err := tx.ClaimSerial(g.Tenant, g.Claim, serial)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return row, imprint.Errorf(imprint.CodeClaimNotAllowed, "serial number %q isn't in the allow list of claim certificate %s", imprint.Excerpt(serial), g.Claim).
			WithHint("imprint claim allow %s --file serials.csv", g.Claim)
	case err != nil:
		return row, err
	case row.Device != "" && !g.SerialReuse:
		return row, imprint.Errorf(imprint.CodeClaimNotAllowed, "serial number %q was registered before, with certificate %s", imprint.Excerpt(serial), row.Device).
			WithHint("Look for a copied device. imprint claim guard %s --serial-reuse lets devices come again.", g.Claim)
	}
	return row, nil
}

// countDevice counts the device under the claim's guard as it stands now. Where none is
// known to stand, only one of the same commit could be there, which comes after the device
// then.
func (r *registration) countDevice(tx imprint.Tx) error {
	free, _ := r.free.free(freeClaim{guardKey{r.Tenant, r.Claim}, false})
	if free {
		return nil
	}
	guard, err := tx.ClaimGuard(r.Tenant, r.Claim)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	refusal := guard.Check(r.Address, r.now)
	if refusal != nil {
		return refusal
	}
	err = overQuota(&guard)
	if err != nil {
		return err
	}
	if guard.SerialParameter != "" {
		row, err := allowedSerial(tx, &guard, r.given)
		if err != nil {
			return err
		}
		row.Device = r.id
		err = tx.PutClaimSerial(row)
		if err != nil {
			return err
		}
	}
	guard.Devices++
	return tx.PutClaimGuard(guard)
}

// refused hears of every refusal, and stops the claim where its guard wants
// that.
func (d *demand) refused(ctx context.Context, why error) error {
	if d.guard == nil {
		return why
	}
	code := imprint.CodeOf(why)
	switch code {
	case imprint.CodeClaimQuota, imprint.CodeClaimAnomaly:
		d.stopClaim(ctx, why)
		return why
	case imprint.CodeInternal, imprint.CodeUnavailable, imprint.CodeThrottled, imprint.CodeClaimStopped:
		return why
	}
	anomaly := d.anomalies.add(d.guard, true, d.now)
	if anomaly != nil {
		d.Rec.Fail("claim.guard", anomaly)
		d.stopClaim(ctx, anomaly)
	}
	return why
}

// stopClaim stops the claim, once, and tells of it on
// $aws/events/imprint/claims/stopped/{claim}.
func (d *demand) stopClaim(ctx context.Context, why error) {
	stopped := false
	// A device that goes at once doesn't keep its claim from being stopped.
	err := d.store.Update(context.WithoutCancel(ctx), func(tx imprint.Tx) error {
		stopped = false
		guard, err := tx.ClaimGuard(d.Tenant, d.Claim)
		if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && !guard.StoppedAt.IsZero() {
			return nil
		}
		if err != nil {
			return err
		}
		guard = guard.Stop(why, d.now)
		err = tx.PutClaimGuard(guard)
		if err != nil {
			return err
		}
		event, err := stoppedEvent(guard, d.Rec.ID())
		if err != nil {
			return err
		}
		stopped = true
		return tx.PutEvent(event)
	})
	if err != nil {
		d.opts.Logger.Error("couldn't stop a claim", "tenant", d.Tenant.String(), "claim", string(d.Claim), "error", err)
		d.Rec.Fail("claim.stopped", err)
		return
	}
	if !stopped {
		return
	}
	d.count.stopped.Add(1)
	d.opts.Logger.Warn("a claim certificate is stopped", "tenant", d.Tenant.String(), "claim", string(d.Claim), "reason", why.Error())
	d.Rec.Info("claim.stopped", "claim certificate %s is stopped: %s", d.Claim, why.Error())
}

func stoppedEvent(g imprint.ClaimGuard, attempt string) (imprint.Event, error) {
	payload, err := json.Marshal(struct {
		Type      string `json:"eventType"`
		Claim     string `json:"claimCertificateId"`
		Code      string `json:"code"`
		Reason    string `json:"reason"`
		Devices   int    `json:"devices"`
		Timestamp int64  `json:"timestamp"`
		Attempt   string `json:"attemptId,omitempty"`
	}{"CLAIM_STOPPED", string(g.Claim), string(g.StopCode), g.StopReason, g.Devices, g.StoppedAt.UnixMilli(), attempt})
	if err != nil {
		return imprint.Event{}, fmt.Errorf("couldn't encode the event of claim %s: %w", g.Claim, err)
	}
	return imprint.Event{
		ID: trace.NewID(g.StoppedAt), Tenant: g.Tenant, At: g.StoppedAt,
		Topic: "$aws/events/imprint/claims/stopped/" + string(g.Claim), Payload: payload,
	}, nil
}

// Resume tells that an operator lets a claim go on.
func (c *Claims) Resume(tenant imprint.Tenant, claim imprint.CertificateID) {
	c.anomalies.forget(tenant, claim)
}

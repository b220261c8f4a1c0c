package renewal_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/renewal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	now  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// house is an engine on a real registry, and who is connected.
type house struct {
	t     *testing.T
	path  string
	store imprint.Store
	*renewal.Engine

	mu     sync.Mutex
	at     time.Time
	online map[imprint.CertificateID]bool
}

const grace = 24 * time.Hour

func newHouse(t *testing.T) *house {
	h := &house{t: t, path: filepath.Join(t.TempDir(), "registry.db"), at: now, online: map[imprint.CertificateID]bool{}}
	h.store = registrytest.Open(t, h.path)
	h.open()
	return h
}

func (h *house) open() {
	h.t.Helper()
	e, err := renewal.New(h.t.Context(), renewal.Options{
		Store: h.store, Clock: h.clock, Grace: grace, Logger: slog.New(slog.DiscardHandler),
		InUse: func(_ imprint.Tenant, id imprint.CertificateID) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.online[id]
		},
	})
	h.must(err)
	h.Engine = e
	h.t.Cleanup(e.Close)
}

// restart is a new process: what was only in memory is gone.
func (h *house) restart() {
	h.t.Helper()
	h.Close()
	h.open()
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = h.at.Add(d)
}

func (h *house) connected(id imprint.CertificateID, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.online[id] = on
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) update(fn func(imprint.Tx) error) {
	h.t.Helper()
	h.must(h.store.Update(h.t.Context(), fn))
}

var serials atomic.Int64

// issued makes a certificate of nobody's that lasts for a year.
func (h *house) issued() *pki.Issued {
	h.t.Helper()
	return h.issuedFor(h.key())
}

func (h *house) key() *ecdsa.PrivateKey {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	return key
}

func (h *house) issuedFor(key *ecdsa.PrivateKey) *pki.Issued {
	h.t.Helper()
	h.mu.Lock()
	template := &x509.Certificate{SerialNumber: big.NewInt(serials.Add(1)), NotBefore: h.at, NotAfter: h.at.AddDate(1, 0, 0)}
	h.mu.Unlock()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	h.must(err)
	made, err := pki.ParseIssued(der)
	h.must(err)
	return made
}

// device registers one with a thing and two policies.
func (h *house) device(name imprint.ThingName) imprint.CertificateID {
	h.t.Helper()
	return h.deviceWith(name, h.key())
}

func (h *house) deviceWith(name imprint.ThingName, key *ecdsa.PrivateKey) imprint.CertificateID {
	h.t.Helper()
	made := h.issuedFor(key)
	h.update(func(tx imprint.Tx) error {
		cert := imprint.Certificate{Tenant: home, ID: made.ID, PEM: made.PEM, Status: imprint.CertificateActive, Mode: imprint.ModeSNIOnly, OwnedBy: home.Account,
			NotBefore: made.Certificate.NotBefore, NotAfter: made.Certificate.NotAfter, CreatedAt: now}
		err := tx.PutCertificate(cert)
		for n := range 2 {
			if err == nil {
				err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: imprint.PolicyName(fmt.Sprint("p", n)), Target: cert.ARN()})
			}
		}
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: name, Certificate: made.ID, Exclusive: true})
	})
	return made.ID
}

// renew issues a successor.
func (h *house) renew(old imprint.CertificateID) imprint.CertificateID {
	h.t.Helper()
	return h.renewFor(old, h.key())
}

func (h *house) renewFor(old imprint.CertificateID, key *ecdsa.PrivateKey) imprint.CertificateID {
	h.t.Helper()
	h.later(time.Second)
	made := h.issuedFor(key)
	h.update(func(tx imprint.Tx) error { return h.Attach(tx, home, old, made, "") })
	return made.ID
}

// connect is a connection that is let in, if the certificate is ACTIVE, and ends again.
func (h *house) connect(id imprint.CertificateID) bool {
	h.t.Helper()
	h.later(time.Second)
	if h.status(id) != imprint.CertificateActive {
		return false
	}
	h.Saw(home, id)
	h.must(h.Settle(h.t.Context()))
	return true
}

func (h *house) status(id imprint.CertificateID) imprint.CertificateStatus {
	h.t.Helper()
	var status imprint.CertificateStatus
	h.must(h.store.View(h.t.Context(), func(tx imprint.ReadTx) error {
		c, err := tx.Certificate(home, id)
		status = c.Status
		return err
	}))
	return status
}

func (h *house) setStatus(id imprint.CertificateID, to imprint.CertificateStatus) {
	h.t.Helper()
	h.update(func(tx imprint.Tx) error {
		c, err := tx.Certificate(home, id)
		if err != nil {
			return err
		}
		c, err = c.ChangeStatus(to, h.clock(), "x")
		if err != nil {
			return err
		}
		return tx.PutCertificate(c)
	})
}

func (h *house) state(made imprint.CertificateID) imprint.RenewalState {
	h.t.Helper()
	var state imprint.RenewalState
	h.must(h.store.View(h.t.Context(), func(tx imprint.ReadTx) error {
		r, err := tx.Renewal(home, made)
		state = r.State
		return err
	}))
	return state
}

// passes lets time go by, with what is due in it.
func (h *house) passes(d time.Duration) {
	h.t.Helper()
	h.later(d)
	h.must(h.Retire(h.t.Context()))
}

// want compares the statuses of certificates.
func (h *house) want(what string, statuses map[imprint.CertificateID]imprint.CertificateStatus) {
	h.t.Helper()
	for id, want := range statuses {
		if got := h.status(id); got != want {
			h.t.Errorf("%s: certificate %s is %s, want %s", what, id[:8], got, want)
		}
	}
}

const (
	active   = imprint.CertificateActive
	inactive = imprint.CertificateInactive
)

// The new certificate has what the old one had, and takes its place when it has connected
// and the grace is over, neither before the one nor before the other.
func TestARenewedCertificateTakesThePlaceOfTheOldOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.device("sensor-17")
	made := h.renew(old)
	h.must(h.store.View(t.Context(), func(tx imprint.ReadTx) error {
		c, err := tx.Certificate(home, made)
		if err != nil || c.Status != active || c.Mode != imprint.ModeSNIOnly || c.OwnedBy != home.Account || c.PEM == "" {
			t.Errorf("got %+v, %v", c, err)
		}
		p, err := tx.Principal(home, made, 10)
		if err != nil || len(p.Things) != 1 || p.Things[0].Attachment.Thing != "sensor-17" || !p.Things[0].Attachment.Exclusive || !slices.Equal(p.Policies, []imprint.PolicyName{"p0", "p1"}) {
			t.Errorf("got things %v and policies %v, %v", p.Things, p.Policies, err)
		}
		return nil
	}))
	h.passes(30 * 24 * time.Hour)
	h.want("never used", map[imprint.CertificateID]imprint.CertificateStatus{old: active, made: active})
	h.connect(made)
	h.passes(grace - time.Second)
	h.want("within the grace", map[imprint.CertificateID]imprint.CertificateStatus{old: active, made: active})
	h.passes(2 * time.Second)
	h.want("after it", map[imprint.CertificateID]imprint.CertificateStatus{old: inactive, made: active})
	if h.state(made) != imprint.RenewalDone {
		t.Errorf("the renewal is %s", h.state(made))
	}
	if c := h.Counters(); c != (renewal.Counters{Proven: 1, Retired: 1}) {
		t.Errorf("counted %+v", c)
	}
	if n := h.Watched(); n != 0 {
		t.Errorf("%d certificates are still looked at", n)
	}
}

// A device that goes back to its old certificate keeps it, and the new one must be proven
// anew.
func TestADeviceThatGoesBackKeepsItsOldCertificate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.device("sensor-17")
	made := h.renew(old)
	h.connect(made)
	h.later(grace / 2)
	h.connect(old)
	h.passes(10 * grace)
	h.want("after going back", map[imprint.CertificateID]imprint.CertificateStatus{old: active, made: active})
	if h.state(made) != imprint.RenewalPending {
		t.Errorf("the renewal is %s", h.state(made))
	}
	h.connect(made)
	h.passes(grace - time.Second)
	h.want("proven anew", map[imprint.CertificateID]imprint.CertificateStatus{old: active, made: active})
	h.passes(2 * time.Second)
	h.want("and its grace over", map[imprint.CertificateID]imprint.CertificateStatus{old: inactive, made: active})
}

// A device that is connected with the old certificate keeps it as long as that lasts.
func TestAConnectedCertificateIsNotRetired(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.device("sensor-17")
	made := h.renew(old)
	h.connected(old, true)
	h.connect(made)
	h.passes(grace + time.Second)
	h.passes(10 * grace)
	h.want("while it is connected", map[imprint.CertificateID]imprint.CertificateStatus{old: active, made: active})
	h.connected(old, false)
	h.passes(2 * time.Hour)
	h.want("when it has gone", map[imprint.CertificateID]imprint.CertificateStatus{old: inactive, made: active})
}

// A new certificate that doesn't count retires nothing, before and after it was proven.
func TestANewCertificateThatDoesNotCountRetiresNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	olds := map[string]imprint.CertificateID{}
	for _, proven := range []bool{false, true} {
		for what, undo := range map[string]func(imprint.CertificateID){
			"revoked":  func(id imprint.CertificateID) { h.setStatus(id, imprint.CertificateRevoked) },
			"inactive": func(id imprint.CertificateID) { h.setStatus(id, inactive) },
			"deleted": func(id imprint.CertificateID) {
				h.update(func(tx imprint.Tx) error { return tx.DeleteCertificate(home, id) })
			},
			"expired": func(id imprint.CertificateID) {
				h.update(func(tx imprint.Tx) error {
					c, err := tx.Certificate(home, id)
					c.NotAfter = h.clock().Add(time.Hour)
					return errors.Join(err, tx.PutCertificate(c))
				})
			},
		} {
			old := h.device(imprint.ThingName(what))
			made := h.renew(old)
			if proven {
				h.connect(made)
			}
			undo(made)
			olds[fmt.Sprintf("%s, proven %t", what, proven)] = old
		}
	}
	h.passes(2 * grace)
	for what, old := range olds {
		if got := h.status(old); got != active {
			t.Errorf("%s: the old certificate is %s", what, got)
		}
	}
	if c := h.Counters(); c.Retired != 0 || c.Abandoned != 3 || c.Postponed != 1 {
		t.Errorf("counted %+v", c)
	}
}

// An old certificate of the very key that others have is no way back for its device: whoever
// revoked the new one in an earlier version left it ACTIVE.
func TestAnOldCertificateOfALostKeyGoes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	want := map[imprint.CertificateID]imprint.CertificateStatus{}
	for _, sameKey := range []bool{true, false} {
		for reason, named := range map[imprint.RevocationReason]bool{imprint.ReasonKeyCompromise: true, imprint.ReasonSuperseded: true, "": false} {
			if reason == "" {
				reason = imprint.ReasonKeyCompromise // its record doesn't name the key
			}
			first, second := h.key(), h.key()
			if sameKey {
				second = first
			}
			old := h.deviceWith("sensor", first)
			made := h.renewFor(old, second)
			h.connect(made)
			h.setStatus(made, imprint.CertificateRevoked)
			h.update(func(tx imprint.Tx) error {
				i := imprint.Issuance{ID: string(made), Tenant: home, Authority: "a", Serial: string(made[:8]), CertificateID: made, Renews: old, RevokedAt: h.clock(), Reason: reason}
				if named {
					var err error
					i.KeyHash, err = pki.KeyHash(second.Public())
					h.must(err)
				}
				return tx.PutIssuance(i)
			})
			want[old] = active
			if sameKey && reason == imprint.ReasonKeyCompromise {
				want[old] = inactive
			}
		}
	}
	h.passes(2 * grace)
	h.want("after the grace", want)
	if c := h.Counters(); c.Retired != 2 || c.Abandoned != 6 {
		t.Errorf("counted %+v", c)
	}
}

// What was proven outlives a kill, as does the rest; what was seen and not written is
// proven by the next connection.
func TestAKillLosesNoCertificate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two, three := h.device("one"), h.device("two"), h.device("three")
	madeOne, madeTwo, madeThree := h.renew(one), h.renew(two), h.renew(three)
	h.connect(madeOne)
	h.connect(madeTwo)
	h.restart()
	h.connect(two) // goes back after the restart
	h.connect(madeThree)
	h.restart()
	h.passes(grace + time.Minute)
	h.want("after restarts", map[imprint.CertificateID]imprint.CertificateStatus{
		one: inactive, madeOne: active, two: active, madeTwo: active, three: inactive, madeThree: active,
	})
}

// Renewals whose answers were lost, and renewals of renewals, are one family: the last that
// connects stays, and all others go.
func TestTheLastOfAFamilyThatConnectsStays(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.device("sensor-17")
	lost, kept := h.renew(first), h.renew(first)
	next := h.renew(kept) // renewed again before it ever connected
	h.connect(next)
	h.connect(next)
	h.passes(grace + time.Minute)
	h.want("the whole family", map[imprint.CertificateID]imprint.CertificateStatus{first: inactive, lost: inactive, kept: inactive, next: active})

	first = h.device("sensor-18")
	a, b := h.renew(first), h.renew(first)
	h.connect(b)
	h.connect(a)
	h.passes(grace + time.Minute)
	h.want("two that connect", map[imprint.CertificateID]imprint.CertificateStatus{first: inactive, a: active, b: inactive})

	first = h.device("sensor-20")
	middle, last := h.renew(first), imprint.CertificateID("")
	h.connect(middle)
	h.passes(grace / 2)
	last = h.renew(middle)
	h.connect(last) // goes on: that says nothing against the middle one
	h.passes(grace/2 + time.Second)
	h.want("each in its time", map[imprint.CertificateID]imprint.CertificateStatus{first: inactive, middle: active, last: active})

	first = h.device("sensor-19")
	middle = h.renew(first)
	h.connect(middle)
	last = h.renew(middle)
	h.connect(last)
	h.connect(middle) // back one step, not two
	h.passes(grace + time.Minute)
	h.want("back one step", map[imprint.CertificateID]imprint.CertificateStatus{middle: active, last: active})
	h.connect(first)
	h.connect(last)
	h.passes(grace + time.Minute)
	h.passes(grace + time.Minute)
	h.want("and on", map[imprint.CertificateID]imprint.CertificateStatus{first: inactive, middle: inactive, last: active})
}

// A device that asks again and again, because it never sees the answer, doesn't fill the
// registry, and keeps what it has.
func TestRenewalsThatAreNeverUsedAreTakenBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := h.device("sensor-17")
	var made []imprint.CertificateID
	for range 10 {
		made = append(made, h.renew(old))
	}
	usable := 0
	for _, id := range made {
		if h.status(id) == active {
			usable++
		}
	}
	if usable != 4 || h.status(made[9]) != active || h.status(old) != active {
		t.Errorf("%d of 10 renewals are ACTIVE, want 4; the last is %s, the old one %s", usable, h.status(made[9]), h.status(old))
	}
	h.connect(made[9])
	h.passes(grace + time.Minute)
	for _, id := range append([]imprint.CertificateID{old}, made[:9]...) {
		if h.status(id) != inactive {
			t.Errorf("certificate %s is %s", id[:8], h.status(id))
		}
	}
}

// A certificate that isn't registered, because its device never came, is renewed, too, and
// one that isn't ACTIVE is not.
func TestRenewalsOfCertificatesThatAreNotInUse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	unknown := h.issued()
	made := h.renew(unknown.ID)
	if h.state(made) != imprint.RenewalPending {
		t.Errorf("the renewal is %s", h.state(made))
	}
	off := h.device("off")
	h.setStatus(off, inactive)
	err := h.store.Update(t.Context(), func(tx imprint.Tx) error { return h.Attach(tx, home, off, h.issued(), "") })
	if imprint.CodeOf(err) != imprint.CodeCertificateState {
		t.Errorf("got %v, want %s", err, imprint.CodeCertificateState)
	}
}

// What ends soon is listed, the earliest first, with what is done about it.
func TestWhatEndsSoonIsListed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.device("first")
	h.later(time.Hour)
	second := h.device("second")
	h.later(300 * 24 * time.Hour)
	made := h.renew(first)
	h.later(time.Second)
	h.Saw(home, made) // what that proves is written by whoever comes first
	list := func(within time.Duration) []renewal.Device {
		all, _, err := h.Expiring(t.Context(), home, within, imprint.Page{Limit: 10})
		h.must(err)
		return all
	}
	if all := list(30 * 24 * time.Hour); len(all) != 0 {
		t.Errorf("got %d certificates that end within 30 days, want none", len(all))
	}
	all := list(90 * 24 * time.Hour)
	if len(all) != 2 || all[0].Certificate.ID != first || all[1].Certificate.ID != second {
		t.Fatalf("got %+v", all)
	}
	if r := all[0].Renewal; r == nil || r.State != imprint.RenewalProven || r.Certificate != made || !slices.Equal(all[0].Things, []imprint.ThingName{"first"}) {
		t.Errorf("got %+v", all[0])
	}
	if all[1].Renewal != nil || !all[1].Opens.Equal(all[1].Certificate.NotAfter.Add(-365*24*time.Hour/3)) {
		t.Errorf("got %+v", all[1])
	}
	h.passes(grace + time.Minute)
	if all = list(90 * 24 * time.Hour); len(all) != 1 || all[0].Certificate.ID != second {
		t.Errorf("got %d certificates after the first was retired", len(all))
	}
}

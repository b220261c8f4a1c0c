package provisioning_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	serial := map[string]string{"SerialNumber": "1"}
	const invalid = "InvalidCertificateOwnershipToken"
	made := o.create(home)
	for _, change := range []func(*provisioning.ClaimRequest){
		func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat("c2", 32)) },
		func(r *provisioning.ClaimRequest) { r.Tenant = another },
	} {
		out, ok := o.register(home, made.Token, serial, change)
		rejectedWith(t, out, ok, 400, invalid)
	}
	o.ahead.Store(int64(time.Hour + time.Second))
	out, ok := o.register(home, made.Token, serial)
	rejectedWith(t, out, ok, 400, invalid)
	if !strings.Contains(out.Message, "expired") {
		t.Errorf("message: got %q, want that it expired", out.Message)
	}
	n, err := o.claims.Sweep(context.Background())
	if err != nil || n != 1 {
		t.Errorf("Sweep: got %d, %v; want 1", n, err)
	}
	_, err = o.certificate(home, made.ID)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("the certificate after its token: got %v, want NotFound", err)
	}
	out, ok = o.register(home, made.Token, serial)
	rejectedWith(t, out, ok, 400, invalid)
}

func TestTheSweepKeepsWhatWasTakenUp(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{AnyClaim: true})
	activated, attached, registered, young := o.create(home), o.create(home), o.create(home), o.create(another)
	_, ok := o.register(home, registered.Token, map[string]string{"SerialNumber": "1"}, func(r *provisioning.ClaimRequest) {
		r.Claim = imprint.CertificateID(strings.Repeat("c2", 32)) // AnyClaim
	})
	if !ok {
		t.Error("another claim's token was rejected, and AnyClaim allows it")
	}
	update(t, o.store, func(tx imprint.Tx) error {
		cert, err := tx.Certificate(home, imprint.CertificateID(activated.ID))
		if err != nil {
			return err
		}
		cert.Status = imprint.CertificateInactive
		err = tx.PutCertificate(cert)
		if err != nil {
			return err
		}
		err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "t", Certificate: imprint.CertificateID(attached.ID)})
		if err != nil {
			return err
		}
		pending, err := tx.PendingCertificate(another, imprint.CertificateID(young.ID))
		if err != nil {
			return err
		}
		pending.ExpiresAt = pending.ExpiresAt.Add(time.Hour)
		return tx.PutPendingCertificate(pending)
	})
	for range 300 { // more than one batch
		o.create(home)
	}
	o.ahead.Store(int64(time.Hour + time.Minute))
	n, err := o.claims.Sweep(context.Background())
	if err != nil || n != 300 {
		t.Errorf("Sweep: got %d, %v; want 300", n, err)
	}
	for tenant, ids := range map[imprint.Tenant][]string{home: {activated.ID, attached.ID, registered.ID}, another: {young.ID}} {
		for _, id := range ids {
			_, err = o.certificate(tenant, id)
			if err != nil {
				t.Errorf("certificate that was taken up: %v", err)
			}
		}
	}
}

func TestAFailedCommitRegistersNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	made := o.create(home)
	o.failing.left <- struct{}{}
	out, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
	rejectedWith(t, out, ok, 500, "InternalError")
	if strings.Contains(out.Message, "disk") {
		t.Errorf("the device is told of the server's insides: %q", out.Message)
	}
	if len(o.things(home)) > 0 {
		t.Errorf("things: got %v, want none", o.things(home))
	}
	_, ok = o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
	if !ok {
		t.Error("the token was used up by a registration that failed")
	}
}

// A certificate that is given out takes two commits: that of the intent, before the
// CA key signs, and one that has its row, its token and the record of its signature.
func TestOneCommitHasACertificateAndTheRecordOfItsSignature(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	before := o.failing.commits.Load()
	made := o.create(home)
	if got, want := o.failing.commits.Load()-before, int64(2); got != want {
		t.Errorf("commits: got %d, want %d", got, want)
	}
	if got, want := o.issuances(), []imprint.CertificateID{imprint.CertificateID(made.ID)}; !slices.Equal(got, want) {
		t.Errorf("signatures on record: got %v, want %v", got, want)
	}

	csr, _ := signingRequest(t, "unit-2")
	o.failing.spared.Store(1)
	o.failing.left <- struct{}{}
	out, ok := o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}))
	rejectedWith(t, out, ok, 500, "InternalError")
	if got, want := o.issuances(), []imprint.CertificateID{"", imprint.CertificateID(made.ID)}; !slices.Equal(got, want) {
		t.Errorf("signatures on record after a certificate that couldn't be stored: got %v, want %v", got, want)
	}
}

// issuances gives the certificates of the signatures on record, sorted; "" is that of
// an intent.
func (o *office) issuances() []imprint.CertificateID {
	o.Helper()
	var ids []imprint.CertificateID
	view(o, o.store, func(tx imprint.ReadTx) error {
		all, _, err := tx.Issuances(home, imprint.Page{Limit: 100})
		for _, one := range all {
			ids = append(ids, one.CertificateID)
		}
		return err
	})
	slices.Sort(ids)
	return ids
}

func TestOneTokenMakesOneDeviceHoweverManyAsk(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	made := o.create(home)
	var accepted atomic.Int64
	var all sync.WaitGroup
	payload := []byte(object(t, map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": "1"}}))
	for range 20 {
		all.Go(func() {
			answer := o.claims.Answer(context.Background(), provisioning.ClaimRequest{Tenant: home, Topic: provision, Payload: payload, Claim: claimID, Address: address})
			if strings.HasSuffix(answer.Topic, "/accepted") {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	if got := accepted.Load(); got != 1 {
		t.Errorf("accepted: got %d, want 1", got)
	}
}

func TestEachTenantHasItsOwnRate(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 2, RegisterRate: 1})
	made := o.create(home)
	o.create(home)
	out, ok := o.ask(home, csrTopic, "{}")
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	o.create(another)
	_, ok = o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
	if !ok {
		t.Error("RegisterThing was throttled by CreateCertificateFromCsr")
	}
	o.ahead.Store(int64(time.Second))
	o.create(home)
}

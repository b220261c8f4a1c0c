package pki_test

import (
	"context"
	"crypto"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

func TestTokenMisuse(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyP256)
	other, _ := authority(t, pki.KeyP256)
	prof := profile(t, pki.ProfileConfig{})
	prepare := func() *pki.Token {
		token, err := a.Prepare(t.Context(), tenant, prof, pki.Request{PublicKey: p256(t).Public()})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	refused := func(what string, by *pki.Authority, token *pki.Token) {
		t.Helper()
		before := len(journal.all)
		issued, err := by.Sign(t.Context(), token)
		if got, want := imprint.CodeOf(err), imprint.CodeInternal; got != want || issued != nil {
			t.Errorf("%s: got %v, %q, want nil, %q", what, issued, got, want)
		}
		if len(journal.all) != before {
			t.Errorf("%s: something was recorded", what)
		}
	}
	refused("no token", a, nil)
	refused("a token that Prepare didn't make", a, &pki.Token{})
	refused("another authority's token", other, prepare())

	token := prepare()
	clone := *token
	_, err := a.Sign(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	refused("a token used twice", a, token)
	refused("a copy of a used token", a, &clone)

	tampered := prepare()
	tampered.TBS()[40] ^= 1
	refused("a token whose bytes were changed", a, tampered)

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	token = prepare()
	_, err = a.Sign(cancelled, token)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want context.Canceled", err)
	}
	_, err = a.Sign(t.Context(), token)
	if err != nil {
		t.Errorf("a cancelled Sign used the token up: %v", err)
	}
}

func TestOneTokenSignsOnceHoweverManyTry(t *testing.T) {
	t.Parallel()
	a, _ := authority(t, pki.KeyP256)
	token, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]error, 16)
	for i := range results {
		wg.Go(func() { _, results[i] = a.Sign(t.Context(), token) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("signatures: got %d, want 1", won)
	}
}

// badSigner signs with another key, or not at all.
type badSigner struct {
	crypto.Signer
	err error
}

func (b badSigner) Sign(r io.Reader, d []byte, o crypto.SignerOpts) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Signer.Sign(r, d, o)
}

func TestWrongSignatureNeverLeaves(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyP256)
	for _, s := range []badSigner{{Signer: p256(t)}, {err: errors.New("the key store is gone")}} {
		a.ReplaceSigner(s)
		token, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
		if err != nil {
			t.Fatal(err)
		}
		issued, err := a.Sign(t.Context(), token)
		if err == nil || issued != nil {
			t.Errorf("got %v, %v, want an error alone", issued, err)
		}
	}
	for _, record := range journal.all {
		if record.CertificateID != "" {
			t.Errorf("recorded as signed: %v", record)
		}
	}
}

func TestJournalStandsBeforeAndAfterEachSignature(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyRSA2048)
	issued := issue(t, a, profile(t, pki.ProfileConfig{Name: "claim", Lifetime: time.Hour}), pki.Request{PublicKey: p256(t).Public()})
	if got, want := issued.Certificate.NotAfter, start.Add(time.Hour); !got.Equal(want) {
		t.Errorf("notAfter: got %v, want %v", got, want)
	}
	if len(journal.all) != 2 {
		t.Fatalf("records: got %d, want 2", len(journal.all))
	}
	intent, done := journal.all[0], journal.all[1]
	want := imprint.Issuance{
		ID: intent.ID, Tenant: tenant, Profile: "claim", Serial: pki.SerialHex(issued.Certificate.SerialNumber),
		Subject: "CN=AWS IoT Certificate", TBSHash: pki.SubjectKey(issued.Certificate.RawTBSCertificate), At: start,
		NotBefore: start.Add(-pki.DefaultBackdate), NotAfter: start.Add(time.Hour),
		KeyHash: pki.SubjectKey(issued.Certificate.RawSubjectPublicKeyInfo), KeyReusable: true,
	}
	if diff := cmp.Diff(intent, want); diff != "" {
		t.Errorf("intent (-got +want):\n%s", diff)
	}
	want.CertificateID, want.Certificate = issued.ID, issued.Certificate.Raw
	if diff := cmp.Diff(done, want); diff != "" {
		t.Errorf("completion (-got +want):\n%s", diff)
	}

	journal.fail = errors.New("disk full")
	_, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
	if !errors.Is(err, journal.fail) {
		t.Errorf("Prepare without a journal: got %v, want %v", err, journal.fail)
	}
	journal.fail = nil
	token, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	journal.fail = errors.New("disk full")
	got, err := a.Sign(t.Context(), token)
	if !errors.Is(err, journal.fail) || got != nil {
		t.Errorf("Sign without a journal: got %v, %v, want nil, %v", got, err, journal.fail)
	}
}

func TestSignIntoRecordsWithWhatItsCallerStores(t *testing.T) {
	t.Parallel()
	a, journal := authority(t, pki.KeyP256)
	prepare := func() *pki.Token {
		token, err := a.Prepare(t.Context(), tenant, profile(t, pki.ProfileConfig{}), pki.Request{PublicKey: p256(t).Public()})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	token := prepare()
	var stored imprint.CertificateID
	issued, err := a.SignInto(t.Context(), token, func(signed *pki.Issued, record func(imprint.Tx) error) error {
		stored = signed.ID
		return record(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := journal.all[len(journal.all)-1].CertificateID, issued.ID; got != want || stored != want {
		t.Errorf("recorded %s, stored %s, want %s", got, stored, want)
	}
	_, err = a.Sign(t.Context(), token)
	if got, want := imprint.CodeOf(err), imprint.CodeInternal; got != want {
		t.Errorf("the token again: got %q, want %q", got, want)
	}

	before := len(journal.all)
	full := errors.New("disk full")
	for _, c := range []struct {
		what  string
		store func(*pki.Issued, func(imprint.Tx) error) error
		check func(error) bool
	}{
		{"a caller that doesn't record", func(*pki.Issued, func(imprint.Tx) error) error { return nil },
			func(err error) bool { return imprint.CodeOf(err) == imprint.CodeInternal }},
		{"a caller that fails", func(*pki.Issued, func(imprint.Tx) error) error { return full },
			func(err error) bool { return errors.Is(err, full) }},
		{"a journal that fails", func(_ *pki.Issued, record func(imprint.Tx) error) error {
			journal.fail = full
			defer func() { journal.fail = nil }()
			return record(nil)
		}, func(err error) bool { return errors.Is(err, full) }},
	} {
		token := prepare()
		before++ // its intent
		issued, err := a.SignInto(t.Context(), token, c.store)
		if issued != nil || !c.check(err) {
			t.Errorf("%s: got %v, %v, want an error alone", c.what, issued, err)
		}
		if len(journal.all) != before {
			t.Errorf("%s: it was recorded as signed", c.what)
		}
	}
}

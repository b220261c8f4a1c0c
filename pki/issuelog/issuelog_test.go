package issuelog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

var tenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

// issuances is a store of issuances alone; all else of the interface panics.
type issuances struct {
	imprint.Store
	rows    map[string]imprint.Issuance
	failure error
}

type tx struct {
	imprint.Tx
	rows map[string]imprint.Issuance
}

func (s *issuances) Update(_ context.Context, fn func(imprint.Tx) error) error {
	if s.failure != nil {
		return s.failure
	}
	for run := range 2 { // the contract allows fn to run more than once
		x := &tx{rows: maps.Clone(s.rows)}
		err := fn(x)
		if err != nil {
			return err
		}
		if run == 1 {
			s.rows = x.rows
		}
	}
	return nil
}

func (s *issuances) View(_ context.Context, fn func(imprint.ReadTx) error) error {
	if s.failure != nil {
		return s.failure
	}
	return fn(&tx{rows: s.rows})
}

func (x *tx) Issuance(id string) (imprint.Issuance, error) {
	i, ok := x.rows[id]
	if !ok {
		return i, imprint.Errorf(imprint.CodeNotFound, "no issuance %s", id)
	}
	return i, nil
}

func (x *tx) PutIssuance(i imprint.Issuance) error {
	x.rows[i.ID] = i
	return nil
}

func (x *tx) AddIssuance(i imprint.Issuance) (bool, error) {
	_, present := x.rows[i.ID]
	if !present {
		x.rows[i.ID] = i
	}
	return !present, nil
}

func (x *tx) CompleteIssuance(i imprint.Issuance) (bool, error) {
	present, ok := x.rows[i.ID]
	if !ok || present.Tenant != i.Tenant || present.Serial != i.Serial || present.TBSHash != i.TBSHash || present.CertificateID != "" {
		return false, nil
	}
	present.CertificateID, present.Certificate = i.CertificateID, i.Certificate
	x.rows[i.ID] = present
	return true, nil
}

func (x *tx) Issuances(t imprint.Tenant, _ imprint.Page) ([]imprint.Issuance, string, error) {
	var list []imprint.Issuance
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(x.rows))) {
		if x.rows[id].Tenant == t {
			list = append(list, x.rows[id])
		}
	}
	return list, "next", nil
}

func (x *tx) KeyIssued(t imprint.Tenant, keyHash string) (bool, error) {
	for _, i := range x.rows {
		if i.Tenant == t && i.KeyHash == keyHash && i.CertificateID != "" {
			return true, nil
		}
	}
	return false, nil
}

func (x *tx) IssuancesWithKey(t imprint.Tenant, q imprint.KeyQuery, limit int) ([]imprint.Issuance, error) {
	var list []imprint.Issuance
	for _, id := range slices.Sorted(maps.Keys(x.rows)) {
		i := x.rows[id]
		if i.Tenant == t && i.KeyHash == q.KeyHash && i.CertificateID != "" && i.CA == q.CA && len(list) < limit {
			list = append(list, i)
		}
	}
	return list, nil
}

func (x *tx) AuthorityOfKey(imprint.Tenant, string) (imprint.CertificateAuthority, error) {
	return imprint.CertificateAuthority{}, imprint.Errorf(imprint.CodeNotFound, "there are none")
}

func (x *tx) AuthorityCertificatesWithKey(imprint.AccountID, string) ([]imprint.AuthorityCertificate, error) {
	return nil, nil
}

func (x *tx) LostKey(imprint.AccountID, string) (imprint.AdoptedRevocation, error) {
	return imprint.AdoptedRevocation{}, imprint.Errorf(imprint.CodeNotFound, "there are none")
}

func newStore() *issuances { return &issuances{rows: map[string]imprint.Issuance{}} }

func TestRecordCompletesAndNeverOverwrites(t *testing.T) {
	t.Parallel()
	intent := imprint.Issuance{ID: "1", Tenant: tenant, Serial: "ab", TBSHash: "cd"}
	done := intent
	done.CertificateID = "ef"
	with := func(change func(*imprint.Issuance)) imprint.Issuance {
		i := done
		change(&i)
		return i
	}
	tests := []struct {
		name          string
		present, next imprint.Issuance
		want          imprint.Code
	}{
		{"intent twice", intent, intent, ""},
		{"completion", intent, done, ""},
		{"completion twice", done, done, ""},
		{"another certificate", done, with(func(i *imprint.Issuance) { i.CertificateID = "00" }), imprint.CodeInternal},
		{"back to an intent", done, intent, imprint.CodeInternal},
		{"other bytes", intent, with(func(i *imprint.Issuance) { i.TBSHash = "00" }), imprint.CodeInternal},
		{"other serial", intent, with(func(i *imprint.Issuance) { i.Serial = "00" }), imprint.CodeInternal},
		{"other tenant", intent, with(func(i *imprint.Issuance) { i.Tenant.Region = "eu-west-1" }), imprint.CodeInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := newStore()
			log := issuelog.New(store)
			err := log.Record(t.Context(), tt.present)
			if err != nil {
				t.Fatal(err)
			}
			err = log.Record(t.Context(), tt.next)
			if got := imprint.CodeOf(err); got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
			want := tt.next
			if tt.want != "" {
				want = tt.present
			}
			if diff := cmp.Diff(store.rows["1"], want); diff != "" {
				t.Errorf("stored (-got +want):\n%s", diff)
			}
		})
	}
}

func TestStoreFailuresReachTheCaller(t *testing.T) {
	t.Parallel()
	store := newStore()
	store.failure = errors.New("disk full")
	err := issuelog.New(store).Record(t.Context(), imprint.Issuance{ID: "1"})
	if !errors.Is(err, store.failure) {
		t.Errorf("Record: got %v, want %v", err, store.failure)
	}
	_, _, err = issuelog.New(store).Unfinished(t.Context(), tenant, imprint.Page{Limit: 10})
	if !errors.Is(err, store.failure) {
		t.Errorf("Unfinished: got %v, want %v", err, store.failure)
	}
}

func TestAuthorityLeavesAnUnfinishedIntentWhenItDiesBetween(t *testing.T) {
	t.Parallel()
	store := newStore()
	log := issuelog.New(store)
	key, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(make([]byte, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { now = now.Add(time.Second); return now }
	a, err := pki.OpenAuthority(t.Context(), t.TempDir(), pki.AuthorityConfig{Sealer: seal.New(key), Journal: log, Clock: clock, Key: pki.KeyP256})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var tokens []*pki.Token
	for range 3 {
		device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		token, err := a.Prepare(t.Context(), tenant, profile, pki.Request{PublicKey: device.Public()})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	signed := map[imprint.CertificateID]bool{}
	for _, i := range []int{0, 2} {
		issued, err := a.Sign(t.Context(), tokens[i])
		if err != nil {
			t.Fatal(err)
		}
		signed[issued.ID] = true
	}
	open, next, err := log.Unfinished(t.Context(), tenant, imprint.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(open) != 1 || next != "next" {
		t.Fatalf("unfinished: got %v, %q, want one and the store's cursor", open, next)
	}
	ids := slices.Sorted(maps.Keys(store.rows))
	if got, want := open[0].ID, ids[1]; got != want {
		t.Errorf("unfinished: got %s, want the second by time, %s", got, want)
	}
	for _, id := range []string{ids[0], ids[2]} {
		if !signed[store.rows[id].CertificateID] {
			t.Errorf("issuance %s: got certificate %q, want one that was signed", id, store.rows[id].CertificateID)
		}
	}
}

// TestNoIntentIsRecordedWithoutRoom ensures that nothing new is begun when what follows the
// record is too far behind, and that what was begun is completed.
func TestNoIntentIsRecordedWithoutRoom(t *testing.T) {
	t.Parallel()
	store := newStore()
	full := errors.New("too many wait")
	var room error
	log := issuelog.New(store).Within(func() error { return room })
	intent := imprint.Issuance{ID: "1", Tenant: tenant, Serial: "ab", TBSHash: "cd"}
	err := log.Record(t.Context(), intent)
	if err != nil {
		t.Fatal(err)
	}
	room = full
	err = log.Record(t.Context(), imprint.Issuance{ID: "2", Tenant: tenant, Serial: "ef", TBSHash: "01"})
	if !errors.Is(err, full) || len(store.rows) != 1 {
		t.Errorf("an intent without room: got %v and %d records", err, len(store.rows))
	}
	intent.CertificateID = "ef"
	err = log.Record(t.Context(), intent)
	if err != nil || store.rows["1"].CertificateID != "ef" {
		t.Errorf("what was begun: got %v", err)
	}
}

package ca_test

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/keys"
)

// directoryKeys are sealed files in a directory, for every tenant. Signing fails while
// broken says so.
type directoryKeys struct {
	*keys.Named
	broken error
}

func (k *directoryKeys) Check(tenant imprint.Tenant, name string) error {
	return k.Named.Check("", name)
}

func (k *directoryKeys) Open(ctx context.Context, name string) (pki.Signer, error) {
	signer, err := k.Named.Open(ctx, name)
	return breaking{signer, k}, err
}

func (k *directoryKeys) Generate(ctx context.Context, name string, kind pki.KeyKind) (string, pki.Signer, error) {
	signer, made, err := k.Named.Generate(ctx, name, keys.Kind(kind))
	return made, breaking{signer, k}, err
}

func (k *directoryKeys) Stores(imprint.Tenant) []ca.KeyStore { return nil }

func (k *directoryKeys) List(ctx context.Context, _ imprint.Tenant, store string) ([]ca.StoredKey, error) {
	found, err := k.Named.List(ctx, "", store)
	var all []ca.StoredKey
	for _, one := range found {
		all = append(all, ca.StoredKey{Name: one.Name, Public: one.Public})
	}
	return all, err
}

// breaking is a key of directoryKeys.
type breaking struct {
	pki.Signer
	keys *directoryKeys
}

func (b breaking) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if b.keys.broken != nil {
		return nil, b.keys.broken
	}
	return b.Signer.Sign(ctx, digest, opts)
}

// withKeys opens the office's engine with a store of keys that is called disk.
func (o *office) withKeys() *directoryKeys {
	o.t.Helper()
	dir := filepath.Join(o.t.TempDir(), "keys") + "/"
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		o.t.Fatal(err)
	}
	master, err := seal.LoadOrCreateMasterKey(filepath.Join(o.t.TempDir(), "master.key"))
	if err != nil {
		o.t.Fatal(err)
	}
	uri, err := keys.ParseURI("file:" + dir)
	if err != nil {
		o.t.Fatal(err)
	}
	store := keys.NewStore(keys.Config{Sealer: seal.New(master)})
	named, err := keys.NewNamed(store, nil, keys.Place{Name: "disk", URI: uri})
	if err != nil {
		o.t.Fatal(err)
	}
	profiles, err := pki.NewProfiles()
	if err != nil {
		o.t.Fatal(err)
	}
	k := &directoryKeys{Named: named}
	o.Engine = ca.New(ca.Options{Store: o.store, Sealer: seal.New(master), Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, Keys: k,
		BaseURL: "http://pki.example.com", Logger: slog.New(slog.DiscardHandler)})
	o.t.Cleanup(func() {
		o.Close()
		err := errors.Join(named.Close(), store.Close())
		if err != nil {
			o.t.Error(err)
		}
	})
	return k
}

// TestAKeyInAStoreIsOneAuthoritys: who knows the certificate of another tenant's CA, which
// is public, and the name of its key, can't sign with it.
func TestAKeyInAStoreIsOneAuthoritys(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.withKeys()
	root, err := o.Create(t.Context(), home, ca.Spec{Name: "root", Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", KeyURI: "disk:root", Kind: pki.KeyP384})
	if err != nil || root.Key != "disk:root" || root.SigningAlgorithm != "SHA384WITHECDSA" {
		t.Fatalf("got %+v, %v", root, err)
	}
	_, err = o.Adopt(t.Context(), other, ca.Spec{KeyURI: "disk:root"}, root.Certificate, "", nil)
	refused(t, "another tenant's key", err, imprint.CodeAlreadyExists, "is that of another certificate authority")
	_, err = o.Create(t.Context(), other, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "x"), KeyURI: "disk:root", KeyIsThere: true})
	refused(t, "another tenant's key for a new CA", err, imprint.CodeAlreadyExists, "is that of another certificate authority")
	_, err = o.Adopt(t.Context(), other, ca.Spec{}, root.Certificate, "", nil)
	if err != nil {
		t.Errorf("without the key: %v", err)
	}
	_, err = o.Adopt(t.Context(), home, ca.Spec{KeyURI: "disk:nothing"}, root.Certificate, "", nil)
	refused(t, "no such key", err, imprint.CodeNotFound, "")
	_, err = o.Adopt(t.Context(), home, ca.Spec{KeyURI: "/etc/key"}, root.Certificate, "", nil)
	refused(t, "a path", err, imprint.CodeInvalidRequest, "names no key")
	_, err = o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "x"), KeyIsThere: true})
	refused(t, "a key that isn't named", err, imprint.CodeInvalidRequest, "no key is named")
	line, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, Parent: root.ID, RawSubject: subject(t, "line"), Profile: "intermediate", KeyURI: "disk:line"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Adopt(t.Context(), home, ca.Spec{KeyURI: "disk:line"}, root.Certificate, "", nil)
	refused(t, "another key than the certificate's", err, imprint.CodeCertificateValidation, "isn't that of the certificate")
	// A deleted one has its key until it can't be restored; then the key may be adopted.
	for _, id := range []imprint.AuthorityID{line.ID, root.ID} {
		_, err = o.Update(t.Context(), home, id, ca.Edit{Status: imprint.AuthorityDisabled})
		if err == nil {
			_, err = o.Delete(t.Context(), home, id, 7)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "x"), KeyURI: "disk:line", KeyIsThere: true})
	refused(t, "the key of one that can be restored", err, imprint.CodeAlreadyExists, "is that of certificate authority")
	o.later(8 * 24 * time.Hour)
	_, err = o.Purge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Adopt(t.Context(), home, ca.Spec{KeyURI: "disk:line"}, line.Certificate, line.Chain, nil)
	if err != nil {
		t.Errorf("a key that nobody has: %v", err)
	}
}

// TestACreationThatFailsCanBeRepeated: its name is free again, and the key that was made is
// told, listed as nobody's, and can be used.
func TestACreationThatFailsCanBeRepeated(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	k := o.withKeys()
	spec := ca.Spec{Name: "root", Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", KeyURI: "disk:root"}
	for what, wrong := range map[string]func(*ca.Spec){
		"no such profile":             func(s *ca.Spec) { s.Profile = "nothing" },
		"a profile for another thing": func(s *ca.Spec) { s.Profile = "operational" },
		"no such parent": func(s *ca.Spec) {
			s.Type, s.Parent, s.Profile = imprint.AuthoritySubordinate, imprint.AuthorityID("00000000-0000-4000-8000-000000000000"), "intermediate"
		},
	} {
		bad := spec
		wrong(&bad)
		_, err := o.Create(t.Context(), home, bad)
		if err == nil {
			t.Errorf("%s: it was made", what)
		}
	}
	if found, err := o.StoredKeys(t.Context(), home, "disk"); err != nil || len(found) != 0 {
		t.Fatalf("what can't come to an end made the keys %v, %v", found, err)
	}
	k.broken = imprint.Errorf(imprint.CodeKeyUnavailable, "the module is gone")
	_, err := o.Create(t.Context(), home, spec)
	refused(t, "a module that goes away", err, imprint.CodeKeyUnavailable, "the module is gone (the key disk:root was made")
	if !strings.Contains(imprint.HintOf(err), "--existing-key") {
		t.Errorf("the hint is %q", imprint.HintOf(err))
	}
	k.broken = nil
	late := spec
	late.NotAfter, late.KeyIsThere = now.AddDate(40, 0, 0), true
	_, err = o.Create(t.Context(), home, late)
	if err == nil {
		t.Fatal("a root of 40 years was made by a profile of 30")
	}
	found, err := o.StoredKeys(t.Context(), home, "disk")
	if err != nil || len(found) != 1 || found[0].Used || found[0].Name != "disk:root" {
		t.Fatalf("got the keys %+v, %v", found, err)
	}
	spec.KeyIsThere = true
	root, err := o.Create(t.Context(), home, spec)
	if err != nil || root.Status != imprint.AuthorityActive {
		t.Fatalf("the second try: %s, %v", root.Status, err)
	}
	found, err = o.StoredKeys(t.Context(), home, "disk")
	if err != nil || !found[0].Used || found[0].By != root.ID {
		t.Errorf("got the keys %+v, %v", found, err)
	}
	found, err = o.StoredKeys(t.Context(), other, "disk")
	if err != nil || !found[0].Used || found[0].By != "" {
		t.Errorf("another tenant sees %+v, %v", found, err)
	}
}

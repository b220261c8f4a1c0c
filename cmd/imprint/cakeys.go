package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/keys"
)

// KeyStoreConfig are the settings of `imprint serve` for keys of certificate authorities
// that aren't in its registry.
type KeyStoreConfig struct {
	// CAKeyStores are places where CA keys may be, each NAME=URI: PKCS#11 tokens, TPMs,
	// directories, AWS KMS. The keys there are the first account's, or those of the
	// account in NAME@ACCOUNT=URI. A URI has no PIN but says where it is:
	// pin-source=file:/PATH or pin-source=env:IMPRINT_NAME. Empty: none.
	CAKeyStores []string `koanf:"ca-key-store"`
	// CAKeyTimeout bounds each signature of such a key; a PKCS#11 module that is silent
	// for so long is ended and started again. Default 10s.
	CAKeyTimeout time.Duration `koanf:"ca-key-timeout"`
}

func addKeyStoreFlags(f *pflag.FlagSet) {
	f.StringSlice("ca-key-store", nil, "place of CA keys, NAME=URI or NAME@ACCOUNT=URI: a PKCS#11 token, a TPM, a directory, AWS KMS (may be repeated)")
	f.Duration("ca-key-timeout", 10*time.Second, "bound of a signature by a key in a --ca-key-store")
}

func (c KeyStoreConfig) check() error {
	if c.CAKeyTimeout < 100*time.Millisecond || c.CAKeyTimeout > time.Minute {
		return usageError{fmt.Errorf("ca-key-timeout is %s, and must be between 100ms and 1m", c.CAKeyTimeout)}
	}
	_, err := c.places("000000000000")
	return err
}

// places reads the stores. Errors never repeat what stands behind the name: it may have a
// PIN in it by mistake.
func (c KeyStoreConfig) places(home imprint.AccountID) ([]keys.Place, error) {
	var places []keys.Place
	for n, text := range c.CAKeyStores {
		name, uri, found := strings.Cut(text, "=")
		if !found {
			return nil, usageError{fmt.Errorf("ca-key-store %d isn't of the form NAME=URI", n+1)}
		}
		place := keys.Place{Name: name, Account: home}
		short, account, given := strings.Cut(name, "@")
		var err error
		if given {
			place.Name = short
			place.Account, err = imprint.ParseAccountID(account)
			if err != nil {
				return nil, usageError{fmt.Errorf("ca-key-store %d is for an account that can't be one: %w", n+1, err)}
			}
		}
		place.URI, err = keys.ParseURI(uri)
		if err != nil {
			return nil, usageError{fmt.Errorf("ca-key-store %d: %w", n+1, err)}
		}
		places = append(places, place)
	}
	_, err := keys.NewNamed(nil, nil, places...)
	if err != nil {
		return nil, usageError{fmt.Errorf("ca-key-store: %w", err)}
	}
	return places, nil
}

// openKeyStores makes the key stores that were named; nil: there are none.
func (s *server) openKeyStores() (ca.Keys, error) {
	places, err := s.config.places(s.home.Account)
	if err != nil || len(places) == 0 {
		return nil, err
	}
	store := keys.NewStore(keys.Config{Sealer: s.sealer, Timeout: s.config.CAKeyTimeout})
	named, err := keys.NewNamed(store, s.keyTrouble(), places...)
	if err != nil {
		return nil, err
	}
	s.closeLater(func() {
		err := errors.Join(named.Close(), store.Close())
		if err != nil {
			s.logger.Error("couldn't close the key stores", "error", err)
		}
	})
	return storedKeys{named}, nil
}

// sayAgain is when trouble with a key is logged that was logged before.
const sayAgain = time.Minute

// keyTrouble logs what is wrong with keys, with the paths that callers aren't told; the
// same of one key once in a minute.
func (s *server) keyTrouble() keys.Trouble {
	var mu sync.Mutex
	type words struct {
		text string
		at   time.Time
	}
	said := map[string]words{}
	return func(key string, err error) {
		mu.Lock()
		defer mu.Unlock()
		now := words{err.Error(), s.clock()}
		if before := said[key]; before.text == now.text && now.at.Sub(before.at) < sayAgain {
			return
		}
		if len(said) >= 1000 {
			clear(said)
		}
		said[key] = now
		s.logger.Warn("a key of a certificate authority can't be used", "key", key, "error", err, "hint", imprint.HintOf(err))
	}
}

// storedKeys gives the engine of certificate authorities the named stores.
type storedKeys struct{ named *keys.Named }

func (k storedKeys) Check(tenant imprint.Tenant, name string) error {
	return k.named.Check(tenant.Account, name)
}

func (k storedKeys) Open(ctx context.Context, name string) (pki.Signer, error) {
	return k.named.Open(ctx, name)
}

func (k storedKeys) Generate(ctx context.Context, name string, kind pki.KeyKind) (string, pki.Signer, error) {
	signer, named, err := k.named.Generate(ctx, name, keys.Kind(kind))
	return named, signer, err
}

func (k storedKeys) Stores(tenant imprint.Tenant) []ca.KeyStore {
	var all []ca.KeyStore
	for _, place := range k.named.Places() {
		if place.Account == tenant.Account {
			all = append(all, ca.KeyStore{Name: place.Name, Kind: place.URI.Scheme()})
		}
	}
	return all
}

func (k storedKeys) List(ctx context.Context, tenant imprint.Tenant, store string) ([]ca.StoredKey, error) {
	found, err := k.named.List(ctx, tenant.Account, store)
	var all []ca.StoredKey
	for _, one := range found {
		all = append(all, ca.StoredKey{Name: one.Name, Label: one.Label, Kind: string(one.Kind), Public: one.Public, Extractable: one.Extractable, Problem: one.Problem})
	}
	return all, err
}

func newCAKeys() *cobra.Command {
	return newCACommand("keys [STORE]", "List the key stores, or the keys in one and who has them", cobra.MaximumNArgs(1),
		func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
			if len(args) == 0 {
				return listKeyStores(ctx, c, w, asJSON)
			}
			return listStoredKeys(ctx, c, w, args[0], asJSON)
		})
}

const keyStoresPath = "/imprint/key-stores"

func listKeyStores(ctx context.Context, c *client.Client, w io.Writer, asJSON bool) error {
	var page struct {
		Stores []struct {
			Name string `json:"name"`
			Kind string `json:"kind"`
		} `json:"keyStores"`
	}
	err := c.Call(ctx, "GET", keyStoresPath, nil, &page)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, page.Stores)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, store := range page.Stores {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", store.Name, store.Kind)
	}
	return table.Flush()
}

// storedKeyShown is a key as the API gives it.
type storedKeyShown struct {
	Name        string `json:"name,omitempty"`
	Label       string `json:"label"`
	Kind        string `json:"kind,omitempty"`
	KeyHash     string `json:"keyHash,omitempty"`
	Extractable bool   `json:"extractable"`
	Problem     string `json:"problem,omitempty"`
	Used        bool   `json:"used"`
	Authority   string `json:"authority,omitempty"`
}

func listStoredKeys(ctx context.Context, c *client.Client, w io.Writer, store string, asJSON bool) error {
	var page struct {
		Keys []storedKeyShown `json:"keys"`
	}
	err := c.Call(ctx, "GET", keyStoresPath+"/"+url.PathEscape(store), nil, &page)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, page.Keys)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, key := range page.Keys {
		who := "nobody's"
		switch {
		case key.Authority != "":
			who = "of CA " + key.Authority
		case key.Used:
			who = "of another tenant's CA"
		}
		name := key.Name
		if name == "" {
			name = key.Label
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, key.Kind, who, key.Problem)
	}
	return table.Flush()
}

package authorities

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"time"

	"github.com/imprint-iot/imprint/awsapi"
)

type (
	// KeyStoresInput asks for the stores in which keys may be.
	KeyStoresInput struct{}
	// KeyStoresOutput lists them.
	KeyStoresOutput struct {
		Stores []KeyStore `api:"body keyStores Stores"`
	}
	// StoredKeysInput names a store.
	StoredKeysInput struct {
		Store string `api:"path store KeyStore required"`
	}
	// StoredKeysOutput lists its keys.
	StoredKeysOutput struct {
		Keys []StoredKey `api:"body keys Keys"`
	}
)

// KeyStore is a store that the server's operator named.
type KeyStore struct {
	Name string `api:"body name String"`
	Kind string `api:"body kind String"`
}

// StoredKey is a key in one. Used without an authority means that one of another tenant
// has it.
type StoredKey struct {
	Name        string `api:"body name String"` // as keyAt has it
	Label       string `api:"body label String"`
	Kind        string `api:"body kind String"`
	KeyHash     string `api:"body keyHash String"` // SHA-256 of the SubjectPublicKeyInfo
	Extractable *bool  `api:"body extractable Flag"`
	Problem     string `api:"body problem String"`
	Used        *bool  `api:"body used Flag"`
	Authority   string `api:"body authority String"`
}

func (o Office) keyStores(_ context.Context, caller awsapi.Caller, _ *KeyStoresInput) (*KeyStoresOutput, error) {
	out := &KeyStoresOutput{Stores: []KeyStore{}}
	for _, store := range o.Engine.KeyStores(tenantOf(caller)) {
		out.Stores = append(out.Stores, KeyStore{Name: store.Name, Kind: store.Kind})
	}
	return out, nil
}

// listTime bounds the look into a store, which is shorter than clients wait.
const listTime = 20 * time.Second

func (o Office) storedKeys(ctx context.Context, caller awsapi.Caller, in *StoredKeysInput) (*StoredKeysOutput, error) {
	limited, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	found, err := o.Engine.StoredKeys(limited, tenantOf(caller), in.Store)
	if err != nil {
		return nil, err
	}
	out := &StoredKeysOutput{Keys: []StoredKey{}}
	for _, key := range found {
		one := StoredKey{Name: key.Name, Label: key.Label, Kind: key.Kind, Extractable: &key.Extractable, Problem: key.Problem, Used: &key.Used, Authority: string(key.By)}
		der, err := x509.MarshalPKIXPublicKey(key.Public)
		if err == nil {
			sum := sha256.Sum256(der)
			one.KeyHash = hex.EncodeToString(sum[:])
		}
		out.Keys = append(out.Keys, one)
	}
	return out, nil
}

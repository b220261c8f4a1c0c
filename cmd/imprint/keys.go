package main

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"errors"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// newOperatorKey makes an access key of AWS's shape: an id of 20 characters and
// a secret of 40.
func newOperatorKey() operatorKey {
	var id [10]byte
	var secret [30]byte
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(secret[:])
	return operatorKey{
		ID:     "AKIA" + base32.StdEncoding.EncodeToString(id[:]),
		Secret: base64.StdEncoding.EncodeToString(secret[:]),
	}
}

// newAccessKey is newOperatorKey for those who keep no file of it.
func newAccessKey() (id, secret string) {
	key := newOperatorKey()
	return key.ID, key.Secret
}

// storeKeys finds access keys in the store for the verifier of signatures.
type storeKeys struct{ store imprint.Store }

// AccessKey implements sigv4.KeySource.
func (k storeKeys) AccessKey(ctx context.Context, id string) (sigv4.AccessKey, error) {
	var found imprint.AccessKey
	err := k.store.View(ctx, func(tx imprint.ReadTx) error {
		key, err := tx.AccessKey(id)
		found = key
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return sigv4.AccessKey{}, errors.Join(sigv4.ErrUnknownKey, err)
	}
	if err != nil {
		return sigv4.AccessKey{}, err
	}
	return sigv4.AccessKey{
		ID: found.ID, Secret: found.Secret, Account: string(found.Account),
		PrincipalARN: found.Account.UserARN(imprint.UserName(found.User)),
	}, nil
}

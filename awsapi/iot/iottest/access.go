package iottest

import (
	"context"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// keyPrefix and an account number are an access key id of AWS's length.
const keyPrefix = "AKIATEST"

func secretOf(account string) string { return "secret-access-key-of-account-" + account }

// keySource has one access key for each account.
type keySource struct{}

// AccessKey implements sigv4.KeySource.
func (keySource) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	account, ours := strings.CutPrefix(id, keyPrefix)
	if !ours || len(account) != 12 {
		return sigv4.AccessKey{}, fmt.Errorf("no access key %s: %w", id, sigv4.ErrUnknownKey)
	}
	return sigv4.AccessKey{ID: id, Secret: secretOf(account), Account: account,
		PrincipalARN: "arn:aws:iam::" + account + ":user/tester"}, nil
}

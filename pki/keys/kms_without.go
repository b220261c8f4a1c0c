//go:build !awskms

package keys

import (
	"context"

	"github.com/imprint-iot/imprint"
)

// errNoKMS is what every use of AWS KMS gives in a build without it.
func errNoKMS() error {
	return imprint.Errorf(imprint.CodeNotOffered, "this build of Imprint has no AWS KMS").
		WithHint("Build one that has: go build -tags awskms ./cmd/imprint.")
}

func openKMS(context.Context, URI, Config) (Signer, error) { return nil, errNoKMS() }

func generateKMS(context.Context, URI, Kind, Config) (Signer, URI, error) {
	return nil, URI{}, errNoKMS()
}

func listKMS(context.Context, URI, Config) ([]Info, error) { return nil, errNoKMS() }

//go:build !linux

package keys

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"
)

func openTPMFile(string) (transport.TPMCloser, error) {
	return nil, errors.New("TPM devices are supported on Linux alone; elsewhere a software TPM on a Unix socket works")
}

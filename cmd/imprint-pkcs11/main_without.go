//go:build !pkcs11 || !cgo || windows

// Command imprint-pkcs11 loads a PKCS#11 module for Imprint. This build of it can't: it
// was built without the tag pkcs11 or without cgo. `make pkcs11-helper` builds one that
// can.
package main

import (
	"fmt"
	"os"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

func main() {
	fmt.Fprintln(os.Stderr, "imprint-pkcs11: this build has no PKCS#11; make pkcs11-helper builds one that has (go build -tags pkcs11, with cgo)")
	os.Exit(wire.ExitNotBuilt)
}

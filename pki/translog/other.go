//go:build !unix

package translog

import (
	"context"
	"net/http"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// Log would append to a log of issuances. There is none on this system.
type Log struct{}

// Open refuses: the log needs the file locks of POSIX.
func Open(context.Context, Config) (*Log, error) {
	return nil, imprint.Errorf(imprint.CodeUnavailable, "there is no issuance log on this system").
		WithHint("Run the server on Linux, macOS or BSD, or without the log.")
}

// Close does nothing.
func (*Log) Close(context.Context) error { return nil }

// VerifierKey is empty.
func (*Log) VerifierKey() string { return "" }

// Verifier is nil.
func (*Log) Verifier() *tiles.Verifier { return nil }

// Checkpoint is empty.
func (*Log) Checkpoint() tiles.Checkpoint { return tiles.Checkpoint{} }

// Source is nil.
func (*Log) Source() tiles.Source { return nil }

// Handler answers that nothing is there.
func (*Log) Handler() http.Handler { return http.NotFoundHandler() }

// Counters are all zero.
func (*Log) Counters() Counters { return Counters{} }

// Room always has some.
func (*Log) Room() error { return nil }

// Kick does nothing.
func (*Log) Kick() {}

// Wait refuses.
func (*Log) Wait(context.Context, string) (Receipt, error) {
	return Receipt{}, imprint.Errorf(imprint.CodeUnavailable, "there is no issuance log on this system")
}

// Settle refuses.
func (*Log) Settle(context.Context) error {
	return imprint.Errorf(imprint.CodeUnavailable, "there is no issuance log on this system")
}

// Prove refuses.
func (*Log) Prove(context.Context, Receipt) (tiles.Proof, error) {
	return tiles.Proof{}, imprint.Errorf(imprint.CodeUnavailable, "there is no issuance log on this system")
}

package pki

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"io/fs"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// WriteFunc is how files are written.
type WriteFunc = func(path string, data []byte, perm fs.FileMode) error

// DurableWrites gives the real ones, for tests to wrap.
func DurableWrites() (write, create WriteFunc) {
	files := durableWrites()
	return files.write, files.create
}

// EnsureServerWith is EnsureServer with other ways to write files.
func EnsureServerWith(ctx context.Context, dir string, sealer imprint.Sealer, names Names, clock imprint.Clock, write, create WriteFunc) (*ServerIdentity, error) {
	return ensureServer(ctx, dir, sealer, names, clock, fileWrites{write: write, create: create})
}

// WriteServerOfOneRoot leaves in dir what there was when the P-256 root signed
// both certificates.
func WriteServerOfOneRoot(dir string, sealer imprint.Sealer, names Names, now time.Time) error {
	v, err := openVault(dir, sealer, durableWrites())
	if err != nil {
		return err
	}
	root, err := v.serverRoot(context.Background(), serverRootP256, KeyP256, "Imprint server root", now)
	if err != nil {
		return err
	}
	_, err = v.serverLeaf(serverECDSA, KeyP256, root, names, now)
	if err != nil {
		return err
	}
	_, err = v.serverLeaf(serverRSA, KeyRSA2048, root, names, now)
	return err
}

// OpenAuthorityWith is OpenAuthority with other ways to write files.
func OpenAuthorityWith(ctx context.Context, dir string, config AuthorityConfig, write, create WriteFunc) (*Authority, error) {
	return openAuthority(ctx, dir, config, fileWrites{write: write, create: create})
}

// ReplaceSigner puts another key in the place of the CA's.
func (a *Authority) ReplaceSigner(s crypto.Signer) { a.signer = softSigner{s} }

// Signer gives the CA key, for benchmarks of what it can do at most.
func (a *Authority) Signer() crypto.Signer { return a.signer.(softSigner).Signer }

// TBS gives the bytes that a token stands for; changing them is tampering.
func (t *Token) TBS() []byte { return t.state.tbs }

// Lint runs the linter alone.
func (a *Authority) Lint(der []byte) error { return a.linter.check(der) }

// LintStrictly runs all lints of ZLint that profiles with rules for subjects run.
func LintStrictly(der []byte) error {
	l, err := newLinter(nil)
	if err != nil {
		return err
	}
	return l.check(der)
}

// Draft gives what is linted for a request.
func (a *Authority) Draft(t testing.TB, p *Profile, r Request) *x509.Certificate {
	t.Helper()
	d, err := a.draft(a.clock(), p, r)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(d.der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// LintNames lists the lints that run.
func (a *Authority) LintNames() []string {
	var names []string
	for _, one := range a.linter.lints {
		names = append(names, one.Name)
	}
	return names
}

// SubjectLints lists the lints that are left out by name.
func SubjectLints() []string { return subjectLints }

// NewPoolWithoutWorkers makes a pool that has the keys alone that are put in.
func NewPoolWithoutWorkers(size int) *KeyPool { return newKeyPool(KeyPoolConfig{Size: size}) }

// Put puts a key in, as a worker does.
func (p *KeyPool) Put(key *rsa.PrivateKey) bool { return p.put(key) }

// Awaited says whether somebody waits for a key.
func (p *KeyPool) Awaited() bool { return p.awaited() }

package bench

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// Issuer is a certificate authority under test.
type Issuer interface {
	// Issue makes a certificate for a signing request in PEM, and returns when it is durable.
	Issue(ctx context.Context, csr string) error
	// Logged waits until everything that was issued is in the published log.
	Logged(ctx context.Context) error
	// Count gives how many certificates the registry and the log have.
	Count(ctx context.Context) (registry, log int64, err error)
	Close() error
}

// IssueOptions are what a person can choose for Issue.
type IssueOptions struct {
	Certificates int      // a round of one kind, 1 to MaxDevices
	Concurrency  int      // how many ask at a time, on either side; 1 to MaxConcurrency
	Kinds        []string // of CA keys: IssueKinds; none: all
	CPUProfile   string   // file for a profile of the last issuing round; empty: none
	KeepData     bool
	Messages     io.Writer
}

// IssueKinds are the kinds of CA keys that Issue measures.
func IssueKinds() []string { return []string{"p256", "rsa2048"} }

const (
	issueUnit    = "certificates/s"
	issueCPUUnit = "certificates/CPU-s"
	// issueGoal is the least ratio of certificates issued to those that x509.CreateCertificate
	// alone makes.
	issueGoal = 0.6
)

// Issue measures a certificate authority: signing requests of P-256 keys, each checked,
// prepared, linted, signed, in the record of signatures and in the log, all on disk; against
// x509.CreateCertificate with a key of the same kind, the same extensions and as many callers
// at a time. A round isn't over until the published log has all of its certificates. The
// reference is measured before and after. All is in this process, and so are the CPU times.
func Issue(ctx context.Context, open func(ctx context.Context, dir, kind string) (Issuer, error), opts IssueOptions) ([]Figure, error) {
	if opts.Certificates < 1 || opts.Certificates > MaxDevices || opts.Concurrency < 1 || opts.Concurrency > MaxConcurrency {
		return nil, fmt.Errorf("couldn't run with %d certificates, %d at a time: 1 to %d and 1 to %d are possible", opts.Certificates, opts.Concurrency, MaxDevices, MaxConcurrency)
	}
	if len(opts.Kinds) == 0 {
		opts.Kinds = IssueKinds()
	}
	if opts.Messages == nil {
		opts.Messages = io.Discard
	}
	var figures []Figure
	for _, kind := range opts.Kinds {
		more, err := issueKind(ctx, open, kind, opts)
		if err != nil {
			return nil, fmt.Errorf("couldn't measure a %s CA: %w", kind, err)
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// spent is what a round took.
type spent struct {
	wall, cpu time.Duration
	each      []time.Duration
}

func (s spent) rate(n int) float64   { return perSecond(n, s.wall) }
func (s spent) perCPU(n int) float64 { return perSecond(n, s.cpu) }

func issueKind(ctx context.Context, open func(context.Context, string, string) (Issuer, error), kind string, opts IssueOptions) (figures []Figure, err error) {
	reference, err := newReference(kind)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(opts.Messages, "making %d keys and signing requests\n", opts.Certificates)
	warm := max(1, opts.Certificates/10)
	csrs, keys, err := requests(ctx, opts.Certificates+warm)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "imprint-bench-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make a data directory: %w", err)
	}
	if opts.KeepData {
		_, _ = fmt.Fprintf(opts.Messages, "data directory: %s\n", dir)
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	issuer, err := open(ctx, dir, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, issuer.Close()) }()
	made := 0
	issue := func(ctx context.Context, i int) error { return issuer.Issue(ctx, csrs[i]) }
	alone := func(_ context.Context, i int) error { return reference.sign(keys[i].Public()) }
	round := func(n int, profile string, do func(context.Context, int) error, end func(context.Context) error) (spent, error) {
		from := made
		return measureRound(ctx, n, opts.Concurrency, profile, func(ctx context.Context, i int) error { return do(ctx, from+i) }, end)
	}
	for _, warmUp := range []func(context.Context, int) error{alone, issue} {
		_, err = round(warm, "", warmUp, issuer.Logged)
		if err != nil {
			return nil, fmt.Errorf("couldn't warm up: %w", err)
		}
	}
	made = warm
	before, err := round(opts.Certificates, "", alone, nil)
	if err != nil {
		return nil, err
	}
	issued, err := round(opts.Certificates, opts.CPUProfile, issue, issuer.Logged)
	if err != nil {
		return nil, err
	}
	after, err := round(opts.Certificates, "", alone, nil)
	if err != nil {
		return nil, err
	}
	registry, log, err := issuer.Count(ctx)
	if err != nil {
		return nil, err
	}
	if want := int64(opts.Certificates + warm); registry < want || log != registry {
		return nil, fmt.Errorf("%d certificates were issued, the registry has %d and the log %d", want, registry, log)
	}
	n := opts.Certificates
	label := ", " + kind + " CA"
	return []Figure{
		Plain("x509.CreateCertificate alone"+label+", before", before.rate(n), issueUnit),
		Plain("x509.CreateCertificate alone"+label+", after", after.rate(n), issueUnit),
		AtLeast("certificates issued from CSRs"+label, issued.rate(n), issueUnit, (before.rate(n)+after.rate(n))/2, issueGoal),
		Beside("the same"+label+", by CPU time", issued.perCPU(n), issueCPUUnit, (before.perCPU(n)+after.perCPU(n))/2),
		Plain("CSR to durable certificate"+label+", p50", milliseconds(percentile(issued.each, 50)), "ms"),
		Plain("CSR to durable certificate"+label+", p99", milliseconds(percentile(issued.each, 99)), "ms"),
	}, nil
}

// measureRound does something n times, and what ends the round.
func measureRound(ctx context.Context, n, concurrency int, profile string, do func(context.Context, int) error, end func(context.Context) error) (s spent, err error) {
	runtime.GC() // each round begins with the same
	if profile != "" {
		file, err := os.Create(profile)
		if err != nil {
			return s, fmt.Errorf("couldn't write the profile: %w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		err = pprof.StartCPUProfile(file)
		if err != nil {
			return s, fmt.Errorf("couldn't begin the profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	cpu, err := cpuTime(os.Getpid())
	if err != nil {
		return s, err
	}
	began := time.Now()
	s.each, err = each(ctx, n, concurrency, func(ctx context.Context, i int) (time.Duration, error) {
		began := time.Now()
		err := do(ctx, i)
		return time.Since(began), err
	})
	if err == nil && end != nil {
		err = end(ctx)
	}
	if err != nil {
		return s, err
	}
	s.wall = time.Since(began)
	now, err := cpuTime(os.Getpid())
	s.cpu = now - cpu
	return s, err
}

// requests makes signing requests, each of a key of its own.
func requests(ctx context.Context, n int) ([]string, []*ecdsa.PrivateKey, error) {
	csrs, keys := make([]string, n), make([]*ecdsa.PrivateKey, n)
	_, err := each(ctx, n, runtime.GOMAXPROCS(0), func(_ context.Context, i int) (time.Duration, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return 0, fmt.Errorf("couldn't make a key: %w", err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subjectOf(i)}, key)
		if err != nil {
			return 0, fmt.Errorf("couldn't make a signing request: %w", err)
		}
		csrs[i], keys[i] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), key
		return 0, nil
	})
	return csrs, keys, err
}

func subjectOf(i int) pkix.Name {
	return pkix.Name{Country: []string{"DE"}, Organization: []string{"Acme"}, CommonName: fmt.Sprintf("sensor-%07d", i), SerialNumber: fmt.Sprintf("SN%07d", i)}
}

// reference is a CA that does nothing but sign.
type reference struct {
	ca  *x509.Certificate
	key crypto.Signer
}

func newReference(kind string) (*reference, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		return nil, fmt.Errorf("%q isn't a kind of CA keys that is measured", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't make a CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Imprint bench CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(30, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: make([]byte, sha1.Size),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the reference's CA: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	return &reference{ca: ca, key: key}, err
}

// sign makes a certificate with the extensions that an issuer's have.
func (r *reference) sign(public crypto.PublicKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return fmt.Errorf("couldn't make a serial number: %w", err)
	}
	_, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: subjectOf(1), NotBefore: time.Now(), NotAfter: time.Now().AddDate(2, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, SubjectKeyId: make([]byte, sha1.Size),
	}, r.ca, public, r.key)
	return err
}

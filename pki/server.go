package pki

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// serverLifetime is a day less than the 397 days (398 for Apple's) that TLS
// clients of today put up with in a server certificate.
const serverLifetime = 396 * 24 * time.Hour

// maxNames bounds the names of one server certificate.
const maxNames = 100

const (
	serverRootP256 = "server-root"
	serverRootRSA  = "server-root-rsa"
	serverRoots    = "server-roots" // both certificates, no key
	serverECDSA    = "server-ecdsa"
	serverRSA      = "server-rsa"
)

// Names is a checked set of what clients call the server by.
type Names struct {
	dns []string
	ips []netip.Addr
}

// NewNames checks host names, wildcards whose first label is * (such as
// *.iot.us-east-1.example.com), and IP addresses. localhost, 127.0.0.1 and ::1
// are always among them. The order doesn't matter, and upper case is folded.
// Errors: CodeInvalidRequest.
func NewNames(names ...string) (Names, error) {
	result := Names{
		dns: []string{"localhost"},
		ips: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()},
	}
	for _, name := range names {
		ip, err := netip.ParseAddr(name)
		if err == nil {
			if ip.Zone() != "" {
				return Names{}, imprint.Errorf(imprint.CodeInvalidRequest, "address %q has a zone, which certificates can't hold", imprint.Excerpt(name))
			}
			result.ips = append(result.ips, ip.Unmap())
			continue
		}
		lower := strings.ToLower(strings.TrimSuffix(name, "."))
		if !hostName(lower) {
			return Names{}, imprint.Errorf(imprint.CodeInvalidRequest, "%q isn't a host name, a wildcard such as *.example.com, or an IP address", imprint.Excerpt(name))
		}
		result.dns = append(result.dns, lower)
	}
	slices.Sort(result.dns)
	result.dns = slices.Compact(result.dns)
	slices.SortFunc(result.ips, netip.Addr.Compare)
	result.ips = slices.Compact(result.ips)
	if n := len(result.dns) + len(result.ips); n > maxNames {
		return Names{}, imprint.Errorf(imprint.CodeInvalidRequest, "%d names are too many for one server certificate, at most %d are allowed", n, maxNames)
	}
	return result, nil
}

// hostName follows RFC 1123 section 2.1 for labels; the first may be *.
func hostName(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	if labels[0] == "*" {
		labels = labels[1:]
		if len(labels) == 0 {
			return false
		}
	}
	for _, label := range labels {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// in says whether a certificate has exactly these names.
func (n Names) in(cert *x509.Certificate) bool {
	var ips []netip.Addr
	for _, ip := range cert.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return false
		}
		ips = append(ips, addr.Unmap())
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	dns := slices.Sorted(slices.Values(cert.DNSNames))
	return slices.Equal(dns, n.dns) && slices.Equal(ips, n.ips)
}

// ServerIdentity is what the server shows its clients.
type ServerIdentity struct {
	// ECDSA (P-256) and RSA (2048 bits) are for tls.Config.Certificates, in this
	// order: crypto/tls takes the first that the client can check.
	ECDSA, RSA tls.Certificate
	// Root (P-256) signed ECDSA, RSARoot (RSA, 2048 bits) signed RSA, so that a
	// client that knows only one kind of signature can check all it gets (RFC 5246
	// section 7.4.2, RFC 8446 section 4.4.2.2).
	Root, RSARoot *x509.Certificate
	// RootPath is the PEM file with both roots, the CA bundle of clients.
	RootPath string
	// RenewAt is when EnsureServer should be called again: a third of the
	// lifetime is left then.
	RenewAt time.Time
}

// Certificates gives both certificates in the order of preference.
func (s *ServerIdentity) Certificates() []tls.Certificate {
	return []tls.Certificate{s.ECDSA, s.RSA}
}

// EnsureServer gives the server's TLS certificates from dir. It makes the two
// roots (P-256 and RSA, 20 years) at the first start, and new certificates when
// there are none, when they can't be read, when their root didn't sign them, when
// the names changed, or when less than a third of their lifetime is left;
// otherwise it changes nothing. Call it at every start and at RenewAt.
//
// Each private key is sealed with its certificate in server-root.sealed,
// server-root-rsa.sealed, server-ecdsa.sealed and server-rsa.sealed. The roots
// stand in the clear in server-root.pem (P-256), server-root-rsa.pem and, P-256
// first, both in server-roots.pem. Every file is written whole or not at all, and
// a kill at any moment leaves a state from which the next call continues with the
// same roots.
//
// A directory from when there was the P-256 root alone gets the RSA root beside
// it and a new RSA certificate; the P-256 root and its certificate stay.
//
// Errors with a hint: another master key, a root whose key is gone or damaged,
// an expired root.
func EnsureServer(ctx context.Context, dir string, sealer imprint.Sealer, names Names, clock imprint.Clock) (*ServerIdentity, error) {
	return ensureServer(ctx, dir, sealer, names, clock, durableWrites())
}

func ensureServer(ctx context.Context, dir string, sealer imprint.Sealer, names Names, clock imprint.Clock, files fileWrites) (*ServerIdentity, error) {
	if sealer == nil || clock == nil || len(names.dns) == 0 {
		return nil, errors.New("couldn't make the server's certificates: sealer, names and clock must be given")
	}
	v, err := openVault(dir, sealer, files)
	if err != nil {
		return nil, err
	}
	now := clock().UTC().Truncate(time.Second)
	root, err := v.serverRoot(ctx, serverRootP256, KeyP256, "Imprint server root", now)
	if err != nil {
		return nil, err
	}
	rsaRoot, err := v.serverRoot(ctx, serverRootRSA, KeyRSA2048, "Imprint server root RSA", now)
	if err != nil {
		return nil, err
	}
	// Before the certificates: clients must be able to get a root before they meet
	// what it signed.
	err = v.publish(serverRoots, root.cert, rsaRoot.cert)
	if err != nil {
		return nil, err
	}
	s := &ServerIdentity{Root: root.cert, RSARoot: rsaRoot.cert, RootPath: v.pemPath(serverRoots)}
	for _, leaf := range []struct {
		name string
		kind KeyKind
		root *pair
		to   *tls.Certificate
	}{{serverECDSA, KeyP256, root, &s.ECDSA}, {serverRSA, KeyRSA2048, rsaRoot, &s.RSA}} {
		err = ctx.Err()
		if err != nil {
			return nil, err
		}
		p, err := v.serverLeaf(leaf.name, leaf.kind, leaf.root, names, now)
		if err != nil {
			return nil, err
		}
		*leaf.to = tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
		if at := renewAt(p.cert, leaf.root.cert); s.RenewAt.IsZero() || at.Before(s.RenewAt) {
			s.RenewAt = at
		}
	}
	return s, nil
}

// serverRoot gives a root, made where there is none, and refuses an expired one.
func (v vault) serverRoot(ctx context.Context, name string, kind KeyKind, title string, now time.Time) (*pair, error) {
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	root, err := v.loadOrCreate(name, func() (*pair, error) {
		return newCA(kind, title, now.Add(-caBackdate), now.AddDate(20, 0, 0))
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't open the server's root: %w", err)
	}
	if !now.Before(root.cert.NotAfter) {
		return nil, imprint.Errorf(imprint.CodeCertificateExpired, "the server's root in %s was valid until %s", v.pemPath(name), root.cert.NotAfter.Format(time.RFC3339)).
			WithHint("Check the server's clock. If it is right, move %s and %s away: the next start makes a new root, which all devices that trust this one must be given.", v.pemPath(name), v.sealedPath(name))
	}
	return root, nil
}

// renewAt is when a third of the lifetime is left; the end, for a certificate
// that ends with the root, because a new one would end then, too.
func renewAt(cert, root *x509.Certificate) time.Time {
	if !cert.NotAfter.Before(root.NotAfter) {
		return cert.NotAfter
	}
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

// serverLeaf gives the present certificate or a new one. One that can't be read
// is replaced: the root has been opened, so the master key is right and the file
// is damaged, and nobody depends on this very key.
func (v vault) serverLeaf(name string, kind KeyKind, root *pair, names Names, now time.Time) (*pair, error) {
	p, err := v.load(name)
	if err == nil && usable(p.cert, root.cert, names, now) {
		return p, nil
	}
	p, err = newServerLeaf(kind, root, names, now)
	if err != nil {
		return nil, err
	}
	err = v.replace(name, p)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func usable(cert, root *x509.Certificate, names Names, now time.Time) bool {
	if !names.in(cert) || !now.Before(renewAt(cert, root)) {
		return false
	}
	// A certificate of the future was made while the clock was ahead. When the
	// root is of the future, too, a new one would be no better.
	if now.Before(cert.NotBefore) && !now.Before(root.NotBefore) {
		return false
	}
	return root.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

func newServerLeaf(kind KeyKind, root *pair, names Names, now time.Time) (*pair, error) {
	key, err := NewKey(kind)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	_, keyID, err := encodedKey(key.Public())
	if err != nil {
		return nil, err
	}
	notBefore := now.Add(-caBackdate)
	if notBefore.Before(root.cert.NotBefore) {
		notBefore = root.cert.NotBefore
	}
	notAfter := notBefore.Add(serverLifetime)
	if notAfter.After(root.cert.NotAfter) {
		notAfter = root.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Imprint server"},
		NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, SubjectKeyId: keyID, DNSNames: names.dns,
	}
	if kind == KeyRSA2048 {
		// For TLS 1.2 suites with plain RSA key exchange, where they are enabled.
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, ip := range names.ips {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.cert, key.Public(), root.key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the server's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read back the server's certificate: %w", err)
	}
	return &pair{cert: cert, key: key}, nil
}

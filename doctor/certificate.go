package doctor

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/pki"
)

// endsSoon is how long before its end a certificate is worth a warning.
const endsSoon = 30 * 24 * time.Hour

// maxClientID bounds a client id, in bytes (AWS IoT Core quotas).
const maxClientID = 128

// certificate looks at what the device is, without any network.
func (x *examination) certificate(ctx context.Context) {
	if len(x.chain) == 0 {
		x.pair = nil
		x.skipRest("certificate.usage", "there is no certificate to look at")
		x.checkClientID(ctx)
		return
	}
	at := x.matchKey()
	x.leaf = x.chain[max(at, 0)]
	x.checkChain(max(at, 0))
	x.id = string(pki.CertificateID(x.leaf.Raw))
	x.checkAlgorithm()
	x.checkValidity("certificate.validity", x.opts.Clock(), "this machine's clock")
	x.checkUsage()
	x.checkClientID(ctx)
}

type equaler interface{ Equal(crypto.PublicKey) bool }

// matchKey gives the place of the certificate that the key belongs to, -1 for
// none.
func (x *examination) matchKey() int {
	const name = "certificate.key"
	if x.pair == nil {
		x.skip(name, "there is no key to compare with")
		return -1
	}
	public := x.pair.PrivateKey.(crypto.Signer).Public()
	for n, cert := range x.chain {
		key, ok := cert.PublicKey.(equaler)
		if !ok || !key.Equal(public) {
			continue
		}
		x.ok(name, "the key belongs to %q", pki.SubjectText(cert.RawSubject))
		return n
	}
	x.tell(found(KeyMismatch, "the key of %s (%s, SHA-256 of the public half %s...) isn't that of %q (%s, %s...)", x.opts.Key, describeKey(public), fingerprint(public),
		pki.SubjectText(x.chain[0].RawSubject), describeKey(x.chain[0].PublicKey), fingerprint(x.chain[0].PublicKey)).
		with("Compare: openssl x509 -in %s -noout -pubkey; openssl pkey -in %s -pubout; then use the key that the certificate was made for", word(x.opts.Certificate), word(x.opts.Key)).
		as(name, Failed))
	x.pair = nil
	return -1
}

// checkChain looks at the order, and makes what is sent from it: the leaf first,
// so that the examination can go on.
func (x *examination) checkChain(leaf int) {
	const name = "certificate.chain"
	file := x.chain
	x.chain = ordered(file, leaf)
	if x.pair != nil {
		for _, cert := range x.chain {
			x.pair.Certificate = append(x.pair.Certificate, cert.Raw)
		}
		x.pair.Leaf = x.leaf
	}
	switch broken := firstBreak(file); {
	case leaf != 0:
		x.tell(found(ChainOrder, "the key belongs to certificate number %d of %s, %q, and the first is %q", leaf+1, x.opts.Certificate,
			pki.SubjectText(x.leaf.RawSubject), pki.SubjectText(file[0].RawSubject)).
			with("%s", reorder(x.opts.Certificate, file, x.chain)).as(name, Failed))
	case broken > 0 && firstBreak(x.chain) == 0:
		x.tell(found(ChainOrder, "certificate number %d of %s didn't sign the one in front of it; in another order they are a chain", broken+1, x.opts.Certificate).
			with("%s", reorder(x.opts.Certificate, file, x.chain)).as(name, Failed))
	case broken > 0:
		x.tell(found(ChainBroken, "certificate number %d of %s, %q, didn't sign the one in front of it, which %q issued", broken+1, x.opts.Certificate,
			pki.SubjectText(file[broken].RawSubject), pki.SubjectText(file[broken-1].RawIssuer)).as(name, Warning))
	case len(file) == 1 && (x.opts.NoServerName || x.at.address && x.opts.ServerName == "") && !selfSigned(x.leaf):
		x.tell(found(ChainWithoutCA, "the device sends its own certificate alone, and no server name").as(name, Warning))
	case len(file) == 1:
		x.ok(name, "the device sends its own certificate alone: enough when it is registered, and with a server name for a first connection, too")
	default:
		x.ok(name, "%s, the device's first, each signed by the next", plural(len(file), "certificate"))
	}
}

func selfSigned(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// signed says whether a certificate was signed by another. CheckSignatureFrom
// also wants the issuer to be a CA; here the signature alone counts. One that is
// too weak to be checked is believed: the check of the algorithm refuses it.
func signed(cert, by *x509.Certificate) bool {
	if !bytes.Equal(cert.RawIssuer, by.RawSubject) {
		return false
	}
	err := by.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
	var weak x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &weak)
}

// firstBreak gives the place of the first certificate that didn't sign the one in
// front of it; 0 for none.
func firstBreak(chain []*x509.Certificate) int {
	for n := 1; n < len(chain); n++ {
		if !signed(chain[n-1], chain[n]) {
			return n
		}
	}
	return 0
}

// ordered puts the leaf first, then whoever signed it, and what is left behind.
func ordered(file []*x509.Certificate, leaf int) []*x509.Certificate {
	rest := append([]*x509.Certificate{}, file...)
	chain := []*x509.Certificate{rest[leaf]}
	rest = append(rest[:leaf], rest[leaf+1:]...)
	for grown := true; grown; {
		grown = false
		for n, cert := range rest {
			if signed(chain[len(chain)-1], cert) {
				chain = append(chain, cert)
				rest = append(rest[:n], rest[n+1:]...)
				grown = true
				break
			}
		}
	}
	return append(chain, rest...)
}

// reorder is a command that writes the certificates in another order.
func reorder(path string, from, to []*x509.Certificate) string {
	var order []string
	for _, want := range to {
		for n, cert := range from {
			if cert == want {
				order = append(order, fmt.Sprintf("c[%d]", n+1))
			}
		}
	}
	return fmt.Sprintf(`awk '/BEGIN CERT/{n++} {c[n]=c[n] $0 "\n"} END{printf "%%s", %s}' %s > %s`, strings.Join(order, " "), word(path), word(path+".ordered"))
}

// accepts is the policy for keys of the endpoint.
func (x *examination) accepts() pki.Policy {
	if x.at.aws() {
		return pki.Policy{}
	}
	return pki.DevicePolicy()
}

func (x *examination) checkAlgorithm() {
	const name = "certificate.algorithm"
	refusal := x.accepts().CheckKey(x.leaf)
	if refusal != nil {
		x.tell(found(KeyNotAccepted, "%v", refusal.Err).with("%s", refusal.Hint).as(name, Failed))
		return
	}
	x.ok(name, "%s, signed with %s", describeKey(x.leaf.PublicKey), x.leaf.SignatureAlgorithm)
}

// checkValidity judges the certificate's validity at a time.
func (x *examination) checkValidity(name string, now time.Time, whose string) {
	from, until := stamp(x.leaf.NotBefore), stamp(x.leaf.NotAfter)
	switch {
	case now.After(x.leaf.NotAfter):
		x.tell(found(CertificateExpired, "expired %s ago, at %s, by %s (%s)", span(now.Sub(x.leaf.NotAfter)), until, whose, stamp(now)).
			with("Issue a new certificate; if the clock is wrong: sudo timedatectl set-ntp true").as(name, Failed))
	case now.Before(x.leaf.NotBefore):
		x.tell(found(CertificateNotYet, "valid in %s, from %s on, by %s (%s)", span(x.leaf.NotBefore.Sub(now)), from, whose, stamp(now)).
			with("If the clock is wrong: sudo timedatectl set-ntp true; else wait, or let the CA begin the validity earlier").as(name, Failed))
	case x.leaf.NotAfter.Sub(now) < endsSoon:
		x.tell(found(CertificateEndsSoon, "expires in %s, at %s, by %s", span(x.leaf.NotAfter.Sub(now)), until, whose).as(name, Warning))
	default:
		x.ok(name, "valid from %s until %s, by %s", from, until, whose)
	}
}

func (x *examination) checkUsage() {
	const name = "certificate.usage"
	usages := append([]x509.ExtKeyUsage{}, x.leaf.ExtKeyUsage...)
	client := len(usages) == 0 && len(x.leaf.UnknownExtKeyUsage) == 0
	for _, usage := range usages {
		client = client || usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny
	}
	switch {
	case x.leaf.IsCA:
		x.tell(found(CertificateIsCA, "%q is a CA certificate", pki.SubjectText(x.leaf.RawSubject)).as(name, Warning))
	case !client:
		x.tell(found(UsageNoClientAuth, "extendedKeyUsage is there, without clientAuth").as(name, Warning))
	case x.leaf.KeyUsage != 0 && x.leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		x.tell(found(UsageNoSignature, "keyUsage is there, without digitalSignature").as(name, Warning))
	default:
		x.ok(name, "good for a TLS client")
	}
}

func (x *examination) checkClientID(ctx context.Context) {
	const name = "clientid"
	x.clientID = x.opts.ClientID
	from := "as given"
	if x.clientID == "" && x.leaf != nil && x.opts.ThingOf != nil {
		asking, cancel := context.WithTimeout(ctx, x.opts.Timeout)
		defer cancel()
		x.clientID, from = x.opts.ThingOf(asking, x.id), "the name of the thing that the certificate is attached to"
	}
	if x.clientID == "" && x.leaf != nil {
		x.clientID, from = x.leaf.Subject.CommonName, "the certificate's common name"
	}
	switch {
	case x.clientID == "":
		x.tell(found(ClientIDMissing, "none was given, and there is no common name to take").as(name, Failed))
	case len(x.clientID) > maxClientID:
		x.tell(found(ClientIDInvalid, "the client id has %d bytes, at most %d are allowed", len(x.clientID), maxClientID).as(name, Failed))
	case strings.HasPrefix(x.clientID, "$"):
		x.tell(found(ClientIDInvalid, "the client id %q begins with $", shown(x.clientID)).as(name, Failed))
	case strings.ToValidUTF8(x.clientID, "") != x.clientID || strings.ContainsRune(x.clientID, 0):
		x.tell(found(ClientIDInvalid, "the client id isn't UTF-8").as(name, Failed))
	default:
		x.ok(name, "%q, %s", shown(x.clientID), from)
	}
}

func describeKey(public crypto.PublicKey) string {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return key.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return "a key of another kind"
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// span renders a time for people.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	}
	return plural(int(d.Seconds()), "second")
}

package doctor

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/pki"
)

// amazonRoot matches the roots of AWS IoT Core's endpoints ("Server
// authentication" in its developer guide).
var amazonRoot = regexp.MustCompile(`CN=Amazon Root CA ([1-4])(,|$)`)

const starfieldRoot = "Starfield Services Root Certificate Authority - G2"

// checkServer verifies the server's certificates as a device with these roots
// would.
func (x *examination) checkServer() {
	const name = "tls.server"
	peers := x.main.peers
	now := x.opts.Clock()
	if x.opts.CA != "" && len(x.roots) == 0 {
		x.skip(name, "there is no root to verify it with; the server's certificate is %q, issued by %q", pki.SubjectText(peers[0].RawSubject), pki.SubjectText(peers[0].RawIssuer))
		return
	}
	root, err := x.verify(now)
	if err == nil {
		x.ok(name, "%q, valid until %s, leads to %q", pki.SubjectText(peers[0].RawSubject), stamp(peers[0].NotAfter), pki.SubjectText(root.RawSubject))
		return
	}
	x.tell(x.serverTrouble(err, now).as(name, Failed))
}

// verify gives the root that the server's chain leads to.
func (x *examination) verify(now time.Time) (*x509.Certificate, error) {
	peers := x.main.peers
	opts := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range peers[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if x.opts.CA != "" {
		opts.Roots = x509.NewCertPool()
		for _, cert := range x.roots {
			opts.Roots.AddCert(cert)
		}
	}
	chains, err := peers[0].Verify(opts)
	if err != nil {
		return nil, err
	}
	return chains[0][len(chains[0])-1], nil
}

// serverTrouble says why the server's certificate can't be verified.
func (x *examination) serverTrouble(err error, now time.Time) *finding {
	peers := x.main.peers
	var invalid x509.CertificateInvalidError
	var system x509.SystemRootsError
	switch {
	case errors.As(err, &system):
		return found(ServerRootUnknown, "this machine has no roots, and none were given").with("%s", x.rootFix())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return x.outsideValidity(now)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return found(ServerUnfit, "the certificate %q lacks extendedKeyUsage serverAuth", pki.SubjectText(peers[0].RawSubject))
	case errors.As(err, &invalid):
		return found(ServerUnfit, "the server's certificates can't be used: %s", shown(err.Error()))
	}
	// A chain outside its validity is no chain for x509.Verify: look whether one
	// exists at another time.
	for _, cert := range peers {
		if now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
			_, later := x.verify(peers[0].NotBefore.Add(peers[0].NotAfter.Sub(peers[0].NotBefore) / 2))
			if later == nil {
				return x.outsideValidity(now)
			}
		}
	}
	if x.leaf != nil {
		for _, root := range x.roots {
			if signed(x.leaf, root) {
				return found(RootFileIsDeviceCA, "%s holds %q, which signed the device's certificate; the server's is issued by %q", x.opts.CA,
					pki.SubjectText(root.RawSubject), pki.SubjectText(peers[0].RawIssuer)).with("%s", x.rootFix())
			}
		}
	}
	top := peers[len(peers)-1]
	need := fmt.Sprintf("%q", pki.SubjectText(top.RawIssuer))
	f := found(ServerRootUnknown, "the server sends %s, the last issued by %s", plural(len(peers), "certificate"), need)
	switch {
	case selfSigned(top) && len(peers) == 1:
		f.detail = fmt.Sprintf("the server sends a certificate that signed itself, %s, and it isn't in the file", need)
	case x.sameName(top):
		f.detail += ", and a certificate of that name in the file is another one: it has another key"
	case len(peers) == 1 && x.opts.CA != "":
		f.detail += fmt.Sprintf("; the file holds %s. If that is the right root, the server leaves an intermediate certificate out", subjects(x.roots, 3))
	case x.opts.CA != "":
		f.detail += fmt.Sprintf("; the file holds %s", subjects(x.roots, 3))
	default:
		f.detail += ", which this machine's system doesn't know"
	}
	return f.with("%s", x.rootFix())
}

// sameName says whether the roots have the issuer's name and not its key.
func (x *examination) sameName(top *x509.Certificate) bool {
	for _, root := range x.roots {
		if bytes.Equal(root.RawSubject, top.RawIssuer) && !signed(top, root) {
			return true
		}
	}
	return false
}

// outsideValidity says which of the server's certificates is outside its validity.
func (x *examination) outsideValidity(now time.Time) *finding {
	for _, cert := range append(append([]*x509.Certificate{}, x.main.peers...), x.roots...) {
		switch {
		case now.Before(cert.NotBefore):
			return found(ServerNotYet, "%q is valid in %s, from %s on, by this machine's clock (%s)", pki.SubjectText(cert.RawSubject), span(cert.NotBefore.Sub(now)),
				stamp(cert.NotBefore), stamp(now))
		case now.After(cert.NotAfter):
			return found(ServerExpired, "%q expired %s ago, at %s, by this machine's clock (%s)", pki.SubjectText(cert.RawSubject), span(now.Sub(cert.NotAfter)),
				stamp(cert.NotAfter), stamp(now)).with("%s", x.renewFix())
		}
	}
	return found(ServerExpired, "a certificate above the server's is outside its validity")
}

func (x *examination) renewFix() string {
	if x.at.aws() {
		return "AWS renews its certificates: set the clock: sudo timedatectl set-ntp true"
	}
	return ServerExpired.description().Fix
}

// rootFix says where the right root is.
func (x *examination) rootFix() string {
	names := ""
	for _, cert := range x.main.peers {
		names += pki.SubjectText(cert.RawSubject) + "\n" + pki.SubjectText(cert.RawIssuer) + "\n"
	}
	top := x.main.peers[len(x.main.peers)-1]
	for _, line := range strings.Split(names, "\n") {
		if m := amazonRoot.FindStringSubmatch(line); m != nil {
			file := "AmazonRootCA" + m[1] + ".pem"
			return "curl -O https://www.amazontrust.com/repository/" + file + "; then --ca " + file + ", and the same file on the device"
		}
	}
	switch {
	case strings.Contains(names, starfieldRoot):
		return "curl -O https://www.amazontrust.com/repository/SFSRootCAG2.pem; then --ca SFSRootCAG2.pem, and the same file on the device"
	case x.at.aws():
		return "curl -O https://www.amazontrust.com/repository/AmazonRootCA1.pem; then --ca AmazonRootCA1.pem. A firewall that inspects TLS may stand between."
	case x.opts.Explain != "" || strings.HasPrefix(pki.SubjectText(top.RawIssuer), "CN=Imprint server root"):
		if x.opts.CA == "" {
			return "--ca with pki/server-roots.pem of the server's data directory, which imprint env names as IMPRINT_CA, and the same file on the device"
		}
		return "Give devices the server's roots: pki/server-roots.pem of its data directory, which imprint env names as IMPRINT_CA."
	}
	// What the server shows first is no proof of who it is: a person has to compare.
	return fmt.Sprintf("Ask whoever runs the server for the root %q; what it sends: openssl s_client -connect %s -servername %s -showcerts </dev/null",
		pki.SubjectText(top.RawIssuer), x.at, word(x.at.host))
}

// checkName compares the endpoint's name with the certificate's.
func (x *examination) checkName() {
	const name = "tls.name"
	leaf := x.main.peers[0]
	err := leaf.VerifyHostname(x.at.host)
	if err == nil {
		x.ok(name, "the certificate is for %s", x.at.host)
		return
	}
	names := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	f := found(ServerNameMismatch, "the certificate isn't for %s; it is for %s", x.at.host, shown(strings.Join(names, ", ")))
	switch {
	case len(names) == 0:
		f.detail = "the certificate has no subjectAltName, so it is for no name at all"
		f.with("Issue the server's certificate with subjectAltName = DNS:%s", x.at.host)
	case x.opts.Explain != "" || strings.HasPrefix(pki.SubjectText(leaf.RawIssuer), "CN=Imprint server root"):
		f.with("imprint serve --host %s; or connect to %s", word(x.at.host), word(x.usable(names)))
	default:
		f.with("--endpoint %s", word(net.JoinHostPort(x.usable(names), fmt.Sprint(x.at.port))))
	}
	x.tell(f.as(name, Failed))
}

// usable is a name to connect to.
func (x *examination) usable(names []string) string {
	for _, name := range names {
		if !strings.HasPrefix(name, "*") {
			return shown(name)
		}
	}
	return shown(strings.Replace(names[0], "*", "NAME", 1))
}

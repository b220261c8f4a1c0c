package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownCA issues server certificates as a company's own authority would.
type ownCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	dir  string
}

func newOwnCA(t *testing.T) *ownCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Company root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &ownCA{key: key, cert: cert, dir: t.TempDir()}
	ca.write(t, "root.pem", "CERTIFICATE", der)
	return ca
}

func (ca *ownCA) path(name string) string { return filepath.Join(ca.dir, name) }

// write replaces a file at once, as tools that renew certificates do.
func (ca *ownCA) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	temp := ca.path(name + ".new")
	err := os.WriteFile(temp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = os.Rename(temp, ca.path(name))
	if err != nil {
		t.Fatal(err)
	}
}

// issue gives a server certificate with a serial number and its key.
func (ca *ownCA) issue(t *testing.T, serial int64) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "broker"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err = x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

var serialLine = regexp.MustCompile(`serial=([0-9A-F]+)`)

// shownSerial is the serial number of the certificate that a port shows to
// openssl.
func (s *server) shownSerial(t *testing.T, address string, d *device) string {
	t.Helper()
	run := runTool(t, "", cleanEnv(), "openssl", "s_client", "-connect", address, "-servername", "localhost", "-cert", d.cert, "-key", d.key,
		"-CAfile", s.at().CABundle, "-verify_return_error")
	shown := runTool(t, run.stdout, cleanEnv(), "openssl", "x509", "-noout", "-serial")
	found := serialLine.FindStringSubmatch(shown.stdout)
	if found == nil {
		t.Fatalf("openssl saw no certificate:\n%s%s", run.all(), shown.all())
	}
	return found[1]
}

// Server certificates of one's own are used at both doors, and replaced when
// their files change, or on SIGHUP, while devices stay connected; what is broken
// isn't used.
func TestServerCertificatesAreReplacedWhileDevicesStay(t *testing.T) {
	need(t, "openssl", "mosquitto_sub", "mosquitto_pub")
	t.Parallel()
	ca := newOwnCA(t)
	cert, key := ca.issue(t, 0x11)
	ca.write(t, "server.pem", "CERTIFICATE", cert)
	ca.write(t, "server.key", "PRIVATE KEY", key)
	s := startServer(t, "--tls-certificate", ca.path("server.pem"), "--tls-key", ca.path("server.key"), "--tls-roots", ca.path("root.pem"))
	d := s.line(t, "Replaced certificates").device(t, "stayer", "P-256")
	s.join(t, d)
	live := s.subscribe(t, d, d.name, "d/"+d.name+"/x")
	shows := func(what, serial string) {
		t.Helper()
		for door, address := range map[string]string{"devices": s.device(), "API": strings.TrimPrefix(s.at().APIURL, "https://")} {
			if got := s.shownSerial(t, address, d); got != serial {
				t.Errorf("%s: the door of %s shows certificate %s, want %s", what, door, got, serial)
			}
		}
	}
	shows("at the start", "11")

	second, secondKey := ca.issue(t, 0x22)
	ca.write(t, "server.pem", "CERTIFICATE", second) // its key isn't there
	s.stderr.wait(t, "the refusal", saidTimes("couldn't use the changed server certificates", 1))
	shows("with a key that doesn't fit", "11")

	ca.write(t, "server.key", "PRIVATE KEY", secondKey)
	s.stderr.wait(t, "the replacement", saidTimes("server certificates replaced", 1))
	shows("after both files changed", "22")

	third, thirdKey := ca.issue(t, 0x33)
	ca.write(t, "server.key", "PRIVATE KEY", thirdKey)
	ca.write(t, "server.pem", "CERTIFICATE", third)
	s.hangUp(t)
	s.stderr.wait(t, "the replacement", saidTimes("server certificates replaced", 2))
	shows("after SIGHUP", "33")

	metrics := s.metrics(t)
	for _, want := range []string{"imprint_certificate_reloads_total 2", "imprint_certificate_reloads_failed_total "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	s.publish(t, s.watcher(t), "watcher", "d/"+d.name+"/x")
	live.await(t, "d/"+d.name+"/x", 1)
	if text := live.said.String(); strings.Count(text, "sending CONNECT") != 1 {
		t.Errorf("the live device connected again:\n%s", text)
	}
}

// saidTimes tells whether a text says something as often.
func saidTimes(what string, times int) func(string) bool {
	return func(text string) bool { return strings.Count(text, what) >= times }
}

// hangUp sends SIGHUP.
func (s *server) hangUp(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.cmd.Process.Signal(syscall.SIGHUP)
	if err != nil {
		t.Fatal(err)
	}
}

// metrics is what /metrics shows.
func (s *server) metrics(t *testing.T) string {
	t.Helper()
	response, err := s.httpClient(t).Get(s.at().APIURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

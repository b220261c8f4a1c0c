package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

// pemFiles writes a certificate and its key for openssl.
func pemFiles(t *testing.T, cert tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "device.pem"), filepath.Join(dir, "device.key")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		err = os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// openssl runs s_client against the world and gives what it prints; a refused
// handshake is no error of the run.
func (w *world) openssl(t *testing.T, cert, key string, args ...string) string {
	t.Helper()
	return w.say(t, "", cert, key, args...)
}

// say does the same with something to send; s_client waits for the server to
// close then.
func (w *world) say(t *testing.T, input, cert, key string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args = append([]string{"s_client", "-connect", w.address, "-servername", "localhost", "-cert", cert, "-key", key}, args...)
	if input != "" {
		args = append(args, "-ign_eof")
	}
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("couldn't run openssl: %v", err)
	}
	return string(out)
}

// agreed finds the suite; the version that openssl puts before it is the one
// that the suite was invented for.
var agreed = regexp.MustCompile(`New, \S+, Cipher is (\S+)`)

// Suites of the policies by openssl's names.
var (
	suites13   = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
	suitesBoth = []string{
		"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA",
		"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA",
		"AES128-GCM-SHA256", "AES128-SHA", "AES256-GCM-SHA384", "AES256-SHA",
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA",
		"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA",
	}
	// In AWS's table, and beyond crypto/tls.
	suitesMissing = []string{"ECDHE-RSA-AES256-SHA384", "ECDHE-ECDSA-AES256-SHA384", "AES256-SHA256", "DHE-RSA-AES256-SHA"}
	// In no policy.
	suitesStrange = []string{"ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305", "DHE-RSA-AES128-GCM-SHA256", "AES128-CCM", "CAMELLIA128-SHA", "PSK-AES128-CBC-SHA"}
)

// openssl is offered one suite at a time: each policy takes what AWS's table
// says, as far as crypto/tls can, and nothing else.
func TestEachSecurityPolicyTakesItsSuitesAndNoOthers(t *testing.T) {
	t.Parallel()
	device := selfSigned(ecdsaKey(), "device")
	cert, key := pemFiles(t, device)
	for _, row := range []struct {
		policy       string
		tls12, tls13 []string
	}{
		{"IoTSecurityPolicy_TLS13_1_3_2022_10", nil, suites13},
		{"IoTSecurityPolicy_TLS13_1_2_2022_10", append([]string{"AES128-SHA256"}, suitesBoth...), suites13},
		{"IoTSecurityPolicy_TLS12_1_2_2022_10", append([]string{"AES128-SHA256"}, suitesBoth...), nil},
		{"IoTSecurityPolicy_TLS12_1_0_2016_01", suitesBoth, nil}, // AES128-SHA256 on the HTTPS listener only
		{"IoTSecurityPolicy_TLS12_1_0_2015_01", append([]string{"AES128-SHA256"}, suitesBoth...), nil},
	} {
		t.Run(row.policy, func(t *testing.T) {
			t.Parallel()
			policy, err := gateway.ParseSecurityPolicy(row.policy)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, settings{options: gateway.Options{SecurityPolicy: policy}})
			want, got := map[string]string{}, map[string]string{}
			for _, suite := range row.tls12 {
				want[suite] = "TLSv1.2"
			}
			for _, suite := range row.tls13 {
				want[suite] = "TLSv1.3"
			}
			for _, list := range [][]string{suitesBoth, {"AES128-SHA256"}, suitesMissing, suitesStrange} {
				for _, suite := range list {
					note(got, suite, "TLSv1.2", w.openssl(t, cert, key, "-tls1_2", "-cipher", suite+":@SECLEVEL=0"))
				}
			}
			// The HTTPS listener stands for port 443, too.
			on443 := map[string]string{}
			note(on443, "AES128-SHA256", "TLSv1.2", w.openssl(t, cert, key, "-connect", w.https, "-tls1_2", "-cipher", "AES128-SHA256:@SECLEVEL=0"))
			if taken := on443["AES128-SHA256"] == "TLSv1.2"; taken != (row.tls12 != nil) {
				t.Errorf("AES128-SHA256 on the HTTPS listener: got %v", on443)
			}
			for _, suite := range suites13 {
				note(got, suite, "TLSv1.3", w.openssl(t, cert, key, "-tls1_3", "-ciphersuites", suite))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("agreed suites, -want +got:\n%s", diff)
			}
		})
	}
}

// note keeps what openssl agreed upon, if it did.
func note(got map[string]string, suite, version, out string) {
	match := agreed.FindStringSubmatch(out)
	switch {
	case match == nil, match[1] == "(NONE)":
	case match[1] != suite:
		got[suite] = "agreed on " + match[1]
	default:
		got[suite] = version
	}
}

func TestOldTLSIsRefusedByEachSecurityPolicy(t *testing.T) {
	t.Parallel()
	cert, key := pemFiles(t, selfSigned(ecdsaKey(), "device"))
	for _, name := range gateway.SecurityPolicyNames() {
		policy, err := gateway.ParseSecurityPolicy(name)
		if err != nil || policy.String() != name {
			t.Fatalf("%s: got %s, %v", name, policy, err)
		}
		w := newWorld(t, settings{options: gateway.Options{SecurityPolicy: policy}})
		for _, version := range []string{"-tls1", "-tls1_1"} {
			out := w.openssl(t, cert, key, version, "-cipher", "ALL:@SECLEVEL=0")
			if !strings.Contains(out, "alert protocol version") {
				t.Errorf("%s %s: got %s, want the alert protocol_version", name, version, out)
			}
		}
	}
}

func TestUnknownSecurityPoliciesAreRefused(t *testing.T) {
	t.Parallel()
	_, err := gateway.ParseSecurityPolicy("IoTSecurityPolicy_TLS13_1_4")
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("got %v, want %s", err, imprint.CodeInvalidRequest)
	}
	policy, err := gateway.ParseSecurityPolicy("")
	if err != nil || policy.String() != gateway.DefaultSecurityPolicy {
		t.Errorf("got %s, %v, want the default", policy, err)
	}
}

// openssl keeps a session and resumes it.
func TestOpenSSLResumes(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{tickets: openTickets(t, gateway.TicketOptions{})})
		cert, key := pemFiles(t, selfSigned(ecdsaKey(), "device"))
		file := filepath.Join(t.TempDir(), "session.pem")
		protocol := map[uint16]string{tls.VersionTLS12: "-tls1_2", tls.VersionTLS13: "-tls1_3"}[version]
		// The refusal that answers these bytes comes after the ticket.
		first := w.say(t, "this is no CONNECT", cert, key, protocol, "-sess_out", file)
		if !strings.Contains(first, "New, TLSv1.") {
			t.Fatalf("got %s, want a full handshake", first)
		}
		again := w.say(t, "this is no CONNECT", cert, key, protocol, "-sess_in", file)
		if !strings.Contains(again, "Reused, TLSv1.") {
			t.Errorf("got %s, want a resumed session", again)
		}
		if got := w.gateway.Counters().Resumed; got != 1 {
			t.Errorf("counted %d resumed, want 1", got)
		}
	})
}

package doctor

import (
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"testing"
)

// What is said of AWS's endpoints can't be tried here, where only the loopback
// interface is used: its words are looked at without a network.
func TestAWSEndpointsAreKnown(t *testing.T) {
	t.Parallel()
	rows := []struct {
		endpoint, alpn string
		verdict        Verdict
		code           Code
		offers         []string
		https          []string
	}{
		{"a3qjEXAMPLEffp-ats.iot.eu-west-1.amazonaws.com", "", OK, "", nil, []string{"a3qjexampleffp-ats.iot.eu-west-1.amazonaws.com:443"}},
		{"a3qjEXAMPLEffp-ats.iot.eu-west-1.amazonaws.com:443", "", OK, "", []string{"x-amzn-mqtt-ca"}, []string{"a3qjexampleffp-ats.iot.eu-west-1.amazonaws.com:443"}},
		{"a3qjEXAMPLEffp-ats.iot.cn-north-1.amazonaws.com.cn:443", NoALPN, OK, "", nil, []string{"a3qjexampleffp-ats.iot.cn-north-1.amazonaws.com.cn:443"}},
		{"a3qjEXAMPLEffp.iot.eu-west-1.amazonaws.com:8883", "", Warning, EndpointNotATS, nil, []string{"a3qjexampleffp.iot.eu-west-1.amazonaws.com:443"}},
		{"iot.example.com:8883", "", OK, "", nil, []string{"iot.example.com:8443"}},
		{"iot.example.com:1883", "", Warning, EndpointPort, nil, nil},
		{"iot.example.com:9999", "", OK, "", nil, nil},
	}
	for _, tt := range rows {
		at, err := parseEndpoint(tt.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		x := &examination{opts: Options{ALPN: tt.alpn}.withDefaults(), at: at, report: &Report{}}
		x.checkEndpoint()
		got := x.report.Checks[0]
		if got.Verdict != tt.verdict || got.Code != tt.code {
			t.Errorf("%s: got %+v, want %s %s", tt.endpoint, got, tt.verdict, tt.code)
		}
		if !slices.Equal(x.protocols, tt.offers) {
			t.Errorf("%s: application protocols: got %q, want %q", tt.endpoint, x.protocols, tt.offers)
		}
		if places := x.httpsPlaces(); !slices.Equal(places, tt.https) {
			t.Errorf("%s: HTTPS: got %q, want %q", tt.endpoint, places, tt.https)
		}
	}
}

// The fixes for AWS's endpoints are AWS's commands.
func TestFixesForAWSAreItsCommands(t *testing.T) {
	t.Parallel()
	at, err := parseEndpoint("a3qjEXAMPLEffp-ats.iot.eu-west-1.amazonaws.com")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HTTPS_PROXY": "http://proxy:3128"}
	x := &examination{at: at, id: "abc", clientID: "sensor-17", leaf: &x509.Certificate{}, main: &outcome{}}
	x.opts.Getenv = func(name string) string { return env[name] }
	for fix, want := range map[string]string{
		x.whyFix():                               "aws iot describe-certificate --certificate-id abc",
		x.dialFix(TCPTimeout):                    "--endpoint a3qjexampleffp-ats.iot.eu-west-1.amazonaws.com:443",
		x.dialFix(TCPRefused):                    "HTTPS_PROXY is set",
		x.renewFix():                             "timedatectl",
		notTLS([]byte{0}).code.description().Fix: "8883",
	} {
		if !strings.Contains(fix, want) {
			t.Errorf("got the fix %q, want %q in it", fix, want)
		}
	}
	ed := x.accepts()
	if ed.Ed25519 {
		t.Error("Ed25519 on AWS IoT Core: got accepted, want refused")
	}
}

// A port that is reached over one kind of address alone is told, and used.
func TestAPortOfOneAddressFamilyIsTold(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	port := ln.Addr().(*net.TCPAddr).Port
	x := &examination{opts: Options{}.withDefaults(), at: endpoint{host: "both.example.com", port: port}, report: &Report{}}
	x.connect(t.Context(), []string{"127.0.0.1"}, []string{"::1"})
	got := x.report.Checks[0]
	if got.Verdict != Warning || got.Code != AddressFamilyFails || !strings.Contains(got.Detail, "[::1]") || x.address != ln.Addr().String() {
		t.Errorf("got %+v and the address %s, want a warning about ::1 and %s", got, x.address, ln.Addr())
	}
}

// OpenSSL says that it can't decrypt where a CA that it has, of the issuer's name, has
// another key, if the certificate doesn't name its issuer's key. The device's own key fits, or
// the certificate wouldn't have been sent.
func TestASignatureThatAServerCannotVerifyIsTheCAs(t *testing.T) {
	t.Parallel()
	x := &examination{}
	f := x.alert(alertDecryptError, &outcome{asked: true, sent: true})
	if fix := f.code.description().Fix; f.code != ClientKeyRefused || !strings.Contains(fix, "openssl verify") {
		t.Errorf("got %+v, fix %q", f, fix)
	}
}

// A probe that offers an application protocol beside those of the device says no more than
// the alert where the device has none.
func TestNoProtocolIsNamedWhereNoneIsOffered(t *testing.T) {
	t.Parallel()
	x := &examination{}
	if f := x.alert(alertNoApplicationProtoc, &outcome{}); f.code != ALPNRefused || strings.HasSuffix(f.detail, "speak ") {
		t.Errorf("got %+v", f)
	}
}

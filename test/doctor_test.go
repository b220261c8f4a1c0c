package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/internal/ownport"
)

// finding is one check of `imprint doctor --json`.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Fix     string `json:"fix"`
}

// diagnosis is what `imprint doctor --json` prints.
type diagnosis struct {
	CertificateID string    `json:"certificateId"`
	Healthy       bool      `json:"healthy"`
	Checks        []finding `json:"checks"`
	exit          int
	text          string
}

// doctor runs the doctor. It knows a server only when the arguments name one.
func doctor(t *testing.T, args ...string) diagnosis {
	t.Helper()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	run := runTool(t, "", cleanEnv("IMPRINT_DATA="+nowhere), program, append([]string{"doctor", "--json", "--pace", "1ms"}, args...)...)
	d := diagnosis{exit: run.exit, text: run.stdout}
	err := json.Unmarshal([]byte(run.stdout), &d)
	if err != nil || run.stderr != "" {
		t.Fatalf("imprint doctor %s: exit code %d: %v\n%s", strings.Join(args, " "), run.exit, err, run.all())
	}
	checkKeyStaysSecret(t, args, run.stdout)
	want := 0
	if !d.Healthy {
		want = 3 // the answer is no
	}
	if run.exit != want {
		t.Errorf("exit code: got %d, want %d where healthy is %t", run.exit, want, d.Healthy)
	}
	return d
}

// checkKeyStaysSecret looks for lines of the key's file in what was printed.
func checkKeyStaysSecret(t *testing.T, args []string, printed string) {
	t.Helper()
	at := slices.Index(args, "--key")
	if at < 0 {
		return
	}
	key, err := os.ReadFile(args[at+1])
	if err != nil || !strings.Contains(string(key), "PRIVATE KEY") {
		return
	}
	for line := range strings.Lines(string(key)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "-----") && len(line) > 8 && strings.Contains(printed, line) {
			t.Errorf("the output has a line of the key:\n%s", printed)
		}
	}
}

func (d diagnosis) check(t *testing.T, name string) finding {
	t.Helper()
	for _, c := range d.Checks {
		if c.Check == name {
			return c
		}
	}
	t.Fatalf("there is no check %s:\n%s", name, d.text)
	return finding{}
}

// failing lists what failed.
func (d diagnosis) failing() string {
	var list []string
	for _, c := range d.Checks {
		if c.Verdict == "failed" {
			list = append(list, c.Check+" "+c.Code)
		}
	}
	return strings.Join(list, ", ")
}

// complaint is a row of the table: something that is wrong, and what the doctor
// says.
type complaint struct {
	name string
	// arrange makes it wrong, and gives the doctor's arguments.
	arrange func(t *testing.T) []string

	check, verdict, code string
	says                 string // part of the detail or of the fix; empty: anything
	// healthy: nothing failed, as the row is a warning or a success.
	healthy bool
}

func given(args ...string) func(*testing.T) []string {
	return func(*testing.T) []string { return args }
}

func (d *device) files(more ...string) []string {
	return append([]string{"--cert", d.cert, "--key", d.key}, more...)
}

// clinic is a server and what the rows need.
type clinic struct {
	*bench
	dir     string
	joined1 *device // provisioned
	// watching may do everything, and is registered for connections with a server
	// name alone, as certificates without a CA are.
	watching *device
	ca       *ownCA // of foreign servers
}

func (c *clinic) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.dir, fmt.Sprintf("%d-%s", c.next(), name))
	writeFile(t, path, text)
	return path
}

// at adds the server's data directory.
func (c *clinic) at(args ...string) []string {
	return append([]string{"--data", c.server.dir}, args...)
}

func (c *clinic) of(d *device, more ...string) []string { return c.at(d.files(more...)...) }

// ours are failures on Imprint.
func (c *clinic) ours(t *testing.T) []complaint {
	d := c.joined1
	now := time.Now()
	other := newFactory(t, "Other", "P-256")
	_, closed, _ := net.SplitHostPort(ownport.Address(t))
	https := c.server.at().HTTPSAddress
	return []complaint{
		{"nothing, with publish and subscribe", given(c.of(d, "--subscribe", "d/"+d.name+"/#", "--publish", "d/"+d.name+"/doctor")...),
			"mqtt.receive", "ok", "", "", true},
		{"a first connection", func(t *testing.T) []string { return c.of(c.good.device(t, "newcomer", "P-256")) },
			"mqtt.connect.3", "ok", "FirstConnectionClosed", "has to connect again", true},
		{"a thing whose name isn't the common name", func(t *testing.T) []string {
			d := c.watching
			must(c.sdk(t).CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String("pump-7")}))(t)
			must(c.sdk(t).AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: aws.String("pump-7"), Principal: aws.String(arn + "cert/" + d.id(t))}))(t)
			return c.of(d)
		}, "clientid", "ok", "", `"pump-7"`, true},
		{"MQTT by ALPN", given(c.of(d, "--endpoint", https)...), "tls.alpn", "ok", "", "", true},
		{"no such file", given(c.at("--cert", d.cert+".gone", "--key", d.key)...), "file.certificate", "failed", "FileUnreadable", "ls -l", false},
		{"certificate in DER", func(t *testing.T) []string {
			der := filepath.Join(c.dir, "device.der")
			openssl(t, c.good.dir, "x509", "-in", d.cert, "-outform", "DER", "-out", der)
			return c.at("--cert", der, "--key", d.key)
		}, "file.certificate", "failed", "FileIsDER", "openssl x509 -inform DER", false},
		{"certificate cut off", func(t *testing.T) []string {
			return c.at("--cert", c.file(t, "cut.pem", readFile(t, d.cert)[:200]), "--key", d.key)
		}, "file.certificate", "failed", "PEMDamaged", "", false},
		{"lines of another system", func(t *testing.T) []string {
			return c.at("--cert", c.file(t, "crlf.pem", strings.ReplaceAll(readFile(t, d.cert), "\n", "\r\n")), "--key", d.key)
		}, "file.certificate", "warning", "PEMCRLF", "tr -d", true},
		{"text of openssl -text in front", func(t *testing.T) []string {
			return c.at("--cert", c.file(t, "text.pem", openssl(t, c.good.dir, "x509", "-in", d.cert, "-text")), "--key", d.key)
		}, "file.certificate", "warning", "PEMExtraText", "openssl x509", true},
		{"certificate and key exchanged", given(c.at("--cert", d.key, "--key", d.cert)...), "file.key", "failed", "WrongFile", "exchanged", false},
		{"a signing request", func(t *testing.T) []string {
			asked, csr := c.good.request(t, "asked", "/CN=asked", "P-256")
			return c.at("--cert", csr, "--key", asked.key)
		}, "file.certificate", "failed", "WrongFile", "Let the CA sign it", false},
		{"an encrypted key", func(t *testing.T) []string {
			path := filepath.Join(c.dir, "encrypted.key")
			openssl(t, c.good.dir, "pkey", "-in", d.key, "-aes256", "-passout", "pass:secret", "-out", path)
			return c.at("--cert", d.cert, "--key", path)
		}, "file.key", "failed", "KeyEncrypted", "openssl pkey -in", false},
		{"another device's key", func(t *testing.T) []string {
			return c.at("--cert", d.cert, "--key", c.good.device(t, "another", "P-256").key)
		}, "certificate.key", "failed", "KeyMismatch", "openssl pkey -in", false},
		{"the CA in front of the device", func(t *testing.T) []string {
			return c.at("--cert", c.file(t, "chain.pem", readFile(t, c.good.cert)+readFile(t, d.cert)), "--key", d.key)
		}, "certificate.chain", "failed", "ChainOrder", "awk", false},
		{"certificate expired", func(t *testing.T) []string {
			return c.of(c.good.between(t, "past", now.Add(-48*time.Hour), now.Add(-24*time.Hour)))
		}, "certificate.validity.server", "failed", "CertificateExpired", "", false},
		{"certificate not yet valid", func(t *testing.T) []string {
			return c.of(c.good.between(t, "future", now.Add(24*time.Hour), now.Add(48*time.Hour)))
		}, "certificate.validity", "failed", "CertificateNotYetValid", "", false},
		{"the root of somebody else", given(c.of(d, "--ca", other.cert)...), "tls.server", "failed", "ServerRootUnknown", "server-roots.pem", false},
		{"the device's CA for the server's root", given(c.of(d, "--ca", c.good.cert)...), "tls.server", "failed", "RootFileIsDeviceCA", "server-roots.pem", false},
		{"an address instead of the name", given(c.of(d, "--endpoint", c.device(), "--ca", c.server.at().CABundle)...), "endpoint", "warning", "EndpointIsAddress", "describe-endpoint", true},
		{"a port where nothing listens", given(c.of(d, "--endpoint", "localhost:"+closed)...), "tcp", "failed", "TCPRefused", "", false},
		{"a name that doesn't exist", given(c.of(d, "--endpoint", "imprint.onion:8883")...), "dns", "failed", "NameNotFound", "", false},
		{"a server name that the server doesn't know", given(c.of(d, "--server-name", "other.example.com")...), "tls", "failed", "ServerNameRefused", "--server-name", false},
		{"no server name, and a certificate that needs one", func(t *testing.T) []string {
			return c.of(c.watching, "--server-name", "none")
		}, "tls.servername", "warning", "ServerNameMissing", "mbedtls_ssl_set_hostname", false},
		{"HTTP's port without application protocol", given(c.of(d, "--endpoint", https, "--alpn", "none", "--no-mqtt")...), "tls.alpn", "failed", "ALPNMissing", "x-amzn-mqtt-ca", false},
		{"MQTT on HTTP's port", given(c.of(d, "--endpoint", https, "--alpn", "none", "--mqtt", "3.1.1", "--timeout", "3s")...),
			"mqtt.connect.3", "failed", "ConnectClosed", "--alpn x-amzn-mqtt-ca", false},
		{"an application protocol that nobody speaks", given(c.of(d, "--alpn", "stun.turn")...), "tls.alpn", "failed", "ALPNRefused", "--alpn none", false},
		{"a CA that isn't registered", func(t *testing.T) []string { return c.of(other.device(t, "stranger", "P-256")) },
			"mqtt.connect.3", "failed", "ConnectClosed", "imprint explain", false},
		{"a CA that isn't registered, MQTT 5", func(t *testing.T) []string { return c.of(other.device(t, "stranger-5", "P-256"), "--mqtt", "5") },
			"mqtt.connect.5", "failed", "NotAuthorized", "imprint explain", false},
		{"certificate INACTIVE", func(t *testing.T) []string {
			return c.of(c.joined(types.CertificateStatusInactive)(t), "--mqtt", "5")
		}, "mqtt.connect.5", "failed", "NotAuthorized", "imprint explain", false},
		{"certificate REVOKED", func(t *testing.T) []string {
			return c.of(c.joined(types.CertificateStatusRevoked)(t), "--mqtt", "3.1.1")
		}, "mqtt.connect.3", "failed", "ConnectClosed", "imprint explain", false},
		{"a client id that the policy doesn't allow", given(c.of(d, "--client-id", "somebody-else")...), "mqtt.connect.5", "failed", "ClientIDNotAllowed", "client/somebody-else", false},
		{"a client id that begins with $", given(c.of(d, "--client-id", "$device", "--mqtt", "5")...), "mqtt.connect.5", "failed", "ClientIDRefused", "--client-id", false},
		{"a topic that the policy doesn't allow", given(c.of(d, "--publish", "d/other/x")...), "mqtt.publish", "failed", "PublishRefused", "iot:Publish on topic/d/other/x", false},
		{"a topic that the policy doesn't allow, MQTT 3.1.1", given(c.of(d, "--mqtt", "3.1.1", "--publish", "d/other/x")...), "mqtt.publish", "failed", "PublishRefused", "iot:Publish on topic/d/other/x", false},
		{"a filter that the policy doesn't allow", given(c.of(d, "--subscribe", "d/#")...), "mqtt.subscribe", "failed", "SubscribeRefused", "topicfilter/d/#", false},
		{"subscribed, and not allowed to receive", given(c.of(d, "--subscribe", "mute/#", "--publish", "mute/"+d.name, "--timeout", "3s")...),
			"mqtt.receive", "failed", "MessageNotReceived", "iot:Receive on topic/mute/" + d.name, false},
		{"a topic of the service", given(c.of(c.watching, "--publish", "$aws/x", "--client-id", "watching")...), "mqtt.publish", "failed", "TopicInvalid", "the service's own", false},
		{"a filter of the service", given(c.of(c.watching, "--subscribe", "$SYS/#", "--client-id", "watching")...), "mqtt.subscribe", "failed", "TopicInvalid", "the service's own", false},
		{"a topic with a wildcard", given(c.of(d, "--publish", "d/+/x")...), "mqtt.publish", "failed", "TopicInvalid", "", false},
	}
}

// serverFiles are a server certificate of one's choice and its key.
func (ca *ownCA) serverFiles(t *testing.T, name string, change func(*x509.Certificate)) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	ca.write(t, name+".pem", "CERTIFICATE", der)
	ca.write(t, name+".key", "PRIVATE KEY", pkcs8)
	return ca.path(name + ".pem"), ca.path(name + ".key")
}

// intermediate is a CA below another one, which shares its directory.
func (ca *ownCA) intermediate(t *testing.T) *ownCA {
	t.Helper()
	cert, key := ca.serverFiles(t, "intermediate", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.DNSNames, c.ExtKeyUsage = true, true, nil, nil
	})
	block, _ := pem.Decode([]byte(readFile(t, cert)))
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ = pem.Decode([]byte(readFile(t, key)))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &ownCA{key: private.(*ecdsa.PrivateKey), cert: parsed, dir: ca.dir}
}

var acceptLine = regexp.MustCompile(`ACCEPT 127\.0\.0\.1:(\d+)`)

// sServer runs openssl s_server and gives its address.
func sServer(t *testing.T, args ...string) string {
	t.Helper()
	path := toolPath(t, "openssl")
	cmd := exec.Command(path, append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	heard := background(t, cmd)
	text := heard.wait(t, "openssl s_server to listen", acceptLine.MatchString)
	return "localhost:" + acceptLine.FindStringSubmatch(text)[1]
}

// background starts a server that is killed when the test ends. Its standard
// input stays open.
func background(t *testing.T, cmd *exec.Cmd) *said {
	t.Helper()
	heard, ended := newSaid(), make(chan struct{})
	stdin, writer := io.Pipe()
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Stdin = cleanEnv(), heard, heard, stdin
	err := cmd.Start()
	if err != nil {
		t.Fatalf("couldn't start %s: %v", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = writer.Close()
		<-ended
	})
	return heard
}

// startTLSMosquitto runs mosquitto with further settings and gives its address.
func (c *clinic) startTLSMosquitto(t *testing.T, settings ...string) string {
	t.Helper()
	path := toolPath(t, "mosquitto")
	_, port, _ := net.SplitHostPort(ownport.Address(t))
	config := c.file(t, "mosquitto.conf", "user root\nlistener "+port+" 127.0.0.1\npersistence false\n"+strings.Join(settings, "\n")+"\n")
	heard := background(t, exec.Command(path, "-c", config))
	heard.wait(t, "mosquitto to run", func(text string) bool { return strings.Contains(text, " running") })
	return "localhost:" + port
}

// foreign are failures on openssl's server and on mosquitto.
func (c *clinic) foreign(t *testing.T) []complaint {
	now := time.Now()
	cert, key := c.ca.serverFiles(t, "good", nil)
	root := c.ca.path("root.pem")
	d := c.good.device(t, "abroad", "P-256")
	to := func(endpoint string, more ...string) []string {
		return d.files(append([]string{"--endpoint", endpoint, "--ca", root}, more...)...)
	}
	// look is a row that ends before CONNECT.
	look := func(change func(*x509.Certificate), args ...string) func(*testing.T) []string {
		return func(t *testing.T) []string {
			cert, key := c.ca.serverFiles(t, fmt.Sprintf("server-%d", c.next()), change)
			return to(sServer(t, append([]string{"-cert", cert, "-key", key, "-verify", "1"}, args...)...), "--no-mqtt")
		}
	}
	secured := []string{"cafile " + c.good.cert, "certfile " + cert, "keyfile " + key, "require_certificate true", "allow_anonymous true"}
	broker := func(d *device, more ...string) func(*testing.T) []string {
		return func(t *testing.T) []string {
			return d.files("--endpoint", c.startTLSMosquitto(t, append(secured, more...)...), "--ca", root)
		}
	}
	return []complaint{
		{"a server that is fine", look(nil), "tls.client", "ok", "", "", true},
		{"a server that takes one connection at a time", look(nil), "tls.versions", "ok", "", "TLS 1.2 and TLS 1.3", true},
		{"a server that ignores application protocols", func(t *testing.T) []string { return append(look(nil)(t), "--alpn", "x-amzn-mqtt-ca") },
			"tls.alpn", "warning", "ALPNIgnored", "8883", true},
		{"a server that asks for no certificate", func(t *testing.T) []string {
			return to(sServer(t, "-cert", cert, "-key", key), "--no-mqtt")
		}, "tls.client", "failed", "ClientCertificateNotAsked", "require_certificate", false},
		{"TLS 1.2 alone", look(nil, "-tls1_2"), "tls.versions", "warning", "OneTLSVersion", "", true},
		{"TLS 1.3 alone", look(nil, "-tls1_3"), "tls.versions", "warning", "OneTLSVersion", "", true},
		{"nothing newer than TLS 1.1", look(nil, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "tls", "failed", "TLSVersionRefused", "TLS 1.2", false},
		{"a server certificate that has expired", look(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(-50*time.Hour), now.Add(-49*time.Hour)
		}), "tls.server", "failed", "ServerCertificateExpired", "Renew", false},
		{"a server certificate that isn't valid yet", look(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(49*time.Hour), now.Add(50*time.Hour)
		}), "tls.server", "failed", "ServerCertificateNotYetValid", "timedatectl", false},
		{"a server certificate for another name", look(func(c *x509.Certificate) { c.DNSNames = []string{"broker.example.com"} }),
			"tls.name", "failed", "ServerNameMismatch", "--endpoint broker.example.com:", false},
		{"a server certificate without names", look(func(c *x509.Certificate) { c.DNSNames = nil }),
			"tls.name", "failed", "ServerNameMismatch", "subjectAltName = DNS:localhost", false},
		{"a server certificate for clients", look(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			"tls.server", "failed", "ServerCertificateUnfit", "serverAuth", false},
		{"a server certificate whose intermediate is left out", func(t *testing.T) []string {
			cert, key := c.ca.intermediate(t).serverFiles(t, "below", nil)
			return to(sServer(t, "-cert", cert, "-key", key, "-verify", "1"), "--no-mqtt")
		}, "tls.server", "failed", "ServerRootUnknown", "-showcerts", false},
		{"another certificate without the server name", func(t *testing.T) []string {
			other, otherKey := c.ca.serverFiles(t, "fallback", func(c *x509.Certificate) { c.DNSNames = []string{"fallback"} })
			return to(sServer(t, "-cert", other, "-key", otherKey, "-servername", "localhost", "-cert2", cert, "-key2", key, "-verify", "1"), "--no-mqtt")
		}, "tls.servername", "warning", "ServerNameNeeded", "mbedtls_ssl_set_hostname", true},
		{"a server that wants another name", func(t *testing.T) []string {
			return to(sServer(t, "-cert", cert, "-key", key, "-servername", "elsewhere", "-cert2", cert, "-key2", key, "-servername_fatal"), "--no-mqtt")
		}, "tls", "failed", "ServerNameRefused", "describe-endpoint", false},
		{"a server that doesn't know the device's CA", look(nil, "-CAfile", c.ca.path("root.pem"), "-Verify", "1", "-verify_return_error"),
			"tls.client", "failed", "ClientCARefused", "chain.pem", false},
		{"a web server", func(t *testing.T) []string {
			return to(sServer(t, "-cert", cert, "-key", key, "-Verify", "1", "-www"), "--mqtt", "3.1.1", "--timeout", "3s")
		}, "mqtt.connect.3", "failed", "ConnectUnanswered", "Look at the port", false},
		{"mosquitto, and nothing", broker(d), "mqtt.connect.5", "ok", "", "", true},
		{"mosquitto that doesn't know the CA", broker(newFactory(t, "Unknown to mosquitto", "P-256").device(t, "unknown", "P-256")),
			"tls.client", "failed", "ClientCARefused", "Give the CA to the server", false},
		{"mosquitto with TLS 1.3 alone that doesn't know the CA", broker(newFactory(t, "Unknown, too", "P-256").device(t, "unknown", "P-256"), "tls_version tlsv1.3"),
			"mqtt.connect.3", "failed", "ClientCARefused", "Give the CA to the server", false},
		{"mosquitto and a certificate that isn't for clients", broker(c.with(t, "extendedKeyUsage = serverAuth")),
			"tls.client", "failed", "ClientCertificateRefused", "clientAuth", false},
		{"mosquitto and a certificate that has expired", broker(c.good.between(t, "late", now.Add(-48*time.Hour), now.Add(-24*time.Hour))),
			"tls.client", "failed", "ClientCertificateExpired", "Issue a new one", false},
		{"mosquitto and a certificate on its revocation list", func(t *testing.T) []string {
			gone := c.good.between(t, "gone", now.Add(-time.Hour), now.Add(time.Hour))
			conf := filepath.Join(c.good.dir, "openssl.cnf")
			list := filepath.Join(c.dir, "crl.pem")
			openssl(t, c.good.dir, "ca", "-config", conf, "-cert", c.good.cert, "-keyfile", c.good.key, "-revoke", gone.cert)
			openssl(t, c.good.dir, "ca", "-config", conf, "-cert", c.good.cert, "-keyfile", c.good.key, "-gencrl", "-crldays", "30", "-out", list)
			return broker(gone, "crlfile "+list)(t)
		}, "tls.client", "failed", "ClientCertificateRevoked", "new key", false},
		{"mosquitto that wants a password", broker(d, "allow_anonymous false"), "mqtt.connect.3", "failed", "NotAuthorized", "broker's log", false},
		{"mosquitto whose list denies a topic", func(t *testing.T) []string {
			acl := c.file(t, "acl", "topic read never\n")
			return append(broker(d, "acl_file "+acl)(t), "--publish", "d/x")
		}, "mqtt.publish", "failed", "PublishRefused", "iot:Publish", false},
		{"mosquitto without TLS", func(t *testing.T) []string { return to(c.startTLSMosquitto(t, "allow_anonymous true")) }, "tls", "failed", "NotTLS", "--endpoint localhost:8883", false},
		{"mosquitto without TLS that wants a password", func(t *testing.T) []string { return to(c.startTLSMosquitto(t, "allow_anonymous false")) }, "tls", "failed", "NotTLS", "mosquitto: cafile", false},
	}
}

// with is a device whose certificate has an extension of one's choice.
func (c *clinic) with(t *testing.T, extension string) *device {
	t.Helper()
	d, csr := c.good.request(t, "special", "/CN=special", "P-256")
	openssl(t, c.good.dir, "x509", "-req", "-in", csr, "-CA", c.good.cert, "-CAkey", c.good.key, "-set_serial", randomSerial(),
		"-days", "365", "-sha256", "-extfile", c.file(t, "extension", extension+"\n"), "-out", d.cert)
	return d
}

// Whatever is wrong with a device's files, its network, its TLS or its MQTT, the
// doctor names the step, the kind, and a fix.
func TestTheDoctorNamesTheFailureAndItsFix(t *testing.T) {
	need(t, "openssl", "mosquitto", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	c := &clinic{bench: &bench{server: s, good: s.line(t, "Good")}, dir: t.TempDir(), ca: newOwnCA(t)}
	c.joined1, c.watching = c.joined("")(t), s.watcher(t)
	for _, tt := range append(c.ours(t), c.foreign(t)...) {
		t.Run(tt.name, func(t *testing.T) {
			d := doctor(t, tt.arrange(t)...)
			got := d.check(t, tt.check)
			if got.Verdict != tt.verdict || got.Code != tt.code || !strings.Contains(got.Detail+"\n"+got.Fix, tt.says) {
				t.Errorf("%s: got %+v, want %s %s with %q\nfailed: %s", tt.check, got, tt.verdict, tt.code, tt.says, d.failing())
			}
			if d.Healthy != tt.healthy {
				t.Errorf("healthy: got %t, want %t; failed: %s", d.Healthy, tt.healthy, d.failing())
			}
		})
	}
}

// The doctor publishes nothing and registers nobody unless it has to: what it does
// to a device that is known leaves no trace but attempts.
func TestTheDoctorChangesNothing(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Good")
	d := f.device(t, "stays", "P-256")
	s.join(t, d)
	// A session of the device with a message that waits.
	kept := []string{"-c", "-E"}
	sub := s.trySubscribe(t, d, d.name, kept, "d/stays/#")
	<-sub.done
	w := s.watcher(t)
	if run := s.publish(t, w, "watcher", "d/stays/waits"); run.puback != 0 {
		t.Fatalf("the message that waits: %s", run.all())
	}
	newcomer := f.device(t, "stays-out", "P-256")
	before := s.registry(t)

	got := doctor(t, append(s.clinicArgs(), newcomer.files("--no-mqtt")...)...)
	if !got.Healthy {
		t.Errorf("before CONNECT: failed %s", got.failing())
	}
	got = doctor(t, append(s.clinicArgs(), d.files("--mqtt", "3.1.1", "--subscribe", "d/stays/#")...)...)
	if c := got.check(t, "mqtt.connect.3"); !got.Healthy || !strings.Contains(c.Detail, "stored session") {
		t.Errorf("a device with a stored session: got %+v, failed %s", c, got.failing())
	}
	got = doctor(t, append(s.clinicArgs(), d.files()...)...)
	if c := got.check(t, "mqtt.connect.5"); c.Verdict != "skipped" {
		t.Errorf("a stored session and another version of MQTT: got %+v, want skipped", c)
	}
	if diff := cmp.Diff(before, s.registry(t)); diff != "" {
		t.Errorf("the registry changed (-before +after):\n%s", diff)
	}
	// The message is still there, for the device itself.
	again := s.trySubscribe(t, d, d.name, []string{"-c", "-C", "1"}, "d/stays/#")
	again.said.wait(t, "the message that waited", func(text string) bool { return len(messages(text, "d/stays/waits")) == 1 })
}

// A healthy device that is examined has no failed attempt afterwards: the doctor's
// visits must not lead the reasons of the fleet. The explicit endpoint is that of a
// machine without the data directory, which has no other clock than the devices' door.
func TestTheDoctorLeavesNoFailedAttempts(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	line := s.line(t, "Good")
	d := line.device(t, "healthy", "P-256")
	s.join(t, d)
	s.awaitExplained(t, "healthy", 2) // mosquitto_pub doesn't wait for the end: the doctor would take its connection over
	for _, args := range [][]string{s.clinicArgs(), {"--endpoint", "localhost:" + s.port(), "--ca", s.at().CABundle}} {
		for _, more := range [][]string{nil, {"--no-mqtt"}} {
			if got := doctor(t, append(append(args, d.files()...), more...)...); !got.Healthy {
				t.Fatalf("%q: failed %s", args, got.failing())
			}
		}
	}
	// Nor do those for a device whose key isn't its certificate's.
	other := line.device(t, "other", "P-256")
	for _, args := range [][]string{s.clinicArgs(), {"--endpoint", "localhost:" + s.port(), "--ca", s.at().CABundle}} {
		got := doctor(t, append(args, "--cert", d.cert, "--key", other.key)...)
		if client := got.check(t, "tls.client"); got.Healthy || got.check(t, "tls").Verdict != "ok" || client.Verdict != "skipped" || !strings.Contains(client.Detail, "there is none with its key to give") {
			t.Errorf("with another key: got %s", got.text)
		}
	}
	run := s.imprint(t, "attempts", "--failed", "--json")
	if run.exit != 0 || strings.Contains(run.stdout, `"outcome"`) {
		t.Errorf("got failed attempts after the doctor's visits, want none:\n%s", run.all())
	}
	all := s.imprint(t, "attempts", "--json")
	if !strings.Contains(all.stdout, "DISCONNECT instead of CONNECT") {
		t.Errorf("the visits aren't recorded:\n%s", all.all())
	}
	if n := s.metric(t, "imprint_visits_total"); n < 1 {
		t.Errorf("imprint_visits_total: got %v, want them counted", n)
	}
}

func (s *server) clinicArgs() []string { return []string{"--data", s.dir} }

// A fix that is a command of Imprint's does what it says.
func TestTheDoctorsCommandExplains(t *testing.T) {
	need(t, "openssl", "bash")
	t.Parallel()
	s := startServer(t)
	d := newFactory(t, "Nobody knows", "P-256").device(t, "stranger", "P-256")
	fix := doctor(t, append(s.clinicArgs(), d.files("--mqtt", "5")...)...).check(t, "mqtt.connect.5").Fix
	s.awaitRefusals(t)
	run := runTool(t, "", cleanEnv("PATH="+filepath.Dir(program)+":"+os.Getenv("PATH")), "bash", "-c", fix)
	if run.exit != 0 || !strings.Contains(run.stdout, "CANotRegistered") {
		t.Errorf("%s: got exit code %d, want 0 and CANotRegistered\n%s", fix, run.exit, run.all())
	}
}

// A certificate that was given another policy shows that the doctor stands where
// the device stands: it sees the change at once.
func TestTheDoctorSeesAChangedPolicy(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Good").device(t, "changes", "P-256")
	s.join(t, d)
	args := append(s.clinicArgs(), d.files("--publish", "d/changes/x")...)
	if got := doctor(t, args...); !got.Healthy {
		t.Fatalf("before: failed %s", got.failing())
	}
	must(s.sdk(t).DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: aws.String("devices"), Target: aws.String(arn + "cert/" + d.id(t))}))(t)
	got := doctor(t, args...)
	if c := got.check(t, "mqtt.connect.5"); c.Code != "NotAuthorized" {
		t.Errorf("without a policy: got %+v, want NotAuthorized", c)
	}
}

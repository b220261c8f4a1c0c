package test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// factory is a device maker's CA, made with openssl.
type factory struct {
	dir  string
	cert string // file
	key  string // file
}

// device is a key and a certificate in files.
type device struct {
	name string // common name
	cert string
	key  string
}

// Key kinds, as arguments of openssl req -newkey.
var keyKinds = map[string][]string{
	"P-256":    {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
	"P-384":    {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
	"P-521":    {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"},
	"RSA 2048": {"-newkey", "rsa:2048"},
	"RSA 3072": {"-newkey", "rsa:3072"},
	"Ed25519":  {"-newkey", "ed25519"},
}

// opensslConfig makes openssl independent of the machine's own configuration.
// The section ca serves certificates with a validity of one's choice.
const opensslConfig = `
[req]
distinguished_name = dn
[dn]
[device]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[list]
authorityKeyIdentifier = keyid:always
[ca]
default_ca = line
[line]
database = DIR/index.txt
serial = DIR/serial
unique_subject = no
default_md = sha256
policy = any
email_in_dn = no
[any]
commonName = optional
organizationName = optional
serialNumber = optional
`

func openssl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	run := runTool(t, "", cleanEnv("OPENSSL_CONF="+filepath.Join(dir, "openssl.cnf")), "openssl", args...)
	if run.exit != 0 {
		t.Fatalf("openssl %s: exit code %d\n%s", strings.Join(args, " "), run.exit, run.all())
	}
	return run.stdout
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	err := os.WriteFile(path, []byte(text), 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// newFactory makes a CA valid for ten years.
func newFactory(t *testing.T, name, kind string) *factory {
	t.Helper()
	f := emptyFactory(t)
	args := append([]string{"req", "-x509", "-new", "-nodes", "-sha256", "-days", "3650", "-extensions", "authority",
		"-subj", "/O=Example Devices/CN=" + name, "-keyout", f.key, "-out", f.cert}, keyKinds[kind]...)
	openssl(t, f.dir, args...)
	return f
}

func emptyFactory(t *testing.T) *factory {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "openssl.cnf"), strings.ReplaceAll(opensslConfig, "DIR", dir))
	writeFile(t, filepath.Join(dir, "index.txt"), "")
	return &factory{dir: dir, cert: filepath.Join(dir, "ca.pem"), key: filepath.Join(dir, "ca.key")}
}

// opensslTime is the form of -startdate and -enddate.
func opensslTime(at time.Time) string { return at.UTC().Format("20060102150405Z") }

// newFactoryUntil makes a CA whose validity ends at a given time.
func newFactoryUntil(t *testing.T, name string, end time.Time) *factory {
	t.Helper()
	f := emptyFactory(t)
	csr := filepath.Join(f.dir, "ca.csr")
	openssl(t, f.dir, append([]string{"req", "-new", "-nodes", "-subj", "/O=Example Devices/CN=" + name,
		"-keyout", f.key, "-out", csr}, keyKinds["P-256"]...)...)
	openssl(t, f.dir, "ca", "-config", filepath.Join(f.dir, "openssl.cnf"), "-batch", "-notext", "-selfsign", "-keyfile", f.key, "-rand_serial",
		"-in", csr, "-out", f.cert, "-extensions", "authority", "-outdir", f.dir,
		"-startdate", opensslTime(time.Now().Add(-time.Hour)), "-enddate", opensslTime(end))
	return f
}

// verification makes the certificate that proves the CA's key.
func (f *factory) verification(t *testing.T, code string) string {
	t.Helper()
	return f.make(t, "verification", "/CN="+code, "P-256").cert
}

// make makes a key and a certificate valid for a year.
func (f *factory) make(t *testing.T, name, subject, kind string) *device {
	t.Helper()
	d, csr := f.request(t, name, subject, kind)
	openssl(t, f.dir, "x509", "-req", "-in", csr, "-CA", f.cert, "-CAkey", f.key, "-set_serial", randomSerial(),
		"-days", "365", "-sha256", "-extfile", filepath.Join(f.dir, "openssl.cnf"), "-extensions", "device", "-out", d.cert)
	return d
}

// device makes a device whose subject is its name and serial number.
func (f *factory) device(t *testing.T, name, kind string) *device {
	t.Helper()
	return f.make(t, name, "/CN="+name+"/serialNumber=SN-"+name, kind)
}

// between makes a device whose certificate is valid in a given time.
func (f *factory) between(t *testing.T, name string, start, end time.Time) *device {
	t.Helper()
	d, csr := f.request(t, name, "/CN="+name+"/serialNumber=SN-"+name, "P-256")
	openssl(t, f.dir, "ca", "-config", filepath.Join(f.dir, "openssl.cnf"), "-batch", "-notext", "-cert", f.cert, "-keyfile", f.key, "-rand_serial",
		"-in", csr, "-out", d.cert, "-extensions", "device", "-outdir", f.dir, "-preserveDN",
		"-startdate", opensslTime(start), "-enddate", opensslTime(end))
	return d
}

func (f *factory) request(t *testing.T, name, subject, kind string) (*device, string) {
	t.Helper()
	base := filepath.Join(f.dir, rand.Text())
	d := &device{name: name, cert: base + ".pem", key: base + ".key"}
	csr := base + ".csr"
	openssl(t, f.dir, append([]string{"req", "-new", "-nodes", "-subj", subject, "-keyout", d.key, "-out", csr}, keyKinds[kind]...)...)
	return d, csr
}

// selfSigned makes a device that no CA signed.
func selfSigned(t *testing.T, name string) *device {
	t.Helper()
	f := emptyFactory(t)
	d := &device{name: name, cert: filepath.Join(f.dir, "self.pem"), key: filepath.Join(f.dir, "self.key")}
	openssl(t, f.dir, append([]string{"req", "-x509", "-new", "-nodes", "-sha256", "-days", "365", "-extensions", "device",
		"-subj", "/CN=" + name, "-keyout", d.key, "-out", d.cert}, keyKinds["P-256"]...)...)
	return d
}

func randomSerial() string {
	raw := make([]byte, 16)
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw)
	raw[0] = raw[0]&0x3f | 0x40
	return "0x" + hex.EncodeToString(raw)
}

// id is the certificate's id on AWS IoT Core: the SHA-256 of its DER.
func (d *device) id(t *testing.T) string { return certificateID(t, readFile(t, d.cert)) }

func certificateID(t *testing.T, text string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM block in %q", text)
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

// serial is the X.509 serial number as openssl prints it.
func (d *device) serial(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(strings.TrimSpace(openssl(t, filepath.Dir(d.cert), "x509", "-in", d.cert, "-noout", "-serial")), "serial=")
}

func (d *device) keyPair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(d.cert, d.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

package iot_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/internal/foreign"
)

// caOperator is somebody with openssl and the AWS CLI in a directory.
type caOperator struct {
	*iottest.CLI
	dir, openssl string
}

func newCAOperator(t *testing.T) caOperator {
	t.Helper()
	server, dir := iottest.Start(t), t.TempDir()
	server.Clock.Advance(time.Hour) // openssl signs by the real time, which goes on, and on a busy machine for minutes
	return caOperator{CLI: server.CLI(t, server.NewTenant(), dir), dir: dir, openssl: foreign.Program(t, "openssl")}
}

func (o caOperator) ssl(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), o.openssl, args...)
	cmd.Dir = o.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

// sign makes a key NAME.key and a certificate NAME.pem for a common name, by ca.
func (o caOperator) sign(t *testing.T, name, commonName string) {
	t.Helper()
	o.ssl(t, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name+".key", "-subj", "/CN="+commonName, "-out", name+".csr")
	o.ssl(t, "x509", "-req", "-in", name+".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-sha256", "-days", "30", "-out", name+".pem")
}

// iot runs aws iot and reads its answer.
func (o caOperator) iot(t *testing.T, args ...string) map[string]any {
	t.Helper()
	answer := make(map[string]any)
	out := o.MustIoT(t, args...)
	if strings.TrimSpace(out) == "" {
		return answer
	}
	err := json.Unmarshal([]byte(out), &answer)
	if err != nil {
		t.Fatalf("aws iot %q: %v in %q", args, err, out)
	}
	return answer
}

// refused runs aws iot, which must fail with an exception.
func (o caOperator) refused(t *testing.T, exception string, args ...string) {
	t.Helper()
	_, stderr, ok := o.IoT(t, args...)
	if ok || !strings.Contains(stderr, "("+exception+")") {
		t.Errorf("aws iot %q: got success %t, %q, want %s", args, ok, stderr, exception)
	}
}

func (o caOperator) write(t *testing.T, name, text string) {
	t.Helper()
	err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func member(answer map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		answer, _ = answer[name].(map[string]any)
	}
	text, _ := answer[path[len(path)-1]].(string)
	return text
}

// TestCLIRegistersACA goes the way of the developer guide's page "Register your
// CA certificate" with openssl and the AWS CLI, and on to a device certificate.
func TestCLIRegistersACA(t *testing.T) {
	t.Parallel()
	o := newCAOperator(t)
	o.write(t, "template.json", jitpTemplate)
	config, err := json.Marshal(map[string]string{"templateBody": jitpTemplate, "roleArn": testRole})
	if err != nil {
		t.Fatal(err)
	}
	o.write(t, "config.json", string(config))
	o.ssl(t, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "365", "-subj", "/CN=Factory CA",
		"-addext", "basicConstraints=critical,CA:TRUE")
	o.sign(t, "wrong", "hello")
	o.refused(t, "RegistrationCodeValidationException", "register-ca-certificate",
		"--ca-certificate", "file://ca.pem", "--verification-certificate", "file://wrong.pem")
	o.sign(t, "verification", member(o.iot(t, "get-registration-code"), "registrationCode"))
	o.refused(t, "InvalidRequestException", "register-ca-certificate", "--ca-certificate", "file://ca.pem")
	registered := o.iot(t, "register-ca-certificate", "--ca-certificate", "file://ca.pem", "--verification-certificate", "file://verification.pem",
		"--set-as-active", "--allow-auto-registration", "--registration-config", "file://config.json",
		"--tags", "Key=imprint:first-connection,Value=hold")
	ca := member(registered, "certificateId")
	described := o.iot(t, "describe-ca-certificate", "--certificate-id", ca)
	for path, want := range map[string]string{"status": "ACTIVE", "autoRegistrationStatus": "ENABLE", "certificateMode": "DEFAULT"} {
		if got := member(described, "certificateDescription", path); got != want {
			t.Errorf("got %s %q, want %q", path, got, want)
		}
	}
	if got := member(described, "registrationConfig", "templateBody"); got != jitpTemplate {
		t.Errorf("got template %q, want %q", got, jitpTemplate)
	}
	o.refused(t, "ResourceAlreadyExistsException", "register-ca-certificate",
		"--ca-certificate", "file://ca.pem", "--verification-certificate", "file://verification.pem")
	o.sign(t, "device", "sensor-17")
	device := member(o.iot(t, "register-certificate", "--certificate-pem", "file://device.pem", "--ca-certificate-pem", "file://ca.pem", "--status", "ACTIVE"), "certificateId")
	if got := member(o.iot(t, "describe-certificate", "--certificate-id", device), "certificateDescription", "caCertificateId"); got != ca {
		t.Errorf("got CA %q, want %q", got, ca)
	}
	o.refused(t, "CertificateStateException", "delete-certificate", "--certificate-id", device)
	o.refused(t, "CertificateStateException", "delete-ca-certificate", "--certificate-id", ca)
	o.iot(t, "update-ca-certificate", "--certificate-id", ca, "--new-status", "INACTIVE", "--remove-auto-registration")
	o.iot(t, "delete-ca-certificate", "--certificate-id", ca)
	o.iot(t, "update-certificate", "--certificate-id", device, "--new-status", "REVOKED")
	o.iot(t, "delete-certificate", "--certificate-id", device)
	o.refused(t, "ResourceNotFoundException", "describe-certificate", "--certificate-id", device)
}

// TestCLIMakesCertificates checks with openssl what the service signs.
func TestCLIMakesCertificates(t *testing.T) {
	t.Parallel()
	o := newCAOperator(t)
	keys := o.iot(t, "create-keys-and-certificate", "--set-as-active", "--certificate-pem-outfile", "made.pem",
		"--public-key-outfile", "made.pub", "--private-key-outfile", "made.key")
	o.ssl(t, "rsa", "-in", "made.key", "-check", "-noout")
	o.ssl(t, "rsa", "-pubin", "-in", "made.pub", "-noout")
	o.ssl(t, "x509", "-in", "made.pem", "-noout", "-checkend", "0")
	o.ssl(t, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "own.key",
		"-subj", "/C=DE/O=Example/CN=sensor-18", "-out", "own.csr")
	own := o.iot(t, "create-certificate-from-csr", "--certificate-signing-request", "file://own.csr", "--set-as-active")
	o.write(t, "own.pem", member(own, "certificatePem"))
	o.ssl(t, "x509", "-in", "own.pem", "-noout", "-checkend", "0")
	// With --page-size this CLI follows no markers by itself.
	first := o.iot(t, "list-certificates", "--page-size", "1")
	second := o.iot(t, "list-certificates", "--page-size", "1", "--marker", member(first, "nextMarker"))
	listed := fmt.Sprint(o.iot(t, "list-certificates"))
	paged := fmt.Sprint(first, second)
	for _, id := range []string{member(keys, "certificateId"), member(own, "certificateId")} {
		if !strings.Contains(listed, id) || !strings.Contains(paged, id) {
			t.Errorf("got %s, in pages %s, want %s in both", listed, paged, id)
		}
	}
	o.refused(t, "InvalidRequestException", "create-certificate-from-csr", "--certificate-signing-request", "file://own.pem")
}

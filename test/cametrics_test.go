package test

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/ownport"
)

// What a CA refuses is an attempt with its step, code and fix, by both doors; metrics count
// what it issued and refused, what was asked by OCSP, and how old the CRLs are.
func TestWhatACADoesIsTracedAndCounted(t *testing.T) {
	need(t, "bash", "aws", "curl", "openssl")
	t.Parallel()
	door := ownport.Address(t)
	s := startServer(t, "--pki-address", door, "--pki-url", "http://"+door)
	dir := t.TempDir()
	run := s.shell(t, dir, `
request() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Acme/CN=$1" -keyout $1.key -out $1.csr 2>/dev/null; }
refused() { if "$@" >out.txt 2>&1; then echo "$* went through"; exit 9; fi; }
imprint ca create --root --name root --subject "/O=Acme/CN=Acme root" --crl --ocsp >/dev/null
imprint ca cert root --out root.pem
request one; imprint ca issue root --csr one.csr --profile operational --out one.pem
refused imprint ca issue root --csr one.csr --profile operational
refused imprint ca issue root --csr one.csr --profile nothing
echo garbage >garbage.csr; refused imprint ca issue root --csr garbage.csr --profile operational
ARN=$(imprint ca show root --json | sed -n 's/.*"arn": *"\(.*\)".*/\1/p')
request two
refused aws acm-pca issue-certificate --certificate-authority-arn $ARN --csr fileb://two.csr --signing-algorithm SHA256WITHECDSA --validity Value=9000,Type=YEARS
imprint ca update root --status DISABLED >/dev/null
refused aws acm-pca issue-certificate --certificate-authority-arn $ARN --csr fileb://two.csr --signing-algorithm SHA256WITHECDSA --validity Value=1,Type=DAYS
openssl ocsp -issuer root.pem -cert one.pem -url $(openssl x509 -in one.pem -noout -ocsp_uri) -CAfile root.pem 2>&1 | grep one.pem:
imprint ca revoke --cert one.pem >/dev/null
openssl ocsp -issuer root.pem -cert one.pem -url $(openssl x509 -in one.pem -noout -ocsp_uri) -CAfile root.pem 2>&1 | grep one.pem:
curl -s --data-binary garbage $(openssl x509 -in one.pem -noout -ocsp_uri) >/dev/null
imprint ca show root --json | sed -n 's/.*"id": *"\(.*\)".*/\1/p' >id.txt`)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	if !strings.Contains(run.stdout, "one.pem: good") || !strings.Contains(run.stdout, "one.pem: revoked") {
		t.Errorf("openssl ocsp says %s", run.stdout)
	}
	steps := map[string]string{}
	for _, a := range s.attempts(t, 50) {
		for _, step := range a.Steps {
			if step.Verdict == "failed" {
				steps[step.Name+" "+step.Code] = step.Detail
				if step.Fix == "" || step.Detail == "" {
					t.Errorf("step %+v lacks a fix or a detail", step)
				}
			}
		}
	}
	for step, words := range map[string]string{
		"ca.key KeyReused": "key is that of certificate", "ca.request InvalidRequest": "", "ca.profile CertificateValidation": "", "ca.authority AuthorityState": "is DISABLED",
	} {
		if detail, found := steps[step]; !found || !strings.Contains(detail, words) {
			t.Errorf("no attempt failed at %s with words %q; those that did: %v", step, words, steps)
		}
	}
	id := strings.TrimSpace(readFile(t, filepath.Join(dir, "id.txt")))
	text := ""
	eventuallyTrue(t, "the CRL is signed", func() bool {
		text = s.metrics(t)
		return strings.Contains(text, `imprint_crl_missing{authority="`+id+`"} 0`+"\n")
	})
	for _, line := range []string{
		`imprint_ca_issued_total{profile="operational"} 1`, `imprint_ca_refused_total{code="KeyReused",profile="operational"} 1`,
		`imprint_ca_refused_total{code="AuthorityState",profile="aws-end-entity"} 1`, `imprint_ca_key_failures_total{code="KeyUnavailable"} 0`,
		`imprint_ocsp_responses_total{status="good"} 1`, `imprint_ocsp_responses_total{status="revoked"} 1`, `imprint_ocsp_responses_total{status="malformed"} 1`,
		`imprint_crl_failures_total 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	next := regexp.MustCompile(`imprint_crl_next_update_timestamp_seconds\{authority="` + id + `"\} (\S+)`).FindStringSubmatch(text)
	if next == nil {
		t.Fatal("/metrics doesn't tell the CRL's next update")
	}
	at, err := strconv.ParseFloat(next[1], 64)
	if week := time.Until(time.Unix(int64(at), 0)); err != nil || week < 6*24*time.Hour || week > 8*24*time.Hour {
		t.Errorf("the CRL's next update is in %s, %v; want a week", week, err)
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "imprint_ca_") || strings.HasPrefix(line, "imprint_ocsp") || strings.HasPrefix(line, "imprint_crl") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

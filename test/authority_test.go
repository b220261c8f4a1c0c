package test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// hierarchy makes a root the way AWS does, and a subordinate below it: create, get the
// request, let it be signed, get the certificate, import. $ROOT and $LINE are their ARNs;
// root.pem, line.pem and chain.pem their certificates.
const hierarchy = `
cat >root.json <<'END'
{"KeyAlgorithm":"EC_prime256v1","SigningAlgorithm":"SHA256WITHECDSA","Subject":{"Country":"DE","Organization":"Acme","CommonName":"Acme root"}}
END
cat >line.json <<'END'
{"KeyAlgorithm":"EC_prime256v1","SigningAlgorithm":"SHA256WITHECDSA","Subject":{"Country":"DE","Organization":"Acme","CommonName":"Acme line 7"}}
END
ROOT=$(aws acm-pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json \
  --tags Key=Owner,Value=Acme --query CertificateAuthorityArn --output text)
aws acm-pca wait certificate-authority-csr-created --certificate-authority-arn $ROOT
aws acm-pca get-certificate-authority-csr --certificate-authority-arn $ROOT --output text >root.csr
CERT=$(aws acm-pca issue-certificate --certificate-authority-arn $ROOT --csr fileb://root.csr --signing-algorithm SHA256WITHECDSA \
  --template-arn arn:aws:acm-pca:::template/RootCACertificate/V1 --validity Value=3650,Type=DAYS --query CertificateArn --output text)
aws acm-pca wait certificate-issued --certificate-authority-arn $ROOT --certificate-arn $CERT
aws acm-pca get-certificate --certificate-authority-arn $ROOT --certificate-arn $CERT --query Certificate --output text >root.pem
aws acm-pca import-certificate-authority-certificate --certificate-authority-arn $ROOT --certificate fileb://root.pem
LINE=$(aws acm-pca create-certificate-authority --certificate-authority-type SUBORDINATE --certificate-authority-configuration file://line.json \
  --idempotency-token line --query CertificateAuthorityArn --output text)
aws acm-pca get-certificate-authority-csr --certificate-authority-arn $LINE --output text >line.csr
CERT=$(aws acm-pca issue-certificate --certificate-authority-arn $ROOT --csr fileb://line.csr --signing-algorithm SHA256WITHECDSA \
  --template-arn arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1 --validity Value=5,Type=YEARS --query CertificateArn --output text)
aws acm-pca get-certificate --certificate-authority-arn $ROOT --certificate-arn $CERT --query Certificate --output text >line.pem
aws acm-pca get-certificate --certificate-authority-arn $ROOT --certificate-arn $CERT --query CertificateChain --output text >chain.pem
aws acm-pca import-certificate-authority-certificate --certificate-authority-arn $LINE --certificate fileb://line.pem --certificate-chain fileb://chain.pem
state() { aws acm-pca describe-certificate-authority --certificate-authority-arn $1 --query CertificateAuthority.Status --output text; }
# issue NAME ARN [MORE...] signs NAME.csr; NAME.pem and NAME.chain are what came of it, $CERT its ARN.
issue() {
  CERT=$(aws acm-pca issue-certificate --certificate-authority-arn $2 --csr fileb://$1.csr --signing-algorithm SHA256WITHECDSA \
    --validity Value=1,Type=YEARS --query CertificateArn --output text "${@:3}")
  aws acm-pca get-certificate --certificate-authority-arn $2 --certificate-arn $CERT --query Certificate --output text >$1.pem
  aws acm-pca get-certificate --certificate-authority-arn $2 --certificate-arn $CERT --query CertificateChain --output text >$1.chain
}
# request NAME [MORE...] makes a key and a request.
request() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Acme/CN=$1" -keyout $1.key -out $1.csr "${@:2}" 2>/dev/null
}
# denied CODE COMMAND... wants a refusal.
denied() {
  if "${@:2}" >out.txt 2>err.txt; then echo "$* went through: $(cat out.txt)"; exit 9; fi
  grep -q "($1)" err.txt || { echo "wanted $1 of $*:"; cat err.txt; exit 9; }
  tail -1 err.txt
}
`

// script runs a script after hierarchy and gives what it says.
func (s *server) authorityScript(t *testing.T, dir, script string) string {
	t.Helper()
	run := s.shell(t, dir, hierarchy+script)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	return run.stdout
}

// expectLines compares what a script said, line by line, with regular expressions.
func expectLines(t *testing.T, got string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for n, pattern := range want {
		if n >= len(lines) || !regexp.MustCompile(`^(?:`+pattern+`)$`).MatchString(lines[n]) {
			t.Fatalf("line %d: want %q, got:\n%s", n+1, pattern, got)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("got %d lines, want %d:\n%s", len(lines), len(want), got)
	}
}

// The AWS CLI, unmodified, makes a root in AWS's own way and a subordinate, signs by every
// template, and openssl verifies what comes out.
func TestTheAWSCLIRunsAHierarchyFromRootToDevice(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t)
	said := s.authorityScript(t, t.TempDir(), `
state $ROOT; state $LINE
openssl verify -CAfile root.pem line.pem
request device -addext "subjectAltName=DNS:device.example.com"
issue device $LINE
cmp device.chain <(cat line.pem root.pem)
openssl verify -CAfile root.pem -untrusted line.pem device.pem
openssl verify -x509_strict -purpose sslclient -CAfile root.pem -untrusted device.chain device.pem
openssl verify -x509_strict -purpose sslserver -verify_hostname device.example.com -CAfile root.pem -untrusted device.chain device.pem
request client; issue client $LINE --template-arn arn:aws:acm-pca:::template/EndEntityClientAuthCertificate/V1
openssl verify -x509_strict -purpose sslclient -CAfile root.pem -untrusted client.chain client.pem
openssl verify -purpose sslserver -CAfile root.pem -untrusted client.chain client.pem 2>/dev/null || echo no server
request host -addext "subjectAltName=DNS:host.example.com"; issue host $LINE --template-arn arn:aws:acm-pca:::template/EndEntityServerAuthCertificate/V1
openssl verify -x509_strict -purpose sslserver -CAfile root.pem -untrusted host.chain host.pem
request ocsp; issue ocsp $LINE --template-arn arn:aws:acm-pca:::template/OCSPSigningCertificate/V1
openssl x509 -in ocsp.pem -noout -ext extendedKeyUsage | tail -1
request own; issue own $LINE --template-arn arn:aws:acm-pca:::template/imprint-operational/V1
openssl verify -x509_strict -purpose sslclient -CAfile root.pem -untrusted own.chain own.pem
for n in 0 1 2 3; do request sub$n; issue sub$n $ROOT --template-arn arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen$n/V1
openssl x509 -in sub$n.pem -noout -ext basicConstraints | tail -1; done
aws acm-pca get-certificate-authority-certificate --certificate-authority-arn $LINE --query Certificate --output text | cmp - line.pem
aws acm-pca list-certificate-authorities --query 'length(CertificateAuthorities)'
aws acm-pca describe-certificate-authority --certificate-authority-arn $LINE --query 'CertificateAuthority.[Type,CertificateAuthorityConfiguration.Subject.CommonName,UsageMode,OwnerAccount]' --output text
for v in Value=270101000000,Type=END_DATE Value=20270101000000,Type=END_DATE Value=1798761600,Type=ABSOLUTE Value=3,Type=MONTHS; do
  request v; openssl x509 -noout -enddate -in <(aws acm-pca get-certificate --certificate-authority-arn $LINE --query Certificate --output text --certificate-arn \
    $(aws acm-pca issue-certificate --certificate-authority-arn $LINE --csr fileb://v.csr --signing-algorithm SHA384WITHECDSA --validity $v --query CertificateArn --output text)) | sed 's/.* \([0-9]*\) GMT/\1/'
done
aws acm-pca list-tags --certificate-authority-arn $ROOT --query 'Tags[].[Key,Value]' --output text
aws acm-pca tag-certificate-authority --certificate-authority-arn $ROOT --tags Key=Line,Value=7
aws acm-pca untag-certificate-authority --certificate-authority-arn $ROOT --tags Key=Owner,Value=other
aws acm-pca untag-certificate-authority --certificate-authority-arn $ROOT --tags Key=Owner
aws acm-pca list-tags --certificate-authority-arn $ROOT --query 'Tags[].[Key,Value]' --output text
`)
	year := time.Now().AddDate(0, 3, 0).Format("2006")
	expectLines(t, said, "ACTIVE", "ACTIVE", "line.pem: OK", "device.pem: OK", "device.pem: OK", "device.pem: OK", "client.pem: OK", "no server", "host.pem: OK",
		` *OCSP Signing`, "own.pem: OK", ` *CA:TRUE, pathlen:0`, ` *CA:TRUE, pathlen:1`, ` *CA:TRUE, pathlen:2`, ` *CA:TRUE, pathlen:3`, "2",
		"SUBORDINATE\tAcme line 7\tGENERAL_PURPOSE\t000000000000", "2027", "2027", "2027", year, "Owner\tAcme", "Line\t7")
}


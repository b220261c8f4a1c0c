package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
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
request ocsp; issue ocsp $LINE --template-arn arn:aws:acm-pca:::template/OCSPSigningCertificate/V1 --validity Value=30,Type=DAYS
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

// What may not be signed is refused by AWS's names, with words, and leaves no trace in
// what was issued.
func TestPrivateCARefusesByTheNamesOfAWS(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t)
	reader := s.addUser(t, "reader", `{"Effect":"Allow","Action":["acm-pca:Describe*","acm-pca:List*"],"Resource":"*"}`)
	stranger := s.addAccount(t, "111111111111")
	said := s.authorityScript(t, t.TempDir(), `
pca() { aws acm-pca "$@"; }
sign() { pca issue-certificate --certificate-authority-arn $LINE --signing-algorithm SHA256WITHECDSA --validity Value=30,Type=DAYS "$@"; }
template() { echo --template-arn arn:aws:acm-pca:::template/$1; }
request good
echo = requests
echo garbage >garbage.csr; denied MalformedCSRException sign --csr fileb://garbage.csr
sed 's/^\(M.*\)A\(.*\)$/\1B\2/' good.csr >bent.csr; denied MalformedCSRException sign --csr fileb://bent.csr
openssl req -new -newkey rsa:1024 -nodes -subj /CN=weak -keyout weak.key -out weak.csr 2>/dev/null; denied MalformedCSRException sign --csr fileb://weak.csr
openssl req -new -newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3 -nodes -subj /CN=small -keyout small.key -out small.csr 2>/dev/null
sign --csr fileb://good.csr --idempotency-token one >one.txt
sign --csr fileb://good.csr --idempotency-token one | cmp - one.txt
request other; denied InvalidArgsException sign --csr fileb://other.csr --idempotency-token one
denied MalformedCSRException sign --csr fileb://good.csr
echo = templates and validity
denied InvalidArgsException sign --csr fileb://other.csr $(template CodeSigningCertificate/V1)
denied InvalidArgsException sign --csr fileb://other.csr $(template BlankEndEntityCertificate_APIPassthrough/V1)
denied InvalidArgsException sign --csr fileb://other.csr $(template imprint-nothing/V1)
denied InvalidArgsException sign --csr fileb://other.csr $(template EndEntityCertificate/V2)
denied InvalidArgsException sign --csr fileb://other.csr --api-passthrough Subject={CommonName=x}
denied InvalidArgsException sign --csr fileb://other.csr $(template SubordinateCACertificate_PathLen0/V1)
denied InvalidArgsException sign --csr fileb://other.csr $(template RootCACertificate/V1)
denied InvalidArgsException sign --csr fileb://other.csr --validity Value=20,Type=YEARS
denied InvalidArgsException sign --csr fileb://other.csr --validity Value=3000000,Type=YEARS
denied InvalidArgsException sign --csr fileb://other.csr --validity Value=20271301000000,Type=END_DATE
denied InvalidArgsException sign --csr fileb://other.csr --validity-not-before Value=1,Type=DAYS
denied InvalidArgsException sign --csr fileb://other.csr --validity-not-before Value=1000000,Type=ABSOLUTE
denied InvalidArgsException sign --csr fileb://other.csr --signing-algorithm SHA256WITHRSA
denied InvalidArgsException sign --csr fileb://other.csr $(template imprint-operational/V1) --validity Value=3,Type=YEARS
echo = a pending root
P=$(pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json --idempotency-token p --query CertificateAuthorityArn --output text)
test $P = $(pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json --idempotency-token p --query CertificateAuthorityArn --output text)
denied InvalidArgsException pca create-certificate-authority --certificate-authority-type SUBORDINATE --certificate-authority-configuration file://line.json --idempotency-token p
sign --csr fileb://other.csr --certificate-authority-arn $LINE >/dev/null
request device
denied InvalidArgsException pca issue-certificate --certificate-authority-arn $P --csr fileb://device.csr --signing-algorithm SHA256WITHECDSA $(template RootCACertificate/V1) --validity Value=1,Type=DAYS
denied InvalidArgsException pca issue-certificate --certificate-authority-arn $P --csr fileb://root.csr --signing-algorithm SHA256WITHECDSA $(template RootCACertificate/V1) --validity Value=1,Type=DAYS
denied InvalidStateException pca issue-certificate --certificate-authority-arn $P --csr fileb://device.csr --signing-algorithm SHA256WITHECDSA --validity Value=1,Type=DAYS
denied InvalidStateException pca get-certificate-authority-certificate --certificate-authority-arn $P
denied MalformedCertificateException pca import-certificate-authority-certificate --certificate-authority-arn $P --certificate fileb://garbage.csr
denied CertificateMismatchException pca import-certificate-authority-certificate --certificate-authority-arn $P --certificate fileb://root.pem
denied InvalidArgsException pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json --key-storage-security-standard FIPS_140_2_LEVEL_3_OR_HIGHER
denied InvalidArgsException pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json --revocation-configuration 'CrlConfiguration={Enabled=true,ExpirationInDays=7,S3BucketName=bucket}'
denied InvalidArgsException pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration file://root.json --revocation-configuration 'CrlConfiguration={Enabled=true,ExpirationInDays=7}'
denied InvalidArgsException pca create-certificate-authority --certificate-authority-type ROOT --certificate-authority-configuration KeyAlgorithm=RSA_2048,SigningAlgorithm=SHA256WITHECDSA,Subject={CommonName=x}
echo = who asks
(export AWS_ACCESS_KEY_ID=`+reader.AccessKeyID+` AWS_SECRET_ACCESS_KEY=`+reader.SecretAccessKey+`
state $LINE
denied AccessDeniedException pca issue-certificate --certificate-authority-arn $LINE --csr fileb://device.csr --signing-algorithm SHA256WITHECDSA --validity Value=1,Type=DAYS)
(export AWS_ACCESS_KEY_ID=`+stranger.AccessKeyID+` AWS_SECRET_ACCESS_KEY=`+stranger.SecretAccessKey+`
denied ResourceNotFoundException pca issue-certificate --certificate-authority-arn $LINE --csr fileb://device.csr --signing-algorithm SHA256WITHECDSA --validity Value=1,Type=DAYS
pca list-certificate-authorities --query CertificateAuthorities)
(export AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1; denied ResourceNotFoundException pca describe-certificate-authority --certificate-authority-arn $LINE)
denied InvalidArnException pca describe-certificate-authority --certificate-authority-arn arn:aws:iot:us-east-1:000000000000:thing/x
denied InvalidArnException pca get-certificate --certificate-authority-arn $LINE --certificate-arn $ROOT/certificate/12
denied ResourceNotFoundException pca get-certificate --certificate-authority-arn $LINE --certificate-arn $LINE/certificate/12
denied NotImplementedException pca get-policy --resource-arn $LINE
denied InvalidNextTokenException pca list-certificate-authorities --next-token nonsense
echo = its life
denied InvalidStateException pca delete-certificate-authority --certificate-authority-arn $LINE
pca update-certificate-authority --certificate-authority-arn $LINE --status DISABLED
denied InvalidStateException sign --csr fileb://device.csr
pca update-certificate-authority --certificate-authority-arn $LINE --status ACTIVE
issue device $LINE
SERIAL=$(openssl x509 -in device.pem -noout -serial | cut -d= -f2)
pca revoke-certificate --certificate-authority-arn $LINE --certificate-serial $(echo $SERIAL | sed 's/../&:/g;s/:$//') --revocation-reason KEY_COMPROMISE
denied RequestAlreadyProcessedException pca revoke-certificate --certificate-authority-arn $LINE --certificate-serial $SERIAL --revocation-reason SUPERSEDED
denied ResourceNotFoundException pca revoke-certificate --certificate-authority-arn $ROOT --certificate-serial $SERIAL --revocation-reason SUPERSEDED
denied InvalidRequestException pca revoke-certificate --certificate-authority-arn $ROOT --certificate-serial $(openssl x509 -in root.pem -noout -serial | cut -d= -f2) --revocation-reason SUPERSEDED
pca update-certificate-authority --certificate-authority-arn $LINE --status DISABLED
pca delete-certificate-authority --certificate-authority-arn $LINE --permanent-deletion-time-in-days 7; state $LINE
denied InvalidStateException pca get-certificate-authority-csr --certificate-authority-arn $LINE
denied InvalidStateException sign --csr fileb://small.csr
pca restore-certificate-authority --certificate-authority-arn $LINE; state $LINE
denied InvalidStateException pca restore-certificate-authority --certificate-authority-arn $LINE
pca update-certificate-authority --certificate-authority-arn $LINE --status ACTIVE
SUB=$(openssl x509 -in line.pem -noout -serial | cut -d= -f2)
pca revoke-certificate --certificate-authority-arn $ROOT --certificate-serial $SUB --revocation-reason CERTIFICATE_AUTHORITY_COMPROMISE
denied InvalidStateException sign --csr fileb://small.csr
denied InvalidStateException pca import-certificate-authority-certificate --certificate-authority-arn $LINE --certificate fileb://line.pem --certificate-chain fileb://chain.pem
`)
	for _, words := range []string{
		"text holds no PEM block", "at least 2048 are needed", "isn't offered. Those that are: EndEntityCertificate, ", "imprint ca profiles", "key is that of certificate",
		"ApiPassthrough isn't offered", "signs its own request alone", "is PENDING_CERTIFICATE", "is another key", "can't promise a FIPS 140 level", "Leave S3BucketName",
		"--pki-url", "not authorized to perform: acm-pca:IssueCertificate on resource: arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/",
		"does not offer the operation GetPolicy", "is DISABLED", "is DELETED", "was revoked at",
	} {
		if !strings.Contains(strings.ReplaceAll(said, "of another key", "is another key"), words) {
			t.Errorf("nothing says %q", words)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}

// A policy about an authority or a template holds however the request spells them: a
// partition that isn't the region's names nothing, and a profile of AWS's is AWS's
// template by its other name, too.
func TestADenyHoldsHoweverAnAuthorityAndATemplateAreNamed(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	s.authorityScript(t, dir, `echo $ROOT >root.arn; echo $LINE >line.arn; for n in $(seq 9); do request d$n; done`)
	root, line := strings.TrimSpace(readFile(t, filepath.Join(dir, "root.arn"))), strings.TrimSpace(readFile(t, filepath.Join(dir, "line.arn")))
	careless := s.addUser(t, "careless", `{"Effect":"Allow","Action":"acm-pca:*","Resource":"*"},{"Effect":"Deny","Action":"acm-pca:*","Resource":"`+root+`"}`)
	maker := s.addUser(t, "maker", `{"Effect":"Allow","Action":"acm-pca:*","Resource":"`+line+`"},{"Effect":"Deny","Action":"acm-pca:IssueCertificate","Resource":"*",
	 "Condition":{"StringNotEquals":{"acm-pca:TemplateArn":["arn:aws:acm-pca:::template/EndEntityCertificate/V1","arn:aws:acm-pca:::template/imprint-operational/V1"]}}}`)
	repairs := s.addUser(t, "repairs", `{"Effect":"Allow","Action":"acm-pca:*","Resource":"*"},{"Effect":"Deny","Action":"acm-pca:RevokeCertificate","Resource":"`+line+`"}`)
	const words = `
pca() { aws acm-pca "$@"; }
sign() { pca issue-certificate --csr fileb://$1.csr --signing-algorithm SHA256WITHECDSA --validity Value=30,Type=DAYS "${@:2}"; }
template() { echo --template-arn arn:aws:acm-pca:::template/$1; }
denied() { if "${@:2}" >out.txt 2>err.txt; then echo "$* went through: $(cat out.txt)"; exit 9; fi
  grep -q "($1)" err.txt || { echo "wanted $1 of $*:"; cat err.txt; exit 9; }; }
ROOT=$(cat root.arn); LINE=$(cat line.arn)
`
	for name, script := range map[string]string{
		"partitions": as(careless) + words + `
denied AccessDeniedException sign d1 --certificate-authority-arn $ROOT
denied AccessDeniedException pca get-certificate-authority-csr --certificate-authority-arn $ROOT
for p in aws-x aws-cn aws-us-gov aws- aws-iso-b; do
  OTHER=arn:$p:${ROOT#arn:aws:}
  denied ResourceNotFoundException sign d1 --certificate-authority-arn $OTHER
  denied ResourceNotFoundException pca get-certificate-authority-csr --certificate-authority-arn $OTHER
  denied ResourceNotFoundException pca update-certificate-authority --certificate-authority-arn $OTHER --status DISABLED
  denied ResourceNotFoundException pca tag-certificate-authority --certificate-authority-arn $OTHER --tags Key=a,Value=b
done
for OTHER in ARN${ROOT#arn} arn:AWS:${ROOT#arn:aws:} $ROOT/ $ROOT/x; do
  denied '\(InvalidArnException\|ValidationException\|AccessDeniedException\)' sign d1 --certificate-authority-arn $OTHER
done
sign d1 --certificate-authority-arn $LINE >/dev/null
`,
		"templates": as(maker) + words + `
for t in SubordinateCACertificate_PathLen0 imprint-aws-subordinate-ca-0 imprint-aws-subordinate-ca-3 imprint-intermediate OCSPSigningCertificate imprint-aws-ocsp-signing imprint-ocsp RootCACertificate imprint-nothing; do
  denied AccessDeniedException sign d2 --certificate-authority-arn $LINE $(template $t/V1)
done
denied InvalidArgsException sign d2 --certificate-authority-arn $LINE --template-arn arn:aws-x:acm-pca:::template/EndEntityCertificate/V1
sign d2 --certificate-authority-arn $LINE >/dev/null
sign d3 --certificate-authority-arn $LINE $(template EndEntityCertificate/V1) >/dev/null
sign d4 --certificate-authority-arn $LINE $(template imprint-aws-end-entity/V1) >/dev/null
sign d5 --certificate-authority-arn $LINE $(template imprint-operational/V1) >/dev/null
`,
		"revocations": as(repairs) + words + `
pca get-certificate-authority-certificate --certificate-authority-arn $LINE --query Certificate --output text >line.pem
take() { pca revoke-certificate --certificate-authority-arn $ROOT --certificate-serial "$1" --revocation-reason KEY_COMPROMISE; }
denied AccessDeniedException take $(openssl x509 -in line.pem -noout -serial | cut -d= -f2)
grep -q "on resource: $LINE with an explicit deny" err.txt || { cat err.txt; exit 9; }
denied ResourceNotFoundException take 0123456789
sign d6 --certificate-authority-arn $ROOT --output text >d6.arn
take $(sed 's,.*/,,' d6.arn)
`,
	} {
		run := s.shell(t, dir, script)
		if run.exit != 0 {
			t.Errorf("%s: exit code %d\n%s", name, run.exit, run.all())
		}
	}
}

// A device whose certificate an intermediate of ours signed joins because that is
// registered, and is off within a second of revoke-certificate; its sister stays.
func TestRevokeCertificateEndsALiveSessionWithinASecond(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_sub", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "template.json"), jitpTemplate("devices", ""))
	s.authorityScript(t, dir, `
CODE=$(aws iot get-registration-code --query registrationCode --output text)
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$CODE" -keyout proof.key -out proof.csr 2>/dev/null
issue proof $LINE
aws iot create-provisioning-template --template-name line --type JITP --enabled --provisioning-role-arn `+role+` --template-body file://template.json >/dev/null
aws iot register-ca-certificate --ca-certificate file://line.pem --verification-certificate file://proof.pem --set-as-active --allow-auto-registration \
  --registration-config templateName=line >/dev/null
for n in SN-1 SN-2; do request $n -subj /O=Acme/CN=$n/serialNumber=$n; issue $n $LINE --template-arn arn:aws:acm-pca:::template/imprint-operational/V1; cat $n.pem line.pem >$n.crt; done
echo $LINE >line.arn
`)
	one, two := &device{name: "SN-1", cert: filepath.Join(dir, "SN-1.crt"), key: filepath.Join(dir, "SN-1.key")},
		&device{name: "SN-2", cert: filepath.Join(dir, "SN-2.crt"), key: filepath.Join(dir, "SN-2.key")}
	s.join(t, one)
	s.join(t, two)
	gone, stays := s.subscribe(t, one, "SN-1", "d/SN-1/x"), s.subscribe(t, two, "SN-2", "d/SN-2/x")
	const presence = "$aws/events/presence/disconnected/SN-1"
	w := s.watcher(t)
	watching := s.subscribe(t, w, "watcher", presence)
	began := time.Now()
	s.aws(t, dir, `acm-pca revoke-certificate --certificate-authority-arn $(cat line.arn) --revocation-reason KEY_COMPROMISE \
  --certificate-serial $(openssl x509 -in SN-1.pem -noout -serial | cut -d= -f2)`)
	answered := time.Now()
	took := watching.awaitTime(t, presence).Sub(answered)
	t.Logf("revoke-certificate took %s, the session ended %s after its answer", answered.Sub(began), took)
	if took > time.Second {
		t.Errorf("the session ended %s after the answer, want within a second", took)
	}
	// It comes again by itself a second later, and isn't let in.
	comesAgain(t, gone)
	if text := gone.said.String(); strings.Count(text, "received CONNACK") != 1 {
		t.Errorf("the revoked device was let in again:\n%s", text)
	}
	again := s.publish(t, one, "SN-1", "d/SN-1/x")
	checkSilentClose(t, again)
	s.publish(t, w, "publisher", "d/SN-2/x")
	stays.await(t, "d/SN-2/x", 1)
	if text := stays.said.String(); strings.Count(text, "sending CONNECT") != 1 {
		t.Errorf("its sister connected again:\n%s", text)
	}
	explained := s.explain(t, "SN-1")
	if len(explained) == 0 {
		t.Error("nothing explains why the device is refused")
	}
}

// comesAgain waits until a subscriber whose connection ended tries once more, or gives up and
// ends, which needn't say anything.
func comesAgain(t *testing.T, sub *subscriber) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-sub.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	text, err := sub.said.await(ctx, patience, func(text string) bool { return strings.Count(text, "sending CONNECT") > 1 })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("waited for the device's next attempt: %v; got:\n%s", err, text)
	}
}

// A server that is killed again and again while it signs loses no certificate whose ARN
// was answered, and what it revoked stays so.
func TestAKillLosesNoCertificateThatWasAnswered(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	s.authorityScript(t, dir, `echo $LINE >line.arn; for n in $(seq 24); do request d$n; done`)
	random := newRandom(t)
	book := newLedger()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var signing sync.WaitGroup
	next := make(chan int)
	for range 4 {
		signing.Go(func() {
			for n := range next {
				for ctx.Err() == nil {
					run := s.shell(t, dir, fmt.Sprintf(`aws --cli-connect-timeout 5 acm-pca issue-certificate --certificate-authority-arn $(cat line.arn) --csr fileb://d%d.csr \
  --signing-algorithm SHA256WITHECDSA --validity Value=1,Type=DAYS --idempotency-token d%d --query CertificateArn --output text`, n, n))
					if run.exit == 0 {
						book.note(strings.TrimSpace(run.stdout))
						break
					}
				}
			}
		})
	}
	go func() {
		defer close(next)
		for n := 1; n <= 24; n++ {
			select {
			case next <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	for range 3 {
		if !book.await(ctx, len(book.all())+3) {
			break
		}
		pause(ctx, time.Duration(random.IntN(20_000))*time.Microsecond)
		s.signal(os.Kill)
		s.start()
	}
	signing.Wait()
	arns := book.all()
	if len(arns) != 24 || ctx.Err() != nil {
		t.Fatalf("%d requests were answered, want 24", len(arns))
	}
	run := s.shell(t, dir, `for c in `+strings.Join(arns, " ")+`; do
aws acm-pca get-certificate --certificate-authority-arn $(cat line.arn) --certificate-arn $c --query Certificate --output text | openssl x509 -noout -subject -serial; done`)
	if run.exit != 0 || strings.Count(run.stdout, "serial=") != 24 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	seen := map[string]bool{}
	for line := range strings.Lines(run.stdout) {
		if seen[line] {
			t.Errorf("%q is there twice: a device got two certificates, or a serial number two devices", strings.TrimSpace(line))
		}
		seen[line] = true
	}
}

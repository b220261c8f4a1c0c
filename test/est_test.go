package test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// commandsOf gives the commands of a page of docs, in their order.
func commandsOf(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		all.WriteString(block[1])
	}
	if all.Len() == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return all.String()
}

// runPage runs the commands of a page, and what else is to be said of what came of it.
func (s *server) runPage(t *testing.T, dir, page, more string) string {
	t.Helper()
	run := s.shell(t, dir, "{\n"+commandsOf(t, page)+"\n} >page.txt 2>page.err || { cat page.txt page.err; exit 9; }\n"+more)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	return run.stdout
}

// What docs/est.md tells people to type works, and openssl reads what comes out.
func TestTheCommandsOfTheESTPageWork(t *testing.T) {
	need(t, "bash", "aws", "openssl", "curl")
	t.Parallel()
	s := startServer(t, "--est-address", "127.0.0.1:0")
	said := s.runPage(t, t.TempDir(), "est.md", `
cat page.txt | grep verify -A0 || true
grep -c 'sensor.pem: OK' page.txt
grep -c BEGIN cacerts.pem
for f in sensor new made; do
  openssl verify -purpose sslclient -CAfile cacerts.pem $f.pem
  cmp <(openssl x509 -in $f.pem -noout -pubkey) <(openssl pkey -in $f.key -pubout)
done
openssl x509 -in made.pem -noout -subject
base64 -w0 new.csr | curl -sS --cacert cacerts.pem --user "$(grep sensor-17 passwords.txt | cut -f1)" -H 'Content-Type: application/pkcs10' \
  --data-binary @- -o again.txt -w '%{http_code} %{content_type}\n' "$EST/simpleenroll"
head -1 again.txt
curl -sSf --cacert cacerts.pem "$EST/cacerts" | base64 -d | openssl cms -cmsout -inform der -print | grep -c d.certificate:
curl -sSf --cacert "$IMPRINT_CA" "$AWS_ENDPOINT_URL_IOT/metrics" | grep 'est_requests_total{operation="simple'
imprint attempts --json | grep -c '"outcome": *"enrolled"'
`)
	expectLines(t, said, "1", "4", "sensor.pem: OK", "new.pem: OK", "made.pem: OK", "subject=CN = sensor-18",
		"401 text/plain; charset=utf-8", "the password [a-z2-7]{16} was used", "4",
		`imprint_est_requests_total\{operation="simpleenroll",status="200"\} 1`, `imprint_est_requests_total\{operation="simpleenroll",status="401"\} 1`,
		`imprint_est_requests_total\{operation="simplereenroll",status="200"\} 1`, "3")
}

// strongSwan's EST client, which shares no code with the server, gets the CAs, enrols with a
// password and renews with the certificate that it got.
func TestStrongSwanEnrolsAndRenews(t *testing.T) {
	need(t, "bash", "aws", "openssl", "pki")
	t.Parallel()
	s := startServer(t, "--est-address", "127.0.0.1:0")
	run := s.shell(t, t.TempDir(), `
imprint ca create --root --name root --subject "/O=Acme/CN=Acme root" >/dev/null
imprint ca create --parent root --name line7 --subject "/O=Acme/CN=Acme line 7" --profiles operational >/dev/null
imprint ca cert root --out root.pem; imprint ca cert line7 --out line.pem
imprint est create default --authority line7 --profile operational --passwords --renew always >/dev/null
awk '/BEGIN/{n++} {print >"server" n ".pem"}' "$IMPRINT_CA"
swan() { pki "$@" --cacert server1.pem --cacert server2.pem --cacert root.pem --cacert line.pem --outform pem; }
swan --estca --url "$IMPRINT_EST" --caout ca.pem >estca.txt 2>&1 || { cat estca.txt; exit 9; }
cat ca*.pem | grep -c BEGIN
for n in 1 2; do
  pki --gen --type ecdsa --size 256 --outform pem >$n.key 2>/dev/null
  pki --req --type ecdsa --in $n.key --dn "CN=swan" --outform der >$n.csr 2>/dev/null
done
swan --est --url "$IMPRINT_EST" --in 1.csr --userpass "$(imprint est otp create --label default --serial swan | cut -f1)" >1.pem 2>err.txt || { cat err.txt; exit 9; }
swan --est --url "$IMPRINT_EST" --in 2.csr --cert 1.pem --key 1.key >2.pem 2>err.txt || { cat err.txt; exit 9; }
for n in 1 2; do
  openssl verify -CAfile root.pem -untrusted line.pem $n.pem
  cmp <(openssl x509 -in $n.pem -noout -pubkey) <(openssl pkey -in $n.key -pubout)
done
curl -sSf --cacert "$IMPRINT_CA" "$AWS_ENDPOINT_URL_IOT/metrics" | grep 'est_requests_total{operation="simple'
`)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	expectLines(t, run.stdout, "[34]", "1.pem: OK", "2.pem: OK", `imprint_est_requests_total\{operation="simpleenroll",status="200"\} 1`,
		`imprint_est_requests_total\{operation="simplereenroll",status="200"\} 1`)
}

// Who makes a label is told where devices ask at it, or that they can't and why.
func TestWhoMakesALabelIsToldWhereItIsServed(t *testing.T) {
	need(t, "bash", "aws", "curl")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	said := s.mustShell(t, dir, `imprint ca create --root --name root --subject "/CN=root" >/dev/null
imprint est create line7 --authority root --profile operational --passwords | sed -n 's/^served at *//p'
imprint est show line7 --json | grep -c url || true`)
	expectLines(t, said, "nowhere: the server serves no EST; start it with --est-address, such as :8085", "0")
	s.flags = append(s.flags, "--est-address", "127.0.0.1:0")
	s.restart()
	said = s.mustShell(t, dir, `imprint est show line7 | sed -n 's/^served at *//p'
echo "$IMPRINT_EST/.well-known/est/line7"
imprint est update line7 --renew always --json | sed -n 's/^ *"url": "\(.*\)",*$/\1/p'
curl -sSf -o /dev/null -w '%{http_code}\n' --cacert "$IMPRINT_CA" "$(imprint est show line7 | sed -n 's/^served at *//p')/cacerts"`)
	url := regexp.QuoteMeta(strings.Fields(said)[0])
	expectLines(t, said, url, url, url, "200")
}

// Who may make labels needs the right on the CA, too, and another account sees nothing of
// them but that the name is taken.
func TestLabelsAreTheirAccounts(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t, "--est-address", "127.0.0.1:0")
	dir := t.TempDir()
	s.mustShell(t, dir, `imprint ca create --root --name root --subject "/CN=root" >/dev/null
imprint est create line7 --authority root --profile operational --passwords >/dev/null`)
	clerk := s.addUser(t, "clerk", `{"Effect":"Allow","Action":["imprint:*Enrolment*","imprint:ListAuthorities"],"Resource":["arn:aws:iot:*:*:enrolmentlabel/*","*"]},
	 {"Effect":"Deny","Action":"imprint:*EnrolmentLabel","Resource":"arn:aws:acm-pca:*:*:certificate-authority/*"}`)
	said := s.mustShell(t, dir, as(clerk)+`
imprint est otp create --label line7 | grep -c :
for command in "create mine --authority root --profile operational" "update line7 --authority root"; do
  { imprint est $command 2>&1 || true; } | grep -o "AccessDeniedException.*certificate-authority" | cut -d: -f1
done
imprint est update line7 --renew always | sed -n 's/^renew *//p' `)
	expectLines(t, said, "1", "AccessDeniedException", "AccessDeniedException", "always")
	said = s.mustShell(t, dir, as(s.addAccount(t, "111111111111"))+`
imprint est list | wc -l
imprint ca create --root --name own --subject "/CN=own" >/dev/null
for command in "show line7" "delete line7" "update line7 --passwords=false" "otp create --label line7" "otp list --label line7" "create line7 --authority own --profile operational"; do
  { imprint est $command 2>&1 >/dev/null || true; } | sed -n 's/imprint: //p' | cut -d: -f1
done`)
	expectLines(t, said, "0", "ResourceNotFoundException", "ResourceNotFoundException", "ResourceNotFoundException", "ResourceNotFoundException", "ResourceNotFoundException", "ResourceAlreadyExistsException")
}

// mustShell is shell for commands that must succeed; it gives what they print.
func (s *server) mustShell(t *testing.T, dir, script string) string {
	t.Helper()
	run := s.shell(t, dir, script)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	return run.stdout
}

// renewalShell are the commands by which the tests below look at certificates.
const renewalShell = `
status() { aws iot describe-certificate --certificate-id $(openssl x509 -in $1.pem -outform der | sha256sum | cut -d' ' -f1) --query certificateDescription.status --output text; }
hello() { mosquitto_pub --cafile "$IMPRINT_CA" --cert $1.pem --key $1.key -h "${IMPRINT_MQTT%:*}" -p "${IMPRINT_MQTT##*:}" -i sensor-17 -q 1 -t up -m hello; }
# becomes NAME STATUS waits for it.
becomes() { for n in $(seq 300); do [ "$(status $1)" = $2 ] && return; sleep 0.1; done; echo "$1 is $(status $1), not $2"; exit 9; }
`

// What docs/renewal.md tells people to type works; then the grace passes, and the old
// certificate is retired.
func TestTheCommandsOfTheRenewalPageWork(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t, "--renewal-grace", "10s", "--expiry-warning", "500h")
	said := s.runPage(t, t.TempDir(), "renewal.md", renewalShell+`
grep -h "Z  [0-9a-f]" page.txt | sed 's/^[^ ]* [^ ]*  [0-9a-f]* *//; s/[0-9a-f]\{16\}/ID/; s/at 2.*Z/at TIME/; s/from 2.*Z/from TIME/'
grep -o '"renewal": "[A-Z]*"' page.txt
grep -c "too early" page.txt; grep -o "may be renewed from" page.err
hello old # the device goes back, and on again
imprint explain sensor-17 --json | grep -o '"certificate.expiry"' | sort -u
for n in $(seq 300); do imprint ca expiring --within 30d >list.txt; grep -o "hasn't connected yet (the device came back" list.txt && break; sleep 0.1; done
hello new
becomes old INACTIVE
status new
hello new
hello old >/dev/null 2>&1 || echo "the old one is refused"
imprint ca expiring --within 30d | wc -l
curl -sSf --cacert "$IMPRINT_CA" "$AWS_ENDPOINT_URL_IOT/metrics" | grep 'imprint_renewals_total{what="[pr][re]'
`)
	expectLines(t, said, "CN=sensor-17  sensor-17  no renewal, possible from TIME",
		"CN=sensor-17  sensor-17  renewed by ID, which hasn't connected yet", "CN=sensor-17  sensor-17  renewed by ID, retired at TIME", `"renewal": "NONE"`, "1",
		"may be renewed from", `"certificate.expiry"`, "hasn't connected yet \\(the device came back", "ACTIVE", "the old one is refused", "0", `imprint_renewals_total\{what="proven"\} 2`, `imprint_renewals_total\{what="retired"\} 1`)
}

// A server that is killed between renewal, proof and retirement loses no device: the old
// certificate goes only after the new one has connected, and one that was never used takes
// nothing away.
func TestRenewalOutlivesKills(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub", "curl")
	t.Parallel()
	s := startServer(t, "--est-address", "127.0.0.1:0", "--renewal-grace", "10s", "--renewal-window", "always")
	dir := t.TempDir()
	s.mustShell(t, dir, `
imprint ca create --root --name root --subject "/O=Acme/CN=Acme root" >/dev/null
imprint est create default --authority root --profile operational >/dev/null
aws iot create-policy --policy-name telemetry --policy-document '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish"],"Resource":"*"}]}' >/dev/null
for d in used unused; do
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$d -keyout $d.key -out $d.csr 2>/dev/null
  imprint ca issue root --csr $d.csr --profile operational --out $d.pem
  ARN=$(aws iot register-certificate-without-ca --certificate-pem file://$d.pem --status ACTIVE --query certificateArn --output text)
  aws iot attach-policy --policy-name telemetry --target $ARN
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$d -keyout new-$d.key -outform der -out new-$d.csr 2>/dev/null
  base64 -w0 new-$d.csr | curl -sSf --cacert "$IMPRINT_CA" --cert $d.pem --key $d.key -H 'Content-Type: application/pkcs10' --data-binary @- "$IMPRINT_EST/.well-known/est/simplereenroll" |
    base64 -d | openssl pkcs7 -inform der -print_certs -out new-$d.pem
done
`)
	s.restart()
	said := s.mustShell(t, dir, renewalShell+`hello new-used; hello used; hello new-used; hello unused; status used; status unused`)
	expectLines(t, said, "ACTIVE", "ACTIVE")
	s.restart()
	// The kill may have come before the proof was written: then this connection is it.
	said = s.mustShell(t, dir, renewalShell+`hello new-used; becomes used INACTIVE; hello new-used; hello unused; hello unused; status unused; status new-unused`)
	expectLines(t, said, "ACTIVE", "ACTIVE")
}

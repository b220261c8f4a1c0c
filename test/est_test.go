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

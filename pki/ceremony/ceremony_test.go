package ceremony_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/ceremony"
)

var day = time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)

// room is a directory with a script, and people who do what they should.
type room struct {
	t      *testing.T
	dir    string
	now    time.Time
	shares [][]byte
	// give are the shares that holders give when they are asked; nil: all, in order.
	give  [][]byte
	said  strings.Builder
	calls int
	// stop is called at each word that is spoken, with how many there were.
	stop  func(call int) error
	wrong []error
}

func (r *room) step() error {
	r.calls++
	if r.stop != nil {
		return r.stop(r.calls)
	}
	return nil
}

func (r *room) Say(text string) error {
	r.said.WriteString(text)
	return r.step()
}

func (r *room) Confirm(context.Context, []byte) error { return r.step() }

func (r *room) Give(_ context.Context, _ string, number int, share []byte) error {
	if number != len(r.shares)+1 {
		r.t.Errorf("share %d is handed out as the %d.", number, len(r.shares)+1)
	}
	r.shares = append(r.shares, bytes.Clone(share))
	return r.step()
}

var errNoMore = errors.New("no more holders are here")

func (r *room) Ask(_ context.Context, missing int, wrong error) ([]byte, error) {
	r.wrong = append(r.wrong, wrong)
	if r.give == nil {
		r.give = r.shares
	}
	if len(r.give) == 0 {
		return nil, fmt.Errorf("%w (%d missing)", errNoMore, missing)
	}
	next := r.give[0]
	r.give = r.give[1:]
	return bytes.Clone(next), r.step()
}

const script = `# The first ceremony of Acme.
title = "Acme root and lines"
date = 2026-12-01

[[person]]
name = "Ada Byron"
role = "administrator"

[[person]]
name = "Ben Ali"
role = "witness"

[keys]
shares = 5
threshold = 3
holders = ["Ada", "Ben", "Chi", "Dee", "Eve"]

[[ca]]
name = "root"
subject = "/C=DE/O=Acme/CN=Acme root"
not-after = 2056-01-01
crl-days = 390
key-kind = "p256"
[[ca]]
name = "policy"
issuer = "root"
subject = "/C=DE/O=Acme/CN=Acme policy"
profile = "policy-ca"
key-kind = "p384"

[[ca]]
name = "line7"
issuer = "policy"
csr = "line7.csr"
csr-sha256 = "CSRSUM"

[[ca]]
name = "line8"
issuer = "policy"
subject = "/C=DE/O=Acme/CN=Acme line 8"
key-kind = "p256"
`

func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{t: t, dir: t.TempDir(), now: day}
	key, err := pki.NewKey(pki.KeyP256)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := pki.ParseSubject("/C=DE/O=Acme/CN=Acme line 7")
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewSigningRequest(t.Context(), pki.NewSoftSigner(key), subject)
	if err != nil {
		t.Fatal(err)
	}
	r.put("line7.csr", csr)
	parsed, err := pki.ParseCSRPEM(csr)
	if err != nil {
		t.Fatal(err)
	}
	r.put("root.toml", strings.Replace(script, "CSRSUM", fmt.Sprintf("%x", sha256.Sum256(parsed.Raw)), 1))
	return r
}

func (r *room) put(name, text string) {
	r.t.Helper()
	err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) get(name string) string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func (r *room) read() (*ceremony.Script, error) {
	profiles, err := pki.NewProfiles()
	if err != nil {
		r.t.Fatal(err)
	}
	return ceremony.ReadScript(filepath.Join(r.dir, "root.toml"), profiles)
}

func (r *room) run(ctx context.Context, out string) (*ceremony.Report, error) {
	r.t.Helper()
	s, err := r.read()
	if err != nil {
		r.t.Fatalf("%v (%s)", err, imprint.HintOf(err))
	}
	return ceremony.Run(ctx, ceremony.Config{Script: s, Out: filepath.Join(r.dir, out), Clock: func() time.Time { return r.now }, People: r, Program: "imprint test"})
}

// TestACeremonyMakesAHierarchyThatVerifies, and a second one goes on with its root.
func TestACeremonyMakesAHierarchyThatVerifies(t *testing.T) {
	t.Parallel()
	openssl := foreign.Program(t, "openssl")
	r := newRoom(t)
	report, err := r.run(t.Context(), "out")
	if err != nil {
		t.Fatalf("%v (%s)", err, imprint.HintOf(err))
	}
	if len(report.Authorities) != 4 || report.SignedName != "root" || report.Threshold != 3 || report.Total != 5 || len(report.People) != 2 || len(report.CRLs) != 1 {
		t.Errorf("got %+v", report)
	}
	if len(r.shares) != 5 || len(r.give) != 2 {
		t.Errorf("%d shares were handed out and %d not asked back, want 5 and 2", len(r.shares), len(r.give))
	}
	root := report.Authorities[0].Certificate
	sum := sha256.Sum256(root.Raw)
	if said := r.said.String(); !strings.Contains(said, ceremony.Spoken(sum[:])) || strings.Count(said, "SHA-256 of its certificate") != 4 {
		t.Errorf("what is said is\n%s", said)
	}
	verify := func(args ...string) {
		args = append([]string{args[0], "-attime", fmt.Sprint(day.Add(time.Hour).Unix())}, args[1:]...)
		cmd := exec.CommandContext(t.Context(), openssl, args...)
		cmd.Dir = filepath.Join(r.dir, "out")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("openssl %q: %v\n%s", args, err, out)
		}
	}
	verify("verify", "-x509_strict", "-CAfile", "root.pem", "root.pem")
	verify("verify", "-x509_strict", "-CAfile", "root.pem", "-crl_check", "-CRLfile", "root.crl", "policy.pem")
	verify("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "line7.chain.pem", "line7.pem", "line8.pem")
	names, err := os.ReadDir(filepath.Join(r.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, one := range names {
		files = append(files, one.Name())
	}
	if got := strings.Join(files, " "); got != "line7.chain.pem line7.pem line8.chain.pem line8.pem line8.sealed policy.chain.pem policy.pem policy.sealed record.jsonl root.crl root.pem root.sealed" {
		t.Errorf("got the files %s", got)
	}
	record := []byte(r.get("out/record.jsonl"))
	for _, share := range r.shares {
		if bytes.Contains(record, share[10:30]) || strings.Contains(r.said.String(), string(share[10:30])) {
			t.Error("the record, or what is said, has a share")
		}
	}
	again, err := ceremony.Verify(record, root)
	if err != nil || again.Lines != report.Lines {
		t.Errorf("the record: %+v, %v", again, err)
	}
	_, err = ceremony.Verify(record, report.Authorities[1].Certificate)
	if imprint.CodeOf(err) != imprint.CodeCertificateValidation || !strings.Contains(err.Error(), "not by the given CA") {
		t.Errorf("with another root: %v", err)
	}
	r.second(root)
}

// second opens the root's key with other holders, signs one more line and the next CRL.
func (r *room) second(root *x509.Certificate) {
	t := r.t
	t.Helper()
	for _, name := range []string{"root.pem", "root.sealed"} {
		r.put(name, r.get("out/"+name))
	}
	r.put("root.toml", `title = "Acme line 9"
date = 2027-01-10
person = [{name = "Ada", role = "administrator"}, {name = "Ben", role = "witness"}]
[keys]
existing-shares = true
[[ca]]
name = "root"
certificate = "root.pem"
sealed-key = "root.sealed"
crl-days = 390
revoked = [{serial = "0A:0B", date = 2027-01-09, reason = "KEY_COMPROMISE"}]
[[ca]]
name = "line9"
issuer = "root"
subject = "/O=Acme/CN=Acme line 9"
key-kind = "p256"
`)
	r.now = time.Date(2027, 1, 10, 9, 0, 0, 0, time.UTC)
	// With a share that is given twice, one that was mistyped, and one in small letters.
	mistyped := bytes.Clone(r.shares[2])
	mistyped[20] ^= 1
	small := bytes.ReplaceAll(bytes.ToLower(r.shares[3]), []byte("-"), []byte(" "))
	r.give, r.wrong = [][]byte{r.shares[4], r.shares[4], mistyped, small, r.shares[1]}, nil
	report, err := r.run(t.Context(), "second")
	if err != nil {
		t.Fatalf("%v (%s)", err, imprint.HintOf(err))
	}
	if fmt.Sprint(r.wrong) != "[<nil> <nil> share 5 was given before that isn't a share: a character of it is wrong <nil>]" {
		t.Errorf("the holders were told %v", r.wrong)
	}
	if !report.Authorities[0].Present || !report.SignedBy.Equal(root) || report.Authorities[1].Certificate.CheckSignatureFrom(root) != nil {
		t.Errorf("got %+v", report)
	}
	r.give = [][]byte{r.shares[0], r.shares[1], r.shares[2]}
	key, err := ceremony.OpenSealed(t.Context(), filepath.Join(r.dir, "second", "line9.sealed"), r)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(key.Public()) != fmt.Sprint(report.Authorities[1].Certificate.PublicKey) {
		t.Error("the sealed key isn't that of the certificate")
	}
}

// TestAnyChangeOfTheRecordIsFoundAndNamed: each line changed, taken out, doubled, moved; a
// line that is added; and by somebody who computes the hashes anew.
func TestAnyChangeOfTheRecordIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	_, err := r.run(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(r.get("out/record.jsonl"), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	found := func(what string, want int, changed []string) {
		t.Helper()
		_, err := ceremony.Verify([]byte(strings.Join(changed, "")), nil)
		var fault *ceremony.Fault
		if !errors.As(err, &fault) || fault.Line != want {
			t.Errorf("%s: got %v, want a fault in line %d", what, err, want)
		}
	}
	with := func(n int, text string) []string {
		changed := append([]string(nil), lines...)
		changed[n] = text
		return changed
	}
	for n, one := range lines {
		at := n + 1
		for place := range one {
			// Some places of each line, others in each; the last are the line feed's and the signature's.
			if place%211 != 7*n%211 && place < len(one)-3 {
				continue
			}
			found(fmt.Sprintf("line %d, byte %d", at, place), min(at, len(lines)), with(n, one[:place]+string(one[place]^1)+one[place+1:]))
			if t.Failed() {
				return
			}
		}
		found(fmt.Sprintf("line %d with a space", at), at, with(n, " "+one))
		found(fmt.Sprintf("line %d with a carriage return", at), at, with(n, strings.TrimSuffix(one, "\n")+"\r\n"))
		found(fmt.Sprintf("without line %d", at), at, with(n, ""))
		found(fmt.Sprintf("line %d twice", at), at+1, with(n, one+one))
		found(fmt.Sprintf("an empty line before %d", at), at, with(n, "\n"+one))
		if n+1 < len(lines) {
			swapped := with(n, lines[n+1])
			swapped[n+1] = one
			found(fmt.Sprintf("lines %d and %d swapped", at, at+1), at, swapped)
			found(fmt.Sprintf("line %d changed, and all hashes computed anew", at), at, rehashed(t, lines, n))
		}
		found(fmt.Sprintf("cut before line %d", at), at, lines[:n])
	}
	found("cut in the last line", len(lines), with(len(lines)-1, strings.TrimSuffix(lines[len(lines)-1], "\n")))
	found("all lines signed by a key of the forger's", len(lines), forged(t, lines))
	// A line of another ceremony, which is whole in itself.
	second := newRoom(t)
	_, err = second.run(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.SplitAfter(second.get("out/record.jsonl"), "\n")
	found("another record's line", 5, with(4, theirs[4]))
	found("another record's end", len(lines), with(len(lines)-1, theirs[len(lines)-1]))
}

// rehashed changes the time of a line, and lets each after it have the hash of the one
// before, as somebody would who has no key.
func rehashed(t *testing.T, lines []string, at int) []string {
	t.Helper()
	changed := append([]string(nil), lines[:at]...)
	prev := sha256.Sum256([]byte(strings.TrimSuffix(lines[max(at, 1)-1], "\n")))
	for n := at; n < len(lines); n++ {
		cut := strings.LastIndexByte(lines[n], ' ')
		var members map[string]any
		err := json.Unmarshal([]byte(lines[n][:cut]), &members)
		if err != nil {
			t.Fatal(err)
		}
		body := lines[n][:cut]
		if n == at {
			body = strings.Replace(body, members["at"].(string), "2026-12-01T09:00:00.001Z", 1)
		} else {
			body = strings.Replace(body, members["prev"].(string), hex.EncodeToString(prev[:]), 1)
		}
		whole := body + lines[n][cut:]
		prev = sha256.Sum256([]byte(strings.TrimSuffix(whole, "\n")))
		changed = append(changed, whole)
	}
	return changed
}

// forged is the record with a recorder's key of somebody who has no key of the CA: all but the CA's signature is right in itself.
func forged(t *testing.T, lines []string) []string {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var changed []string
	prev := strings.Repeat("0", 64)
	for n, one := range lines {
		body := one[:strings.LastIndexByte(one, ' ')]
		var members map[string]any
		err := json.Unmarshal([]byte(body), &members)
		if err != nil {
			t.Fatal(err)
		}
		body = strings.Replace(body, members["prev"].(string), prev, 1)
		if n == 0 {
			body = strings.Replace(body, members["recorder"].(string), base64.StdEncoding.EncodeToString(public), 1)
		}
		whole := body + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte("imprint ceremony record line, version 1\n"+body)))
		sum := sha256.Sum256([]byte(whole))
		prev = hex.EncodeToString(sum[:])
		changed = append(changed, whole+"\n")
	}
	return changed
}

// TestACeremonyThatEndsEarlyLeavesNothing, at whatever word it is broken off.
func TestACeremonyThatEndsEarlyLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	nothing := func(what string) {
		t.Helper()
		for _, name := range []string{"out", "out.unfinished"} {
			_, err := os.Lstat(filepath.Join(r.dir, name))
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is there (%v)", what, name, err)
			}
		}
	}
	last := 0
	for call := 1; ; call++ {
		ctx, cancel := context.WithCancel(t.Context())
		r.calls, r.shares, r.give = 0, nil, nil
		r.stop = func(n int) error {
			if n == call {
				cancel()
			}
			return nil
		}
		_, err := r.run(ctx, "out")
		cancel()
		if r.calls < call {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("broken off at word %d: got %v", call, err)
		}
		nothing(fmt.Sprintf("broken off at word %d", call))
		last = call
	}
	if last < 13 {
		t.Errorf("it could be broken off at %d words", last)
	}
	_, err := r.run(t.Context(), "out")
	if imprint.CodeOf(err) != imprint.CodeAlreadyExists {
		t.Errorf("over what is there: %v", err)
	}
	err = os.Mkdir(filepath.Join(r.dir, "killed.unfinished"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.run(t.Context(), "killed")
	if imprint.CodeOf(err) != imprint.CodeAlreadyExists || !strings.Contains(imprint.HintOf(err), "didn't come to its end") {
		t.Errorf("after a kill: %v", err)
	}
	err = os.RemoveAll(filepath.Join(r.dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	r.stop = nil
	for what, now := range map[string]time.Time{
		"a day too early": day.AddDate(0, 0, -2), "1970": time.Unix(5, 0), "a week late": day.AddDate(0, 0, 7),
	} {
		r.now = now
		_, err = r.run(t.Context(), "out")
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "the machine's clock says") {
			t.Errorf("%s: %v", what, err)
		}
		nothing(what)
	}
	r.now = day
	r.stop = func(n int) error {
		r.now = r.now.Add(-time.Minute)
		return nil
	}
	r.shares, r.give = nil, nil
	_, err = r.run(t.Context(), "out")
	if err == nil || !strings.Contains(err.Error(), "the clock went back") {
		t.Errorf("a clock that goes back: %v", err)
	}
	nothing("a clock that goes back")
}

// TestSharesThatAreNotEnoughOpenNothing: too few, of another set, forged.
func TestSharesThatAreNotEnoughOpenNothing(t *testing.T) {
	t.Parallel()
	r, other := newRoom(t), newRoom(t)
	for _, one := range []*room{r, other} {
		_, err := one.run(t.Context(), "out")
		if err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(r.dir, "out", "root.sealed")
	r.give = r.shares[:2]
	_, err := ceremony.OpenSealed(t.Context(), path, r)
	if !errors.Is(err, errNoMore) || !strings.Contains(err.Error(), "1 missing") {
		t.Errorf("two of three: %v", err)
	}
	r.wrong, r.give = nil, [][]byte{r.shares[0], other.shares[1], r.shares[1]}
	_, err = ceremony.OpenSealed(t.Context(), path, r)
	if !errors.Is(err, errNoMore) || !strings.Contains(fmt.Sprint(r.wrong), "share 2 is of another key") {
		t.Errorf("of another set: %v, %v", err, r.wrong)
	}
	r.give = other.shares[:3]
	_, err = ceremony.OpenSealed(t.Context(), path, r)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "don't open the key") {
		t.Errorf("all of another set: %v", err)
	}
	_, err = ceremony.OpenSealed(t.Context(), path+".not", r)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	label, err := ceremony.Label(r.shares[3])
	if err != nil || !strings.HasPrefix(label, "share 4 of set ") || !strings.HasSuffix(label, ", of which 3 are needed") {
		t.Errorf("the label is %q, %v", label, err)
	}
	for what, text := range map[string]string{"nothing": "", "words": "correct horse", "half": string(r.shares[0][:40]), "much": strings.Repeat("IMPS-", 1000)} {
		_, err = ceremony.Label([]byte(text))
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || len(text) > 20 && strings.Contains(err.Error(), text[10:20]) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAScriptWithAFaultSaysWhere: with line and column, before anything is made.
func TestAScriptWithAFaultSaysWhere(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	good := r.get("root.toml")
	for _, c := range []struct{ from, to, where, words string }{
		{`threshold = 3`, `threshold = `, ":15:13:", "unexpected character"},
		{`threshold = 3`, `threshold = "3"`, ":15:13:", ""},
		{`threshold = 3`, `treshold = 3`, ":15:1:", "keys.treshold isn't known"},
		{`threshold = 3`, `threshold = 1`, ":15:1:", "must be 2 to 5, not 1"},
		{`threshold = 3`, `threshold = 6`, ":15:1:", "must be 2 to 5, not 6"},
		{`shares = 5`, `shares = 51`, ":14:1:", "must be 2 to 50"},
		{`"Dee", "Eve"`, `"Dee"`, ":16:1:", "each of the 5 shares, and names 4"},
		{`"Dee", "Eve"`, `"Dee", "Dee"`, ":16:1:", "named twice"},
		{`title = "Acme root and lines"`, ``, ":1:1:", "title must say"},
		{`date = 2026-12-01`, ``, ":1:1:", "date must be"},
		{`date = 2026-12-01`, `date = "soon"`, ":3:8:", ""},
		{"[[person]]\nname = \"Ben Ali\"\nrole = \"witness\"\n", ``, ":1:1:", "at least two"},
		{`role = "witness"`, ``, ":9:3:", "name and a role"},
		{`name = "policy"`, `name = "root"`, ":25:1:", "another CA is called root"},
		{`name = "policy"`, `name = "../policy"`, ":25:1:", "small letters"},
		{`name = "policy"`, ``, ":24:3:", "small letters"},
		{"issuer = \"root\"\nsubject = \"/C=DE/O=Acme/CN=Acme policy\"", "issuer = \"roof\"\nsubject = \"/C=DE/O=Acme/CN=Acme policy\"", ":26:1:", "stands nowhere above"},
		{`subject = "/C=DE/O=Acme/CN=Acme policy"`, `subject = "Acme policy"`, ":27:1:", "doesn't begin with a slash"},
		{`profile = "policy-ca"`, `profile = "nothing"`, ":28:1:", "doesn't exist"},
		{`profile = "policy-ca"`, `profile = "server"`, ":28:1:", "of the kind server"},
		{`profile = "policy-ca"`, ``, ":32:1:", "the profile forbids it"}, // pathLength 0 below which line7 is to stand
		{`key-kind = "p384"`, `key-kind = "rsa1024"`, ":29:1:", "rsa1024"},
		{`csr = "line7.csr"`, `csr = "../line7.csr"`, ":34:1:", "beside the script"},
		{`csr = "line7.csr"`, `csr = "none.csr"`, ":34:1:", "couldn't read"},
		{`csr-sha256 = "`, `csr-sha256 = "0`, ":35:1:", "isn't the hash"},
		{`not-after = 2056-01-01`, `not-after = 2066-01-01`, ":19:1:", "the profile forbids it"},
		{`crl-days = 390`, `crl-days = 39000`, ":22:1:", "1 to 5000"},
		{`crl-days = 390`, "crl-days = 390\nrevoked = []", ":23:1:", "there already"},
		{`key-kind = "p256"`, "key-kind = \"p256\"\nsealed-key = \"x.sealed\"", ":24:1:", "there already"},
		{"name = \"root\"\nsubject", "name = \"root\"\nissuer = \"root\"\nsubject", ":20:1:", "nowhere above"},
		{`shares = 5`, "shares = 5\nstore = \"awskms:region=x\"", ":15:1:", "not both"},
	} {
		changed := strings.Replace(good, c.from, c.to, 1)
		if changed == good {
			t.Fatalf("%q isn't in the script", c.from)
		}
		r.put("root.toml", changed)
		_, err := r.read()
		var fault *ceremony.ScriptFault
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), "root.toml"+c.where) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%q in place of %q: got %v, want %s %s", c.to, c.from, err, c.where, c.words)
		}
	}
	for words, keys := range map[string]string{
		"works without a network": `store = "awskms:region=eu-central-1"`, "names a key": `store = "tpm:handle=0x81000001"`, "pin-value": `store = "pkcs11:token=x?module-path=/x&pin-value=1"`,
		"label of a key in store is its handle": `store = "tpm:"`,
	} {
		begin, end := strings.Index(good, "shares = 5"), strings.Index(good, "\n[[ca]]")
		r.put("root.toml", good[:begin]+keys+"\n"+good[end:])
		_, err := r.read()
		var fault *ceremony.ScriptFault
		if !errors.As(err, &fault) || fault.Line == 0 || !strings.Contains(err.Error()+imprint.HintOf(err), words) {
			t.Errorf("%s: got %v", keys, err)
		}
	}
}

package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheCeremonyOfTheManual runs the example of docs/ceremony.md as it stands there.
func TestTheCeremonyOfTheManual(t *testing.T) {
	need(t, "bash", "openssl")
	t.Parallel()
	s, dir := startServer(t), t.TempDir()
	run := s.shell(t, dir, commandsOf(t, "ceremony.md"))
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	for _, want := range []string{"no fault was found", "CA line8: CN=Acme line 8", "acme-root/line7.pem: OK", "line7-device.pem: OK", "line8-device.pem: OK", "Superseded",
		"3 of 5 shares of set", "lines are as they were written. CA root signed them"} {
		if !strings.Contains(run.stdout, want) {
			t.Errorf("the example doesn't say %q", want)
		}
	}
	if t.Failed() {
		t.Log(run.stdout)
	}
}

// smallScript is one root, whose keys stand in a part of its own.
func smallScript(keys string) string {
	return `title = "A root"
date = ` + time.Now().UTC().Format(time.DateOnly) + `
person = [{name = "Ada", role = "administrator"}, {name = "Ben", role = "witness"}]
[keys]
` + keys + `
[[ca]]
name = "root"
subject = "/CN=A root"
crl-days = 30
[[ca]]
name = "line"
issuer = "root"
subject = "/CN=A line"
key-kind = "p256"
`
}

// TestACeremonyIsHeldAtATerminal, where people type what they are asked, and mistype.
func TestACeremonyIsHeldAtATerminal(t *testing.T) {
	need(t, "bash", "sha256sum")
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "root.toml"), smallScript("shares = 3\nthreshold = 2\nholders = [\"Ada\", \"Ben\", \"Chi\"]"))
	env := cleanEnv("PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"))
	run := runTool(t, "", env, "bash", "-c", `set -eu
cd '`+dir+`'
# ends STATUS WORDS COMMAND... wants an end.
ends() { code=0; "${@:3}" >out.txt 2>&1 || code=$?; grep -q "$2" out.txt && [ $code = $1 ] || { echo "wanted $1 and $2 of ${*:3}, got $code:"; cat out.txt; exit 9; }; }
nothing() { [ ! -e out ] && [ ! -e out.unfinished ] || { echo something is left; exit 9; }; }
hold() { imprint ca ceremony --script root.toml --out out "$@"; }
reviewed=$(sha256sum root.toml | cut -d' ' -f1)
ends 1 'that was reviewed' hold <<<'00000000'; nothing
ends 1 'that was reviewed' hold <<<"${reviewed:0:7}"; nothing
ends 1 'that was reviewed' hold --reviewed ${reviewed:0:10}; nothing
ends 1 'nobody confirmed' hold </dev/null; nothing
ends 2 'say --script' imprint ca ceremony --script root.toml
# Shares on a medium that has some already, or isn't there.
mkdir medium; touch medium/share-2.txt
ends 1 'share-2.txt is there already' hold --reviewed $reviewed --shares-to medium; nothing
[ "$(ls medium)" = share-2.txt ]
ends 1 'couldn.t write the share' hold --reviewed $reviewed --shares-to none; nothing
# Ended from outside while it asks.
coproc imprint ca ceremony --script root.toml --out out --reviewed $reviewed 2>&1
pid=$COPROC_PID; exec 8<&${COPROC[0]}
while IFS= read -r line <&8; do [[ $line != *handed\ out* ]] || break; done
[ -e out.unfinished ] || { echo nothing was begun; exit 9; }
kill -TERM $pid; cat <&8 >rest.txt; wait $pid 2>/dev/null || true
nothing
# A whole one: the shares are copied from the screen and typed again, one of them wrongly.
coproc imprint ca ceremony --script root.toml --out out 2>&1
pid=$COPROC_PID; exec 8<&${COPROC[0]} 9>&${COPROC[1]}
share=
answer() { # reads until a question has come, keeps shares that are shown, and answers it
  local text= c
  while IFS= read -r -N1 c <&8; do
    text+=$c
    case $text in *"$1") break ;; esac
  done
  case $text in *"$1") ;; *) echo "no question $1 but: $text"; exit 9 ;; esac
  share=$(grep -o 'IMPS-[0-9A-Z-]*' <<<"$text" || true)
  echo "$2" >&9
}
answer 'reviewed: ' "$(sed 's/..../& /g' <<<${reviewed:0:12})"
for n in 1 2 3; do answer 'turned away: ' ''; answer 'compared: ' ''; eval share$n=$share; done
answer 'to come): ' "${share3}"
answer 'to come): ' "${share3}"
answer 'to come): ' "${share1%?}"
answer 'to come): ' "$(tr 'A-Z-' 'a-z ' <<<$share1)"
cat <&8 >rest.txt || true
wait $pid 2>/dev/null || true
grep -q 'at its end' rest.txt || { cat rest.txt; exit 9; }
imprint ca verify out/record.jsonl --root out/root.pem | grep 'lines are as'
grep -c IMPS- out/* | grep -v ':0' && exit 9
ends 1 'out is there already' hold --reviewed $reviewed
# Anybody finds a change, and which line it was.
sed '3s/Ada/Adb/' out/record.jsonl >bad.jsonl
ends 3 'line 3: it was changed' imprint ca verify bad.jsonl
sed '7d' out/record.jsonl >bad.jsonl; ends 3 'line 7: a line is missing' imprint ca verify bad.jsonl
head -9 out/record.jsonl >bad.jsonl; ends 3 'line 10: it is missing' imprint ca verify bad.jsonl
ends 3 'not by the given CA' imprint ca verify out/record.jsonl --root out/line.pem
ends 2 'no such file' imprint ca verify nothing
sed -i 's/crl-days = 30/crl-dais = 30/' root.toml
ends 1 'root.toml:11:1: ca.crl-dais isn.t known' imprint ca ceremony --script root.toml --check
`)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
}

// TestACeremonyWithAnHSM: the keys are made in the token, and a server that has the token
// signs with a CA of the ceremony.
func TestACeremonyWithAnHSM(t *testing.T) {
	need(t, "bash", "openssl", "sha256sum")
	t.Parallel()
	h := newHSM(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "root.toml"), smallScript("store = \"pkcs11:token=imprint?module-path="+h.module+"&pin-source=env:IMPRINT_HSM_PIN\""))
	env := cleanEnv(append(h.settings, "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))...)
	hold := func(words string, more ...string) {
		t.Helper()
		run := runTool(t, "", append(env, more...), "bash", "-c", "cd '"+dir+"' && imprint ca ceremony --script root.toml --out out --reviewed $(sha256sum root.toml | cut -d' ' -f1)")
		if !strings.Contains(run.all(), words) || strings.Contains(run.all(), h.pin) {
			t.Fatalf("exit code %d, want %q in\n%s", run.exit, words, run.all())
		}
		_, err := os.Lstat(filepath.Join(dir, "out.unfinished"))
		if !os.IsNotExist(err) {
			t.Errorf("out.unfinished is there: %v", err)
		}
	}
	hold("doesn't take the PIN", "IMPRINT_HSM_PIN=wrong")
	writeFile(t, filepath.Join(h.dir, "device"), "")
	hold("these keys were made in the store and have no certificate: root;id=")
	remove(t, filepath.Join(h.dir, "device"))
	hold("such a key already")
	text := readFile(t, filepath.Join(dir, "root.toml"))
	writeFile(t, filepath.Join(dir, "root.toml"), strings.Replace(text, "crl-days", "existing-key = true\ncrl-days", 1))
	hold("at its end")
	s := newServer(t, "--ca-key-store", h.store("hsm", "env:IMPRINT_HSM_PIN"))
	s.settings = append(s.settings, h.settings...)
	s.start()
	s.readEnv()
	said := s.caScript(t, dir, `
imprint ca verify out/record.jsonl --root out/root.pem | grep -o '^keys  *pkcs11:token=imprint'
imprint ca adopt --name root --cert out/root.pem --key hsm:root --crl-days 30 | grep ^status
imprint ca adopt --name line --cert out/line.pem --chain out/line.chain.pem --key hsm:line | grep ^status
issue line one; openssl verify -x509_strict -CAfile out/root.pem -untrusted out/line.pem one.pem
openssl verify -x509_strict -CAfile out/root.pem -crl_check -CRLfile out/root.crl out/line.pem
ls out | tr '\n' ' '
`)
	expectLines(t, said, `keys +pkcs11:token=imprint`, `status +ACTIVE`, `status +ACTIVE`, "one.pem: OK", "out/line.pem: OK", "line.chain.pem line.pem record.jsonl root.crl root.pem")
}

package test

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/eclipse/paho.golang/paho"

	"github.com/imprint-iot/imprint/test/failures"
)

// ward is where devices fail in every way of the table.
type ward struct {
	*functional        // provisioning by claim, with a hook
	b           *bench // just-in-time provisioning on the same server
	// hasty is a server whose limits of time and rate are short.
	hasty *stage
	brief *fleet // of hasty; a function is its certificate provider
	// What was made early, because it has to grow old.
	expired    *factory
	caExpires  time.Time
	stale      claimed // a token of brief
	staleSince time.Time
	installer  *device // a trusted user's claim of brief
	claimEnds  time.Time
}

// server is the one that the ways of the table meet unless they say otherwise.
func (w *ward) server() *server { return w.stage.server }

// way is a way to fail that a device went.
type way struct {
	on    *server           // nil: the ward's own
	word  string            // what finds its attempts
	seen  string            // what the device saw
	names map[string]string // what the row's {names} stand for
	// What a typed fix needs: the directory that it is typed in, what the person puts in
	// for words in capitals, and the device's next try, which must succeed. It is given
	// what the command printed.
	dir    string
	person map[string]string
	retry  func(t *testing.T, printed string)
}

// TestTheTraceNamesEveryFailureAndItsFix makes every row of the table real, and
// ensures that the device sees what the table says, that the trace names its step, its
// code and its fix, and that a fix that is a command mends it.
func TestTheTraceNamesEveryFailureAndItsFix(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf", "aws", "bash", "curl")
	t.Parallel()
	w := newWard(t)
	ways := map[string]func(*ward, *testing.T, string) way{}
	for _, part := range []map[string]func(*ward, *testing.T, string) way{tlsWays, connectWays, certificateWays, caWays, templateWays, messageWays, webWays, claimWays, providerWays, enrolWays} {
		maps.Copy(ways, part)
	}
	number := 0
	for _, section := range failures.Table {
		for _, row := range section.Rows {
			number++
			// An address of its own tells the row's attempts from all others.
			address := fmt.Sprintf("127.0.3.%d", number)
			gone := ways[row.Name]
			if gone == nil {
				t.Errorf("nothing makes the row %q real", row.Name)
				continue
			}
			delete(ways, row.Name)
			t.Run(row.Name, func(t *testing.T) {
				t.Parallel()
				if slices.Contains(goneAgain, row.Name) {
					for range 4 {
						gone(w, t, address)
					}
				}
				w.check(t, row, gone(w, t, address))
			})
		}
	}
	t.Run("one after another from one address", func(t *testing.T) {
		t.Parallel()
		w.changes(t, "127.0.4.1")
	})
	for _, name := range slices.Sorted(maps.Keys(ways)) {
		t.Errorf("the table has no row %q", name)
	}
	if number < 40 {
		t.Errorf("the table has %d rows, want 40 at least", number)
	}
}

// goneAgain are ways that one device goes several times before the trace is asked, as
// somebody does who tries again and again: its attempts are folded by then.
var goneAgain = []string{
	"wrong root", "clock never set", "clock ahead", "hangs up in silence", "not TLS", "old TLS", "no shared cipher suite", "wrong ALPN",
	"wrong server name", "no client certificate, TLS 1.3", "no client certificate, TLS 1.2", "wrong key",
	"packet before CONNECT", "MQTT 3.1", "enhanced authentication", "client id too long", "client id with $",
}

// changes lets a device fail in one way until that is folded, and then in others: the
// latest must be the one that is told.
func (w *ward) changes(t *testing.T, address string) {
	t.Helper()
	for n, name := range []string{"wrong root", "old TLS", "no shared cipher suite", "wrong server name", "wrong ALPN", "wrong root"} {
		for range 4 {
			tlsWays[name](w, t, address)
		}
		var row failures.Row
		for _, section := range failures.Table {
			for _, known := range section.Rows {
				if known.Name == name {
					row = known
				}
			}
		}
		if row.Name == "" {
			t.Fatalf("the table has no row %q", name)
		}
		fix, _, _ := strings.Cut(row.Fix, "{")
		until(t, fmt.Sprintf("%s to be told as the latest of %d attempts", name, 4*(n+1)), func() bool {
			list := w.server().explain(t, address)
			if len(list) == 0 {
				return false
			}
			latest := slices.MaxFunc(list, func(a, b attempt) int { return cmp.Compare(a.Began, b.Began) })
			failed := latest.Steps[len(latest.Steps)-1]
			return failed.Name == row.Step && failed.Code == row.Code && strings.Contains(failed.Fix, fix)
		})
	}
}

func newWard(t *testing.T) *ward {
	t.Helper()
	// The trace folds and samples as it does for everybody.
	w := &ward{
		functional: newFunctional(t, []string{"IMPRINT_HOOK_TIMEOUT=8s", "IMPRINT_EST_ADDRESS=127.0.0.1:0"}, asHook),
		hasty: newStage(t, []string{"IMPRINT_CONNECT_RATE=2", "IMPRINT_PUBLISH_RATE=20", "IMPRINT_MIN_KEEP_ALIVE=1s", "IMPRINT_HANDSHAKE_TIMEOUT=3s",
			"IMPRINT_CONNECT_TIMEOUT=2s", "IMPRINT_CLAIM_RATE=0", patientHooks, fmt.Sprintf("IMPRINT_MAX_PENDING_PER_ADDRESS=%d", pendingPerAddress), "IMPRINT_CLAIM_TOKEN_LIFETIME=2s", "IMPRINT_PROVISIONING_CLAIM_LIFETIME=10s"}...),
	}
	w.brief = w.hasty.one.fleet(t)
	a := w.brief.open5(t, w.brief.claim, "early", "json")
	w.stale = mustCall(t, a, "$aws/certificates/create/json", nil)
	w.staleSince = time.Now()
	a.leave(t)
	claim := must(w.brief.api.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: aws.String("sensors")}))(t)
	w.claimEnds = aws.ToTime(claim.Expiration)
	dir := t.TempDir()
	w.hasty.permit(t, dir, asProvider, w.brief.provide(t, w.hasty.putFunction(t, dir, w.functional.ca, w.gate)))
	w.server().mustShell(t, dir, "imprint ca create --root --name enrols --subject /CN=Enrols; imprint est create line7 --authority enrols --profile operational --passwords")
	w.installer = writtenDevice(t, "installer", aws.ToString(claim.CertificatePem), aws.ToString(claim.KeyPair.PrivateKey))

	w.b = &bench{server: w.server()}
	w.b.good = w.server().line(t, "Good")
	w.expired, w.caExpires = w.server().shortLivedCA(t)
	return w
}

// writtenDevice is a device whose certificate and key came as text.
func writtenDevice(t *testing.T, name, certificate, key string) *device {
	t.Helper()
	dir := t.TempDir()
	d := &device{name: name, cert: filepath.Join(dir, "device.pem"), key: filepath.Join(dir, "device.key")}
	writeFile(t, d.cert, certificate)
	writeFile(t, d.key, key)
	return d
}

var named = regexp.MustCompile(`\{[a-zA-Z]+\}`)

// check compares what became of a way with its row.
func (w *ward) check(t *testing.T, row failures.Row, gone way) {
	t.Helper()
	if gone.on == nil {
		gone.on = w.server()
	}
	if gone.seen != row.Seen {
		t.Errorf("the device saw %q, want %q", gone.seen, row.Seen)
	}
	fix := named.ReplaceAllStringFunc(row.Fix, func(name string) string {
		value, found := gone.names[strings.Trim(name, "{}")]
		if !found {
			t.Fatalf("nothing says what %s of the row's fix stands for", name)
		}
		return value
	})
	checkTold(t, gone, row, fix)
	checkWire(t, gone, row)
	if row.Typed != (gone.retry != nil) {
		t.Fatalf("the row says typed %t, and there is a next try: %t", row.Typed, gone.retry != nil)
	}
	if !row.Typed {
		return
	}
	for blank, value := range gone.person {
		if !strings.Contains(fix, blank) {
			t.Fatalf("the fix has no %s to put something in for: %s", blank, fix)
		}
		fix = strings.ReplaceAll(fix, blank, value)
	}
	gone.retry(t, typed(t, gone.on, gone.dir, fix))
}

// typed runs a fix as a person types it.
func typed(t *testing.T, on *server, dir, command string) string {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	run := on.shell(t, dir, command)
	if run.exit != 0 {
		t.Fatalf("the fix, typed: %s: exit code %d\n%s", command, run.exit, run.all())
	}
	return run.stdout
}

// checkTold says whether an attempt ended as the row says, and has its step with its
// fix: the last one that failed, where the attempt ended by it.
func checkTold(t *testing.T, gone way, row failures.Row, fix string) {
	t.Helper()
	told := func(a attempt) bool {
		if row.Outcome != "" && (a.Outcome != row.Outcome || a.Code != row.Code) {
			return false
		}
		// Where the connection goes on, more may fail later, such as its end.
		for _, s := range slices.Backward(a.Steps) {
			right := s.Name == row.Step && s.Code == row.Code && s.Detail != "" && strings.Contains(s.Fix, fix)
			if right || s.Verdict == "failed" && row.Outcome != "" {
				return right && s.Verdict == "failed"
			}
		}
		return false
	}
	deadline := time.NewTimer(patience / 2)
	defer deadline.Stop()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		// A device notices the end of its connection before the server has written it
		// down.
		list := gone.on.explain(t, gone.word)
		if slices.ContainsFunc(list, told) {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("imprint explain %s: no attempt has outcome %q and the failed step %s with code %s and a fix with %q:\n%s",
				gone.word, row.Outcome, row.Step, row.Code, fix, failedSteps(list))
		}
	}
}

// onWire finds what a device saw that its own log has by name and number.
var onWire = regexp.MustCompile(`TLS alert \d+|HTTP \d+|(CONNACK|PUBACK|SUBACK|DISCONNECT) (0x)?[0-9a-f]+|closed without [A-Z]+|\d{3} [A-Z][A-Za-z]+$`)

// checkWire ensures that what the device saw stands in the trace as the device's own
// log has it: of all that it tried, of which checkTold may have seen a part.
func checkWire(t *testing.T, gone way, row failures.Row) {
	t.Helper()
	for _, part := range onWire.FindAllString(row.Seen, -1) {
		until(t, fmt.Sprintf("imprint explain %s to have a step that says that the device was sent %q", gone.word, part), func() bool {
			return slices.ContainsFunc(gone.on.explain(t, gone.word), func(a attempt) bool {
				return slices.ContainsFunc(a.Steps, func(s traceStep) bool {
					rest, found := strings.CutPrefix(s.Wire, "sent ")
					return strings.HasPrefix(rest, part) || !found && strings.HasPrefix(s.Wire, part)
				})
			})
		})
	}
}

func failedSteps(list []attempt) string {
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, "%s %s, from %s as %q\n", a.Outcome, a.Code, a.Address, a.ClientID)
		for _, s := range a.Steps {
			if s.Verdict == "failed" {
				fmt.Fprintf(&b, "\t%s %s: %s\n\t\tfix: %s\n", s.Name, s.Code, s.Detail, s.Fix)
			}
		}
	}
	return b.String()
}

// turnedAway takes a device to the door with both versions of MQTT, under a client id
// and from an address, and gives what it saw.
func turnedAway(t *testing.T, s *server, d *device, clientID, address string, more ...string) string {
	t.Helper()
	return turnedAwayAt(t, s, d, clientID, dialing{from: address}, more...)
}

func turnedAwayAt(t *testing.T, s *server, d *device, clientID string, how dialing, more ...string) string {
	t.Helper()
	run := s.publish(t, d, clientID, "d/"+d.name+"/x", append(more, "-A", how.from)...)
	old := fmt.Sprintf("CONNACK %d, exit code %d", run.connack, run.exit)
	if run.exit != 0 && run.connack == noConnack && strings.Contains(run.all(), "sending CONNECT") {
		old = "closed without CONNACK"
	}
	return fmt.Sprintf("MQTT 5: %s; 3.1.1: %s", connack(s.refused(t, d, clientID, how)), old)
}

// connack is a reason of CONNACK in the table's words.
func connack(reason int) string {
	if reason == noConnack {
		return "closed without CONNACK"
	}
	return fmt.Sprintf("CONNACK %#x", reason)
}

// admitted is a next try of a device that must be let in at once, with Paho.
func admitted(s *server, d *device, clientID string) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		t.Helper()
		_ = s.connect(t, d, clientID, dialing{}).Disconnect(&paho.Disconnect{})
	}
}

// provisioned is a next try of a device that must be provisioned, and let in at the
// try after that.
func provisioned(s *server, d *device) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		t.Helper()
		_ = s.join5(t, d, dialing{}).Disconnect(&paho.Disconnect{})
	}
}

var alertLine = regexp.MustCompile(`SSL alert number (\d+)`)

// alert is how openssl was sent away.
func alert(t *testing.T, run toolRun) string {
	t.Helper()
	found := alertLine.FindStringSubmatch(run.all())
	if run.exit == 0 || found == nil {
		t.Fatalf("openssl: got exit code %d, want an alert\n%s", run.exit, run.all())
	}
	return "TLS alert " + found[1]
}

// hungUp is how a client ended the handshake that doesn't trust the server.
func hungUp(t *testing.T, run toolRun) string {
	t.Helper()
	if run.exit == 0 || !strings.Contains(run.all(), "certificate verify failed") {
		t.Fatalf("got exit code %d, want certificate verify failed\n%s", run.exit, run.all())
	}
	return "it hangs up: certificate verify failed"
}

// answered is what a claim's request got.
func answered(out claimed, accepted bool) string {
	if accepted {
		return "/accepted"
	}
	return fmt.Sprintf("/rejected: %d %s", out.Status, out.Code)
}

// asFile is a directory with a device's certificate as the fixes name it.
func asFile(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, name), text)
	return dir
}

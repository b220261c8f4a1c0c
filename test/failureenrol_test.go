package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// unsigned asks the certificate provider of the hasty server to sign, which fails in the
// way that the name says.
func unsigned(name string) func(*ward, *testing.T, string) way {
	return func(w *ward, t *testing.T, _ string) way {
		client := "claim-" + name
		a := deskOf(t, w.brief, w.brief.claim, client, "sensors")
		defer a.leave(t)
		_, csr := w.request(t, name+"-1")
		seen := answered(call(t, a, createFromCSR, map[string]any{"certificateSigningRequest": csr}))
		return way{on: w.hasty.server, word: client, seen: seen, names: map[string]string{"function": functionARN + "decide"}}
	}
}

var providerWays = map[string]func(*ward, *testing.T, string) way{
	"certificate provider crashes":             unsigned("crash"),
	"certificate provider answers nonsense":    unsigned("notpem"),
	"certificate provider answers another key": unsigned("otherkey"),
}

// enrols asks the port of EST with curl for a certificate.
func (w *ward) enrols(t *testing.T, from, place, csr string, args ...string) way {
	t.Helper()
	file := filepath.Join(t.TempDir(), "request.csr")
	writeFile(t, file, csr)
	args = append(args, "--header", "Content-Type: application/pkcs10", "--data-binary", "@"+file)
	return w.asked(t, from, w.server().env["IMPRINT_EST"]+"/.well-known/est/"+place, args...)
}

// password makes a one-time password, USER:PASSWORD, of the label line7.
func (w *ward) password(t *testing.T, more string) string {
	t.Helper()
	password, _, _ := strings.Cut(typed(t, w.server(), "", "imprint est otp create --label line7 "+more), "\t")
	return password
}

// enrolled is a next try with the password that was printed, which must be let through.
func (w *ward) enrolled(from, csr string) func(*testing.T, string) {
	return func(t *testing.T, printed string) {
		t.Helper()
		password, _, _ := strings.Cut(printed, "\t")
		expectEnrolled(t, w.enrols(t, from, "line7/simpleenroll", csr, "--user", password))
	}
}

func expectEnrolled(t *testing.T, gone way) {
	t.Helper()
	if gone.seen != "HTTP 200" {
		t.Errorf("the next try: got %s, want HTTP 200", gone.seen)
	}
}

// issued is a device with a certificate of the authority of line7.
func (w *ward) issued(t *testing.T, name string) *device {
	t.Helper()
	key, csr := w.request(t, name)
	d := &device{name: name, key: key, cert: filepath.Join(filepath.Dir(key), "cert.pem")}
	dir := asFile(t, "own.csr", csr)
	typed(t, w.server(), dir, "imprint ca issue enrols --csr own.csr --profile operational --out "+d.cert)
	return d
}

// renews asks for a successor of a device's certificate.
func (w *ward) renews(t *testing.T, from, label string, d *device) way {
	t.Helper()
	_, csr := w.request(t, d.name)
	return w.enrols(t, from, label+"/simplereenroll", csr, "--cert", d.cert, "--key", d.key)
}

var enrolWays = map[string]func(*ward, *testing.T, string) way{
	"EST wrong root": func(w *ward, t *testing.T, from string) way {
		run := runTool(t, "", cleanEnv(), "curl", "--silent", "--show-error", "--ipv4", "--interface", from, "--cacert", w.ca.cert, "--max-time", "20",
			w.server().env["IMPRINT_EST"]+"/.well-known/est/line7/cacerts")
		const noTrust = 60 // curl's exit code
		if run.exit != noTrust {
			t.Fatalf("curl: exit code %d, want %d\n%s", run.exit, noTrust, run.all())
		}
		return way{word: from, seen: "it hangs up: certificate verify failed"}
	},
	"EST without credentials": func(w *ward, t *testing.T, from string) way {
		_, csr := w.request(t, "unproven")
		return w.enrols(t, from, "line7/simpleenroll", csr)
	},
	"EST wrong password": func(w *ward, t *testing.T, from string) way {
		_, csr := w.request(t, "forgetful")
		gone := w.enrols(t, from, "line7/simpleenroll", csr, "--user", w.password(t, "")+"x")
		gone.person, gone.retry = map[string]string{"LABEL": "line7"}, w.enrolled(from, csr)
		return gone
	},
	"EST used password": func(w *ward, t *testing.T, from string) way {
		_, first := w.request(t, "first")
		_, second := w.request(t, "second")
		password := w.password(t, "")
		expectEnrolled(t, w.enrols(t, from, "line7/simpleenroll", first, "--user", password))
		gone := w.enrols(t, from, "line7/simpleenroll", second, "--user", password)
		gone.person, gone.retry = map[string]string{"LABEL": "line7"}, w.enrolled(from, second)
		return gone
	},
	"EST another device's password": func(w *ward, t *testing.T, from string) way {
		_, csr := w.request(t, "borrower")
		return w.enrols(t, from, "line7/simpleenroll", csr, "--user", w.password(t, "--serial lender"))
	},
	"EST unknown label": func(w *ward, t *testing.T, from string) way {
		_, csr := w.request(t, "astray")
		password := w.password(t, "")
		gone := w.enrols(t, from, "line9/simpleenroll", csr, "--user", password)
		gone.retry = func(t *testing.T, printed string) {
			if !strings.Contains(printed, "line7 ") || strings.Contains(printed, "line9") {
				t.Errorf("imprint est list printed\n%s", printed)
			}
			expectEnrolled(t, w.enrols(t, from, "line7/simpleenroll", csr, "--user", password))
		}
		return gone
	},
	"EST weak key": func(w *ward, t *testing.T, from string) way {
		return w.enrols(t, from, "line7/simpleenroll", weakRequest(t), "--user", w.password(t, ""))
	},
	"EST revoked certificate": func(w *ward, t *testing.T, from string) way {
		d := w.issued(t, "stolen")
		typed(t, w.server(), "", "imprint ca revoke --reason key-compromise --cert "+d.cert)
		return w.renews(t, from, "line7", d)
	},
	"EST renewal too early": func(w *ward, t *testing.T, from string) way {
		typed(t, w.server(), "", "imprint est create early --authority enrols --profile operational")
		d := w.issued(t, "eager")
		gone := w.renews(t, from, "early", d)
		gone.names = map[string]string{"label": "early"}
		gone.retry = func(t *testing.T, _ string) { expectEnrolled(t, w.renews(t, from, "early", d)) }
		return gone
	},
}

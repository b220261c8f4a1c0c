package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
)

// oneSession is a client's session cache that shows its last ticket to every
// server, whatever its name.
type oneSession struct{ last *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.last, o.last != nil }

func (o *oneSession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		o.last = s
	}
}

// movedClock is the present and a bit.
type movedClock struct{ by atomic.Int64 }

func (m *movedClock) now() time.Time       { return time.Now().Add(time.Duration(m.by.Load())) }
func (m *movedClock) move(d time.Duration) { m.by.Add(int64(d)) }

func openTickets(t testing.TB, o gateway.TicketOptions) *gateway.TicketKeys {
	t.Helper()
	o.Logger = quiet()
	keys, err := gateway.OpenTicketKeys(o)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// resuming is a client that keeps its sessions.
func resuming(name string, version uint16, cert tls.Certificate) *tls.Config {
	config := client(name, cert)
	config.MinVersion, config.MaxVersion = version, version
	config.ClientSessionCache = &oneSession{}
	return config
}

func eachVersion(t *testing.T, fn func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			fn(t, version)
		})
	}
}

// wantConnected connects and checks whether the session was resumed, as the
// client and as the trace tells it.
func (w *world) wantConnected(t *testing.T, config *tls.Config, resumed bool) {
	t.Helper()
	conn, accepted, err := w.connect(t, config)
	if err != nil || !accepted {
		t.Fatalf("accepted %t, %v, want true", accepted, err)
	}
	if got := conn.ConnectionState().DidResume; got != resumed {
		t.Errorf("the client says resumed %t, want %t", got, resumed)
	}
	a := w.attempt(t, conn)
	if got := a.Steps[1]; got.Name != "tls" || strings.Contains(got.Detail, "session resumed") != resumed {
		t.Errorf("got step %+v, want it to say resumed %t", got, resumed)
	}
}

func TestAResumedSessionIsCheckedAgainstTheCertificateAsItIsNow(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(t *testing.T, w *world, cert tls.Certificate, clock *movedClock)
		step   string
		code   imprint.Code
	}{
		{"INACTIVE", func(t *testing.T, w *world, cert tls.Certificate, _ *movedClock) {
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateInactive)
		}, "certificate", imprint.CodeCertificateInactive},
		{"REVOKED", func(t *testing.T, w *world, cert tls.Certificate, _ *movedClock) {
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateRevoked)
		}, "certificate", imprint.CodeCertificateRevoked},
		{"in transfer", func(t *testing.T, w *world, cert tls.Certificate, _ *movedClock) {
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificatePendingTransfer)
		}, "certificate", imprint.CodeCertificateTransfer},
		{"deleted", func(t *testing.T, w *world, cert tls.Certificate, _ *movedClock) {
			id := pki.CertificateID(cert.Certificate[0])
			w.update(t, func(tx imprint.Tx) error {
				err := tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: "all", Target: home.CertificateARN(id)})
				if err != nil {
					return err
				}
				return tx.DeleteCertificate(home, id)
			})
		}, "ca", imprint.CodeCANotRegistered},
		{"expired", func(_ *testing.T, _ *world, _ tls.Certificate, clock *movedClock) {
			clock.move(2 * time.Hour)
		}, "certificate", imprint.CodeCertificateExpired},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			eachVersion(t, func(t *testing.T, version uint16) {
				clock := &movedClock{}
				w := newWorld(t, settings{clock: clock.now, tickets: openTickets(t, gateway.TicketOptions{})})
				cert := issue(ecdsaKey(), "device", w.ca)
				w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
				config := resuming("localhost", version, cert)
				w.wantConnected(t, config, false)
				w.wantConnected(t, config, true)
				row.change(t, w, cert, clock)
				conn, accepted, err := w.connect(t, config)
				if accepted || err == nil {
					t.Errorf("accepted %t, %v, want a refusal", accepted, err)
				}
				if !conn.ConnectionState().DidResume {
					t.Error("the session wasn't resumed, so this shows nothing")
				}
				wantRefused(t, w.attempt(t, conn), row.step, row.code)
			})
		})
	}
}

func TestATicketOpensNoOtherTenant(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{tickets: openTickets(t, gateway.TicketOptions{})})
		cert := issue(ecdsaKey(), "device", w.ca)
		w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
		config := resuming("localhost", version, cert)
		w.wantConnected(t, config, false)
		elsewhere := config.Clone()
		elsewhere.ServerName = otherName
		conn, accepted, err := w.connect(t, elsewhere)
		if accepted || err == nil {
			t.Errorf("the other tenant let it in: %t, %v", accepted, err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("the session was resumed under another server name")
		}
		a := w.attempt(t, conn)
		wantRefused(t, a, "ca", imprint.CodeCANotRegistered)
		if a.Tenant != other {
			t.Errorf("got tenant %s, want %s", a.Tenant, other)
		}
	})
}

// The tenant of a device without a server name may change between two
// connections: it is looked up for each.
func TestAResumedSessionWithoutServerNameFindsItsTenantAnew(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{tickets: openTickets(t, gateway.TicketOptions{})})
		cert := issue(ecdsaKey(), "device", w.ca)
		w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
		config := resuming("", version, cert)
		w.wantConnected(t, config, false)
		w.register(t, home, cert, imprint.ModeSNIOnly, imprint.CertificateActive)
		w.register(t, other, cert, imprint.ModeDefault, imprint.CertificateActive)
		conn, accepted, err := w.connect(t, config)
		if !accepted || err != nil || !conn.ConnectionState().DidResume {
			t.Fatalf("accepted %t, %v, resumed %t", accepted, err, conn.ConnectionState().DidResume)
		}
		if a := w.attempt(t, conn); a.Tenant != other {
			t.Errorf("got tenant %s, want %s", a.Tenant, other)
		}
	})
}

func TestTicketKeysRotateAndGo(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		clock := &movedClock{}
		keys := openTickets(t, gateway.TicketOptions{Clock: clock.now, Rotate: time.Hour, Keep: 3 * time.Hour})
		rotate := func(after time.Duration) {
			clock.move(after)
			err := keys.Rotate()
			if err != nil {
				t.Fatal(err)
			}
		}
		w := newWorld(t, settings{tickets: keys})
		cert := issue(ecdsaKey(), "device", w.ca)
		w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
		config := resuming("localhost", version, cert)
		w.wantConnected(t, config, false)
		rotate(61 * time.Minute)
		rotate(61 * time.Minute)
		old := *config.ClientSessionCache.(*oneSession)
		w.wantConnected(t, config, true) // under a rotated key, and gets a ticket under the new one
		rotate(61 * time.Minute)
		config.ClientSessionCache = &old
		w.wantConnected(t, config, false) // its key is gone
		if got := w.gateway.Counters(); got.Resumed != 1 || got.HandshakesOK != 3 {
			t.Errorf("counted %d resumed of %d, want 1 of 3", got.Resumed, got.HandshakesOK)
		}
	})
}

// However often a session is resumed, the key must be proved anew in time.
func TestResumptionEndsWithoutANewProofOfTheKey(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		clock := &movedClock{}
		keys := openTickets(t, gateway.TicketOptions{Clock: clock.now, Rotate: time.Hour, Keep: 3 * time.Hour})
		w := newWorld(t, settings{clock: func() time.Time { return clock.now() }, tickets: keys})
		cert := selfSigned(ecdsaKey(), "device")
		cert.Leaf.NotAfter = time.Now().Add(24 * time.Hour) // as the registry has it
		w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
		config := resuming("localhost", version, cert)
		for n, resumed := range []bool{false, true, true, false, true} {
			w.wantConnected(t, config, resumed)
			clock.move(61 * time.Minute)
			err := keys.Rotate()
			if err != nil {
				t.Fatalf("rotation %d: %v", n, err)
			}
		}
	})
}

func TestSessionsOutliveARestart(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		dir := t.TempDir()
		master, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
		if err != nil {
			t.Fatal(err)
		}
		options := gateway.TicketOptions{Path: filepath.Join(dir, "tickets.sealed"), Sealer: seal.New(master)}
		cert := selfSigned(ecdsaKey(), "device")
		config := resuming("localhost", version, cert)
		start := func() *world {
			w := newWorld(t, settings{tickets: openTickets(t, options)})
			w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			return w
		}
		start().wantConnected(t, config, false)
		start().wantConnected(t, config, true)
		sealed, err := os.ReadFile(options.Path)
		if err != nil {
			t.Fatal(err)
		}
		sealed[len(sealed)-1] ^= 1
		err = os.WriteFile(options.Path, sealed, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		start().wantConnected(t, config, false) // a damaged file costs a full handshake
		start().wantConnected(t, config, true)
		err = os.Remove(options.Path)
		if err != nil {
			t.Fatal(err)
		}
		start().wantConnected(t, config, false)
	})
}

func TestWithoutTicketsNothingResumes(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{})
		cert := selfSigned(ecdsaKey(), "device")
		w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
		config := resuming("localhost", version, cert)
		w.wantConnected(t, config, false)
		w.wantConnected(t, config, false)
		if config.ClientSessionCache.(*oneSession).last != nil {
			t.Error("a ticket was issued")
		}
	})
}

// A ticket must fit into a TLS message: the chain that it carries is bounded.
func TestAChainThatDoesNotFitIntoATicketIsRefused(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version uint16) {
		w := newWorld(t, settings{tickets: openTickets(t, gateway.TicketOptions{})})
		cert := issue(ecdsaKey(), "device", w.ca)
		for range 100 {
			cert.Certificate = append(cert.Certificate, w.ca.cert.Raw)
		}
		conn, accepted, err := w.connect(t, resuming("localhost", version, cert))
		if accepted || err == nil {
			t.Errorf("accepted %t, %v", accepted, err)
		}
		a := w.attempt(t, conn)
		wantRefused(t, a, "tls", imprint.CodeClientCertificate)
		if detail := a.Steps[len(a.Steps)-1].Detail; !strings.Contains(detail, "too long client certificates") {
			t.Errorf("got %q", detail)
		}
	})
}

func TestTicketKeysThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for _, o := range []gateway.TicketOptions{
		{Rotate: 2 * time.Hour, Keep: time.Hour},
		{Rotate: time.Second, Keep: time.Hour},
	} {
		_, err := gateway.OpenTicketKeys(o)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("%s and %s: got %v, want %s", o.Rotate, o.Keep, err, imprint.CodeInvalidRequest)
		}
	}
}

// What can't be written is used all the same.
func TestTicketKeysRotateWhenTheyCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	master, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	clock := &movedClock{}
	gone := filepath.Join(dir, "gone")
	err = os.Mkdir(gone, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	keys := openTickets(t, gateway.TicketOptions{Path: filepath.Join(gone, "tickets.sealed"), Sealer: seal.New(master), Clock: clock.now})
	err = os.RemoveAll(gone)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, settings{tickets: keys})
	cert := selfSigned(ecdsaKey(), "device")
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	config := resuming("localhost", tls.VersionTLS13, cert)
	w.wantConnected(t, config, false)
	old := *config.ClientSessionCache.(*oneSession)
	for range 2 {
		clock.move(13 * time.Hour)
		err = keys.Rotate()
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want it told", err)
		}
	}
	config.ClientSessionCache = &old
	w.wantConnected(t, config, false) // the first key is gone
	w.wantConnected(t, config, true)  // the newest works
}

func TestRunRotatesUntilItIsEnded(t *testing.T) {
	t.Parallel()
	clock := &movedClock{}
	var looked atomic.Int64
	keys := openTickets(t, gateway.TicketOptions{Clock: func() time.Time { looked.Add(1); return clock.now() }, Rotate: time.Millisecond, Keep: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keys.Run(ctx)
	}()
	for looked.Load() < 5 && t.Context().Err() == nil {
		clock.move(time.Millisecond)
	}
	cancel()
	<-ended
	if looked.Load() < 5 {
		t.Errorf("looked %d times", looked.Load())
	}
}

// TestTicketKeysAreWrittenAsSoonAsTheyCanBe ensures that keys that couldn't be written
// don't wait for the next rotation.
func TestTicketKeysAreWrittenAsSoonAsTheyCanBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	master, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	clock := &movedClock{}
	folder := filepath.Join(dir, "folder")
	options := gateway.TicketOptions{Path: filepath.Join(folder, "tickets.sealed"), Sealer: seal.New(master), Clock: clock.now}
	err = os.Mkdir(folder, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	keys := openTickets(t, options)
	err = os.RemoveAll(folder)
	if err != nil {
		t.Fatal(err)
	}
	clock.move(61 * time.Minute)
	err = keys.Rotate()
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want it told", err)
	}
	err = os.Mkdir(folder, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	err = keys.Rotate() // nothing is due but the writing
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(options.Path)
	if err != nil {
		t.Errorf("the keys aren't written: %v", err)
	}
}

// TestRunTellsOnceOfKeysThatCannotBeWritten ensures that trying again fills no log.
func TestRunTellsOnceOfKeysThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	master, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder")
	err = os.Mkdir(folder, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	clock := &movedClock{}
	var looked atomic.Int64
	var log bytes.Buffer // read when Run has ended
	keys, err := gateway.OpenTicketKeys(gateway.TicketOptions{
		Path: filepath.Join(folder, "tickets.sealed"), Sealer: seal.New(master), Rotate: time.Millisecond, Keep: 100 * time.Millisecond,
		Clock:  func() time.Time { looked.Add(1); return clock.now() },
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = os.RemoveAll(folder)
	if err != nil {
		t.Fatal(err)
	}
	clock.move(time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keys.Run(ctx)
	}()
	for looked.Load() < 6 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	cancel()
	<-ended
	if n := strings.Count(log.String(), "couldn't keep"); n != 1 {
		t.Errorf("lines in the log: got %d, want 1: %s", n, log.String())
	}
}

package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/imprint-iot/imprint/internal/sinktest"
)

// passwordFile writes a password where a sink reads it.
func passwordFile(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	setPassword(t, path, password)
	return path
}

func setPassword(t *testing.T, path, password string) {
	t.Helper()
	err := os.WriteFile(path, []byte(password+"\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

// checkRefusal ensures that a sink whose server it doesn't trust, or that doesn't
// trust it, says so at once, and tells no secret.
func checkRefusal(t *testing.T, name, setting, want string, secrets ...string) {
	t.Helper()
	sink := openSink(t, setting)
	defer func() { _ = sink.Close() }()
	began := time.Now()
	err := sink.Put(t.Context(), record("id-refused", "refused"))
	if err == nil {
		t.Errorf("%s: the record was taken", name)
		return
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want it to have %q", name, err, want)
	}
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
	if took := time.Since(began); took > patience/4 {
		t.Errorf("%s: it took %s to say so", name, took)
	}
}

// TestPostgresSinkTrustsItsAuthorityAlone ensures that a record goes over TLS to a
// server whose certificate is of the authority of sslrootcert and for the URL's
// host, with the password of the file, and to no other.
func TestPostgresSinkTrustsItsAuthorityAlone(t *testing.T) {
	database, ca, stranger := sinktest.StartPostgres(t), sinktest.NewCA(t), sinktest.NewCA(t)
	const wrong = "a wrong password"
	passwords := passwordFile(t, database.Password)
	setting := func(sslmode, root, passwords string) string {
		return database.URL("?table=records&create=true&sslmode=" + sslmode + "&sslrootcert=" + root + "&password-file=" + passwords)
	}
	checkRefusal(t, "a server without TLS", setting("verify-full", ca.File, passwords), "refused TLS", database.Password)
	database.UseTLS(ca, "127.0.0.1", "database.example")
	checkRefusal(t, "another authority", setting("verify-full", stranger.File, passwords), "unknown authority", database.Password)
	checkRefusal(t, "a wrong password", setting("verify-full", ca.File, passwordFile(t, wrong)), "password authentication failed", database.Password, wrong)
	if got, err := database.Rows("SELECT 1 FROM pg_tables WHERE tablename = 'records'"); err != nil || len(got) > 0 {
		t.Errorf("tables after the refusals: got %v, %v, want none", got, err)
	}

	changing := passwordFile(t, wrong)
	sink := openSink(t, setting("verify-full", ca.File, changing))
	defer func() { _ = sink.Close() }()
	if sink.Put(t.Context(), record("id-1", "one")) == nil {
		t.Error("a wrong password was taken")
	}
	setPassword(t, changing, database.Password) // it is read for each new connection
	putUntil(t, sink, record("id-1", "one"))
	if got := count(t, database, "SELECT 1 FROM records"); got != 1 {
		t.Errorf("%d rows, want one", got)
	}
	if got := count(t, database, "SELECT 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'imprint' AND ssl"); got < 1 {
		t.Error("the sink's connection has no TLS")
	}

	database.UseTLS(ca, "elsewhere.example")
	checkRefusal(t, "a certificate for another host", setting("verify-full", ca.File, passwords), "127.0.0.1", database.Password)
}

// TestNATSSinkTrustsItsAuthorityAlone is the same for NATS.
func TestNATSSinkTrustsItsAuthorityAlone(t *testing.T) {
	const secret, wrong = "a secret of NATS", "a wrong password"
	ca, stranger := sinktest.NewCA(t), sinktest.NewCA(t)
	certificate, key := ca.Issue(t.TempDir(), "127.0.0.1")
	server := sinktest.StartNATS(t, `tls { cert_file: "`+certificate+`", key_file: "`+key+`" }
authorization { users = [ {user: imprint, password: "`+secret+`"} ] }`)
	subscription, err := server.Connect(nats.UserInfo("imprint", secret), nats.RootCAs(ca.File)).SubscribeSync("records")
	if err != nil {
		t.Fatal(err)
	}
	passwords := passwordFile(t, secret)
	setting := func(root, passwords string) string {
		return "tls://imprint@" + server.Address() + "/records?ca=" + root + "&password-file=" + passwords
	}
	checkRefusal(t, "another authority", setting(stranger.File, passwords), "unknown authority", secret)
	checkRefusal(t, "the system's authorities", "tls://imprint@"+server.Address()+"/records?password-file="+passwords, "unknown authority", secret)
	checkRefusal(t, "a wrong password", setting(ca.File, passwordFile(t, wrong)), "Authorization Violation", secret, wrong)
	checkRefusal(t, "no password", "tls://"+server.Address()+"/records?ca="+ca.File, "Authorization Violation", secret)
	sink := openSink(t, setting(ca.File, passwords))
	defer func() { _ = sink.Close() }()
	putUntil(t, sink, record("id-1", "one"))
	m, err := subscription.NextMsg(patience)
	if err != nil || string(m.Data) != "one" {
		t.Errorf("the subscriber got %+v, %v, want one record and none of those that were refused", m, err)
	}

	plain := sinktest.StartNATS(t, "")
	checkRefusal(t, "a server without TLS", "tls://"+plain.Address()+"/records?ca="+ca.File, "secure connection", secret)
	elsewhere, elsewhereKey := ca.Issue(t.TempDir(), "elsewhere.example")
	other := sinktest.StartNATS(t, `tls { cert_file: "`+elsewhere+`", key_file: "`+elsewhereKey+`" }`)
	checkRefusal(t, "a certificate for another host", "tls://"+other.Address()+"/records?ca="+ca.File, "127.0.0.1", secret)
}

// TestNATSSinkHasACertificateOfItsOwn ensures that a server that wants one gets it.
func TestNATSSinkHasACertificateOfItsOwn(t *testing.T) {
	ca := sinktest.NewCA(t)
	certificate, key := ca.Issue(t.TempDir(), "127.0.0.1")
	server := sinktest.StartNATS(t, `tls { cert_file: "`+certificate+`", key_file: "`+key+`", ca_file: "`+ca.File+`", verify: true }`)
	checkRefusal(t, "no certificate", "tls://"+server.Address()+"/records?ca="+ca.File, "tls")
	own, ownKey := ca.Issue(t.TempDir(), "imprint")
	sink := openSink(t, "tls://"+server.Address()+"/records?ca="+ca.File+"&cert="+own+"&key="+ownKey)
	defer func() { _ = sink.Close() }()
	putUntil(t, sink, record("id-1", "one"))
}

//go:build kafka

package rules_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/imprint-iot/imprint/internal/sinktest"
)

// TestKafkaSinkTellsOfItsServer ensures that a record goes over TLS to brokers whose
// certificates are of the authority of ca, with the password of the file, and to no
// other, and that the error says which of them is wrong.
func TestKafkaSinkTellsOfItsServer(t *testing.T) {
	const secret, wrong = "a secret of Kafka", "a wrong password"
	ca, stranger := sinktest.NewCA(t), sinktest.NewCA(t)
	certificate, key := ca.Issue(t.TempDir(), "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca.File)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the authority's file has no certificate: %v", err)
	}
	k := startKafka(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "imprint", secret), kfake.Superuser("PLAIN", "plain", secret))
	k.user = []kgo.Opt{kgo.SASL(scram.Auth{User: "imprint", Pass: secret}.AsSha512Mechanism()), kgo.DialTLSConfig(&tls.Config{RootCAs: roots})}
	passwords := passwordFile(t, secret)
	setting := func(user, root, passwords, more string) string {
		return "kafka://" + user + "@" + k.server + "/records?tls=true&ca=" + root + "&password-file=" + passwords + more
	}
	t.Run("refusals", func(t *testing.T) { // each takes a record's whole time
		for name, c := range map[string]struct{ setting, want string }{
			"another authority":               {setting("imprint", stranger.File, passwords, ""), "unknown authority"},
			"a wrong password":                {setting("imprint", ca.File, passwordFile(t, wrong), ""), "SASL"},
			"a wrong password, as plain text": {setting("plain", ca.File, passwordFile(t, wrong), "&mechanism=PLAIN"), "SASL"},
			"plain text to a broker with TLS": {"kafka://imprint@" + k.server + "/records?password-file=" + passwords, "couldn't connect to 127.0.0.1"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				checkRefusal(t, name, c.setting, c.want, secret, wrong)
			})
		}
	})
	for user, more := range map[string]string{"imprint": "", "plain": "&mechanism=PLAIN"} {
		sink := openSink(t, setting(user, ca.File, passwords, more))
		putUntil(t, sink, record("id-"+user, "one of "+user))
		if got := k.times(t, "one of "+user); got != 1 {
			t.Errorf("the record of %s is there %d times, want once", user, got)
		}
		err = sink.Close()
		if err != nil {
			t.Error(err)
		}
	}
	if got := k.times(t, "refused"); got != 0 {
		t.Errorf("%d records are there that were refused", got)
	}
}

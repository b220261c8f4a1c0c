package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/pki"
)

// answers says whether a live connection of MQTT 3.1.1 takes a message.
func answers(t *testing.T, conn *tls.Conn) bool {
	t.Helper()
	message := &mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: 1}
	_, err := conn.Write(message.Append(nil, mqtt.V311))
	if err != nil {
		return false
	}
	ack := make([]byte, 4)
	_, err = io.ReadFull(conn, ack)
	return err == nil && bytes.Equal(ack, []byte{0x40, 2, 0, 1})
}

// A CA's status decides on certificates that aren't registered yet, and on
// nothing else (developer guide, "Deactivate a CA certificate").
func TestACAThatIsSwitchedOffKeepsTheDevicesItSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{hold: true})
	w.registerCA(t, home, imprint.ModeDefault, jitp)
	config := client("localhost", issue(ecdsaKey(), "device", w.ca))
	live, accepted, err := w.connect(t, config)
	if !accepted {
		t.Fatalf("the first connection: %v", err)
	}
	w.update(t, func(tx imprint.Tx) error {
		ca, err := tx.CA(home, pki.CertificateID(w.ca.cert.Raw))
		if err != nil {
			return err
		}
		ca.Status = imprint.CAInactive
		return tx.PutCA(ca)
	})
	if !answers(t, live) {
		t.Error("the connection ended with its CA")
	}
	again, accepted, err := w.connect(t, config)
	if !accepted {
		t.Errorf("the device that comes again: %v", err)
	}
	if accepted && !answers(t, again) {
		t.Error("the device that came again isn't heard")
	}
	newcomer, accepted, _ := w.connect(t, client("localhost", issue(ecdsaKey(), "newcomer", w.ca)))
	if accepted {
		t.Error("an unknown device of an INACTIVE CA was let in")
	}
	wantRefused(t, w.attempt(t, newcomer), "ca", imprint.CodeCAInactive)
}

func TestAPolicyOfAThingGroupHoldsForLiveConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{hold: true})
	w.registerCA(t, home, imprint.ModeDefault, jitp)
	const deny = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:Publish","Resource":"*"}]}`
	w.update(t, func(tx imprint.Tx) error {
		err := tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: "quarantine"})
		if err != nil {
			return err
		}
		err = tx.PutPolicy(imprint.Policy{Tenant: home, Name: "mute", DefaultVersion: 1, LastVersion: 1})
		if err != nil {
			return err
		}
		err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: "mute", Version: 1, Document: deny})
		if err != nil {
			return err
		}
		return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: "mute", Target: home.ThingGroupARN("quarantine")})
	})
	conn, accepted, err := w.connect(t, client("localhost", issue(ecdsaKey(), "device", w.ca)))
	if !accepted || !answers(t, conn) {
		t.Fatalf("accepted %t, %v, want a connection that may publish", accepted, err)
	}
	w.update(t, func(tx imprint.Tx) error {
		return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Thing: "device", Group: "quarantine"})
	})
	if answers(t, conn) {
		t.Error("a thing of a group that may not publish went on publishing")
	}
	a := w.attempt(t, conn)
	for a.Outcome == imprint.OutcomeConnected && t.Context().Err() == nil {
		a = w.attempt(t, conn)
	}
	if a.Code != imprint.CodePublishDenied {
		t.Errorf("got code %s, want %s", a.Code, imprint.CodePublishDenied)
	}
}

func TestACertificateThatExpiresKeepsItsConnection(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	w := newWorld(t, settings{clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	cert := issue(ecdsaKey(), "device", w.ca)
	w.register(t, home, cert, imprint.ModeDefault, imprint.CertificateActive)
	live, accepted, err := w.connect(t, client("localhost", cert))
	if !accepted {
		t.Fatalf("the certificate in its time: %v", err)
	}
	ahead.Store(int64(2 * time.Hour))
	if !answers(t, live) {
		t.Error("the connection ended with the certificate's validity")
	}
	late, accepted, _ := w.connect(t, client("localhost", cert))
	if accepted {
		t.Error("an expired certificate was let in")
	}
	wantRefused(t, w.attempt(t, late), "certificate", imprint.CodeCertificateExpired)
}

// TestAChangeWhileTheBodyComesDecidesAnHTTPSPublish ensures that a slow body
// doesn't carry a message past a change that was acknowledged before its end.
func TestAChangeWhileTheBodyComesDecidesAnHTTPSPublish(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(tx imprint.Tx, cert imprint.Certificate) error
		status int
	}{
		"nothing": {func(imprint.Tx, imprint.Certificate) error { return nil }, http.StatusOK},
		"the certificate is set INACTIVE": {func(tx imprint.Tx, cert imprint.Certificate) error {
			cert.Status = imprint.CertificateInactive
			return tx.PutCertificate(cert)
		}, http.StatusForbidden},
		"the policy is detached": {func(tx imprint.Tx, cert imprint.Certificate) error {
			return tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: "all", Target: home.CertificateARN(cert.ID)})
		}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			device := w.device(t, home)
			finish := w.halfPublish(t, client("localhost", device))
			w.update(t, func(tx imprint.Tx) error {
				cert, err := tx.Certificate(home, pki.CertificateID(device.Certificate[0]))
				if err != nil {
					return err
				}
				return c.change(tx, cert)
			})
			if got := finish(); got.status != c.status {
				t.Errorf("got status %d, %q, want %d", got.status, got.message, c.status)
			}
		})
	}
}

// halfPublish sends the head of a message. When it returns, the policies have let the
// message in and the server has asked for its body, which finish sends for the answer.
func (w *world) halfPublish(t *testing.T, config *tls.Config) (finish func() answer) {
	t.Helper()
	conn := w.dialHTTPS(t, config)
	_, err := io.WriteString(conn, "POST /topics/a?qos=1 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	_, _ = r.ReadString('\n')
	return func() answer {
		t.Helper()
		_, err := io.WriteString(conn, "late")
		if err != nil {
			t.Fatal(err)
		}
		return readAnswer(t, r)
	}
}

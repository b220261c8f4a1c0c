package gateway_test

import (
	"bytes"
	"crypto/tls"
	"io"
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

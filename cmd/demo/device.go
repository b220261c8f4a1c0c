package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// factory makes keys and certificates as a device maker does.
type factory struct {
	caKey  *ecdsa.PrivateKey
	ca     *x509.Certificate
	device tls.Certificate
	id     string // certificate id of the device made last
	name   string
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (f *factory) sign(subject pkix.Name, key *ecdsa.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}, f.ca, key, f.caKey)
}

// makeCA makes the factory's CA and the certificate that proves its key.
func (f *factory) makeCA(registrationCode string) (ca, verification string, err error) {
	f.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	now := time.Now()
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Example Devices"}, CommonName: "Example factory CA"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, &f.caKey.PublicKey, f.caKey)
	if err != nil {
		return "", "", err
	}
	f.ca, err = x509.ParseCertificate(der)
	if err != nil {
		return "", "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	proof, err := f.sign(pkix.Name{CommonName: registrationCode}, &key.PublicKey)
	if err != nil {
		return "", "", err
	}
	return pemOf(der), pemOf(proof), nil
}

// makeDevice makes a key and a certificate; an empty name leaves the common
// name out.
func (f *factory) makeDevice(name string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := f.sign(pkix.Name{CommonName: name, Country: []string{"FR"}}, &key.PublicKey)
	if err != nil {
		return "", err
	}
	f.device = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	sum := sha256.Sum256(der)
	f.id, f.name = hex.EncodeToString(sum[:]), name
	return "certificate id " + f.id[:12] + "...", nil
}

// dial makes the device's MQTT 5 client and connects it. The client is nil when
// the connection was refused; the reason is in the CONNACK.
func dial(ctx context.Context, s *server, f *factory, clientID string, received chan<- string) (*paho.Client, *paho.Connack, error) {
	root, err := os.ReadFile(s.env["IMPRINT_CA"])
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{f.device}, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", s.env["IMPRINT_MQTT"])
	if err != nil {
		return nil, nil, err
	}
	client := paho.NewClient(paho.ClientConfig{
		// The client pings and publishes from goroutines of its own, in several writes each.
		Conn: packets.NewThreadSafeConn(conn),
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			received <- p.Packet.Topic + " " + string(p.Packet.Payload)
			return true, nil
		}},
	})
	connack, err := client.Connect(ctx, &paho.Connect{ClientID: clientID, KeepAlive: 60, CleanStart: true})
	if err != nil {
		_ = conn.Close()
		return nil, connack, err
	}
	return client, connack, nil
}

var errAccepted = errors.New("the connection was accepted, and should not have been")

func firstConnection(ctx context.Context, s *server, f *factory) (string, error) {
	client, connack, err := dial(ctx, s, f, f.name, nil)
	if client != nil {
		_ = client.Disconnect(&paho.Disconnect{})
		return "", errAccepted
	}
	if connack == nil {
		return "", err
	}
	return fmt.Sprintf("CONNACK reason 0x%02x, connection closed", connack.ReasonCode), nil
}

func secondConnection(ctx context.Context, s *server, f *factory) (string, error) {
	received := make(chan string, 1)
	client, _, err := dial(ctx, s, f, f.name, received)
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Disconnect(&paho.Disconnect{}) }()
	topic := "devices/" + f.name + "/temperature"
	_, err = client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}})
	if err != nil {
		return "", err
	}
	_, err = client.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("21.5")})
	if err != nil {
		return "", err
	}
	select {
	case message := <-received:
		return "accepted; received " + message, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func forbiddenPublish(ctx context.Context, s *server, f *factory) (string, error) {
	client, _, err := dial(ctx, s, f, f.name, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = client.Disconnect(&paho.Disconnect{}) }()
	answer, err := client.Publish(ctx, &paho.Publish{Topic: "devices/somebody-else/temperature", QoS: 1, Payload: []byte("99")})
	if err == nil {
		return "", errors.New("the publish was accepted, and should not have been")
	}
	if answer == nil {
		return "", err
	}
	return fmt.Sprintf("PUBACK reason 0x%02x (not authorized)", answer.ReasonCode), nil
}

func refusedConnection(ctx context.Context, s *server, f *factory) (string, error) {
	client, connack, err := dial(ctx, s, f, "unnamed", nil)
	if client != nil {
		return "", errAccepted
	}
	if connack == nil {
		return "", err
	}
	return fmt.Sprintf("CONNACK reason 0x%02x, connection closed", connack.ReasonCode), nil
}

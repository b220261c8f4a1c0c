package test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// message is what a subscriber received.
type message struct{ topic, payload string }

// mqtt5 is a connected Paho client.
type mqtt5 struct {
	*paho.Client
	connack *paho.Connack
	conn    *tls.Conn
	tcp     *net.TCPConn
	// messages that came, reasons of the server's DISCONNECT, and the close of
	// the connection.
	messages chan message
	reasons  chan byte
	lost     chan struct{}
}

// dialing says how a device connects; zero values are the usual.
type dialing struct {
	from      string // local address
	version   uint16 // TLS version
	keepAlive uint16
	will      *paho.WillMessage
	// host is the server name, localhost when empty; address another one than
	// the server's own.
	host, address string
	// connect and client may change what is sent and how it is gone about.
	connect func(*paho.Connect)
	client  func(*paho.ClientConfig)
}

func (s *server) dialTLS(ctx context.Context, t *testing.T, d *device, how dialing) (*tls.Conn, *net.TCPConn, error) {
	t.Helper()
	config := &tls.Config{RootCAs: s.roots(t), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if how.host != "" {
		config.ServerName = how.host
	}
	if d != nil {
		config.Certificates = []tls.Certificate{d.keyPair(t)}
	}
	if how.version != 0 {
		config.MinVersion, config.MaxVersion = how.version, how.version
	}
	var dialer net.Dialer
	if how.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(how.from)}
	}
	address := how.address
	if address == "" {
		address = s.device()
	}
	tcp, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	conn := tls.Client(tcp, config)
	err = conn.HandshakeContext(ctx)
	if err != nil {
		_ = tcp.Close()
		return nil, nil, err
	}
	return conn, tcp.(*net.TCPConn), nil
}

// errRefused is a CONNACK that isn't success, or none.
type errRefused struct {
	reason int // noConnack when none came
	err    error
}

func (e *errRefused) Error() string { return fmt.Sprintf("refused with %#x: %v", e.reason, e.err) }

// dial connects with MQTT 5. A refusal is *errRefused; other errors are those of
// the network.
func (s *server) dial(ctx context.Context, t *testing.T, d *device, clientID string, how dialing) (*mqtt5, error) {
	t.Helper()
	conn, tcp, err := s.dialTLS(ctx, t, d, how)
	if err != nil {
		return nil, err
	}
	c := &mqtt5{conn: conn, tcp: tcp, messages: make(chan message, 100), reasons: make(chan byte, 1), lost: make(chan struct{})}
	config := paho.ClientConfig{
		Conn:          packets.NewThreadSafeConn(conn),
		PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			c.messages <- message{p.Packet.Topic, string(p.Packet.Payload)}
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { c.reasons <- d.ReasonCode },
	}
	if how.client != nil {
		how.client(&config)
	}
	c.Client = paho.NewClient(config)
	keepAlive := how.keepAlive
	if keepAlive == 0 {
		keepAlive = 60
	}
	connect := &paho.Connect{ClientID: clientID, KeepAlive: keepAlive, CleanStart: true, WillMessage: how.will}
	if how.connect != nil {
		how.connect(connect)
	}
	c.connack, err = c.Connect(ctx, connect)
	if err != nil {
		_ = conn.Close()
		reason := noConnack
		if c.connack != nil {
			reason = int(c.connack.ReasonCode)
		}
		return nil, &errRefused{reason: reason, err: err}
	}
	go func() {
		<-c.Done()
		close(c.lost)
	}()
	t.Cleanup(func() {
		_ = c.Disconnect(&paho.Disconnect{})
		_ = conn.Close()
	})
	return c, nil
}

// connect is dial that must succeed.
func (s *server) connect(t *testing.T, d *device, clientID string, how dialing) *mqtt5 {
	t.Helper()
	c, err := s.dial(soon(t), t, d, clientID, how)
	if err != nil {
		t.Fatalf("%s couldn't connect as %s: %v", d.name, clientID, err)
	}
	return c
}

// refused is dial that must be refused; it gives the CONNACK's reason.
func (s *server) refused(t *testing.T, d *device, clientID string, how dialing) int {
	t.Helper()
	c, err := s.dial(soon(t), t, d, clientID, how)
	if err == nil {
		_ = c.Disconnect(&paho.Disconnect{})
		t.Fatalf("%s was let in as %s, and should not have been", d.name, clientID)
	}
	var refusal *errRefused
	if !errors.As(err, &refusal) {
		t.Fatalf("%s met a failure of the network: %v", d.name, err)
	}
	return refusal.reason
}

// join5 is join with MQTT 5; the second connection stays open.
func (s *server) join5(t *testing.T, d *device, how dialing) *mqtt5 {
	t.Helper()
	if got, want := s.refused(t, d, d.name, how), 0x87; got != want {
		t.Fatalf("first connection of %s: got CONNACK %#x, want %#x", d.name, got, want)
	}
	return s.connect(t, d, d.name, how)
}

// send publishes and gives the reason of the PUBACK, 0 for QoS 0.
func (c *mqtt5) send(t *testing.T, topic, payload string, qos byte) byte {
	t.Helper()
	answer, err := c.Publish(soon(t), &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: qos})
	if answer == nil {
		if err != nil {
			t.Fatalf("couldn't publish on %s: %v", topic, err)
		}
		return 0
	}
	return answer.ReasonCode
}

// ask subscribes with QoS 1 and gives the reasons of the SUBACK.
func (c *mqtt5) ask(t *testing.T, filters ...string) []byte {
	t.Helper()
	request := &paho.Subscribe{}
	for _, f := range filters {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: 1})
	}
	answer, err := c.Subscribe(soon(t), request)
	if answer == nil {
		t.Fatalf("couldn't subscribe to %v: %v", filters, err)
	}
	return answer.Reasons
}

func (c *mqtt5) receive(t *testing.T) message {
	t.Helper()
	select {
	case m := <-c.messages:
		return m
	case <-c.lost:
		t.Fatal("the connection ended while a message was awaited")
	case <-time.After(patience):
		t.Fatalf("no message came within %s", patience)
	}
	return message{}
}

// goodbye waits for the server's DISCONNECT and gives its reason.
func (c *mqtt5) goodbye(t *testing.T) byte {
	t.Helper()
	select {
	case reason := <-c.reasons:
		return reason
	case <-time.After(patience):
		t.Fatalf("no DISCONNECT came within %s", patience)
	}
	return 0
}

// cut breaks the connection as a device that loses its power does.
func (c *mqtt5) cut() {
	_ = c.tcp.SetLinger(0)
	_ = c.tcp.Close()
}

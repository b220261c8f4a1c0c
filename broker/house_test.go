package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

// registry is the store of all tests: each has certificates of its own, and a
// broker that knows no others.
var registry imprint.Store

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "broker")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	registry, err = sqlite.Open(context.Background(), sqlite.Options{
		Path: filepath.Join(dir, "registry.db"), Sealer: sealer{}, Logger: quiet(),
	})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	err = errors.Join(registry.Close(), goleak.Find())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// patience is how long anything may take that should happen at once.
const patience = 15 * time.Second

var (
	first    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	second   = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
	versions = []mqtt.Version{mqtt.V311, mqtt.V5}
)

const allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`

type sealer struct{}

func (sealer) Seal(plain, _ []byte) ([]byte, error)  { return plain, nil }
func (sealer) Open(sealed, _ []byte) ([]byte, error) { return sealed, nil }

// house is a broker on a real registry.
type house struct {
	testing.TB
	store      imprint.Store
	identities *identity.Resolver
	broker     *broker.Broker
	log        *trace.Log
	ahead      atomic.Int64 // how far the injected clock is ahead
	until      time.Time    // when the connections' credentials end; zero: never
	still      time.Time    // where the injected clock stands, but for ahead; zero: it goes
	serving    sync.WaitGroup
	ctx        context.Context // of the connections; nil: nothing ends it
	// wrap, when not nil, stands between the broker and each socket.
	wrap func(net.Conn) net.Conn
}

func (h *house) now() time.Time {
	at := h.still
	if at.IsZero() {
		at = time.Now()
	}
	return at.Add(time.Duration(h.ahead.Load()))
}

func newHouse(t testing.TB, opts broker.Options) *house {
	t.Helper()
	return newHouseOn(t, opts, registry)
}

// newHouseOn is a house on a registry of its own, whose sessions it restores.
func newHouseOn(t testing.TB, opts broker.Options, store imprint.Store) *house {
	t.Helper()
	return newHouseAt(t, opts, store, time.Time{})
}

// newHouseAt is a house whose clock stands still unless the test sets it on.
func newHouseAt(t testing.TB, opts broker.Options, store imprint.Store, still time.Time) *house {
	t.Helper()
	h := &house{TB: t, store: store, still: still}
	var b atomic.Pointer[broker.Broker]
	h.identities = identity.NewResolver(h.store, func(tenant imprint.Tenant, id imprint.CertificateID) {
		if b := b.Load(); b != nil {
			b.CertificateChanged(tenant, id)
		}
	})
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	if opts.PublishRate == 0 {
		opts.PublishRate, opts.ThroughputRate = -1, -1 // tests are quicker than devices
	}
	h.broker = broker.New(opts, h.store, h.identities, h.now)
	b.Store(h.broker)
	if store != registry {
		h.must(h.broker.Restore(context.Background()))
	}
	// Tests ask for each attempt, also of those that fail alike or come in a storm.
	kept := store
	if store == registry {
		kept = shared{store}
	}
	h.log = trace.NewLog(kept, h.now, trace.Options{Logger: quiet(), FoldAfter: -1, SuccessRate: -1})
	t.Cleanup(h.close)
	return h
}

// shared is the registry as the trace of one of many houses sees it: whoever is on in
// another one wasn't left by a server that was killed.
type shared struct{ imprint.Store }

func (s shared) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	return s.Store.View(ctx, func(tx imprint.ReadTx) error { return fn(noneForgotten{tx}) })
}

type noneForgotten struct{ imprint.ReadTx }

func (noneForgotten) LiveAttempts(string, int) ([]string, error) { return nil, nil }

func (h *house) close() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := h.broker.Shutdown(ctx)
	if err != nil {
		h.Errorf("shutdown: %v", err)
	}
	h.serving.Wait()
	c := h.identities.Counters()
	if held := c.Identities - c.Idle; held != 0 {
		h.Errorf("identities that nobody gave back: got %d, want 0", held)
	}
	if n := h.broker.Counters().Connected; n != 0 {
		h.Errorf("connected after shutdown: got %d, want 0", n)
	}
	h.log.Close()
	h.identities.Close()
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) update(fn func(imprint.Tx) error) {
	h.Helper()
	h.must(h.store.Update(context.Background(), fn))
}

// register makes an ACTIVE certificate with a policy of its own.
func (h *house) register(tenant imprint.Tenant, document string) imprint.CertificateID {
	h.Helper()
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	id := imprint.CertificateID(hex.EncodeToString(raw[:]))
	cert := imprint.Certificate{
		Tenant: tenant, ID: id, PEM: "pem", Status: imprint.CertificateActive, Mode: imprint.ModeDefault,
		OwnedBy: tenant.Account, Serial: "01", NotBefore: h.now().Add(-time.Hour), NotAfter: h.now().Add(1000 * time.Hour),
		CreatedAt: h.now(), ModifiedAt: h.now(), CustomerVersion: 1, GenerationID: "g",
	}
	h.update(func(tx imprint.Tx) error { return tx.PutCertificate(cert) })
	h.setPolicy(tenant, id, document)
	h.update(func(tx imprint.Tx) error {
		return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: policyOf(id), Target: cert.ARN()})
	})
	return id
}

func policyOf(id imprint.CertificateID) imprint.PolicyName { return imprint.PolicyName("p" + id[:16]) }

// setPolicy gives a certificate's policy another document.
func (h *house) setPolicy(tenant imprint.Tenant, id imprint.CertificateID, document string) {
	h.Helper()
	h.update(func(tx imprint.Tx) error {
		p, err := tx.Policy(tenant, policyOf(id))
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			p, err = imprint.Policy{Tenant: tenant, Name: policyOf(id), CreatedAt: h.now(), GenerationID: "g"}, nil
		}
		if err != nil {
			return err
		}
		p.LastVersion++
		p.DefaultVersion, p.ModifiedAt = p.LastVersion, h.now()
		err = tx.PutPolicy(p)
		if err != nil {
			return err
		}
		return tx.PutPolicyVersion(imprint.PolicyVersion{
			Tenant: tenant, Policy: p.Name, Version: p.LastVersion, Document: document, CreatedAt: h.now(),
		})
	})
}

func (h *house) setStatus(tenant imprint.Tenant, id imprint.CertificateID, status imprint.CertificateStatus) {
	h.Helper()
	h.update(func(tx imprint.Tx) error {
		cert, err := tx.Certificate(tenant, id)
		if err != nil {
			return err
		}
		cert.Status = status
		return tx.PutCertificate(cert)
	})
}

// client speaks packets to the broker.
type client struct {
	*house
	conn    net.Conn
	in      *bufio.Reader
	version mqtt.Version
	attempt string
	hasty   time.Duration // how long it waits for a packet, when not for patience
}

// door opens a connection, as a certificate, without any packet.
func (h *house) door(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version) *client {
	h.Helper()
	return h.doorWith(tenant, id, v, func() {})
}

// doorWith calls admitted when the certificate has been looked at.
func (h *house) doorWith(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version, admitted func()) *client {
	h.Helper()
	c, err := h.tryDoor(tenant, id, v, admitted)
	h.must(err)
	return c
}

// tryDoor is doorWith for goroutines that aren't the test's own: they may not end it.
func (h *house) tryDoor(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version, admitted func()) (*client, error) {
	near, far, err := pair()
	if err != nil {
		return nil, err
	}
	if h.wrap != nil {
		far = h.wrap(far)
	}
	rec := h.log.Begin("192.0.2.44:5000")
	peer := broker.Peer{
		Address: netip.MustParseAddr("192.0.2.44"), Rec: rec, Until: h.until,
		Admit: func(ctx context.Context, _ *trace.Recorder) (*identity.Identity, error) {
			who, err := h.identities.Acquire(ctx, tenant, id)
			if err != nil {
				return nil, imprint.Errorf(imprint.CodeCertificateUnknown, "%w", err)
			}
			refusal := who.Certificate.Refusal(h.now())
			if refusal != nil {
				h.identities.Release(who)
				return nil, refusal
			}
			admitted()
			return who, nil
		},
		Variables: func(who *identity.Identity, client imprint.ClientID) *policy.Variables {
			return who.Variables(identity.Connection{ClientID: client})
		},
	}
	ctx := h.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	h.serving.Go(func() {
		h.broker.Serve(ctx, far, peer)
		_ = far.Close()
	})
	c := &client{house: h, conn: near, in: bufio.NewReader(near), version: v, attempt: rec.ID()}
	h.Cleanup(func() { _ = near.Close() })
	return c, nil
}

func pair() (near, far net.Conn, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = ln.Close() }()
	near, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	far, err = ln.Accept()
	if err != nil {
		_ = near.Close()
	}
	return near, far, err
}

func (c *client) send(packets ...mqtt.Packet) {
	c.Helper()
	var out []byte
	for _, p := range packets {
		out = p.Append(out, c.version)
	}
	c.write(out)
}

func (c *client) write(b []byte) {
	c.Helper()
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.Logf("write: %v", err) // the server may have closed already
	}
}

// receive gives the next packet; the error is io.EOF when the server closed.
func (c *client) receive() (mqtt.Packet, error) {
	wait := patience
	if c.hasty > 0 {
		wait = c.hasty
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(wait))
	var head []byte
	for {
		h, ok, err := mqtt.ParseFixedHeader(head)
		if err != nil {
			return nil, err
		}
		if !ok {
			b, err := c.in.ReadByte()
			if err != nil {
				return nil, err
			}
			head = append(head, b)
			continue
		}
		body := make([]byte, h.Remaining)
		_, err = io.ReadFull(c.in, body)
		if err != nil {
			return nil, err
		}
		p := mqtt.NewPacket(h.Type)
		return p, p.Decode(h, body, c.version)
	}
}

// expect gives the next packet, which must be of type P.
func expect[P mqtt.Packet](c *client) P {
	c.Helper()
	p, err := c.receive()
	if err != nil {
		c.Fatalf("got %v, want a packet", err)
	}
	want, ok := p.(P)
	if !ok {
		c.Fatalf("got %s, want %T", p.Detail(), want)
	}
	return want
}

// closed wants the server to close without another word.
func (c *client) closed() {
	c.Helper()
	p, err := c.receive()
	if err == nil {
		c.Fatalf("got %s, want the connection closed", p.Detail())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Fatal("the connection stays open, want it closed")
	}
}

// told wants the connection to end: with this reason for MQTT 5, when it isn't
// 0, and without a word for MQTT 3.1.1.
func (c *client) told(reason mqtt.ReasonCode) {
	c.Helper()
	if c.version == mqtt.V5 && reason != 0 {
		got := expect[*mqtt.Disconnect](c).Reason
		if got != reason {
			c.Errorf("DISCONNECT: got reason %s, want %s", got, reason)
		}
	}
	c.closed()
}

// silent wants nothing to have come before the answer to a ping.
func (c *client) silent() {
	c.Helper()
	c.send(&mqtt.Pingreq{})
	expect[*mqtt.Pingresp](c)
}

func connectAs(name string) *mqtt.Connect {
	return &mqtt.Connect{ClientID: name, CleanStart: true, KeepAlive: 60}
}

// on is a connected client.
func (h *house) on(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version, connect *mqtt.Connect) *client {
	h.Helper()
	return h.onWith(tenant, id, v, connect, false)
}

// back is a connected client that found its session again.
func (h *house) back(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version, connect *mqtt.Connect) *client {
	h.Helper()
	return h.onWith(tenant, id, v, connect, true)
}

func (h *house) onWith(tenant imprint.Tenant, id imprint.CertificateID, v mqtt.Version, connect *mqtt.Connect, present bool) *client {
	h.Helper()
	c := h.door(tenant, id, v)
	c.send(connect)
	got := expect[*mqtt.Connack](c)
	if got.Reason != mqtt.Success || got.SessionPresent != present {
		h.Fatalf("CONNACK: got %s, want success with session present %t", got.Detail(), present)
	}
	return c
}

// lasting is a CONNECT for a session that outlives its connection.
func lasting(v mqtt.Version, name string, seconds uint32) *mqtt.Connect {
	c := &mqtt.Connect{ClientID: name, KeepAlive: 60}
	if v == mqtt.V5 {
		c.Properties.SessionExpiry = seconds
		c.Properties.Mark(mqtt.PropSessionExpiry)
	}
	return c
}

// cut ends the client's connection without a word and waits until the broker has
// noticed.
func (c *client) cut() {
	c.Helper()
	_ = c.conn.Close()
	c.ended(imprint.CodeConnectionLost)
}

func (c *client) subscribe(qos mqtt.QoS, filters ...string) {
	c.Helper()
	packet := &mqtt.Subscribe{PacketID: 1}
	for _, f := range filters {
		packet.Filters = append(packet.Filters, mqtt.Subscription{Filter: f, QoS: qos})
	}
	c.send(packet)
	for i, code := range expect[*mqtt.Suback](c).Codes {
		if code != mqtt.ReasonCode(qos) {
			c.Fatalf("SUBSCRIBE %s: got %s, want QoS %d granted", filters[i], code, qos)
		}
	}
}

func (c *client) publish(qos mqtt.QoS, id uint16, topic, payload string) {
	c.Helper()
	c.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id})
}

// published publishes with QoS 1 and waits for the PUBACK.
func (c *client) published(topic, payload string) {
	c.Helper()
	c.publish(1, 7, topic, payload)
	got := expect[*mqtt.Ack](c)
	if got.PacketID != 7 || got.Reason != mqtt.Success {
		c.Fatalf("got %s, want success for 7", got.Detail())
	}
}

// tryPublish is published for goroutines that aren't the test's own.
func (c *client) tryPublish(topic, payload string) bool {
	c.Helper()
	c.publish(1, 7, topic, payload)
	p, err := c.receive()
	ack, ok := p.(*mqtt.Ack)
	if err != nil || !ok || ack.PacketID != 7 || ack.Reason != mqtt.Success {
		c.Errorf("PUBLISH %q: got %v, %v, want success for 7", payload, p, err)
		return false
	}
	return true
}

// gets wants a message, which it acknowledges.
func (c *client) gets(topic, payload string, qos mqtt.QoS) *mqtt.Publish {
	c.Helper()
	got := expect[*mqtt.Publish](c)
	if string(got.Topic) != topic || string(got.Payload) != payload || got.QoS != qos {
		c.Fatalf("got %s %q, want %s %q with QoS %d", got.Detail(), got.Payload, topic, payload, qos)
	}
	if qos == 1 {
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
	}
	return got
}

// ended gives the trace's end of a connection.
func (c *client) ended(want imprint.Code) imprint.Attempt {
	c.Helper()
	var got imprint.Attempt
	c.eventually("the trace tells "+string(want), func() bool {
		c.must(c.log.Flush(context.Background()))
		err := c.store.View(context.Background(), func(tx imprint.ReadTx) (err error) {
			got, err = tx.Attempt(c.attempt)
			return err
		})
		return err == nil && got.Code == want
	})
	return got
}

// eventually waits for a state that other goroutines bring about.
func (h *house) eventually(what string, reached func() bool) {
	h.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		if time.Now().After(deadline) {
			h.Fatalf("%s: didn't happen; counters %+v", what, h.broker.Counters())
		}
		<-tick.C
	}
}

// bothVersions runs a test for MQTT 3.1.1 and MQTT 5.
func bothVersions(t *testing.T, opts broker.Options, test func(h *house, v mqtt.Version)) {
	t.Helper()
	t.Parallel()
	for _, v := range versions {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			t.Parallel()
			test(newHouse(t, opts), v)
		})
	}
}

// newReader reads b before what comes from rest.
func newReader(b []byte, rest io.Reader) *bufio.Reader {
	return bufio.NewReader(io.MultiReader(bytes.NewReader(b), rest))
}

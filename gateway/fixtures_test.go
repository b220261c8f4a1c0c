package gateway_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(loadVariable); spec != "" {
		err := generate(spec)
		if err != nil {
			fmt.Fprintln(os.Stderr, "load generator:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var (
	home  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	other = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
)

const allow = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// patience bounds every wait for what must happen.
const patience = 2 * time.Minute

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// world is a whole devices' door on a loopback port.
type world struct {
	store        *sqlite.Store
	log          *trace.Log
	endpoints    *gateway.Endpoints
	certificates *gateway.Certificates
	gateway      *gateway.Gateway
	broker       *broker.Broker
	address      string
	https        string // address of the listener that speaks HTTP, too
	ca           *signer
}

type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// servers are made once: RSA keys take long.
var servers = sync.OnceValues(func() (tls.Certificate, tls.Certificate) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return selfSigned(ecdsaKey(), "server"), selfSigned(rsaKey, "server")
})

func ecdsaKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func selfSigned(key crypto.Signer, name string) tls.Certificate {
	return issue(key, name, nil)
}

// issue makes a certificate, signed by itself when by is nil.
func issue(key crypto.Signer, name string, by *signer) tls.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"},
	}
	parent, signing := template, crypto.Signer(key)
	if by != nil {
		parent, signing = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signing)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newSigner() *signer {
	key := ecdsaKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Line"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return &signer{key, cert}
}

// settings vary a world.
type settings struct {
	options gateway.Options
	hold    bool
	// clock is the registry's; nil: time.Now.
	clock imprint.Clock
	// operators and dataAPI are the gateway's rooms of these names.
	operators func(*http.Request) (gateway.Operator, error)
	dataAPI   http.Handler
	// tickets are issued when set.
	tickets *gateway.TicketKeys
	// broker is the broker's options, but for its logger.
	broker broker.Options
	// linger is the trace's; 0: next to nothing.
	linger time.Duration
}

func newWorld(t testing.TB, s settings) *world {
	t.Helper()
	store := registrytest.New(t)
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.linger == 0 {
		s.linger = time.Microsecond
	}
	s.options.Logger = quiet()
	w := &world{store: store, ca: newSigner()}
	w.put(t)
	// Tests ask for each attempt, also of those that fail alike.
	w.log = trace.NewLog(store, s.clock, trace.Options{Logger: quiet(), Linger: s.linger, FoldAfter: -1, SuccessRate: -1})
	engine := provisioning.NewEngine(store, s.clock, provisioning.Options{Hold: s.hold, Logger: quiet()})
	var b *broker.Broker
	identities := identity.NewResolver(store, func(tenant imprint.Tenant, id imprint.CertificateID) { b.CertificateChanged(tenant, id) })
	s.broker.Logger = quiet()
	b = broker.New(s.broker, store, identities, s.clock)
	w.broker = b
	var err error
	w.endpoints, err = gateway.NewEndpoints(t.Context(), store, "", home, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.certificates = gateway.NewCertificates(servers())
	w.gateway = gateway.New(s.options, gateway.Rooms{
		Store: store, Clock: s.clock, Endpoints: w.endpoints, Identities: identities, Provisioning: engine,
		Broker: b, Trace: w.log, Certificates: w.certificates, Tickets: s.tickets,
		Operators: s.operators, DataAPI: s.dataAPI,
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = ln.Addr().String()
	httpsLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.https = httpsLn.Addr().String()
	served := make(chan error, 2)
	go func() { served <- w.gateway.Serve(context.Background(), ln) }()
	go func() { served <- w.gateway.ServeHTTPS(context.Background(), httpsLn) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := errors.Join(ln.Close(), httpsLn.Close(), <-served, <-served, b.Shutdown(ctx), w.gateway.Shutdown(ctx))
		identities.Close()
		engine.Close()
		w.log.Close()
		if err != nil {
			t.Errorf("couldn't shut down: %v", err)
		}
		if c := w.gateway.Counters(); c.Pending != 0 || c.Open != 0 {
			t.Errorf("after the end %d connections are pending and %d open", c.Pending, c.Open)
		}
	})
	return w
}

func (w *world) put(t testing.TB) {
	t.Helper()
	w.update(t, func(tx imprint.Tx) error {
		for tenant, prefix := range map[imprint.Tenant]string{home: "aaaaaaaaaaaaaa", other: "bbbbbbbbbbbbbb"} {
			err := tx.PutTenantSettings(imprint.TenantSettings{Tenant: tenant, EndpointPrefix: prefix})
			if err != nil {
				return err
			}
			err = tx.PutPolicy(imprint.Policy{Tenant: tenant, Name: "all", DefaultVersion: 1, LastVersion: 1})
			if err != nil {
				return err
			}
			err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: tenant, Policy: "all", Version: 1, Document: allow})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) update(t testing.TB, fn func(imprint.Tx) error) {
	t.Helper()
	err := w.store.Update(context.Background(), fn)
	if err != nil {
		t.Fatalf("couldn't update the store: %v", err)
	}
}

// register puts a device certificate with the policy into a tenant.
func (w *world) register(t testing.TB, tenant imprint.Tenant, cert tls.Certificate, mode imprint.CertificateMode, status imprint.CertificateStatus) {
	t.Helper()
	id := pki.CertificateID(cert.Certificate[0])
	w.update(t, func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: id, Status: status, Mode: mode, NotBefore: cert.Leaf.NotBefore, NotAfter: cert.Leaf.NotAfter})
		if err != nil {
			return err
		}
		return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: "all", Target: tenant.CertificateARN(id)})
	})
}

// registerCA opens the world's CA in a tenant.
func (w *world) registerCA(t *testing.T, tenant imprint.Tenant, mode imprint.CertificateMode, body string) {
	t.Helper()
	ca := imprint.CACertificate{
		Tenant: tenant, ID: pki.CertificateID(w.ca.cert.Raw), PEM: pki.EncodeCertificatePEM(w.ca.cert.Raw), Status: imprint.CAActive,
		Mode: mode, AutoRegistration: true, SubjectKey: pki.SubjectKey(w.ca.cert.RawSubject), NotBefore: w.ca.cert.NotBefore, NotAfter: w.ca.cert.NotAfter,
	}
	if body != "" {
		ca.Registration = &imprint.RegistrationConfig{TemplateBody: body}
	}
	w.update(t, func(tx imprint.Tx) error { return tx.PutCA(ca) })
}

func client(name string, certs ...tls.Certificate) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, Certificates: certs}
}

// dial opens a socket that the test closes at its end at the latest.
func (w *world) dial(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

var connectPacket = (&mqtt.Connect{ClientID: "device", CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V311)

// connect shakes hands and sends a CONNECT; it gives what comes back until
// CONNACK or the end.
func (w *world) connect(t testing.TB, config *tls.Config) (conn *tls.Conn, accepted bool, err error) {
	t.Helper()
	conn = tls.Client(w.dial(t), config)
	err = conn.Handshake()
	if err != nil {
		return conn, false, err
	}
	_, err = conn.Write(connectPacket)
	if err != nil {
		return conn, false, err
	}
	answer := make([]byte, 4)
	_, err = io.ReadFull(conn, answer)
	return conn, bytes.Equal(answer, []byte{0x20, 2, 0, 0}), err
}

// attempt waits for the record of the connection that came from an address. It
// looks until the connection has ended, or lives as the caller expects.
func (w *world) attempt(t *testing.T, conn net.Conn) imprint.Attempt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		err := w.log.Flush(ctx)
		if err != nil {
			break
		}
		var found []imprint.Attempt
		err = w.store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			found, _, err = tx.Attempts(imprint.AttemptFilter{Match: conn.LocalAddr().String()}, imprint.Page{Limit: 1})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("no attempt was recorded")
	return imprint.Attempt{}
}

// eventually waits for what others bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it isn't so in time that %s", what)
		}
	}
}

// wantRefused checks the end of an attempt: step, code, fix.
func wantRefused(t *testing.T, a imprint.Attempt, step string, code imprint.Code) {
	t.Helper()
	last := imprint.Step{}
	for _, s := range a.Steps {
		if s.Verdict == imprint.VerdictFailed {
			last = s
		}
	}
	if a.Code != code || last.Code != code || last.Name != step || last.Fix == "" || last.Detail == "" {
		t.Errorf("got code %s and failed step %+v, want %s at %s with a fix", a.Code, last, code, step)
	}
}

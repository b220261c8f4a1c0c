package test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/mqtt"
)

// stage is a server with two tenants. In each, one certificate may do
// everything under any client id, so that tests share the server and differ by
// client ids and topics.
type stage struct {
	*server
	one, two *side
}

// side is one tenant of a stage.
type side struct {
	stage           *stage
	account, region string
	key             aws.Credentials // its operator's
	host            string          // what devices give as server name
	device          *device
	pair            tls.Certificate
	roots           *x509.CertPool
}

// killed is what no process hears.
const killed = syscall.SIGKILL

// unhurried are settings under which tests may connect and publish as fast as
// they can.
var unhurried = []string{
	"IMPRINT_CONNECT_RATE=0", "IMPRINT_PUBLISH_RATE=0", "IMPRINT_THROUGHPUT_RATE=0",
}

// newStage starts a server; settings are further environment variables.
func newStage(t *testing.T, settings ...string) *stage {
	t.Helper()
	s := &stage{server: newServer(t)}
	s.settings = append(append(s.settings, unhurried...), settings...)
	s.start()
	s.readEnv()
	s.one = s.side(t, "000000000000", s.credentials(), "us-east-1")
	s.two = s.side(t, "000000000000", s.credentials(), "eu-west-1")
	return s
}

// side makes a tenant's certificate.
func (s *stage) side(t *testing.T, account string, key aws.Credentials, region string) *side {
	t.Helper()
	api := s.sdk(t, withKey(key, region))
	endpoint := must(api.DescribeEndpoint(t.Context(), &iot.DescribeEndpointInput{EndpointType: aws.String("iot:Data-ATS")}))(t)
	must(api.CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String("all"), PolicyDocument: aws.String(watcherPolicy)}))(t)
	d := selfSigned(t, "everything in "+region)
	out := must(api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("all"), Target: out.CertificateArn}))(t)
	return &side{stage: s, account: account, region: region, key: key, host: aws.ToString(endpoint.EndpointAddress),
		device: d, pair: d.keyPair(t), roots: s.roots(t)}
}

// twin watches the second tenant while a test uses the first one: it has
// something of its own under the same names, and nothing of the first tenant
// may reach it.
type twin struct {
	t      *testing.T
	side   *side
	prefix string
	watch  *wire
	// theirs are payloads that it published: the first tenant must not see them.
	theirs string
}

// newTwin subscribes to everything under prefix in the second tenant and keeps
// a retained message on each of the topics. It is checked when the test ends.
func (s *stage) newTwin(t *testing.T, prefix string, retained ...string) *twin {
	t.Helper()
	w := &twin{t: t, side: s.two, prefix: prefix, theirs: "of the other tenant"}
	w.watch = s.two.open(t, mqtt.Connect{ClientID: "twin-" + strings.ReplaceAll(prefix, "/", "-"), CleanStart: true}, mqtt.V5)
	w.watch.subscribe(mqtt.Subscription{Filter: prefix + "/#", QoS: 1, NoLocal: true})
	for _, topic := range retained {
		w.watch.publish(mqtt.Publish{Topic: []byte(topic), Payload: []byte(w.theirs), QoS: 1, Retain: true})
	}
	t.Cleanup(w.check)
	return w
}

// clash publishes on a topic that the first tenant uses too.
func (w *twin) clash(topics ...string) {
	w.t.Helper()
	for _, topic := range topics {
		w.watch.publish(mqtt.Publish{Topic: []byte(topic), Payload: []byte(w.theirs), QoS: 1})
	}
}

func (w *twin) check() {
	w.watch.ping()
	for _, m := range w.watch.inbox {
		w.t.Errorf("a message of the first tenant reached the second: %s %q", m.Topic, m.Payload)
	}
	w.watch.close()
}

// metric reads one number from /metrics.
func (s *server) metric(t *testing.T, name string) float64 {
	t.Helper()
	response, err := s.httpClient(t).Get(s.at().APIURL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		value, found := strings.CutPrefix(lines.Text(), name+" ")
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metric %s: %v", name, err)
		}
		return n
	}
	t.Fatalf("/metrics has no %s", name)
	return 0
}

// awaitMetric waits until a metric has a value.
func (s *server) awaitMetric(t *testing.T, name string, want float64) {
	t.Helper()
	until(t, fmt.Sprintf("%s to be %v (it is %v)", name, want, s.metric(t, name)), func() bool { return s.metric(t, name) == want })
}

// awaitRefusals waits until no connection is under way that isn't let in yet: those
// that were refused are written down then.
func (s *server) awaitRefusals(t *testing.T) {
	t.Helper()
	s.awaitMetric(t, "imprint_connections_pending", 0)
}

// awaitEmpty waits until nobody is connected any more.
func (s *server) awaitEmpty(t *testing.T) {
	t.Helper()
	for _, name := range []string{"imprint_sessions", "imprint_connections_open", "imprint_connections_pending"} {
		s.awaitMetric(t, name, 0)
	}
}

// dialSide does the TLS handshake as a tenant's device, to another address than
// the server's and from an address of its own where these aren't empty.
func (s *stage) dialSide(t testing.TB, who *side, address, from string) (net.Conn, *net.TCPConn, error) {
	t.Helper()
	if address == "" {
		address = s.device()
	}
	dialer := net.Dialer{Timeout: patience}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	tcp, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	_ = tcp.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(tcp, &tls.Config{
		RootCAs: who.roots, ServerName: who.host, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{who.pair},
	})
	err = conn.Handshake()
	if err != nil {
		_ = tcp.Close()
		return nil, nil, err
	}
	_ = tcp.SetDeadline(time.Time{})
	return conn, tcp.(*net.TCPConn), nil
}

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// Options say what is examined.
type Options struct {
	// Certificate, Key and CA are the files that the device is given: its
	// certificates, its private key, the server's roots. Without CA the system's
	// roots are used, as a device hardly can.
	Certificate, Key, CA string
	// Endpoint is host:port, with 8883 where the port is left out; a scheme such
	// as mqtts:// may stand in front.
	Endpoint string
	// ServerName is the server name (SNI) instead of the endpoint's; NoServerName
	// sends none, as some firmware does.
	ServerName   string
	NoServerName bool
	// ALPN is the application protocol to offer, NoALPN for none. Empty:
	// x-amzn-mqtt-ca on port 443 and 8443, none elsewhere.
	ALPN string
	// ClientID is the MQTT client id [the thing's name, else the certificate's
	// common name].
	ClientID string
	// ThingOf gives the name of the thing that a certificate is attached to, empty
	// where that isn't known. Nil: nobody knows.
	ThingOf func(ctx context.Context, certificateID string) string
	// MQTT are the versions to connect with [both].
	MQTT []mqtt.Version
	// NoMQTT ends the examination before CONNECT, so that the server registers
	// nothing and nobody's connection is taken over.
	NoMQTT bool
	// Subscribe is a filter to subscribe to, Publish a topic to publish Payload on.
	Subscribe, Publish, Payload string
	// HTTPS is the host:port at which the endpoint speaks HTTPS, from which its
	// clock is read. Empty: port 443 or 8443 of the endpoint, where that is usual.
	HTTPS string
	// Explain is the command that explains a device on the endpoint's server, such
	// as "imprint explain"; empty where the endpoint isn't Imprint's, or that isn't
	// known.
	Explain string
	// Timeout bounds each step of the network [10 s].
	Timeout time.Duration
	// Pace is the time between two CONNECT packets of one client id [1.1 s: AWS
	// IoT Core takes one a second].
	Pace time.Duration
	// Clock is this machine's [time.Now].
	Clock func() time.Time
	// ClockAt is host:port of another door of the same server by HTTPS, whose clock is
	// read instead; empty: none is known.
	ClockAt string
	// Getenv reads the environment, for hints about proxies [none is given].
	Getenv func(string) string
	// Tell hears of each check when it is made. Nil: nobody.
	Tell func(Check)
}

// NoALPN is Options.ALPN for a hello that offers no application protocol.
const NoALPN = "none"

// mqttALPN is the application protocol of MQTT with a client certificate.
const mqttALPN = "x-amzn-mqtt-ca"

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Pace <= 0 {
		o.Pace = 1100 * time.Millisecond
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if len(o.MQTT) == 0 {
		o.MQTT = []mqtt.Version{mqtt.V311, mqtt.V5}
	}
	return o
}

// endpoint is where a device connects to.
type endpoint struct {
	host    string
	port    int
	assumed bool // the port wasn't given
	address bool // host is an IP address
	// https says that the port is known to speak HTTP, too.
	https bool
}

func (e endpoint) String() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// aws says whether the endpoint is one of AWS IoT Core.
func (e endpoint) aws() bool {
	return strings.HasSuffix(e.host, ".amazonaws.com") || strings.HasSuffix(e.host, ".amazonaws.com.cn")
}

// alpnPort says whether the application protocol decides what the port speaks.
func (e endpoint) alpnPort() bool { return e.https || e.port == 443 || e.port == 8443 }

// defaultPort is MQTT over TLS (IANA: secure-mqtt).
const defaultPort = 8883

// parseEndpoint reads host:port. Its errors show nothing of what may be a
// password.
func parseEndpoint(text string) (endpoint, error) {
	rest := strings.TrimSpace(text)
	scheme, after, found := strings.Cut(rest, "://")
	if found {
		switch strings.ToLower(scheme) {
		case "mqtts", "ssl", "tls", "tcps", "https", "mqtt", "tcp":
			rest = after
		default:
			return endpoint{}, fmt.Errorf("couldn't understand the scheme %q of the endpoint", shown(scheme))
		}
	}
	rest, _, _ = strings.Cut(rest, "/")
	if strings.Contains(rest, "@") {
		return endpoint{}, errors.New("couldn't use an endpoint with a user name in it: give host:port")
	}
	e := endpoint{port: defaultPort}
	host, port, err := net.SplitHostPort(rest)
	switch {
	case err == nil:
		e.host = host
		e.port, err = strconv.Atoi(port)
		if err != nil || e.port < 1 || e.port > 65535 {
			return endpoint{}, fmt.Errorf("couldn't understand the port %q of the endpoint", shown(port))
		}
	case strings.Count(rest, ":") == 0 || net.ParseIP(strings.Trim(rest, "[]")) != nil:
		e.host, e.assumed = strings.Trim(rest, "[]"), true
	default:
		return endpoint{}, fmt.Errorf("couldn't understand the endpoint %q: give host:port", shown(rest))
	}
	e.host = strings.TrimSuffix(strings.ToLower(e.host), ".")
	bare, _, _ := strings.Cut(e.host, "%") // a zone
	e.address = net.ParseIP(bare) != nil
	u := url.URL{Scheme: "mqtts", Host: e.String()}
	_, err = url.Parse(u.String())
	if e.host == "" || err != nil || strings.ContainsAny(e.host, " \t\\\"'`$;&|<>()") {
		return endpoint{}, fmt.Errorf("couldn't understand the endpoint %q: give host:port", shown(rest))
	}
	return e, nil
}

// examination is one run. Its fields are filled by the stages in their order.
type examination struct {
	opts   Options
	report *Report
	at     endpoint

	// of the files
	chain []*x509.Certificate // what the device sends, its own first
	leaf  *x509.Certificate
	pair  *tls.Certificate // nil: there is no key that belongs to the certificate
	spare *tls.Certificate // in its place; nil: it wasn't needed yet
	roots []*x509.Certificate
	// id is the certificate's id; clientID may be empty.
	id, clientID string

	// of the network
	address    string // of the endpoint, one that can be connected to
	serverName string // in the hello; empty: none
	protocols  []string
	main       *outcome // the handshake as the device does it
	afterwards *finding // what the server said about the certificate behind it
	// waiting are connections by address that nothing was sent on yet: those of the
	// check of TCP, of which handshakes are made.
	waiting map[string]*boundedConn

	// of MQTT
	lastConnect map[string]time.Time // by client id
	provisioned bool                 // a first connection was closed by design
	connected   mqtt.Version         // the newest version that was accepted; 0: none
	stored      bool                 // the device has a stored session, which mustn't be touched
	caution     string               // why MQTT 5 isn't tried
}

// Examine makes all checks. An error means that the options can't be used; what
// is wrong with files, network and server is in the report.
func Examine(ctx context.Context, opts Options) (*Report, error) {
	opts = opts.withDefaults()
	at, err := parseEndpoint(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	if opts.Certificate == "" || opts.Key == "" {
		return nil, errors.New("couldn't examine a device without its certificate and its key")
	}
	at.https = opts.HTTPS == at.String()
	x := &examination{opts: opts, at: at, report: &Report{Endpoint: at.String(), Checks: []Check{}}, lastConnect: map[string]time.Time{}}
	x.files()
	x.certificate(ctx)
	x.checkEndpoint()
	if x.network(ctx) && x.tls(ctx) {
		x.mqtt(ctx)
	}
	x.waitNoMore()
	x.skipRest("", "not reached")
	x.report.CertificateID, x.report.ClientID = x.id, x.clientID
	x.report.Healthy = x.report.Count(Failed) == 0
	err = ctx.Err()
	if err != nil {
		return x.report, fmt.Errorf("couldn't end the examination: %w", err)
	}
	return x.report, nil
}

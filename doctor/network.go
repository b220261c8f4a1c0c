package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRead bounds the bytes that are read from one connection: a resumed session
// may bring queued messages, a garbage server has no end.
const maxRead = 4 << 20

// errTooMuch says that a peer sent more than maxRead.
var errTooMuch = fmt.Errorf("the server sent more than %d bytes", maxRead)

// boundedConn reads at most so many bytes, and remembers the first ones.
type boundedConn struct {
	net.Conn
	left int
	head []byte
}

// maxHead is how many of the first bytes are remembered.
const maxHead = 64

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	if room := maxHead - len(c.head); room > 0 {
		c.head = append(c.head, p[:min(n, room)]...)
	}
	return n, err
}

// dial connects to an address of the endpoint; everything on the connection has
// to be done within the timeout, unless its deadline is set anew.
func (x *examination) dial(ctx context.Context, address string) (*boundedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, x.opts.Timeout)
	defer cancel()
	dialer := net.Dialer{KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(x.opts.Timeout))
	return &boundedConn{Conn: conn, left: maxRead}, nil
}

// checkEndpoint looks at the name, before anybody is asked.
func (x *examination) checkEndpoint() {
	const name = "endpoint"
	x.serverName = x.at.host
	switch {
	case x.opts.NoServerName, x.at.address && x.opts.ServerName == "":
		x.serverName = ""
	case x.opts.ServerName != "":
		x.serverName = x.opts.ServerName
	}
	switch {
	case x.opts.ALPN == NoALPN:
	case x.opts.ALPN != "":
		x.protocols = []string{x.opts.ALPN}
	case x.at.alpnPort():
		x.protocols = []string{mqttALPN}
	}
	usual := map[int]string{1883: "MQTT without TLS", 80: "HTTP without TLS", 22: "SSH", 8080: "HTTP without TLS", 9443: "Imprint's control plane, not MQTT", 9001: "MQTT over WebSocket"}[x.at.port]
	labels := strings.Split(x.at.host, ".")
	switch {
	case usual != "":
		x.tell(found(EndpointPort, "%s: port %d usually speaks %s", x.at, x.at.port, usual).with("--endpoint %s", net.JoinHostPort(x.at.host, "8883")).as(name, Warning))
	case x.at.aws() && len(labels) > 2 && labels[1] == "iot" && !strings.HasSuffix(labels[0], "-ats"):
		x.tell(found(EndpointNotATS, "%s is an old endpoint of AWS IoT Core", x.at.host).as(name, Warning))
	case x.at.address:
		x.tell(found(EndpointIsAddress, "%s is an IP address", x.at.host).as(name, Warning))
	case x.at.assumed:
		x.ok(name, "%s; no port was given, 8883 is the usual one", x.at)
	default:
		x.ok(name, "%s", x.at)
	}
}

// network resolves and connects. False: nothing can be connected to.
func (x *examination) network(ctx context.Context) bool {
	four, six := x.resolve(ctx)
	if len(four)+len(six) == 0 {
		x.skipRest("", "the endpoint has no address")
		return false
	}
	x.connect(ctx, four, six)
	if x.address == "" {
		x.skipRest("", "the endpoint can't be connected to")
		return false
	}
	return true
}

func (x *examination) resolve(ctx context.Context) (four, six []string) {
	const name = "dns"
	ctx, cancel := context.WithTimeout(ctx, x.opts.Timeout)
	defer cancel()
	if x.at.address {
		if strings.Contains(x.at.host, ":") {
			six = []string{x.at.host}
		} else {
			four = []string{x.at.host}
		}
		x.skip(name, "the endpoint is an address")
		return four, six
	}
	list, err := net.DefaultResolver.LookupIPAddr(ctx, x.at.host)
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound, err == nil && len(list) == 0:
		f := found(NameNotFound, "%s has no address", x.at.host)
		if strings.HasSuffix(x.at.host, ".localhost") {
			f.with("echo '127.0.0.1 %s' | sudo tee -a /etc/hosts", x.at.host)
		}
		x.tell(f.as(name, Failed))
		return nil, nil
	case err != nil:
		x.tell(found(NameLookupFailed, "couldn't ask for the address of %s: %v", x.at.host, shown(err.Error())).as(name, Failed))
		return nil, nil
	}
	for _, ip := range list {
		if ip.IP.To4() != nil {
			four = append(four, ip.String())
		} else {
			six = append(six, ip.String())
		}
	}
	slices.Sort(four)
	slices.Sort(six)
	four, six = slices.Compact(four), slices.Compact(six)
	x.ok(name, "%s is %s", x.at.host, strings.Join(slices.Concat(four, six)[:min(len(four)+len(six), 6)], ", "))
	return four, six
}

// connect tries one address of each kind, and up to three where the first don't
// answer.
func (x *examination) connect(ctx context.Context, four, six []string) {
	const name = "tcp"
	var reached []string
	var troubles []*finding
	for _, family := range [][]string{four, six} {
		for _, ip := range family[:min(len(family), 3)] {
			address := net.JoinHostPort(ip, strconv.Itoa(x.at.port))
			begun := time.Now()
			conn, err := x.dial(ctx, address)
			if err != nil {
				troubles = append(troubles, dialTrouble(address, err))
				continue
			}
			if x.waiting == nil {
				x.waiting = map[string]*boundedConn{}
			}
			x.waiting[address] = conn
			if x.address == "" {
				x.address = address
			}
			reached = append(reached, fmt.Sprintf("%s in %.1f ms", address, float64(time.Since(begun).Microseconds())/1000))
			break
		}
	}
	switch {
	case x.address == "":
		first := troubles[0]
		if first.fix == "" {
			first.fix = x.dialFix(first.code)
		}
		for _, other := range troubles[1:] {
			first.detail += "; " + other.detail
		}
		x.tell(first.as(name, Failed))
	case len(four) > 0 && len(six) > 0 && len(reached) == 1:
		x.tell(found(AddressFamilyFails, "connected to %s; %s", reached[0], troubles[0].detail).as(name, Warning))
	default:
		x.ok(name, "connected to %s", strings.Join(reached, " and to "))
	}
}

func dialTrouble(address string, err error) *finding {
	var network net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return found(TCPRefused, "%s refuses connections", address)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return found(TCPUnreachable, "there is no route to %s", address)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return found(TCPTimeout, "%s didn't answer in time", address)
	case errors.Is(err, syscall.ECONNRESET):
		return found(TCPFailed, "%s reset the connection", address)
	}
	return found(TCPFailed, "couldn't connect to %s: %s", address, shown(err.Error()))
}

// dialFix says what to do about a port that can't be connected to.
func (x *examination) dialFix(code Code) string {
	fix := code.description().Fix
	if code == TCPRefused && x.opts.Explain != "" {
		fix = "Start the server, or look at its --mqtt-address; its device port stands in server.json of the data directory."
	}
	if code == TCPTimeout && x.at.aws() && x.at.port != 443 {
		fix = fmt.Sprintf("Let port %d out of the network; or use port 443: --endpoint %s", x.at.port, net.JoinHostPort(x.at.host, "443"))
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		if x.opts.Getenv(name) != "" {
			return fix + " (" + name + " is set: MQTT doesn't go through it by itself.)"
		}
	}
	return fix
}

package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// The bounds of a clock. AWS takes signatures of five minutes' difference.
const (
	clockFine  = time.Minute
	clockWrong = 5 * time.Minute
)

// maxAnswer bounds the HTTP answer that is read for its Date.
const maxAnswer = 64 << 10

// checkClock compares this machine's clock with the server's, if that can be
// known, and judges the certificate by the server's.
func (x *examination) checkClock(ctx context.Context) {
	const name = "clock"
	off, where, why := x.serverClock(ctx)
	switch {
	case where == "":
		x.clockByCertificate(why)
	case off.Abs() <= clockFine:
		x.ok(name, "within %s of the server's (Date of https://%s)", span(max(off.Abs()+time.Second/2, time.Second)), where)
	case off.Abs() <= clockWrong:
		x.tell(clockFinding(ClockOff, off, where).as(name, Warning))
	default:
		x.tell(clockFinding(ClockWrong, off, where).as(name, Failed))
	}
	const validity = "certificate.validity.server"
	switch {
	case where == "":
		x.skip(validity, "the server's clock isn't known")
	case x.leaf == nil:
		x.skip(validity, "there is no certificate to look at")
	default:
		x.checkValidity(validity, x.opts.Clock().Add(off), "the server's clock")
	}
}

func clockFinding(code Code, off time.Duration, where string) *finding {
	way := "behind"
	if off < 0 {
		way = "ahead of"
	}
	return found(code, "this machine's clock is %s %s the server's (Date of https://%s)", span(off), way, where)
}

// clockByCertificate says what the validity of the server's certificate tells of
// the clock.
func (x *examination) clockByCertificate(why string) {
	const name = "clock"
	now, cert := x.opts.Clock(), x.main.peers[0]
	switch {
	case now.Before(cert.NotBefore):
		x.tell(found(ClockWrong, "by this machine's clock it is %s, and the server's certificate was issued for %s and later; %s", stamp(now), stamp(cert.NotBefore), why).as(name, Failed))
	case now.After(cert.NotAfter):
		x.tell(found(ClockOff, "by this machine's clock it is %s, and the server's certificate was good until %s: the clock is wrong, or the certificate is old; %s", stamp(now), stamp(cert.NotAfter), why).
			as(name, Warning))
	default:
		x.ok(name, "%s lies within the validity of the server's certificate; %s", stamp(now), why)
	}
}

// serverClock gives how far the server's clock is ahead of this machine's, and
// from where that is known; else why it isn't.
func (x *examination) serverClock(ctx context.Context) (off time.Duration, where, why string) {
	places := x.httpsPlaces()
	if len(places) == 0 {
		return 0, "", "where the endpoint speaks HTTPS isn't known, so its clock isn't"
	}
	for i, place := range places {
		off, err := x.dateWithin(ctx, place, i+1 < len(places))
		if err == nil {
			return off, place, ""
		}
		why = fmt.Sprintf("https://%s doesn't tell the server's time: %s", place, shown(err.Error()))
	}
	return 0, "", why
}

// httpsPlaces are where the endpoint may speak HTTPS. Only usual ports are tried:
// on others, somebody else may be at home.
func (x *examination) httpsPlaces() []string {
	at := func(port int) string { return net.JoinHostPort(x.at.host, strconv.Itoa(port)) }
	switch {
	case x.opts.ClockAt != "":
		return []string{x.opts.ClockAt}
	case x.opts.HTTPS != "":
		return []string{x.opts.HTTPS}
	case x.at.alpnPort():
		return []string{x.at.String()}
	case x.at.aws():
		return []string{at(443)}
	case x.at.port == defaultPort && x.imprint():
		// The operators' door first: a request at the devices' is recorded as a failed
		// attempt of one.
		return []string{at(9443), at(8443)}
	case x.at.port == defaultPort:
		return []string{at(8443)}
	}
	return nil
}

// otherDoor is how long is waited for a door that needn't be open from here.
const otherDoor = 2 * time.Second

// dateWithin is dateOf, in a short time where there is another place to ask.
func (x *examination) dateWithin(ctx context.Context, place string, other bool) (time.Duration, error) {
	if other {
		within, cancel := context.WithTimeout(ctx, otherDoor)
		defer cancel()
		ctx = within
	}
	return x.dateOf(ctx, place)
}

// dateOf asks for the Date of an HTTP answer, whatever that says.
func (x *examination) dateOf(ctx context.Context, place string) (time.Duration, error) {
	host, _, err := net.SplitHostPort(place)
	if err != nil {
		return 0, fmt.Errorf("couldn't understand the address: %w", err)
	}
	name := x.serverName
	if host != x.at.host || name == "" {
		name = host
	}
	if net.ParseIP(host) != nil {
		name = ""
	}
	o := x.handshake(ctx, place, hello{serverName: name, protocols: []string{"http/1.1"}, min: tls.VersionTLS12, max: tls.VersionTLS13})
	if o.err != nil {
		return 0, o.err
	}
	defer o.close()
	sent := x.opts.Clock()
	_, err = fmt.Fprintf(o.conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nUser-Agent: imprint-doctor\r\nConnection: close\r\n\r\n", place)
	if err != nil {
		return 0, fmt.Errorf("couldn't send a request: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(o.conn, maxAnswer)), &http.Request{Method: http.MethodHead})
	if err != nil {
		return 0, fmt.Errorf("couldn't read the answer: %w", err)
	}
	_ = answer.Body.Close()
	came := x.opts.Clock()
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("the answer has no Date that can be read: %w", err)
	}
	// Date has whole seconds: half of one is added, and half of the way.
	off := date.Add(time.Second / 2).Sub(sent.Add(came.Sub(sent) / 2))
	return off, nil
}

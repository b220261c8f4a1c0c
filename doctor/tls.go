package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// hello is what a handshake offers.
type hello struct {
	serverName string
	protocols  []string
	min, max   uint16
}

// outcome is what came of a handshake.
type outcome struct {
	conn     *tls.Conn // nil when it failed
	state    tls.ConnectionState
	peers    []*x509.Certificate // the server's, also when the handshake failed after them
	asked    bool                // the server asked for a certificate
	sent     bool                // and one was given
	dialed   bool                // TCP connected
	complete bool
	err      error
	head     []byte   // the first bytes of the server
	offered  []string // application protocols
	took     time.Duration
}

func (o *outcome) close() {
	if o.conn != nil {
		_ = o.conn.Close()
	}
}

// leave ends a handshake after which nothing is to be said. To Imprint it says so, by
// MQTT's DISCONNECT: a connection that ends without a word before CONNECT is a failure
// there, and the doctor's visits would be the fleet's most frequent ones.
func (x *examination) leave(o *outcome) {
	mqttDoor := !x.at.alpnPort() || strings.Contains(o.state.NegotiatedProtocol, "mqtt")
	if o.conn != nil && mqttDoor && (x.opts.Explain != "" || x.imprint()) {
		_ = o.conn.SetWriteDeadline(time.Now().Add(x.opts.Timeout))
		_, _ = o.conn.Write((&mqtt.Disconnect{}).Append(nil, mqtt.V311))
	}
	o.close()
}

// suites are those that devices offer: what crypto/tls takes for secure, and the
// RSA key exchange that AWS IoT Core still has.
func suites() []uint16 {
	var list []uint16
	for _, s := range tls.CipherSuites() {
		list = append(list, s.ID)
	}
	return append(list, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA)
}

// handshake opens a connection to an address and does TLS. The server's
// certificate is taken as it is: checkServer judges it.
func (x *examination) handshake(ctx context.Context, address string, h hello) *outcome {
	o := &outcome{offered: h.protocols}
	begun := time.Now()
	raw := x.waiting[address]
	delete(x.waiting, address)
	if raw == nil {
		fresh, err := x.dial(ctx, address)
		if err != nil {
			o.err = err
			return o
		}
		raw = fresh
	}
	_ = raw.SetDeadline(begun.Add(x.opts.Timeout))
	o.dialed = true
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn := tls.Client(raw, &tls.Config{
		InsecureSkipVerify: true, // the chain is judged apart, with words for what is wrong
		ServerName:         h.serverName,
		NextProtos:         h.protocols,
		MinVersion:         h.min,
		MaxVersion:         h.max,
		CipherSuites:       suites(),
		VerifyConnection: func(state tls.ConnectionState) error {
			o.peers = state.PeerCertificates
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			o.asked = true
			if x.pair == nil {
				return x.standIn(o.peers)
			}
			// Whatever authorities the server names: a device has one certificate.
			o.sent = true
			return x.pair, nil
		},
	})
	o.err = conn.Handshake()
	o.took, o.head = time.Since(begun), raw.head
	if o.err != nil {
		_ = raw.Close()
		return o
	}
	o.complete, o.conn, o.state = true, conn, conn.ConnectionState()
	return o
}

// waitNoMore closes what nothing was sent on.
func (x *examination) waitNoMore() {
	for _, conn := range x.waiting {
		_ = conn.Close()
	}
	clear(x.waiting)
}

// asDevice is the hello of the device.
func (x *examination) asDevice() hello {
	return hello{serverName: x.serverName, protocols: x.protocols, min: tls.VersionTLS12, max: tls.VersionTLS13}
}

// tls makes the checks of TLS. False: MQTT can't be spoken.
func (x *examination) tls(ctx context.Context) bool {
	const name = "tls"
	x.main = x.handshake(ctx, x.address, x.asDevice())
	o := x.main
	if o.err == nil {
		if x.opts.NoMQTT {
			x.afterwards = x.late()
		}
		// Some servers take one connection at a time, or one of a device.
		x.leave(o)
		x.ok(name, "%s, %s, in %.1f ms", tls.VersionName(o.state.Version), tls.CipherSuiteName(o.state.CipherSuite), float64(o.took.Microseconds())/1000)
	} else {
		x.waitNoMore()
		trouble := x.explainMain(ctx, x.tlsTrouble(o))
		x.tell(trouble.as(name, Failed))
		if len(o.peers) == 0 {
			if trouble.code == ServerNameRefused || trouble.code == ALPNRefused {
				// The server can be looked at in the way that it wants.
				x.lookElsewhere(ctx, trouble.code)
			}
			if len(o.peers) == 0 {
				x.skipRest("", "the TLS handshake failed")
				return false
			}
		}
	}
	if o.err == nil {
		for address := range x.waiting { // of the other kind of addresses
			x.leave(x.handshake(ctx, address, x.asDevice()))
		}
	}
	x.checkServer()
	x.checkName()
	refusal := x.probe(ctx)
	x.checkALPN(ctx)
	x.checkClock(ctx)
	switch {
	case o.err != nil:
		x.skipRest("", "the TLS handshake failed")
	case refusal:
		x.skipRest("", "the server refuses the device's certificate")
	case x.pair == nil:
		x.skipRest("", "there is no certificate with its key to connect with")
	case x.opts.NoMQTT:
		x.skipRest("", "not asked for")
	default:
		return true
	}
	return false
}

// explainMain asks a server that says nothing about TLS whether it speaks MQTT
// without, and offers old versions to one that takes none of the new ones.
func (x *examination) explainMain(ctx context.Context, trouble *finding) *finding {
	silent := len(x.main.head) == 0 && (trouble.code == TLSClosed || trouble.code == TLSTimeout)
	if silent && x.plainMQTT(ctx) {
		return found(NotTLS, "this port speaks MQTT without TLS: it answered a CONNECT that wasn't encrypted").
			with("--endpoint %s, or wherever the server speaks MQTT over TLS; with mosquitto: cafile, certfile and keyfile below its listener", net.JoinHostPort(x.at.host, strconv.Itoa(defaultPort)))
	}
	if trouble.code != TLSVersionRefused && trouble.code != TLSClosed {
		return trouble
	}
	h := x.asDevice()
	h.min, h.max = tls.VersionTLS10, tls.VersionTLS11
	old := x.handshake(ctx, x.address, h)
	defer x.leave(old)
	if len(old.peers) > 0 {
		return found(TLSVersionRefused, "the server speaks nothing newer than TLS 1.1").
			with("Let the server speak TLS 1.2 or 1.3: with OpenSSL MinProtocol = TLSv1.2")
	}
	return trouble
}

// plainPatience is how long is waited for an answer to a CONNECT without TLS.
const plainPatience = 3 * time.Second

// plainMQTT says whether the port answers MQTT without TLS. The client id is empty, so
// that the server makes one up: the device's own is told nobody in the clear, and its
// connection isn't ended.
func (x *examination) plainMQTT(ctx context.Context) bool {
	conn, err := x.dial(ctx, x.address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(min(plainPatience, x.opts.Timeout)))
	_, err = conn.Write((&mqtt.Connect{CleanStart: true, KeepAlive: keepAlive}).Append(nil, mqtt.V311))
	if err != nil {
		return false
	}
	answer := make([]byte, 4)
	_, err = io.ReadFull(conn, answer)
	if err != nil || answer[0] != byte(mqtt.TypeConnack)<<4 || answer[1] != 2 {
		return false
	}
	_, _ = conn.Write((&mqtt.Disconnect{}).Append(nil, mqtt.V311))
	return true
}

// lookElsewhere shakes hands without what was refused, to know the server's
// certificates.
func (x *examination) lookElsewhere(ctx context.Context, refused Code) {
	h := x.asDevice()
	if refused == ServerNameRefused {
		h.serverName = ""
		if x.serverName != x.at.host && !x.at.address {
			h.serverName = x.at.host
		}
	} else {
		h.protocols = nil
	}
	o := x.handshake(ctx, x.address, h)
	defer x.leave(o)
	x.main.peers = o.peers
}

// probe makes the checks that need handshakes of their own: server name,
// versions, the client's certificate. True: the server refuses the certificate.
func (x *examination) probe(ctx context.Context) bool {
	if x.main.err != nil && !aboutClient(x.tlsTrouble(x.main).code) {
		for _, name := range []string{"tls.servername", "tls.versions", "tls.client"} {
			x.skip(name, "the TLS handshake failed")
		}
		return false
	}
	x.checkServerName(ctx)
	trouble := x.checkVersions(ctx)
	return x.checkClient(trouble)
}

// checkServerName shakes hands once more without the server name.
func (x *examination) checkServerName(ctx context.Context) {
	const name = "tls.servername"
	if x.serverName == "" {
		x.tell(found(ServerNameMissing, "the hello carries no server name").as(name, Warning))
		return
	}
	h := x.asDevice()
	h.serverName = ""
	o := x.handshake(ctx, x.address, h)
	defer x.leave(o)
	switch {
	case len(o.peers) == 0:
		x.tell(x.blame(o, ServerNameNeeded, "without the server name the handshake fails").as(name, Warning))
	case !o.peers[0].Equal(x.main.peers[0]) && o.peers[0].VerifyHostname(x.at.host) != nil:
		x.tell(found(ServerNameNeeded, "without the server name the server shows another certificate: %s", subjects(o.peers, 1)).as(name, Warning))
	default:
		x.ok(name, "the device should send %q; without it the server shows the same or as good a certificate", shown(x.serverName))
	}
}

// blame takes a refusal for an answer to what one more handshake did differently,
// and tells anything else, such as a server that is too slow, as what it is.
func (x *examination) blame(o *outcome, code Code, what string) *finding {
	trouble := x.tlsTrouble(o)
	switch trouble.code {
	case TLSRefused, TLSClosed, TLSBroken, TLSVersionRefused, ServerNameRefused, ALPNRefused:
		return found(code, "%s: %s", what, trouble.detail)
	}
	trouble.detail = "one more handshake failed: " + trouble.detail
	return trouble
}

// checkVersions tries the version that the first handshake didn't choose. It
// gives what the server has against the device's certificate, which in TLS 1.2
// belongs to the handshake.
func (x *examination) checkVersions(ctx context.Context) *finding {
	const name = "tls.versions"
	if x.main.err != nil {
		x.skip(name, "the server refused the device's certificate")
		return x.tlsTrouble(x.main)
	}
	chosen, other := uint16(tls.VersionTLS13), uint16(tls.VersionTLS12)
	if x.main.state.Version == tls.VersionTLS12 {
		chosen, other = other, chosen
	}
	h := x.asDevice()
	h.min, h.max = other, other
	o := x.handshake(ctx, x.address, h)
	defer x.leave(o)
	if o.err == nil {
		x.ok(name, "TLS 1.2 and TLS 1.3")
		return nil
	}
	trouble := x.tlsTrouble(o)
	switch {
	case aboutClient(trouble.code):
		x.ok(name, "TLS 1.2 and TLS 1.3")
		return trouble
	default:
		x.tell(x.blame(o, OneTLSVersion, fmt.Sprintf("%s, and not %s", tls.VersionName(chosen), tls.VersionName(other))).as(name, Warning))
	}
	return nil
}

// checkClient tells what the server does about the device's certificate. Trouble
// is what a handshake said about it.
func (x *examination) checkClient(trouble *finding) bool {
	const name = "tls.client"
	if trouble == nil {
		trouble = x.afterwards
	}
	switch {
	case trouble != nil && trouble.code == ClientCertMissing && x.pair == nil:
		x.skip(name, "the server asks for a certificate, and there is none with its key to give")
	case trouble != nil:
		x.tell(x.clientTrouble(trouble).as(name, Failed))
		return true
	case !x.main.asked:
		x.tell(found(ClientCertNotAsked, "the server doesn't ask for a certificate").as(name, Failed))
	case x.pair == nil:
		x.skip(name, "the server asks for a certificate, and there is none with its key to give")
	default:
		x.ok(name, "the server asks for a certificate and is sent %s", plural(len(x.pair.Certificate), "certificate"))
	}
	return false
}

// late waits for an alert after the handshake: in TLS 1.3 a server judges the
// client's certificate when the client takes the handshake for complete. CONNECT
// shows that, too, so only an examination without it has to wait.
func (x *examination) late() *finding {
	const patience = time.Second
	o := x.main
	if o.conn == nil {
		return nil
	}
	_ = o.conn.SetReadDeadline(time.Now().Add(min(patience, x.opts.Timeout)))
	var one [1]byte
	_, err := o.conn.Read(one[:])
	if _, is := alertOf(err); !is {
		return nil
	}
	trouble := x.tlsTrouble(&outcome{err: err, asked: o.asked, sent: o.sent, dialed: true, complete: true, head: o.head})
	if aboutClient(trouble.code) {
		return trouble
	}
	return nil
}

// clientTrouble says more about why a certificate may have been refused.
func (x *examination) clientTrouble(f *finding) *finding {
	if x.leaf == nil {
		return f
	}
	for _, c := range x.report.Checks {
		if c.Code == UsageNoClientAuth || c.Code == UsageNoSignature || c.Code == KeyNotAccepted {
			f.detail += "; the check " + c.Name + " says what may be the reason"
			if f.code == ClientCertRefused {
				f.fix = c.Fix
				if f.fix == "" {
					f.fix = c.Code.description().Fix
				}
			}
		}
	}
	if f.code == ClientCARefused {
		f.detail += fmt.Sprintf("; the device sends %s, issued by %q", plural(len(x.chain), "certificate"), shown(x.leaf.Issuer.String()))
	}
	return f
}

// checkALPN judges what was agreed upon.
func (x *examination) checkALPN(ctx context.Context) {
	const name = "tls.alpn"
	offered := strings.Join(x.protocols, ", ")
	o := x.main
	switch {
	case o.err != nil && x.tlsTrouble(o).code == ALPNRefused:
		x.tell(found(ALPNRefused, "the server doesn't speak %s on port %d", shown(offered), x.at.port).with("%s", x.alpnFix()).as(name, Failed))
	case o.err != nil:
		x.skip(name, "the TLS handshake failed")
	case offered == "" && x.at.alpnPort():
		x.tell(found(ALPNMissing, "the hello offers no application protocol on port %d", x.at.port).as(name, Failed))
	case offered == "mqtt" && x.at.aws():
		x.tell(found(ALPNCustomAuthorizer, "the hello offers mqtt").as(name, Failed))
	case offered == "":
		x.offerALPN(ctx)
	case o.state.NegotiatedProtocol == "":
		x.tell(found(ALPNIgnored, "the hello offers %s, and the server chose none", shown(offered)).as(name, Warning))
	default:
		x.ok(name, "%s is agreed upon", shown(o.state.NegotiatedProtocol))
	}
}

func (x *examination) alpnFix() string {
	if x.at.alpnPort() {
		return "--alpn " + mqttALPN
	}
	return "--alpn " + NoALPN
}

// offerALPN looks whether a device whose SDK always offers MQTT's protocol gets
// in, too.
func (x *examination) offerALPN(ctx context.Context) {
	const name = "tls.alpn"
	h := x.asDevice()
	h.protocols = []string{mqttALPN}
	o := x.handshake(ctx, x.address, h)
	defer x.leave(o)
	if o.err != nil && len(o.peers) == 0 {
		f := x.blame(o, ALPNRefused, fmt.Sprintf("none is needed on port %d; a device that offers %s, as AWS's SDKs may, is refused", x.at.port, mqttALPN))
		if f.code == ALPNRefused {
			f.with("Let the firmware offer no application protocol on this port.")
		}
		x.tell(f.as(name, Warning))
		return
	}
	x.ok(name, "none is needed on port %d, and %s does no harm", x.at.port, mqttALPN)
}

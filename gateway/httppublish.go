package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/publishrequest"
	"github.com/imprint-iot/imprint/policy"
)

// publish answers a device that publishes over HTTPS with its certificate (AWS
// IoT Core developer guide, "HTTPS"): the path first, then who it is, then what
// it may do, and only then the body. What changes until that has come counts.
func (w *web) publish(rw http.ResponseWriter, r *http.Request, conn *webConn) {
	path := wirePath(r)
	err := route(rw, r.Method, path)
	if err != nil {
		w.refuse(rw, conn, "http.request", err)
		return
	}
	who, step, err := w.identify(r.Context(), conn)
	if err != nil {
		w.refuse(rw, conn, step, err)
		return
	}
	defer w.gateway.rooms.Identities.Release(who)
	message, step, err := w.message(rw, r, conn, who, path)
	if err == nil {
		step, err = w.stillMay(r.Context(), conn, who, &message)
	}
	if err == nil {
		step = "http.publish"
		err = w.gateway.rooms.Broker.Publish(r.Context(), message)
	}
	if err != nil {
		w.refuse(rw, conn, step, err)
		return
	}
	if !conn.connected {
		conn.rec.OK("http.publish", "%d bytes to %q, QoS %d, retain %t", len(message.Payload), imprint.Excerpt(message.Topic), message.QoS, message.Retain)
	}
	w.count(outcomeOK)
	conn.succeed()
	w.answer(rw, conn.rec.ID(), http.StatusOK, "OK")
}

// wirePath gives the path as it came over the wire.
func wirePath(r *http.Request) string {
	path := r.RequestURI
	if !strings.HasPrefix(path, "/") { // the absolute form of RFC 9112 section 3.2.2
		path = r.URL.EscapedPath()
	}
	path, _, _ = strings.Cut(path, "?")
	return path
}

// route refuses paths and methods that mean nothing here.
func route(rw http.ResponseWriter, method, path string) error {
	if !strings.HasPrefix(path, publishrequest.Prefix) {
		return &statusError{http.StatusNotFound, imprint.Errorf(imprint.CodeHTTPRequest, "nothing answers %s %s", imprint.Excerpt(method), imprint.Excerpt(path))}
	}
	if method != http.MethodPost {
		rw.Header().Set("Allow", http.MethodPost)
		return &statusError{http.StatusMethodNotAllowed, imprint.Errorf(imprint.CodeHTTPRequest, "%s isn't a method that publishes: use POST", imprint.Excerpt(method))}
	}
	return nil
}

// identify gives the device's identity, held once. The text names the step that
// failed.
func (w *web) identify(ctx context.Context, conn *webConn) (*identity.Identity, string, error) {
	if conn.visitor.leaf == nil {
		return nil, "certificate", imprint.Errorf(imprint.CodeNoClientCertificate, "the request has neither a client certificate nor a signature").
			WithHint("Give the client its certificate and key (curl: --cert and --key), or sign the request with an access key.")
	}
	who, err := conn.visitor.known(ctx, conn.rec)
	conn.rec.Describe(func(a *imprint.Attempt) { a.Tenant = conn.visitor.tenant })
	if err != nil {
		return nil, "certificate", err
	}
	if !w.rates.allow(rateKey{who.Tenant(), who.Certificate.ID}) {
		w.gateway.rooms.Identities.Release(who)
		return nil, "http.rate", imprint.Errorf(imprint.CodePublishRate, "the certificate publishes more than %d messages a second over HTTPS", w.rates.perSecond).
			WithHint("Send less often, or use MQTT; --https-publish-rate raises the bound.")
	}
	if !conn.connected {
		conn.rec.OK("certificate", "%s is ACTIVE, %d thing(s) attached; %s", who.Certificate.ID, len(who.Things), shownBy(conn.visitor.chain))
	}
	return who, "", nil
}

// message reads the request and decides whether the device may publish it. The
// text names the step that failed.
func (w *web) message(rw http.ResponseWriter, r *http.Request, conn *webConn, who *identity.Identity, path string) (broker.Message, string, error) {
	m := broker.Message{Tenant: who.Tenant(), Principal: who.Principal(), SourceIP: conn.arrival.address.String()}
	topic, err := publishrequest.Topic(path)
	if err != nil {
		return m, "http.request", err
	}
	parsed, err := publishrequest.Parse(r.URL.RawQuery, r.Header)
	if err != nil {
		return m, "http.request", err
	}
	m.Topic, m.QoS, m.Retain, m.Properties = topic, parsed.QoS, parsed.Retain, parsed.Properties
	step, err := w.authorize(conn, who, &m)
	if err != nil {
		return m, step, err
	}
	m.Payload, err = w.body(rw, r)
	return m, "http.request", err
}

// stillMay decides anew where something has changed while the body came.
func (w *web) stillMay(ctx context.Context, conn *webConn, who *identity.Identity, m *broker.Message) (string, error) {
	if !who.Stale() {
		return "", nil
	}
	now, err := conn.visitor.known(ctx, conn.rec)
	if err != nil {
		return "certificate", err
	}
	defer w.gateway.rooms.Identities.Release(now)
	return w.authorize(conn, now, m)
}

// authorize decides on iot:Publish and, with RETAIN, iot:RetainPublish.
func (w *web) authorize(conn *webConn, who *identity.Identity, m *broker.Message) (string, error) {
	v := conn.visitor
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: m.Tenant.ARN("topic/"), ResourceName: m.Topic,
		Vars: who.Variables(identity.Connection{
			Address: conn.arrival.address, ServerName: v.serverName, Certificate: policy.NewCertificateVariables(v.leaf), NoConnection: true,
		}), Now: w.gateway.rooms.Clock(),
	}
	decision, by := who.Policies.Judge(&request)
	if decision != policy.Allowed {
		return "policy.publish", identity.Denied(imprint.CodePublishDenied, who.Policies.Explain(&request))
	}
	conn.allowed("policy.publish", &request, by.String())
	if !m.Retain {
		return "", nil
	}
	request.Action = policy.RetainPublish
	decision, by = who.Policies.Judge(&request)
	if decision != policy.Allowed {
		return "policy.retain", identity.Denied(imprint.CodeRetainDenied, who.Policies.Explain(&request))
	}
	conn.allowed("policy.retain", &request, by.String())
	return "", nil
}

// body reads the payload, bounded.
func (w *web) body(rw http.ResponseWriter, r *http.Request) ([]byte, error) {
	o := w.gateway.opts.HTTP
	tooLarge := imprint.Errorf(imprint.CodePacketTooLarge, "the payload has more than %d bytes", o.MaxPayload)
	if r.ContentLength > int64(o.MaxPayload) {
		return nil, tooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, int64(o.MaxPayload)))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &statusError{http.StatusRequestTimeout, imprint.Errorf(imprint.CodeHTTPRequest, "the request wasn't complete after %s", o.RequestTimeout).
			WithHint("Look for a very slow link, or a Content-Length that is larger than the body.")}
	case err != nil:
		return nil, imprint.Errorf(imprint.CodeHTTPRequest, "the body ended too early: %w", err)
	}
	return data, nil
}

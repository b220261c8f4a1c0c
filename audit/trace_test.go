package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/trace"
)

// visit is one connection: when it began, in minutes after the first, how long it
// lived, who it was and how it ended.
type visit struct {
	at, lived   time.Duration
	certificate imprint.CertificateID
	thing       imprint.ThingName
	host        string
	code        imprint.Code
}

// visits records connections of one client id, half an hour ago.
func (h *house) visits(client imprint.ClientID, visits ...visit) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for n, v := range visits {
			a := imprint.Attempt{ID: fmt.Sprintf("%012d-%s-%02d", instant.Add(v.at).Unix(), client, n), Tenant: home, At: instant.Add(v.at - 30*time.Minute), EndedAt: instant.Add(v.at - 30*time.Minute + v.lived),
				Address: v.host + ":1", CertificateID: v.certificate, Thing: v.thing, ClientID: client, Outcome: imprint.OutcomeClosed, Code: v.code}
			if v.code == imprint.CodeCertificateRevoked {
				a.Outcome = imprint.OutcomeRefused
			}
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// turns makes connections that end each other.
func turns(count int, each func(n int) visit) []visit {
	var all []visit
	for n := range count {
		v := each(n)
		// Each end is seen late: when two others have begun.
		v.at, v.lived, v.code = time.Duration(n)*time.Minute, 125*time.Second, imprint.CodeTakenOver
		if n == count-1 {
			v.code = imprint.CodeClientDisconnect
		}
		all = append(all, v)
	}
	return all
}

func between(n int, a, b visit) visit {
	if n%2 == 0 {
		return a
	}
	return b
}

func TestClientIDsOfSeveralDevicesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	flushed := 0
	h.opts.Flush = func(context.Context) error { flushed++; return nil }
	one, two := visit{certificate: "01", thing: "a", host: "192.0.2.1"}, visit{certificate: "02", thing: "b", host: "192.0.2.2"}
	// A device that came again before its connection was seen to be dead; one that got
	// a new certificate; one that roams; connections that don't overlap.
	h.visits("again", turns(9, func(int) visit { return one })...)
	h.visits("renewed", turns(2, func(n int) visit { return between(n, one, visit{certificate: "03", thing: "a", host: "192.0.2.1"}) })...)
	h.visits("roams", turns(3, func(n int) visit { return between(n, one, visit{certificate: "01", thing: "a", host: "192.0.2.3"}) })...)
	h.visits("apart", visit{0, time.Minute, "01", "a", "192.0.2.1", imprint.CodeClientDisconnect}, visit{2 * time.Minute, time.Minute, "02", "b", "192.0.2.2", imprint.CodeClientDisconnect})
	h.finds(audit.ConflictingClientIDs, 4)
	if flushed != 1 {
		t.Errorf("the trace was flushed %d times, want once", flushed)
	}
	h.visits("strangers", turns(2, func(n int) visit { return between(n, one, two) })...)
	h.visits("unknown", turns(4, func(n int) visit {
		return between(n, visit{certificate: "04", host: "192.0.2.4"}, visit{certificate: "05", host: "192.0.2.4"})
	})...)
	h.visits("copies", turns(4, func(n int) visit { return between(n, one, visit{certificate: "01", thing: "a", host: "192.0.2.3"}) })...)
	const code = " DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS"
	found := h.finds(audit.ConflictingClientIDs, 7, "CLIENT_ID/strangers"+code, "CLIENT_ID/unknown"+code, "CLIENT_ID/copies"+code)
	for _, f := range found {
		if f.Resource.ID == "strangers" && (len(f.Related) != 2 || !strings.Contains(f.Mitigation, "imprint explain strangers")) {
			t.Errorf("got %+v", f)
		}
	}
}

// Client ids that were never contested take no room from those that were, and what there is
// no room for doesn't pass for compliant.
func TestTracesThatAreTooLargeAreSaid(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.MaxClients = 2
	h.opts.Page = 3
	line := newAuthority(t, "Line", nil)
	ordinary := func(client imprint.ClientID, at time.Duration, c imprint.Certificate) {
		h.visits(client, visit{at, time.Minute, c.ID, "", "192.0.2.9", imprint.CodeClientDisconnect})
	}
	one, two := line.leaf("one"), line.leaf("two")
	h.certificates(one, two)
	contested := func(client imprint.ClientID, a, b imprint.Certificate) {
		h.visits(client, turns(2, func(n int) visit {
			return between(n, visit{certificate: a.ID, thing: "a", host: "192.0.2.1"}, visit{certificate: b.ID, thing: "b", host: "192.0.2.2"})
		})...)
	}
	contested("strangers", one, two)
	for n := range 3 { // later, so that they are read before
		ordinary(imprint.ClientID(fmt.Sprint("fine-", n)), time.Duration(n+5)*time.Minute, one)
	}
	h.finds(audit.ConflictingClientIDs, 2, "CLIENT_ID/strangers DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS")

	check := func(check imprint.AuditCheck, status imprint.AuditRunStatus, code, says string) {
		t.Helper()
		a := h.auditor()
		defer a.Close()
		run := h.await(h.start(a, check).ID).Runs[0]
		if run.Status != status || run.Code != code || (says != "") != (says != "" && strings.Contains(run.Message, says)) {
			t.Errorf("got %+v, want %s with code %q, and %q", run, status, code, says)
		}
	}
	check(audit.DeviceCertificateShared, imprint.AuditRunCompliant, "", "")
	ordinary("fine-3", 4*time.Minute, line.leaf("three"))
	check(audit.DeviceCertificateShared, imprint.AuditRunCompliant, "", "more than 2 certificates")
	for n := range 2 { // later than the strangers, each taken over by itself
		h.visits(imprint.ClientID(fmt.Sprint("again-", n)), visit{9 * time.Minute, time.Minute, one.ID, "a", "192.0.2.1", imprint.CodeTakenOver})
	}
	check(audit.ConflictingClientIDs, imprint.AuditRunFailed, "TRACE_TOO_LARGE", "more than 2 client ids")
}

func TestCertificatesThatDevicesTakeTurnsWithAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, copied := visit{certificate: "01", host: "192.0.2.1"}, visit{certificate: "01", host: "192.0.2.2"}
	h.visits("again", turns(9, func(int) visit { return one })...)
	h.visits("roams", turns(3, func(n int) visit { return between(n, one, copied) })...)
	h.finds(audit.DeviceCertificateShared, 0)
	h.visits("copies", turns(5, func(n int) visit { return between(n, one, copied) })...)
	found := h.finds(audit.DeviceCertificateShared, 0, "DEVICE_CERTIFICATE/01 CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES")
	if !strings.Contains(found[0].Reason, "192.0.2.1, 192.0.2.2") || found[0].Related[0].Key() != "CLIENT_ID/copies" {
		t.Errorf("got %+v", found[0])
	}
}

// AWS's own criterion: connections of one certificate that were there at the same
// time, as the trace has them.
func TestCertificatesOfConcurrentConnectionsAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	shared, gateway, comesBack, claim, guarded, off := line.leaf("shared"), line.leaf("gateway"), line.leaf("back"), line.leaf("claim"), line.leaf("guarded"), with(line.leaf("off"), status(imprint.CertificateInactive))
	h.certificates(shared, gateway, comesBack, claim, guarded, off)
	h.policyNamed("claiming", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/$aws/certificates/create/json"}}`, claim.ARN())
	h.put(func(tx imprint.Tx) error {
		return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: guarded.ID})
	})
	const first, second = "192.0.2.1", "192.0.2.2"
	on := func(client imprint.ClientID, at, lived time.Duration, c imprint.Certificate, host string, code imprint.Code) {
		h.visits(client, visit{at, lived, c.ID, "", host, code})
	}
	const said, lost = imprint.CodeClientDisconnect, imprint.CodeConnectionLost
	// One after another; one that was dead when its device came back as another client;
	// two at once from one address, once; claims, which devices share; a certificate
	// that is off.
	on("a-1", 0, time.Minute, shared, first, said)
	on("a-2", 2*time.Minute, time.Minute, shared, second, said)
	on("b-1", 0, 5*time.Minute, comesBack, first, lost)
	on("b-2", time.Minute, 5*time.Minute, comesBack, second, imprint.CodeKeepAliveTimeout)
	on("c-1", 0, 5*time.Minute, gateway, first, said)
	on("c-2", time.Minute, 5*time.Minute, gateway, first, said)
	for n, c := range []imprint.Certificate{claim, guarded, off} {
		on(imprint.ClientID(fmt.Sprintf("d-%d", n)), 0, 5*time.Minute, c, first, said)
		on(imprint.ClientID(fmt.Sprintf("e-%d", n)), time.Minute, 5*time.Minute, c, second, said)
	}
	h.finds(audit.DeviceCertificateShared, 5)

	const code = "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"
	h.put(func(tx imprint.Tx) error { // it is still on
		return tx.PutAttempt(imprint.Attempt{ID: fmt.Sprintf("%012d", instant.Add(150*time.Second).Unix()), Tenant: home, At: instant.Add(-30*time.Minute + 150*time.Second), Address: first + ":1",
			CertificateID: shared.ID, ClientID: "a-3", Outcome: imprint.OutcomeConnected})
	})
	found := h.finds(audit.DeviceCertificateShared, 5, device(shared, code))
	if f := found[0]; len(f.Related) != 2 || f.Related[0].Key() != "CLIENT_ID/a-2" || f.Related[1].Key() != "CLIENT_ID/a-3" ||
		!strings.Contains(f.Reason, "192.0.2.1") || !strings.Contains(f.Reason, "192.0.2.2") || !strings.Contains(f.Mitigation, "imprint explain "+string(shared.ID)) {
		t.Errorf("got %+v", f)
	}
	// From one address again and again; and a connection that was lost, but too late to
	// have been dead when the other came.
	for n := range 2 {
		on(imprint.ClientID(fmt.Sprintf("c-%d", n+3)), time.Duration(n+2)*time.Minute, 5*time.Minute, gateway, first, said)
	}
	on("b-3", -2*time.Hour, 90*time.Minute, comesBack, first, lost)
	on("b-4", -100*time.Minute, 5*time.Minute, comesBack, second, lost)
	h.finds(audit.DeviceCertificateShared, 5, device(shared, code), device(gateway, code), device(comesBack, code))
}

// Who is connected now counts, too, once the older connection can't be a dead one.
func TestCertificatesOfConnectedClientsAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	shared, comesBack, takenOver := line.leaf("shared"), line.leaf("back"), line.leaf("taken over")
	h.certificates(shared, comesBack, takenOver)
	live := func(client imprint.ClientID, c imprint.Certificate, host string, age, keepAlive time.Duration) imprint.LiveClient {
		return imprint.LiveClient{ClientID: client, Certificate: c.ID, Host: host, Since: instant.Add(-age), KeepAlive: keepAlive}
	}
	clients := []imprint.LiveClient{
		live("b-2", comesBack, "192.0.2.2", time.Minute, time.Second), live("b-1", comesBack, "192.0.2.1", time.Hour, time.Minute),
		live("c", takenOver, "192.0.2.1", time.Hour, time.Minute), live("c", takenOver, "192.0.2.2", 30*time.Minute, time.Minute),
	}
	h.opts.Sharing = func(_ context.Context, tenant imprint.Tenant, certificates, each int) []imprint.LiveClient {
		if tenant != home || certificates < 1 || each < 2 {
			t.Errorf("asked for %d clients of %d certificates of %s", each, certificates, tenant)
		}
		return clients
	}
	h.finds(audit.DeviceCertificateShared, 3)
	clients = append(clients, live("a-1", shared, "192.0.2.1", time.Hour, time.Minute), live("a-2", shared, "192.0.2.1", 2*time.Minute, time.Hour))
	found := h.finds(audit.DeviceCertificateShared, 3, device(shared, "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"))
	if !strings.Contains(found[0].Reason, "a-1 and as a-2") {
		t.Errorf("got %q, want both clients in it", found[0].Reason)
	}
}

// So many at once are more than are looked at: that is no compliance.
func TestTooManyConnectedClientsFailTheCheck(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	more := 0
	h.opts.Sharing = func(_ context.Context, _ imprint.Tenant, certificates, _ int) []imprint.LiveClient {
		clients := make([]imprint.LiveClient, certificates-1+more)
		for n := range clients {
			clients[n] = imprint.LiveClient{ClientID: "one", Certificate: imprint.CertificateID(fmt.Sprint(n)), Since: instant}
		}
		return clients
	}
	for _, want := range []struct {
		status imprint.AuditRunStatus
		code   string
	}{{imprint.AuditRunCompliant, ""}, {imprint.AuditRunFailed, "TOO_MANY_CONNECTED"}} {
		a := h.auditor()
		run := h.await(h.start(a, audit.DeviceCertificateShared).ID).Runs[0]
		a.Close()
		if run.Status != want.status || run.Code != want.code {
			t.Errorf("got %+v, want %s with code %q", run, want.status, want.code)
		}
		more = 1
	}
}

func TestRevokedCertificatesWhoseDevicesStillComeAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	quietly, loudly := with(line.leaf("quietly"), status(imprint.CertificateRevoked)), with(line.leaf("loudly"), status(imprint.CertificateRevoked))
	h.certificates(quietly, loudly)
	h.visits("old", visit{-48 * time.Hour, 0, loudly.ID, "", "192.0.2.1", imprint.CodeCertificateRevoked})
	h.visits("gone", visit{0, 0, "0123", "", "192.0.2.1", imprint.CodeCertificateRevoked})
	// Who names it in a bulk registration is no device that comes with it.
	h.put(func(tx imprint.Tx) error {
		return tx.PutAttempt(imprint.Attempt{
			ID: fmt.Sprintf("%012d-line", instant.Unix()), Tenant: home, At: instant, Address: "task:1", CertificateID: loudly.ID,
			Outcome: imprint.OutcomeRefused, Code: imprint.CodeCertificateRevoked, Steps: []imprint.Step{{At: instant, Name: imprint.StepBulkLine, Verdict: imprint.VerdictInfo}},
		})
	})
	h.finds(audit.RevokedDeviceCertificate, 0)
	h.visits("new", visit{0, 0, loudly.ID, "", "192.0.2.7", imprint.CodeCertificateRevoked})
	found := h.finds(audit.RevokedDeviceCertificate, 0, device(loudly, "CERTIFICATE_REVOKED_STILL_USED"))
	if !strings.Contains(found[0].Reason, "192.0.2.7") {
		t.Errorf("got %q, want the address in it", found[0].Reason)
	}
}

// A fleet of revoked devices is one entry of the trace: each of them is found.
func TestRevokedCertificatesInAStormAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	clock := func() time.Time { return instant.Add(-time.Hour) }
	log := trace.NewLog(h.store, clock, trace.Options{Logger: quiet()})
	var want []string
	for n := range 80 {
		leaf := with(line.leaf(fmt.Sprint(n)), status(imprint.CertificateRevoked))
		h.certificates(leaf)
		want = append(want, device(leaf, "CERTIFICATE_REVOKED_STILL_USED"))
		attempt := log.Begin(fmt.Sprintf("192.0.2.%d:1", n))
		attempt.Describe(func(a *imprint.Attempt) { a.Tenant, a.CertificateID = home, leaf.ID })
		attempt.Fail("certificate", imprint.Errorf(imprint.CodeCertificateRevoked, "it is REVOKED"))
		attempt.End(imprint.OutcomeRefused, imprint.CodeCertificateRevoked)
	}
	log.Close()
	found := h.finds(audit.RevokedDeviceCertificate, 0, want...)
	if !slices.ContainsFunc(found, func(f imprint.AuditFinding) bool { return strings.Contains(f.Reason, "counted with others") }) {
		t.Error("no finding says that its attempts are counted with those of others")
	}
}

func TestATraceThatIsOffIsFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.finds(audit.LoggingDisabled, 1)
	h.opts.Logging = func() (string, string) { return "", "" }
	h.finds(audit.LoggingDisabled, 1)
	h.opts.Logging = func() (string, string) { return "it is off", "turn it on" }
	found := h.finds(audit.LoggingDisabled, 1, "ACCOUNT_SETTINGS/000000000000 LOGGING_DISABLED")
	if found[0].Reason != "it is off" || found[0].Mitigation != "turn it on" || found[0].Severity != imprint.AuditLow {
		t.Errorf("got %+v", found[0])
	}
}

// What can't be looked at is no compliance, and the other checks are done.
func TestAStageThatFailsFailsItsChecksAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Flush = func(context.Context) error { return errors.New("no trace") }
	a := h.auditor()
	task := h.await(h.start(a, audit.ConflictingClientIDs, audit.LoggingDisabled).ID)
	if run := task.Run(audit.ConflictingClientIDs); task.Status != imprint.AuditCompleted || run.Status != imprint.AuditRunFailed || run.Code != "Internal" || run.Message == "" {
		t.Errorf("got %s and %+v, want a failed check", task.Status, *run)
	}
	if run := task.Run(audit.LoggingDisabled); run.Status != imprint.AuditRunCompliant {
		t.Errorf("got %+v, want it to be compliant", *run)
	}
	h.opts.Flush = func(context.Context) error { panic("no trace") }
	b := h.auditor()
	task = h.await(h.start(b, audit.ConflictingClientIDs).ID)
	b.Close()
	if task.Status != imprint.AuditFailed || b.Counters().Failed != 1 {
		t.Errorf("got %s and counters %+v of an audit all of whose checks failed, want FAILED", task.Status, b.Counters())
	}
}

// A device that chooses its client id doesn't choose what an operator types.
func TestMitigationsHoldNoCommandsOfDevices(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	one, two := visit{certificate: "01", thing: "a", host: "192.0.2.1"}, visit{certificate: "02", thing: "b", host: "192.0.2.2"}
	for client, want := range map[imprint.ClientID]string{"x; reboot": "explain 'x; reboot' ", "it's $(id)": `explain 'it'\''s $(id)' `, "a\x1b[2J": "explain 'a\uFFFD[2J' ", "--help": "explain '--help' ", "sensor-1": "explain sensor-1 "} {
		h.visits(client, turns(2, func(n int) visit { return between(n, one, two) })...)
		a := h.auditor()
		task := h.await(h.start(a, audit.ConflictingClientIDs).ID)
		found := false
		for _, f := range h.findings(task.ID) {
			found = found || f.Resource.ID == string(client) && strings.Contains(f.Mitigation, want)
		}
		if !found {
			t.Errorf("client id %q: got %+v, want %q in a mitigation", client, h.findings(task.ID), want)
		}
	}
}

package audit_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/policy"
)

// audited is the id of the audit that the findings of these tests are of.
const audited = "audited"

// Each action does what it is for, once; what changed since the audit is left alone, and
// what can't be done fails by the name that the API has for it.
func TestMitigationActionsDoWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	shared, revoked, moving := line.leaf("shared"), line.leaf("revoked"), line.leaf("moving")
	revoked.Status, moving.Status = imprint.CertificateRevoked, imprint.CertificatePendingTransfer
	off := newAuthority(t, "Off", nil).row()
	off.Status = imprint.CAInactive
	h.cas(line.row(), off)
	h.certificates(shared, revoked, moving)
	h.groups("quarantine", "old", "watched")
	h.put(func(tx imprint.Tx) error {
		return tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: "oldest", Ancestors: []imprint.ThingGroupName{"old"}})
	})
	h.things(shared.ID, "a", "b")
	h.things(revoked.ID, "c")
	h.things("", "alone")
	h.put(func(tx imprint.Tx) error {
		return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: "oldest", Thing: "c"})
	})
	h.actions("quarantine", "old")
	wide := statements(`"iot:*"`, "*")
	h.policyNamed("wide", wide, shared.ARN())
	h.policyNamed("changed", wide)
	h.policyNamed("full", wide)
	h.put(func(tx imprint.Tx) error {
		for n := 3; n <= 6; n++ {
			err := tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: "full", Version: n, Document: wide})
			if err != nil {
				return err
			}
		}
		return nil
	})
	suppressed := about(audit.DeviceCertificateAge, imprint.AuditDeviceCertificate, string(shared.ID))
	suppressed.ID, suppressed.Suppressed = "suppressed", true
	h.found(about(audit.DeviceCertificateShared, imprint.AuditDeviceCertificate, string(shared.ID)), about(audit.DeviceCertificateShared, imprint.AuditDeviceCertificate, string(revoked.ID)),
		about(audit.DeviceCertificateShared, imprint.AuditDeviceCertificate, string(moving.ID)), about(audit.DeviceCertificateShared, imprint.AuditDeviceCertificate, strings.Repeat("0", 64)),
		about(audit.CACertificateExpiring, imprint.AuditCACertificate, string(line.row().ID)), about(audit.CACertificateExpiring, imprint.AuditCACertificate, string(off.ID)),
		about(audit.CACertificateExpiring, imprint.AuditCACertificate, strings.Repeat("1", 64)),
		aboutPolicy("wide", 2), aboutPolicy("changed", 1), aboutPolicy("full", 2), aboutPolicy("gone", 1),
		about(audit.ThingWithoutCertificate, imprint.AuditThing, "alone"), about(audit.ThingWithoutCertificate, imprint.AuditThing, "nobody"),
		about(audit.ConflictingClientIDs, imprint.AuditClientID, "sensor"), suppressed)
	a := h.auditor()
	mapping := map[imprint.AuditCheck][]string{
		audit.DeviceCertificateShared: {"things", "device"}, audit.CACertificateExpiring: {"ca"}, audit.PolicyOverlyPermissive: {"policy"}, audit.ThingWithoutCertificate: {"things"},
		audit.DeviceCertificateAge: {"device"},
	}
	h.mitigate(a, "first", mapping)
	task := h.mitigated("first")
	want := map[imprint.AuditCheck]imprint.MitigationTally{
		audit.DeviceCertificateShared: {Total: 4, Succeeded: 1, Failed: 3}, audit.CACertificateExpiring: {Total: 3, Succeeded: 1, Skipped: 1, Failed: 1},
		audit.PolicyOverlyPermissive: {Total: 4, Succeeded: 1, Skipped: 1, Failed: 2}, audit.ThingWithoutCertificate: {Total: 2, Succeeded: 1, Failed: 1}, audit.DeviceCertificateAge: {Total: 1, Skipped: 1},
	}
	if diff := cmp.Diff(want, task.Tallies); diff != "" || task.Status != imprint.AuditCompleted || task.EndedAt.IsZero() || task.Executions != 18 {
		t.Errorf("got %s, %d executions, and counts (-want +got)\n%s", task.Status, task.Executions, diff)
	}
	for finding, want := range map[string][]string{
		string(shared.ID): {"device COMPLETED", "things COMPLETED"}, string(revoked.ID): {"device SKIPPED", "things FAILED InvalidRequestException"},
		string(moving.ID): {"device FAILED CertificateStateException", "things SKIPPED"}, strings.Repeat("0", 64): {"device FAILED ResourceNotFoundException", "things FAILED ResourceNotFoundException"},
		string(line.row().ID): {"ca COMPLETED"}, string(off.ID): {"ca SKIPPED"}, strings.Repeat("1", 64): {"ca FAILED ResourceNotFoundException"},
		"wide": {"policy COMPLETED"}, "changed": {"policy SKIPPED"}, "full": {"policy FAILED VersionsLimitExceededException"}, "gone": {"policy FAILED ResourceNotFoundException"},
		"alone": {"things COMPLETED"}, "nobody": {"things FAILED ResourceNotFoundException"}, "sensor": nil, "suppressed": {"device SKIPPED"},
	} {
		if got := h.outcomes("first", finding); !slices.Equal(got, want) {
			t.Errorf("finding %s: got %q, want %q", finding, got, want)
		}
	}
	for thing, want := range map[imprint.ThingName][]string{"a": {"old", "quarantine"}, "b": {"old", "quarantine"}, "c": {"oldest", "quarantine"}, "alone": {"old", "quarantine"}} {
		if got := h.in(thing); !slices.Equal(got, want) {
			t.Errorf("thing %s: got groups %q, want %q", thing, got, want)
		}
	}
	h.view(func(tx imprint.ReadTx) error {
		cert, err := tx.Certificate(home, shared.ID)
		if err != nil || cert.Status != imprint.CertificateInactive || cert.CustomerVersion != shared.CustomerVersion+1 || cert.GenerationID == shared.GenerationID {
			t.Errorf("the certificate: got %+v, %v, want it to be INACTIVE and changed once", cert, err)
		}
		issuer, err := tx.CA(home, line.row().ID)
		if err != nil || issuer.Status != imprint.CAInactive {
			t.Errorf("the CA: got %s, %v, want INACTIVE", issuer.Status, err)
		}
		p, err := tx.Policy(home, "wide")
		if err != nil || p.DefaultVersion != 3 || p.LastVersion != 3 {
			t.Errorf("the policy: got %+v, %v, want version 3", p, err)
		}
		version, err := tx.PolicyVersion(home, "wide", 3)
		if err != nil || version.Document != audit.BlankPolicy(home) {
			t.Errorf("the policy: got %s, %v, want it to be blank", version.Document, err)
		}
		return nil
	})
	// Done again, there is nothing left to do.
	h.mitigate(a, "second", mapping, string(shared.ID), "wide", "alone")
	want = map[imprint.AuditCheck]imprint.MitigationTally{audit.DeviceCertificateShared: {Total: 1, Skipped: 1}, audit.PolicyOverlyPermissive: {Total: 1, Skipped: 1}, audit.ThingWithoutCertificate: {Total: 1, Skipped: 1}}
	if diff := cmp.Diff(want, h.mitigated("second").Tallies); diff != "" {
		t.Errorf("done again (-want +got)\n%s", diff)
	}
}

// A blank policy allows nothing, and denies nothing that another policy allows.
func TestBlankPoliciesNeitherAllowNorDeny(t *testing.T) {
	t.Parallel()
	blank, err := policy.Parse([]byte(audit.BlankPolicy(home)))
	if err != nil {
		t.Fatal(err)
	}
	wide, err := policy.Parse([]byte(statements(`"iot:*"`, "*")))
	if err != nil {
		t.Fatal(err)
	}
	vars := policy.NewVariables(policy.Binding{ClientID: "sensor"})
	for _, row := range []struct {
		action policy.Action
		prefix string
		name   string
	}{{policy.Connect, narrow + "client/", "sensor"}, {policy.Publish, narrow + "topic/", "a"}, {policy.Subscribe, narrow + "topicfilter/", "#"}} {
		ask := &policy.Request{Action: row.action, ResourcePrefix: row.prefix, ResourceName: row.name, Vars: vars, Now: instant}
		if got := policy.Compile(policy.Named{Name: "blank", Doc: blank}).Decide(ask); got == policy.Allowed {
			t.Errorf("%s: a blank policy allows it", row.action)
		}
		if got := policy.Compile(policy.Named{Name: "blank", Doc: blank}, policy.Named{Name: "wide", Doc: wide}).Decide(ask); got != policy.Allowed {
			t.Errorf("%s: beside a blank policy another doesn't allow it: %v", row.action, got)
		}
	}
}

func TestMitigationsOfWrongThingsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Rest = 1e6 // of the first tasks, each rests after its first findings
	h.actions("g")
	var many []imprint.AuditFinding
	for n := range 40 {
		many = append(many, aboutPolicy(fmt.Sprintf("p%02d", n), 1))
	}
	h.found(many...)
	a := h.auditor()
	h.put(func(tx imprint.Tx) error {
		return tx.PutAuditTask(imprint.AuditTask{Tenant: home, ID: "running", Status: imprint.AuditInProgress, CreatedAt: instant})
	})
	policies := map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}}
	for what, task := range map[string]imprint.MitigationTask{
		"no target":              {Mapping: policies},
		"two targets":            {Audit: audited, Findings: []string{"p01"}, Mapping: policies},
		"an audit that goes on":  {Audit: "running", Mapping: policies},
		"an unknown audit":       {Audit: "none", Mapping: policies},
		"an unknown finding":     {Findings: []string{"none"}, Mapping: policies},
		"a finding twice":        {Findings: []string{"p01", "p01"}, Mapping: policies},
		"a finding of no action": {Findings: []string{"p01"}, Mapping: map[imprint.AuditCheck][]string{audit.CACertificateExpiring: {"ca"}}},
		"no mapping":             {Audit: audited},
		"no action":              {Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: nil}},
		"an action twice":        {Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy", "policy"}}},
		"an unknown check":       {Audit: audited, Mapping: map[imprint.AuditCheck][]string{"NONE": {"policy"}}},
		"an unknown action":      {Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"none"}}},
		"an action of others":    {Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"device"}}},
		"no remedy":              {Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.ConflictingClientIDs: {"device"}}},
		"codes without an audit": {Findings: []string{"p01"}, Reasons: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"FOUND"}}, Mapping: policies},
		"codes without actions":  {Audit: audited, Reasons: map[imprint.AuditCheck][]string{audit.CACertificateExpiring: {"FOUND"}}, Mapping: policies},
	} {
		task.Tenant, task.ID = home, "refused"
		_, err := a.StartMitigation(t.Context(), task)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("%s: got %v, want code InvalidRequest", what, err)
		}
	}
	for n := range audit.MaxRunning {
		h.mitigate(a, fmt.Sprint("task-", n), policies)
	}
	again, err := a.StartMitigation(t.Context(), imprint.MitigationTask{Tenant: home, ID: "task-0", Token: "token"})
	if err != nil || again.Audit != audited {
		t.Errorf("the same request again: got %+v, %v; want the task", again, err)
	}
	for id, want := range map[string]imprint.Code{"task-0": imprint.CodeTaskAlreadyExists, "eleventh": imprint.CodeLimitExceeded} {
		_, err = a.StartMitigation(t.Context(), imprint.MitigationTask{Tenant: home, ID: id, Token: "another", Audit: audited, Mapping: policies})
		if imprint.CodeOf(err) != want {
			t.Errorf("%s: got %v, want code %s", id, err, want)
		}
	}
	for id, want := range map[string]imprint.Code{"none": imprint.CodeNotFound, "task-9": ""} {
		err = a.CancelMitigation(t.Context(), home, id)
		if imprint.CodeOf(err) != want {
			t.Errorf("canceling %s: got %v, want code %q", id, err, want)
		}
	}
	if err = a.CancelMitigation(t.Context(), home, "task-9"); imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("canceling again: got %v, want code InvalidRequest", err)
	}
}

// twentyFive waits until the first transaction of a task about policies is over.
func (h *house) twentyFive(id string) {
	h.t.Helper()
	h.eventually("the first findings are dealt with", func() bool { return h.mitigation(id).Tallies[audit.PolicyOverlyPermissive].Succeeded == 25 })
}

// policiesFound puts policies with a finding about each.
func (h *house) policiesFound(n int) {
	h.t.Helper()
	var findings []imprint.AuditFinding
	for i := range n {
		name := fmt.Sprintf("p%03d", i)
		h.policyNamed(imprint.PolicyName(name), statements(`"iot:*"`, "*"))
		f := aboutPolicy(name, 0) // whatever its version is: done twice, it would be seen
		f.Code = []string{"EVEN", "ODD"}[i%2]
		findings = append(findings, f)
	}
	h.found(findings...)
}

// A task that a stop interrupts goes on where it was: each action is done once.
func TestInterruptedMitigationsGoOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.actions()
	h.policiesFound(60)
	h.opts.Rest = 1e6
	a := h.auditor()
	h.mitigate(a, "task", map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}})
	h.twentyFive("task")
	a.Close()
	if got := h.mitigation("task"); got.Status != imprint.AuditInProgress || got.Executions != 25 {
		t.Fatalf("after the stop: got %s and %d executions, want IN_PROGRESS and 25", got.Status, got.Executions)
	}
	// An operator thinks again about one that is done.
	h.policyNamed("p000", statements(`"iot:*"`, "*"))
	h.opts.Rest = -1
	h.auditor()
	task := h.mitigated("task")
	if got := task.Tallies[audit.PolicyOverlyPermissive]; task.Status != imprint.AuditCompleted || task.Restarts != 1 || got != (imprint.MitigationTally{Total: 60, Succeeded: 60}) {
		t.Errorf("got %+v, want all 60 to have succeeded after one restart", task)
	}
	h.view(func(tx imprint.ReadTx) error {
		for i := range 60 {
			p, err := tx.Policy(home, imprint.PolicyName(fmt.Sprintf("p%03d", i)))
			want := 3
			if i == 0 {
				want = 2
			}
			if err != nil || p.DefaultVersion != want {
				t.Errorf("policy %d: got version %d, %v; want %d", i, p.DefaultVersion, err, want)
			}
		}
		return nil
	})
}

func TestMitigationsThatTheServerDiesOfFail(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.put(func(tx imprint.Tx) error {
		return tx.PutMitigationTask(imprint.MitigationTask{Tenant: home, ID: "cursed", Status: imprint.AuditInProgress, Restarts: 10, CreatedAt: instant})
	})
	h.auditor()
	if task := h.mitigation("cursed"); task.Status != imprint.AuditFailed || !strings.Contains(task.Message, "11 times") {
		t.Errorf("got %+v, want FAILED after 11 stops", task)
	}
}

// A canceled task leaves what it did and does no more.
func TestCanceledMitigationsEndAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.actions()
	h.policiesFound(60)
	h.opts.Rest = 1e6
	a := h.auditor()
	h.mitigate(a, "task", map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}})
	h.twentyFive("task")
	err := a.CancelMitigation(t.Context(), home, "task")
	if err != nil {
		t.Fatal(err)
	}
	// It gives its turn to the next, which is over after one transaction.
	h.mitigate(a, "next", map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}}, "p059")
	h.mitigated("next")
	if task := h.mitigation("task"); task.Status != imprint.AuditCanceled || task.Tallies[audit.PolicyOverlyPermissive] != (imprint.MitigationTally{Total: 60, Succeeded: 25}) || task.EndedAt.IsZero() {
		t.Errorf("got %+v, want CANCELED after 25 of 60", task)
	}
}

// A filter of reason codes selects findings of the audit.
func TestMitigationsAreForTheCodesThatAreAskedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.actions()
	h.policiesFound(60)
	a := h.auditor()
	_, err := a.StartMitigation(t.Context(), imprint.MitigationTask{Tenant: home, ID: "odd", Audit: audited, Mapping: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}},
		Reasons: map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"ODD"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.mitigated("odd").Tallies[audit.PolicyOverlyPermissive]; got != (imprint.MitigationTally{Total: 30, Succeeded: 30}) {
		t.Errorf("got %+v, want 30", got)
	}
	if got := h.outcomes("odd", "p000"); got != nil {
		t.Errorf("a finding of another code: got %q", got)
	}
}

// counting is a store that knows the most memberships of a transaction that was committed.
type counting struct {
	imprint.Store
	most *atomic.Int64
}

type countingTx struct {
	imprint.Tx
	n *int64
}

func (c counting) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	n := int64(0)
	err := c.Store.Update(ctx, func(tx imprint.Tx) error {
		n = 0
		return fn(countingTx{tx, &n})
	})
	if err == nil && n > c.most.Load() {
		c.most.Store(n)
	}
	return err
}

func (c countingTx) PutThingGroupMembership(m imprint.ThingGroupMembership) error {
	*c.n++
	return c.Tx.PutThingGroupMembership(m)
}

// Two certificates with more things than one transaction takes are dealt with in two,
// and one with more things than an action takes fails.
func TestMitigationsOfManyThingsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.groups("quarantine")
	h.actions("quarantine")
	line := newAuthority(t, "Line", nil)
	var findings []imprint.AuditFinding
	for n, count := range []int{600, 600, 1001} {
		cert := line.leaf(fmt.Sprint("cert-", n))
		h.certificates(cert)
		names := make([]imprint.ThingName, count)
		for i := range names {
			names[i] = imprint.ThingName(fmt.Sprintf("%d-%04d", n, i))
		}
		h.things(cert.ID, names...)
		f := about(audit.DeviceCertificateShared, imprint.AuditDeviceCertificate, string(cert.ID))
		f.ID = fmt.Sprint("finding-", n)
		findings = append(findings, f)
	}
	h.found(findings...)
	var most atomic.Int64
	h.store = counting{h.store, &most}
	h.mitigate(h.auditor(), "task", map[imprint.AuditCheck][]string{audit.DeviceCertificateShared: {"things"}})
	task := h.mitigated("task")
	if got := most.Load(); got != 600 {
		t.Errorf("got %d things in one transaction, want 600", got)
	}
	if got := task.Tallies[audit.DeviceCertificateShared]; got != (imprint.MitigationTally{Total: 3, Succeeded: 2, Failed: 1}) {
		t.Errorf("got %+v, want two to succeed and one to fail", got)
	}
	if got := h.outcomes("task", "finding-2"); !slices.Equal(got, []string{"things FAILED LimitExceededException"}) {
		t.Errorf("got %q of a certificate with too many things", got)
	}
	h.view(func(tx imprint.ReadTx) error {
		members, _, err := tx.ThingGroupMembers(home, "quarantine", false, imprint.Page{Limit: 9999, Ascending: true})
		if err != nil || len(members) != 1200 {
			t.Errorf("got %d things in the group, %v; want 1200", len(members), err)
		}
		return nil
	})
}

// faulty is a store in which one certificate can't be read.
type faulty struct {
	imprint.Store
	id imprint.CertificateID
}

type faultyTx struct {
	imprint.Tx
	id imprint.CertificateID
}

func (f faulty) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	return f.Store.Update(ctx, func(tx imprint.Tx) error { return fn(faultyTx{tx, f.id}) })
}

func (f faultyTx) Certificate(tenant imprint.Tenant, id imprint.CertificateID) (imprint.Certificate, error) {
	if id == f.id {
		panic("a row that nobody can read")
	}
	return f.Tx.Certificate(tenant, id)
}

// What can't be read fails alone: the findings beside it are dealt with.
func TestAFindingThatCantBeReadFailsAlone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.actions()
	line := newAuthority(t, "Line", nil)
	var findings []imprint.AuditFinding
	var ids []imprint.CertificateID
	for n := range 5 {
		cert := line.leaf(fmt.Sprint("cert-", n))
		h.certificates(cert)
		ids = append(ids, cert.ID)
		findings = append(findings, about(audit.DeviceCertificateAge, imprint.AuditDeviceCertificate, string(cert.ID)))
	}
	h.found(findings...)
	h.store = faulty{h.store, ids[2]}
	h.mitigate(h.auditor(), "task", map[imprint.AuditCheck][]string{audit.DeviceCertificateAge: {"device"}})
	if got := h.mitigated("task"); got.Status != imprint.AuditCompleted || got.Tallies[audit.DeviceCertificateAge] != (imprint.MitigationTally{Total: 5, Succeeded: 4, Failed: 1}) {
		t.Errorf("got %+v, want one of five to fail", got)
	}
	if got := h.outcomes("task", string(ids[2])); !slices.Equal(got, []string{"device FAILED InternalFailureException"}) {
		t.Errorf("got %q of what can't be read", got)
	}
}

// Old tasks are deleted with what they did.
func TestOldMitigationsAreDeleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.actions()
	h.policiesFound(30)
	a := h.auditor()
	h.mitigate(a, "old", map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}})
	h.mitigated("old")
	h.hands.set(instant.Add(181 * day))
	// A task forgets what is old when it is over.
	h.mitigate(a, "new", map[imprint.AuditCheck][]string{audit.PolicyOverlyPermissive: {"policy"}}, "p000")
	h.mitigated("new")
	h.eventually("the old task is deleted", func() bool {
		gone := false
		h.view(func(tx imprint.ReadTx) error {
			_, err := tx.MitigationTask(home, "old")
			gone = imprint.CodeOf(err) == imprint.CodeNotFound
			return nil
		})
		return gone
	})
	if got := h.outcomes("old", "p001"); got != nil {
		t.Errorf("got %q of a deleted task", got)
	}
}

package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/internal/registry"
)

// plans records how the database would run each statement.
type plans struct {
	*session
	t    *testing.T
	seen map[string]string
}

func (p *plans) Exec(query string, args ...any) (int64, error) {
	p.explain(query, args)
	return p.session.Exec(query, args...)
}

func (p *plans) Query(query string, args ...any) (registry.Rows, error) {
	p.explain(query, args)
	return p.session.Query(query, args...)
}

func (p *plans) Scan(query string, args ...any) (registry.Rows, error) {
	return p.Query(query, args...)
}

func (p *plans) explain(query string, args []any) {
	rows, err := p.session.Query("EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		p.t.Fatalf("couldn't explain %s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		err = rows.Scan(&id, &parent, &unused, &detail)
		if err != nil {
			p.t.Fatalf("couldn't read a plan: %v", err)
		}
		p.seen[query] += detail + "\n"
	}
	if rows.Err() != nil {
		p.t.Fatalf("couldn't read a plan: %v", rows.Err())
	}
}

// TestEveryStatementRunsOverAnIndex ensures that no look-up and no page of a
// list reads a whole table or sorts one.
func TestEveryStatementRunsOverAnIndex(t *testing.T) {
	t.Parallel()
	opts := Options{Path: filepath.Join(t.TempDir(), "registry.db"), Sealer: plainSealer{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	store, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	defer store.Close()
	seen := make(map[string]string)
	err = store.Update(context.Background(), func(imprint.Tx) error {
		tx := registry.New(&plans{store.commits.session, t, seen}, plainSealer{})
		return everyRead(tx)
	})
	if err != nil {
		t.Fatalf("a statement failed: %v", err)
	}
	if len(seen) < 80 {
		t.Errorf("got %d statements, want all", len(seen))
	}
	for query, plan := range seen {
		for line := range strings.Lines(plan) {
			if strings.Contains(query, "changed > at + ") && !strings.Contains(query, "DELETE") {
				if strings.Contains(line, "attempts USING") && !strings.Contains(line, "attempts_changed") && !strings.Contains(line, "(id=?)") {
					t.Errorf("%s\ndoesn't begin with what changed:\n%s", query, plan)
					break
				}
			} else if strings.Contains(query, "tenant IN") && strings.Contains(line, "tenant=?") {
				t.Errorf("%s\nlooks for the tenant and not for the match:\n%s", query, plan)
				break
			}
			for part, index := range wantIndex {
				if strings.Contains(query, part) && strings.Contains(line, "issuances") && !strings.Contains(line, index) && !strings.Contains(line, "issuances_of_lost_keys (key_hash=?") {
					t.Errorf("%s\ndoesn't use %s:\n%s", query, index, plan)
				}
			}
			if strings.HasPrefix(line, "SCAN ") && !scanAllowed(line) || sorts(query, line) {
				t.Errorf("%s\nruns as\n%s", query, plan)
				break
			}
		}
	}
}

// TestNoStatementIsCompiledEachTime: where an index is of the rows with one value of a column,
// and a statement looks for a value of that column that is bound, SQLite compiles it anew for
// each value, as the index might do for it.
func TestNoStatementIsCompiledEachTime(t *testing.T) {
	t.Parallel()
	opts := Options{Path: filepath.Join(t.TempDir(), "registry.db"), Sealer: plainSealer{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	store, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	seen := make(map[string]string)
	err = store.Update(t.Context(), func(imprint.Tx) error {
		return everyRead(registry.New(&plans{store.commits.session, t, seen}, plainSealer{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dataSource(opts.Path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%WHERE%'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	indices := 0
	for rows.Next() {
		var table, text string
		err = rows.Scan(&table, &text)
		if err != nil {
			t.Fatal(err)
		}
		indices++
		_, condition, _ := strings.Cut(text, "WHERE")
		for _, found := range equals.FindAllStringSubmatch(condition, -1) {
			bound := regexp.MustCompile(`\b` + found[1] + ` = \$`)
			for query := range seen {
				_, where, _ := strings.Cut(query, "WHERE")
				if strings.Contains(query, " "+table+" ") && bound.MatchString(where) {
					t.Errorf("%s\nbinds %s, of which there is\n%s", query, found[1], text)
				}
			}
		}
	}
	if rows.Err() != nil || indices < 20 {
		t.Errorf("looked at %d indices, %v", indices, rows.Err())
	}
}

var equals = regexp.MustCompile(`(\w+) = ['0-9]`)

// wantIndex are the indices of look-ups that another one would order as well, and find nothing:
// SQLite walked all issuances of a tenant for each new one.
var wantIndex = map[string]string{
	"FROM issuances WHERE tenant = $1 AND key_hash = $2":       "issuances_by_key",
	"FROM issuances WHERE tenant = $1 AND renews = $2":         "issuances_by_renewed",
	"FROM issuances WHERE length(key_hash) = 0":                "issuances_without_key",
	"AND request_token = $3":                                   "issuances_by_token",
	"FROM issuances WHERE certificate_id = $2 AND tenant = $1": "issuances_by_certificate",
}

// scanAllowed: walks in the order of an index or of the primary key end at the statement's limit, and
// the parts of a composed statement are bounded by their own limits.
func scanAllowed(line string) bool {
	for _, allowed := range []string{"USING INDEX", "USING COVERING INDEX", "SCAN part_", "SCAN oldest", "SCAN (subquery", "SCAN tenant_settings", "SCAN profile_rules", "SCAN events", "SCAN rollovers"} {
		if strings.Contains(line, allowed) {
			return true
		}
	}
	return false
}

// sorts says whether the line sorts more than a bounded number of rows: those
// of one certificate in all tenants, of one serial, or of a page.
func sorts(query, line string) bool {
	if !strings.Contains(line, "TEMP B-TREE FOR ORDER BY") && !strings.Contains(line, "TEMP B-TREE FOR LAST") &&
		!strings.Contains(line, "TEMP B-TREE FOR GROUP BY") {
		return false
	}
	for _, bounded := range []string{"request_token = $3", "WHERE id = $1 ORDER BY created_at, tenant", "WHERE serial = $1", "WHERE id IN ("} {
		if strings.Contains(query, bounded) {
			return false
		}
	}
	return true
}

func everyRead(tx imprint.Tx) error {
	tenant := imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	all := make([]error, 0, 64)
	keep := func(err error) {
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			all = append(all, err)
		}
	}
	paged := func(list func(imprint.Page) (string, error)) {
		for _, ascending := range []bool{false, true} {
			cursor, err := list(imprint.Page{Limit: 1, Ascending: ascending})
			keep(err)
			_, err = list(imprint.Page{Limit: 1, Ascending: ascending, Cursor: cursor})
			keep(err)
		}
	}
	putSome(tx, tenant, keep)
	lists(tx, tenant, paged)
	_, err := tx.CertificateTenants("a")
	keep(err)
	_, err = tx.Principal(tenant, "a", 1)
	keep(err)
	_, err = tx.CertificatesBySerial(tenant, "1")
	keep(err)
	_, err = tx.AuthorityNamed(tenant, "a")
	keep(err)
	_, err = tx.AuthorityOf(tenant, "a")
	keep(err)
	_, err = tx.IssuanceOf(tenant, "a", "a")
	keep(err)
	_, err = tx.IssuancesWithKey(tenant, imprint.KeyQuery{KeyHash: "k"}, 1)
	keep(err)
	_, err = tx.IssuancesRenewing(tenant, "a", "", 1)
	keep(err)
	_, err = tx.IssuancesWithoutKey("a", 1)
	keep(err)
	_, err = tx.LabelNameKept("a", time.Time{})
	keep(err)
	keep(tx.KeepLabelName("a", tenant.Account, time.Time{}, 1))
	keep(tx.CountProfileUse(tenant, "a", "p"))
	_, err = tx.ProfileUses(tenant, "a", "p")
	keep(err)
	_, err = tx.KeyIssued(tenant, "k")
	keep(err)
	_, err = tx.IssuanceOfCertificate(tenant, "a")
	keep(err)
	_, err = tx.AuthorityOfKey(tenant, "k")
	keep(err)
	_, err = tx.IssuanceRequested(tenant, "a", "a")
	keep(err)
	keep(tx.RevokedBy(tenant, "a", time.Time{}, func(imprint.RevokedSerial) bool { return true }))
	_, err = tx.AuthorityTenants()
	keep(err)
	keep(tx.PutRevocationList(imprint.RevocationList{Tenant: tenant, Authority: "a", Shard: 1}))
	_, err = tx.RevocationList(tenant, "a", 1)
	keep(err)
	_, err = tx.RevocationListsDue(time.Unix(1, 0), 10)
	keep(err)
	_, err = tx.RevocationLists(tenant, "a")
	keep(err)
	_, err = tx.AuthorityCertificates(tenant, "a")
	keep(err)
	_, err = tx.AuthorityCertificatesBy(tenant, "a")
	keep(err)
	_, err = tx.AuthorityCertificatesWithKey(tenant.Account, "a")
	keep(err)
	_, err = tx.AuthorityCertificate(tenant, "a")
	keep(err)
	keep(tx.WantRevocationList(tenant, "a", 1, time.Unix(1, 0)))
	keep(tx.DelayRevocationList(tenant, "a", 1, time.Unix(1, 0)))
	keep(tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: tenant, ID: "a"}))
	keep(tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: tenant, Authority: "a", Serial: "1"}))
	_, err = tx.AdoptedRevocation(tenant, "a", "1")
	keep(err)
	_, err = tx.LostKey(tenant.Account, "k")
	keep(err)
	_, err = tx.Revocations("a", "1", []byte("a"))
	keep(err)
	keep(tx.DeleteAuthority(tenant, "a"))
	_, err = tx.Renewal(tenant, "a")
	keep(err)
	_, err = tx.RenewalsOf(tenant, "a")
	keep(err)
	_, err = tx.DueRenewals(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.OpenRenewals(imprint.Tenant{}, "", 1)
	keep(err)
	_, err = tx.CountExpiring(tenant, time.Unix(1, 0), time.Unix(2, 0))
	keep(err)
	_, err = tx.TrimRenewals(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.EnrolmentLabel("a")
	keep(err)
	_, err = tx.EnrolmentPassword("a")
	keep(err)
	_, err = tx.TrimEnrolmentPasswords(time.Unix(1, 0), 1)
	keep(err)
	keep(tx.DeleteEnrolmentPassword("a"))
	keep(tx.DeleteEnrolmentLabel(tenant, "a"))
	foreignLists(tx, tenant, keep)
	_, err = tx.RolloverTenants()
	keep(err)
	_, err = tx.Rollover(tenant, "a")
	keep(err)
	keep(tx.PutSighting(imprint.Sighting{Tenant: tenant, Certificate: "a"}))
	_, err = tx.Sighting(tenant, "a")
	keep(err)
	_, err = tx.DeleteSightings(tenant, 1)
	keep(err)
	keep(tx.DeleteRollover(tenant, "a"))
	_, err = tx.IssuanceLog()
	keep(err)
	_, err = tx.LoggedIssuance("a")
	keep(err)
	_, err = tx.LoggedIssuanceOf(tenant, "a")
	keep(err)
	_, err = tx.LoggedIssuances("a", 1)
	keep(err)
	_, err = tx.UnloggedIssuances(1)
	keep(err)
	_, err = tx.UnloggedCount(1)
	keep(err)
	_, err = tx.ProfileRules()
	keep(err)
	_, err = tx.CAsBySubject(tenant, "1")
	keep(err)
	_, err = tx.CATenants("us-east-1", "a")
	keep(err)
	_, err = tx.PolicyVersions(tenant, "a")
	keep(err)
	_, err = tx.Tags(tenant, "a")
	keep(err)
	members, cursor, err := tx.ThingGroupMembers(tenant, "a", true, imprint.Page{Limit: 1, Ascending: true})
	keep(err)
	_, _, err = tx.ThingGroupMembers(tenant, "a", true, imprint.Page{Limit: 1, Ascending: true, Cursor: cursor})
	keep(err)
	if len(members) == 0 || cursor == "" {
		keep(fmt.Errorf("the recursive list of members has %d items and the cursor %q", len(members), cursor))
	}
	_, err = tx.ThingType(tenant, "a")
	keep(err)
	_, err = tx.BillingGroup(tenant, "a")
	keep(err)
	_, err = tx.EventConfigurations(tenant)
	keep(err)
	keep(tx.PutEventConfigurations(imprint.EventConfigurations{Tenant: tenant, Enabled: imprint.EventTypes()}))
	keep(tx.DeleteThingType(tenant, "a"))
	keep(tx.DeleteBillingGroup(tenant, "a"))
	_, err = tx.TenantByPrefix("a")
	keep(err)
	_, err = tx.AccessKeys("1")
	keep(err)
	_, err = tx.UserPolicies("1", "a")
	keep(err)
	_, err = tx.UserKeys("1", "a")
	keep(err)
	_, err = tx.Accounts()
	keep(err)
	_, err = tx.RunningRegistrationTasks()
	keep(err)
	_, err = tx.RegistrationReports(tenant, "a", "b", 1, 1)
	keep(err)
	_, err = tx.DeleteRegistrationTask(tenant, "a", 1)
	keep(err)
	auditStatements(tx, tenant, keep)
	keep(tx.DeleteUser("1", "a"))
	keep(tx.DeleteUserPolicy("1", "a", "a"))
	_, err = tx.Events(tenant, 1)
	keep(err)
	_, err = tx.EventUnits(tenant)
	keep(err)
	_, err = tx.EventTenants()
	keep(err)
	_, err = tx.TrimAttempts(time.Unix(1, 0), 1, 10)
	keep(err)
	_, err = tx.LiveAttempts("", 10)
	keep(err)
	keep(tx.DeleteAttempt("b"))
	_, err = tx.TrimAttemptAliases(0, 10)
	keep(err)
	keep(tx.DeleteAttempt("a"))
	_, err = tx.TrimAttemptAliases(0, 10)
	keep(err)
	keep(tx.DeletePolicy(tenant, "a"))
	keep(tx.DeleteTemplate(tenant, "a"))
	keep(tx.DeleteTags(tenant, "a"))
	keep(tx.DeleteEvents(tenant, []string{"a"}))
	keep(tx.DeleteCertificate(tenant, "a"))
	keep(tx.DeleteThingAttachment(tenant, "a", "a"))
	keep(tx.DeleteThingGroupMembership(imprint.ThingGroupMembership{Tenant: tenant, Thing: "a", Group: "a"}))
	keep(tx.DeleteThing(tenant, "a"))
	keep(tx.DeleteThingGroup(tenant, "a"))
	keep(tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: "a", Target: "a"}))
	sessions(tx, tenant, keep)
	functionStatements(tx, tenant, keep)
	deliveryStatements(tx, tenant, keep)
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

// putSome makes two of each, so that lists have a second page.
func putSome(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	for _, id := range []string{"a", "b"} {
		certificate := imprint.CertificateID(id)
		keep(tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: certificate, CAID: "ca", Serial: "1"}))
		keep(tx.PutCA(imprint.CACertificate{Tenant: tenant, ID: certificate, Registration: &imprint.RegistrationConfig{TemplateName: "t"}}))
		keep(tx.PutThing(imprint.Thing{Tenant: tenant, Name: imprint.ThingName(id), TypeName: "t", BillingGroup: "b", Attributes: map[string]string{"a": "b"}}))
		keep(tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: "a", Certificate: certificate}))
		keep(tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: imprint.ThingName(id), Certificate: "a"}))
		group := imprint.ThingGroup{Tenant: tenant, Name: imprint.ThingGroupName(id)}
		if id == "b" {
			group.Ancestors = []imprint.ThingGroupName{"a"}
		}
		keep(tx.PutThingGroup(group))
		keep(tx.PutThingGroup(imprint.ThingGroup{Tenant: tenant, Name: group.Name + "2", Ancestors: []imprint.ThingGroupName{"a"}}))
		keep(tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: tenant, Thing: imprint.ThingName(id), Group: "a"}))
		keep(tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: tenant, Thing: "a", Group: group.Name}))
		keep(tx.PutThingType(imprint.ThingType{Tenant: tenant, Name: imprint.ThingTypeName(id)}))
		keep(tx.PutBillingGroup(imprint.BillingGroup{Tenant: tenant, Name: imprint.BillingGroupName(id)}))
		keep(tx.PutPolicy(imprint.Policy{Tenant: tenant, Name: imprint.PolicyName(id)}))
		keep(tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: "a", Target: id}))
		keep(tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: imprint.PolicyName(id), Target: "a"}))
		keep(tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: tenant, Name: imprint.TemplateName(id)}))
		keep(tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: tenant, Template: "a", Version: len(id)}))
		keep(tx.PutIssuance(imprint.Issuance{ID: id, Tenant: tenant}))
		keep(tx.PutIssuance(imprint.Issuance{ID: id + "2", Tenant: tenant, Authority: "a", Serial: id, KeyHash: "k", RequestToken: id, RevokedAt: time.Unix(1, 0)}))
		keep(tx.PutAuthority(imprint.CertificateAuthority{Tenant: tenant, ID: imprint.AuthorityID(id), Name: id, CertificateID: certificate}))
		keep(tx.PutRenewal(imprint.Renewal{Tenant: tenant, Certificate: imprint.CertificateID(id), Renews: "a", State: imprint.RenewalProven}))
		keep(tx.PutEnrolmentLabel(imprint.EnrolmentLabel{Tenant: tenant, Name: imprint.LabelName(id)}))
		keep(tx.PutEnrolmentPassword(imprint.EnrolmentPassword{ID: id, Tenant: tenant, Label: "a"}))
		keep(tx.PutForeignList(imprint.ForeignList{ID: int64(len(id)), Tenant: tenant, CA: imprint.CertificateID(id)}))
		keep(tx.PutRollover(imprint.Rollover{Tenant: tenant, From: imprint.CertificateID(id)}))
		keep(tx.PutAuditTask(imprint.AuditTask{Tenant: tenant, ID: id}))
		keep(tx.PutAuditFinding(imprint.AuditFinding{Tenant: tenant, ID: id, Task: "a"}))
		keep(tx.PutScheduledAudit(imprint.ScheduledAudit{Tenant: tenant, Name: id}))
		keep(tx.PutAttempt(imprint.Attempt{ID: id, Tenant: tenant, Thing: "x", Outcome: imprint.OutcomeRefused, Fold: id}))
		keep(tx.PutAttemptAlias(imprint.AttemptAlias{Tenant: tenant, Word: "x", Fold: id}))
	}
	keep(tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: tenant, Template: "a", Version: 2}))
	putFunctions(tx, tenant, keep)
	for n, id := range []string{"a", "b"} {
		key := int64(n + 1)
		keep(tx.PutSession(imprint.Session{Tenant: tenant, ClientID: imprint.ClientID(id), Key: key}))
		keep(tx.PutSessionSubscription(imprint.SessionSubscription{Session: key, Filter: id}))
		keep(tx.PutShareGroup(imprint.ShareGroup{Tenant: tenant, Filter: id, Key: key + 2}))
		keep(tx.PutQueued(imprint.QueuedMessage{Session: key, Seq: 1}))
		keep(tx.PutRetained(imprint.RetainedMessage{Tenant: tenant, Topic: id}))
	}
}

func foreignLists(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	_, err := tx.ForeignList(1)
	keep(err)
	_, err = tx.ForeignListsOf(tenant, "a")
	keep(err)
	_, err = tx.ForeignListsBySubject(tenant, "a")
	keep(err)
	_, err = tx.ForeignListsDue(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.AllForeignLists(0, 1)
	keep(err)
	keep(tx.PutForeignRevocation(1, 1, imprint.ForeignRevocation{Serial: "1"}))
	_, err = tx.ForeignRevocation(1, 1, "1")
	keep(err)
	_, err = tx.ForeignRevocations(1, 1, "", 1)
	keep(err)
	_, err = tx.DeleteForeignRevocations(1, 2, 1)
	keep(err)
}

func lists(tx imprint.Tx, tenant imprint.Tenant, paged func(func(imprint.Page) (string, error))) {
	for _, ca := range []imprint.CertificateID{"", "ca"} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.Certificates(tenant, ca, p); return c, err })
	}
	for _, template := range []imprint.TemplateName{"", "t"} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.CAs(tenant, template, p); return c, err })
	}
	for _, f := range []imprint.ThingFilter{{}, {TypeName: "t"}, {AttributeName: "a"}, {TypeName: "t", AttributeValue: "b"}} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.Things(tenant, f, p); return c, err })
	}
	for _, status := range []imprint.RegistrationTaskStatus{"", imprint.TaskFailed} {
		paged(func(p imprint.Page) (string, error) {
			_, c, err := tx.RegistrationTasks(tenant, status, p)
			return c, err
		})
	}
	for _, f := range []imprint.AuditTaskFilter{{}, {To: time.Unix(1, 0)}} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.AuditTasks(tenant, f, p); return c, err })
	}
	for _, f := range []imprint.AuditFindingFilter{{Task: "a"}, {}} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.AuditFindings(tenant, f, p); return c, err })
	}
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ScheduledAudits(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Users(tenant.Account, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ThingPrincipals(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.CertificateThings(tenant, "a", p); return c, err })
	for _, f := range []imprint.ThingGroupFilter{{}, {Recursive: true}, {Parent: "a"}, {Parent: "a", Recursive: true}, {Parent: "a", Prefix: "b"}} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.ThingGroups(tenant, f, p); return c, err })
	}
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ThingMemberships(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) {
		_, c, err := tx.ThingGroupMembers(tenant, "a", false, p)
		return c, err
	})
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ThingTypes(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.BillingGroups(tenant, "", p); return c, err })
	paged(func(p imprint.Page) (string, error) {
		_, c, err := tx.BillingGroupThings(tenant, "b", p)
		return c, err
	})
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Policies(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.TargetPolicies(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.PolicyTargets(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Templates(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.TemplateVersions(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Issuances(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.IssuancesBy(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Authorities(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.EnrolmentLabels(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) {
		_, c, err := tx.ExpiringCertificates(tenant, time.Unix(1, 0), time.Unix(1<<32, 0), p)
		return c, err
	})
	paged(func(p imprint.Page) (string, error) {
		_, c, err := tx.EnrolmentPasswords(tenant, "a", p)
		return c, err
	})
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ForeignLists(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.Rollovers(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.ClaimGuards(tenant, p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.RetainedMessages(tenant, p); return c, err })
	for _, all := range []bool{false, true} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.Functions(tenant, all, p); return c, err })
	}
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.FunctionVersions(tenant, "a", p); return c, err })
	paged(func(p imprint.Page) (string, error) { _, c, err := tx.FunctionAliases(tenant, "a", p); return c, err })
	for _, f := range []imprint.AttemptFilter{{}, {Tenant: tenant}, {FailedOnly: true}, {Tenant: tenant, FailedOnly: true},
		{Tenant: tenant, Unassigned: true}, {Tenant: tenant, Unassigned: true, FailedOnly: true},
		{Tenant: tenant, Unassigned: true, Match: "x"}, {Match: "x"}, {Tenant: tenant, Match: "x"}, {Match: "x", FailedOnly: true}, {Since: time.Unix(1, 0)},
		{Tenant: tenant, Since: time.Unix(1, 0)}, {Tenant: tenant, Unassigned: true, FailedOnly: true, Since: time.Unix(1, 0)},
		{Tenant: tenant, Unassigned: true, FailedOnly: true, Match: "x", Since: time.Unix(1, 0)}} {
		paged(func(p imprint.Page) (string, error) { _, c, err := tx.Attempts(f, p); return c, err })
	}
}

type plainSealer struct{}

func (plainSealer) Seal(plain, _ []byte) ([]byte, error)  { return plain, nil }
func (plainSealer) Open(sealed, _ []byte) ([]byte, error) { return sealed, nil }

package rollover

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// StepName names a step of a rollover, in their order.
type StepName string

// The steps.
const (
	StepMade       StepName = "made"       // there is a CA that takes the place
	StepTrusted    StepName = "trusted"    // who verifies chains trusts both
	StepRegistered StepName = "registered" // devices join by the new one
	StepSigning    StepName = "signing"    // the old one signs nothing more
	StepEnrolment  StepName = "enrolment"  // labels of EST give certificates of the new one
	StepRenewal    StepName = "renewal"    // devices get certificates of the new one
	StepLastEnd    StepName = "last-end"   // the last certificate of the old one has ended
	StepInactive   StepName = "inactive"   // nobody joins by the old one any more
	StepDeleted    StepName = "deleted"    // it is gone
)

// StepState is how far a step is.
type StepState string

// The states. A step that is unknown can't be seen from here: a person says.
const (
	StepDone    StepState = "done"
	StepDue     StepState = "due"     // its time has come
	StepAhead   StepState = "ahead"   // its time comes
	StepUnknown StepState = "unknown" // done or not: Imprint can't see it
)

// Step is one step of a rollover.
type Step struct {
	Name StepName
	// At is by when it is to be done; of the renewal, when it begins, and Until its end.
	At, Until time.Time
	State     StepState
	Detail    string
	Command   string // what a person types; may be empty
}

// Plan is a rollover with its steps as they are now.
type Plan struct {
	imprint.Rollover
	FromName, ToName string
	Steps            []Step
}

// Draft says what a plan should be. Zero times are chosen.
type Draft struct {
	From, To              string
	Devices, Certificates int64     // what a rehearsal counted
	LastEnd               time.Time // of its certificates
	RenewFrom, RenewUntil time.Time
	By                    string
}

const (
	day = 24 * time.Hour
	// prepareTime is how long the steps before the renewal have where nobody says.
	prepareTime = 14 * day
	// renewTime is how long the renewal lasts at most where nobody says.
	renewTime = 365 * day
	// spare is how long before the CA's end the renewal is over where nobody says.
	spare = 30 * day
	// afterwards is how long the old CA is kept, inactive.
	afterwards = 30 * day
)

// Draft makes a plan without keeping it. Errors: CodeNotFound, CodeInvalidRequest.
func (p *Planner) Draft(ctx context.Context, tenant imprint.Tenant, d Draft) (Plan, error) {
	var plan Plan
	err := p.view(ctx, tenant, func(tx imprint.ReadTx, g *graph) error {
		var err error
		plan, err = p.draft(tx, g, tenant, d)
		return err
	})
	return plan, err
}

// Start makes a plan and keeps it, in the place of one that the CA has. From then on it is
// kept which of the tenant's certificates are seen.
func (p *Planner) Start(ctx context.Context, tenant imprint.Tenant, d Draft) (Plan, error) {
	plan, err := p.Draft(ctx, tenant, d)
	if err != nil {
		return plan, err
	}
	err = p.opts.Store.Update(ctx, func(tx imprint.Tx) error { return tx.PutRollover(plan.Rollover) })
	if err != nil {
		return plan, fmt.Errorf("couldn't keep the plan: %w", err)
	}
	return plan, p.readPlanned(ctx)
}

func (p *Planner) draft(tx imprint.ReadTx, g *graph, tenant imprint.Tenant, d Draft) (Plan, error) {
	l, err := p.newLook(tx, g, Question{Tenant: tenant, From: d.From, To: d.To})
	if err != nil {
		return Plan{}, err
	}
	if d.Devices < 0 || d.Certificates < 0 {
		return Plan{}, imprint.Errorf(imprint.CodeInvalidRequest, "a plan can't be for fewer than no devices")
	}
	r := imprint.Rollover{
		Tenant: tenant, From: l.from.id, Devices: d.Devices, Certificates: d.Certificates, LastEnd: d.LastEnd, RenewFrom: d.RenewFrom, RenewUntil: d.RenewUntil,
		StartedAt: l.now.Truncate(time.Millisecond), StartedBy: d.By,
	}
	if l.to != nil {
		r.To = l.to.id
	}
	err = window(&r, l.now, l.from.cert.NotAfter)
	if err != nil {
		return Plan{}, err
	}
	return l.steps(r)
}

// window chooses the times of the renewal that nobody said, and refuses those that can't be.
func window(r *imprint.Rollover, now, caEnds time.Time) error {
	end := caEnds
	if !r.LastEnd.IsZero() && r.LastEnd.Before(end) {
		end = r.LastEnd
	}
	if r.RenewFrom.IsZero() {
		r.RenewFrom = now.Add(prepareTime).Truncate(time.Second)
		if left := end.Sub(now); left < 4*prepareTime {
			r.RenewFrom = now.Add(max(0, left/4)).Truncate(time.Second)
		}
	}
	if r.RenewUntil.IsZero() {
		r.RenewUntil = end.Add(-spare)
		if r.RenewUntil.Before(r.RenewFrom.Add(spare)) {
			r.RenewUntil = end
		}
		if longest := r.RenewFrom.Add(renewTime); r.RenewUntil.After(longest) {
			r.RenewUntil = longest
		}
	}
	switch {
	case !r.RenewUntil.After(r.RenewFrom):
		return imprint.Errorf(imprint.CodeInvalidRequest, "the renewal would end at %s, before it begins at %s", stamp(r.RenewUntil), stamp(r.RenewFrom)).
			WithHint("Say an earlier --renew-from; the CA itself ends at %s.", stamp(caEnds))
	case r.RenewUntil.After(caEnds):
		return imprint.Errorf(imprint.CodeInvalidRequest, "the renewal would end at %s, after the CA itself at %s", stamp(r.RenewUntil), stamp(caEnds)).
			WithHint("Devices that come late would find a CA that is over: say an earlier --renew-until.")
	}
	return nil
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 MST") }

// Plan gives the plan of a CA. A CA that is gone by now is named by its certificate's id.
func (p *Planner) Plan(ctx context.Context, tenant imprint.Tenant, from string) (Plan, error) {
	var plan Plan
	err := p.view(ctx, tenant, func(tx imprint.ReadTx, g *graph) error {
		id := imprint.CertificateID(from)
		m, notFound := g.find(from)
		if notFound == nil {
			id = m.id
		}
		r, err := tx.Rollover(tenant, id)
		if err != nil {
			if notFound != nil {
				return notFound
			}
			return err
		}
		plan, err = p.planOf(tx, g, r)
		return err
	})
	return plan, err
}

// Plans lists the plans of a tenant.
func (p *Planner) Plans(ctx context.Context, tenant imprint.Tenant, page imprint.Page) ([]Plan, string, error) {
	var plans []Plan
	var next string
	err := p.view(ctx, tenant, func(tx imprint.ReadTx, g *graph) error {
		all, cursor, err := tx.Rollovers(tenant, page)
		plans, next = nil, cursor
		for _, r := range all {
			if err != nil {
				break
			}
			var plan Plan
			plan, err = p.planOf(tx, g, r)
			plans = append(plans, plan)
		}
		return err
	})
	return plans, next, err
}

// planOf gives the steps of a plan whose CAs may be gone.
func (p *Planner) planOf(tx imprint.ReadTx, g *graph, r imprint.Rollover) (Plan, error) {
	q := Question{Tenant: r.Tenant, From: string(r.From), To: string(r.To)}
	if g.byID[r.To] == nil {
		q.To = ""
	}
	l, err := p.newLook(tx, g, q)
	if err == nil {
		return l.steps(r)
	}
	plan := Plan{Rollover: r}
	if to := g.byID[r.To]; to != nil {
		plan.ToName = to.name()
	}
	plan.Steps = []Step{{Name: StepDeleted, State: StepDone, Detail: "the CA is neither an authority nor registered here any more"}}
	return plan, nil
}

// Forget deletes the plan of a CA; with the last one of a tenant, what was seen.
func (p *Planner) Forget(ctx context.Context, tenant imprint.Tenant, from string) error {
	plan, err := p.Plan(ctx, tenant, from)
	if err != nil {
		return err
	}
	last := false
	err = p.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		err := tx.DeleteRollover(tenant, plan.From)
		if err != nil {
			return err
		}
		others, _, err := tx.Rollovers(tenant, imprint.Page{Limit: 1, Ascending: true})
		last = len(others) == 0
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't delete the plan: %w", err)
	}
	err = p.readPlanned(ctx)
	for last && err == nil {
		deleted := 0
		err = p.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			var err error
			deleted, err = tx.DeleteSightings(tenant, flushPart)
			return err
		})
		last = deleted == flushPart
	}
	return err
}

// steps gives a plan with its steps as they are now.
func (l *look) steps(r imprint.Rollover) (Plan, error) {
	plan := Plan{Rollover: r, FromName: l.from.name()}
	if l.to != nil {
		plan.ToName = l.to.name()
	}
	over := r.RenewUntil
	if r.LastEnd.After(over) && r.LastEnd.Before(l.from.cert.NotAfter) {
		over = r.LastEnd
	}
	enrolment, err := l.enrolment(r)
	if err != nil {
		return plan, err
	}
	last := Step{Name: StepLastEnd, At: r.LastEnd, Detail: "the last certificate of the old CA ends: what hasn't moved by then needs a person"}
	if r.LastEnd.IsZero() {
		last.At, last.Detail, last.State = r.StartedAt, "no certificate depended on the old CA", StepDone
	}
	plan.Steps = []Step{
		l.made(r), l.trusted(r), l.registration(r), l.signing(r), enrolment,
		{Name: StepRenewal, At: r.RenewFrom, Until: r.RenewUntil, Detail: "devices get certificates of the new CA; imprint ca rollover --progress counts them"},
		last, l.inactive(over), l.deleted(over.Add(afterwards)),
	}
	for n := range plan.Steps {
		s := &plan.Steps[n]
		switch {
		case s.State != "":
		case !s.Until.IsZero() && l.now.After(s.Until), s.Until.IsZero() && s.Name == StepLastEnd && l.now.After(s.At):
			s.State = StepDone
		case !l.now.Before(s.At):
			s.State = StepDue
		default:
			s.State = StepAhead
		}
	}
	return plan, nil
}

// enrolment says whether labels of EST still give certificates of the old CA.
func (l *look) enrolment(r imprint.Rollover) (Step, error) {
	s := Step{Name: StepEnrolment, At: r.RenewFrom, State: StepDone, Detail: "no label of EST gives certificates of the old CA"}
	labels, err := l.labels()
	if err != nil {
		return s, err
	}
	to := "NEW"
	if l.to != nil {
		to = l.word(l.to)
	}
	var commands []string
	for _, label := range labels {
		if label.Signs && len(commands) < maxCommands {
			commands = append(commands, fmt.Sprintf("imprint est update %s --authority %s --device-ca %s --device-ca %s", label.Name, to, l.word(l.from), to))
		}
	}
	if len(commands) > 0 {
		s.State, s.Command = "", strings.Join(commands, "; ")
		s.Detail = "labels of EST give certificates of the old CA: let them give the new one's to who shows either"
	}
	return s, nil
}

func (l *look) made(r imprint.Rollover) Step {
	s := Step{Name: StepMade, At: r.StartedAt}
	if l.to == nil {
		s.Detail = "there is no CA that takes the place yet"
		s.Command = "imprint ca create --parent PARENT --name NAME --subject SUBJECT; then: imprint ca rollover --start " + l.word(l.from) + " --to NAME"
		return s
	}
	s.State, s.Detail = StepDone, fmt.Sprintf("%s, valid until %s", l.to.name(), stamp(l.to.cert.NotAfter))
	if !l.alive[l.to] {
		s.State, s.Detail = StepDue, fmt.Sprintf("%s ends together with %s: it is below it, or isn't valid", l.to.name(), l.from.name())
		s.Command = "imprint ca create --root --name NAME --subject SUBJECT"
	}
	if l.to.cert.NotAfter.Before(l.from.cert.NotAfter) {
		s.Detail += fmt.Sprintf("; the old one is valid for longer, until %s", stamp(l.from.cert.NotAfter))
	}
	return s
}

// word is what a person types for a CA.
func (l *look) word(m *member) string {
	switch {
	case m.builtIn:
		return BuiltInName
	case m.authority != nil && m.authority.Name != "" && !strings.ContainsAny(m.authority.Name, " '\"$`\\"):
		return m.authority.Name
	}
	return string(m.id)
}

// anchors gives where the trust in a member begins.
func anchors(m *member, seen map[*member]bool) map[*member]bool {
	found := map[*member]bool{}
	if seen[m] {
		return found
	}
	seen[m] = true
	if len(m.issuers) == 0 {
		found[m] = true
	}
	for _, issuer := range m.issuers {
		for a := range anchors(issuer, seen) {
			found[a] = true
		}
	}
	return found
}

// trusted says whether verifiers that trust what the old CA's trust begins with trust the
// new one already.
func (l *look) trusted(r imprint.Rollover) Step {
	s := Step{Name: StepTrusted, At: r.RenewFrom, State: StepUnknown,
		Detail: "who verifies chains (other servers, gateways, devices that verify each other) must trust the new CA's root beside the old one"}
	if l.to == nil {
		return s
	}
	old := anchors(l.from, map[*member]bool{})
	for _, m := range l.g.bySigner[l.to.signer()] {
		for a := range anchors(m, map[*member]bool{}) {
			if !old[a] {
				continue
			}
			s.State = StepDone
			s.Detail = fmt.Sprintf("both are below %s: who trusts it trusts both", a.name())
			if m != l.to {
				s.Detail = fmt.Sprintf("a cross-certificate of %s, below %s, carries the new CA: devices send it behind theirs", l.to.name(), a.name())
			}
			return s
		}
	}
	for a := range anchors(l.to, map[*member]bool{}) {
		s.Command = fmt.Sprintf("imprint ca cert %s --out new-root.pem, and give it to them; or cross-sign: imprint ca csr %s, and sign it with the old root", l.word(a), l.word(l.to))
	}
	return s
}

// registration says whether devices join by the new CA as they did by the old one.
func (l *look) registration(r imprint.Rollover) Step {
	s := Step{Name: StepRegistered, At: r.RenewFrom}
	var old *imprint.CACertificate
	for _, m := range l.g.all {
		if l.below[m] && !l.alive[m] && m.registered != nil && (old == nil || m.registered.AutoRegistration && !old.AutoRegistration) {
			old = m.registered
		}
	}
	if old == nil {
		s.State, s.Detail = StepDone, "no device joined by the old CA: it isn't registered"
		return s
	}
	wanted := "registered"
	flags := " --set-as-active"
	if old.AutoRegistration {
		wanted, flags = "registered for auto-registration", flags+" --allow-auto-registration"
		if old.Registration != nil && old.Registration.TemplateName != "" {
			wanted += " with template " + string(old.Registration.TemplateName)
			flags += " --registration-config templateName=" + string(old.Registration.TemplateName)
		}
	}
	for _, m := range l.g.all {
		if l.to == nil || !l.belowTo[m] || !l.alive[m] || m.registered == nil {
			continue
		}
		c := m.registered
		if c.Status == imprint.CAActive && (!old.AutoRegistration || c.AutoRegistration) {
			s.State, s.Detail = StepDone, fmt.Sprintf("%s is registered and ACTIVE", m.name())
			return s
		}
	}
	mode := ""
	if old.Mode == imprint.ModeSNIOnly {
		mode = " --certificate-mode SNI_ONLY"
	}
	s.Detail = "the new CA isn't " + wanted + ", as the old one was"
	s.Command = "aws iot register-ca-certificate --ca-certificate file://new.pem" + mode + flags + " (with a proof of possession unless it is SNI_ONLY: docs/ca.md)"
	return s
}

// signing says whether the old CA and those below it still sign.
func (l *look) signing(r imprint.Rollover) Step {
	s := Step{Name: StepSigning, At: r.RenewFrom, State: StepDone, Detail: "the old CA signs nothing here"}
	if l.from.builtIn {
		s.State, s.Detail = StepUnknown, "the built-in CA signs for CreateKeysAndCertificate, CreateCertificateFromCsr and fleet provisioning: a certificate provider, or imprint ca, takes its place"
		return s
	}
	for _, m := range l.g.all {
		a := m.authority
		if !l.below[m] || l.alive[m] || a == nil || a.Key == "" || a.Status != imprint.AuthorityActive || !a.RevokedAt.IsZero() || l.now.After(a.NotAfter) {
			continue
		}
		if !a.SigningEnds.IsZero() && !l.now.Before(a.SigningEnds) {
			continue
		}
		s.State, s.Detail = "", fmt.Sprintf("%s still signs", m.name())
		if !a.SigningEnds.IsZero() {
			s.At, s.Detail = a.SigningEnds, fmt.Sprintf("%s signs until %s", m.name(), stamp(a.SigningEnds))
			continue
		}
		s.Command = fmt.Sprintf("imprint ca update %s --signing-ends %s", l.word(m), r.RenewFrom.UTC().Format(time.RFC3339))
		return s
	}
	return s
}

func (l *look) inactive(at time.Time) Step {
	s := Step{Name: StepInactive, At: at, State: StepDone, Detail: "nobody joins by the old CA, and it signs nothing"}
	var commands []string
	for _, m := range l.g.all {
		if !l.below[m] || l.alive[m] {
			continue
		}
		if m.registered != nil && m.registered.Status == imprint.CAActive {
			commands = append(commands, "aws iot update-ca-certificate --new-status INACTIVE --certificate-id "+string(m.id))
		}
		if a := m.authority; a != nil && a.Status == imprint.AuthorityActive && a.Key != "" && a.RevokedAt.IsZero() {
			commands = append(commands, "imprint ca update "+l.word(m)+" --status DISABLED")
		}
		if len(commands) >= maxCommands {
			break
		}
	}
	if len(commands) > 0 {
		s.State, s.Detail, s.Command = "", "its devices go on connecting with what they have; its CRLs and OCSP answers go on", strings.Join(commands, "; ")
	}
	return s
}

// maxCommands bounds the commands in one step.
const maxCommands = 10

func (l *look) deleted(at time.Time) Step {
	s := Step{Name: StepDeleted, At: at, Detail: "when nothing is missed"}
	var commands []string
	if l.from.registered != nil {
		commands = append(commands, "aws iot delete-ca-certificate --certificate-id "+string(l.from.id))
	}
	if a := l.from.authority; a != nil && a.Status != imprint.AuthorityDeleted {
		commands = append(commands, "imprint ca delete "+l.word(l.from))
	}
	s.Command = strings.Join(commands, "; ")
	if len(commands) == 0 && !l.from.builtIn {
		s.State, s.Detail = StepDone, "it is deleted"
	}
	return s
}

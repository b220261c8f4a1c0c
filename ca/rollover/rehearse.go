package rollover

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Question asks who would fail if a CA ended today.
type Question struct {
	Tenant imprint.Tenant
	// From is the CA that ends, To the one that takes its place: a name, an id, an ARN, or
	// the beginning of a certificate's id. To may be empty: then whoever has a certificate
	// that goes on has moved.
	From, To string
	// Unseen is how long a device must not have been seen to count as one that will come
	// late [30 days].
	Unseen time.Duration
	Cursor string // of the Answer before; empty: the first
	Limit  int    // items in one Answer
}

// Kind is what an Item is.
type Kind string

// The kinds.
const (
	KindDevice       Kind = "device"       // a thing with an ACTIVE certificate that fails
	KindCertificate  Kind = "certificate"  // an ACTIVE one that fails and that no thing has
	KindClaim        Kind = "claim"        // one that has a guard: it lets devices ask for theirs
	KindWaiting      Kind = "waiting"      // registered, and not activated yet
	KindInactive     Kind = "inactive"     // switched off, and may be switched on
	KindUnregistered Kind = "unregistered" // issued here, and never connected: its first connection would be refused
)

// Item is one that fails.
type Item struct {
	Kind        Kind
	Thing       imprint.ThingName
	Certificate imprint.CertificateID
	Subject     string
	Serial      string
	Signer      imprint.CertificateID // the CA's certificate; empty: not known
	NotAfter    time.Time
	SeenAt      time.Time // when it last connected; zero: nobody knows
	// Unseen says that it wasn't seen for as long as the question says.
	Unseen bool
	// Moved is the device's certificate of the CA that takes the place, and ProvenAt when a
	// connection with that was last seen; empty and zero: there is none.
	Moved    imprint.CertificateID
	ProvenAt time.Time
}

// Counts are sums over a part of the registry; those of all parts add up.
type Counts struct {
	Looked int64 // certificates that were looked at
	// Certificates are ACTIVE ones that fail; Devices are the things that have them, and
	// Loose the ones that no thing has.
	Certificates, Devices, Loose int64
	// Moved of the Devices have a certificate of the CA that takes the place, too, and
	// Proven of those have connected with it. Unseen of the Devices and the Loose ones weren't
	// seen lately, and haven't moved.
	Moved, Proven, Unseen int64
	// Finished are things that have certificates of the CA that takes the place and none that
	// fails; FinishedProven have connected with one.
	Finished, FinishedProven int64
	// Carried are ACTIVE certificates below the CA that another chain carries.
	Carried int64
	// What isn't in use: see the Kinds.
	Claims, Waiting, Inactive, Unregistered int64
	// LastEnd is the end of the last of the Certificates, Claims, Waiting and Unregistered.
	LastEnd time.Time
}

// Authority is a CA that fails, or what takes part in a rollover.
type Authority struct {
	Name        string
	Certificate imprint.CertificateID
	Authority   imprint.AuthorityID // empty: a registered CA alone
	// Status is the authority's, RegisteredStatus the registered CA's; either may be empty.
	Status           string
	RegisteredStatus string
	// AutoRegistration and Template are how devices join by it.
	AutoRegistration bool
	Template         string
	NotAfter         time.Time
}

// Label is one of EST that fails with the CA.
type Label struct {
	Name imprint.LabelName
	// Signs says that what devices get there is signed by a CA that fails; Shown that devices
	// or stations show certificates there of one.
	Signs, Shown bool
}

// Answer is a part of who would fail.
type Answer struct {
	Items  []Item
	Counts Counts
	// Authorities are, in the first part, the CA itself and those below it that fail.
	Authorities []Authority
	// Labels are, in the first part, those of EST that fail.
	Labels []Label
	// Server says, in the first part, that the server's own certificate fails: devices that
	// verify it wouldn't trust it.
	Server bool
	Next   string // cursor of the next part; empty: this is the last one
}

const (
	defaultUnseen = 30 * 24 * time.Hour
	// scanPage is how many certificates one transaction reads, scanTime how long one answer
	// looks for its items.
	scanPage = 200
	scanTime = 2 * time.Second
	// maxThings bounds the things of one certificate, and certificates of one thing, that are
	// looked at.
	maxThings = 100
)

// look is what one part of a scan needs.
type look struct {
	p        *Planner
	q        Question
	now      time.Time
	tx       imprint.ReadTx
	g        *graph
	from, to *member // to: nil when nobody said
	below    map[*member]bool
	alive    map[*member]bool
	belowTo  map[*member]bool
	answer   *Answer
}

// Rehearse gives a part of who would fail. Errors: CodeNotFound, CodeInvalidRequest for a
// CA that isn't one, and for a cursor that isn't one.
func (p *Planner) Rehearse(ctx context.Context, q Question) (Answer, error) {
	if q.Unseen <= 0 {
		q.Unseen = defaultUnseen
	}
	q.Limit = max(1, q.Limit)
	var answer Answer
	at, err := readCursor(q.Cursor)
	if err == nil && q.Cursor == "" {
		err = p.settle(ctx)
	}
	if err != nil {
		return answer, err
	}
	until := p.opts.Clock().Add(scanTime)
	for first := q.Cursor == ""; ; first = false {
		err = p.view(ctx, q.Tenant, func(tx imprint.ReadTx, g *graph) error {
			l, err := p.newLook(tx, g, q)
			if err != nil {
				return err
			}
			part := Answer{}
			l.answer = &part
			if first {
				err = l.summary()
				if err != nil {
					return err
				}
			}
			next, err := l.page(at, min(scanPage, q.Limit-len(answer.Items)))
			if err == nil {
				answer.add(part)
				at = next
			}
			return err
		})
		if err != nil {
			return answer, err
		}
		if at.over || len(answer.Items) >= q.Limit || p.opts.Clock().After(until) {
			answer.Next = at.text()
			return answer, nil
		}
	}
}

// settle puts what was seen until now where a rehearsal finds it.
func (p *Planner) settle(ctx context.Context) error {
	err := p.flush(ctx)
	if err == nil && p.opts.Flush != nil {
		err = p.opts.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("couldn't write what was seen: %w", err)
	}
	return nil
}

func (p *Planner) newLook(tx imprint.ReadTx, g *graph, q Question) (*look, error) {
	l := &look{p: p, q: q, now: p.opts.Clock(), tx: tx, g: g}
	var err error
	l.from, err = g.find(q.From)
	if err != nil {
		return nil, err
	}
	l.below, l.alive = g.below(l.from), g.without(l.from, l.now)
	if q.To == "" {
		return l, nil
	}
	l.to, err = g.find(q.To)
	if err != nil {
		return nil, err
	}
	if l.to == l.from {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%s can't take its own place", l.from.name())
	}
	l.belowTo = g.below(l.to)
	return l, nil
}

func (a *Answer) add(part Answer) {
	a.Items = append(a.Items, part.Items...)
	a.Authorities = append(a.Authorities, part.Authorities...)
	a.Labels = append(a.Labels, part.Labels...)
	a.Server = a.Server || part.Server
	a.Counts.Add(part.Counts)
}

// Add adds the counts of another part.
func (c *Counts) Add(more Counts) {
	for _, sum := range []struct {
		to   *int64
		from int64
	}{
		{&c.Looked, more.Looked}, {&c.Certificates, more.Certificates}, {&c.Devices, more.Devices}, {&c.Loose, more.Loose}, {&c.Moved, more.Moved},
		{&c.Proven, more.Proven}, {&c.Unseen, more.Unseen}, {&c.Finished, more.Finished}, {&c.FinishedProven, more.FinishedProven}, {&c.Carried, more.Carried},
		{&c.Claims, more.Claims}, {&c.Waiting, more.Waiting}, {&c.Inactive, more.Inactive}, {&c.Unregistered, more.Unregistered},
	} {
		*sum.to += sum.from
	}
	if more.LastEnd.After(c.LastEnd) {
		c.LastEnd = more.LastEnd
	}
}

// summary tells what fails beside devices.
func (l *look) summary() error {
	for _, m := range l.g.all {
		if l.below[m] && !l.alive[m] {
			l.answer.Authorities = append(l.answer.Authorities, m.shown(l.now))
		}
	}
	var err error
	l.answer.Labels, err = l.labels()
	if err != nil || l.p.opts.ServerChains == nil {
		return err
	}
	for _, chain := range l.p.opts.ServerChains() {
		if len(chain) > 0 && l.fate(l.chainSigner(chain)) == fails {
			l.answer.Server = true
		}
	}
	return nil
}

// maxLabels bounds the labels of EST that are looked at.
const maxLabels = 1000

// labels gives those of EST that fail.
func (l *look) labels() ([]Label, error) {
	all, _, err := l.tx.EnrolmentLabels(l.q.Tenant, imprint.Page{Limit: maxLabels, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the labels of EST: %w", err)
	}
	var failing []Label
	for n := range all {
		label := Label{Name: all[n].Name}
		for _, m := range l.g.all {
			if l.below[m] && !l.alive[m] && m.authority != nil && m.authority.ID == all[n].Authority {
				label.Signs = true
			}
		}
		shown, err := pki.ParseCertificatesPEM(all[n].DeviceCAs + all[n].StationCAs)
		if err != nil {
			shown = nil // the label takes none, or none that can be read
		}
		for _, cert := range shown {
			if m := l.g.byID[pki.CertificateID(cert.Raw)]; m != nil && l.below[m] && !l.alive[m] {
				label.Shown = true
			}
		}
		if label.Signs || label.Shown {
			failing = append(failing, label)
		}
	}
	return failing, nil
}

// chainSigner gives the signer of a chain's first certificate that the tenant has as a CA.
func (l *look) chainSigner(chain []*x509.Certificate) []*member {
	for _, cert := range chain {
		signers := l.g.signersOf(cert)
		if len(signers) > 0 {
			return signers
		}
	}
	return nil
}

func (m *member) shown(now time.Time) Authority {
	a := Authority{Name: m.name(), Certificate: m.id, NotAfter: m.cert.NotAfter}
	if m.authority != nil {
		a.Authority, a.Status = m.authority.ID, string(m.authority.Status)
		switch {
		case !m.authority.RevokedAt.IsZero():
			a.Status = "REVOKED"
		case m.authority.Status == imprint.AuthorityActive && now.After(m.cert.NotAfter):
			a.Status = string(imprint.AuthorityExpired)
		}
	}
	if m.registered != nil {
		a.RegisteredStatus, a.AutoRegistration = string(m.registered.Status), m.registered.AutoRegistration
		if m.registered.Registration != nil {
			a.Template = string(m.registered.Registration.TemplateName)
			if a.Template == "" {
				a.Template = "(inline)"
			}
		}
	}
	return a
}

// fate is what becomes of a certificate.
type fate int

const (
	unconcerned fate = iota // no chain of it goes through the CA
	carried                 // one does, and another goes on
	fails
)

func (l *look) fate(signers []*member) fate {
	switch {
	case !anyOf(signers, l.below):
		return unconcerned
	case anyOf(signers, l.alive):
		return carried
	}
	return fails
}

// signersOf gives who can have signed a registered certificate. The registry knows of most
// which CA it was; the others are read.
func (l *look) signersOf(c *imprint.Certificate) []*member {
	if m := l.g.byID[c.CAID]; c.CAID != "" && m != nil {
		return l.g.bySigner[m.signer()]
	}
	cert, err := pki.ParseCertificatePEM(c.PEM)
	if err != nil {
		return nil // it can't be read, so no chain of it leads anywhere
	}
	return l.g.signersOf(cert)
}

// replaces says whether a certificate of such a signer goes on after the CA has ended, and
// is of the one that takes its place if there is one.
func (l *look) replaces(signers []*member) bool {
	if l.to == nil {
		return l.fate(signers) != fails && (len(signers) == 0 || anyOf(signers, l.alive))
	}
	for _, m := range signers {
		if l.belowTo[m] && l.alive[m] {
			return true
		}
	}
	return false
}

// inUse says that a certificate lets its device in now.
func (l *look) inUse(c *imprint.Certificate) bool {
	return c.Status == imprint.CertificateActive && !l.now.After(c.NotAfter)
}

// place is where a scan is: in the registry's certificates, or in what an authority issued.
type place struct {
	authority imprint.AuthorityID // empty: in the registry
	cursor    string
	over      bool
}

const cursorMark = "rollover1"

func (p place) text() string {
	if p.over {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(cursorMark + "\x00" + string(p.authority) + "\x00" + p.cursor))
}

func readCursor(text string) (place, error) {
	if text == "" {
		return place{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != 3 || parts[0] != cursorMark {
		return place{}, imprint.Errorf(imprint.CodeInvalidRequest, "the token of the next page isn't one").WithHint("Begin anew without it.")
	}
	return place{authority: imprint.AuthorityID(parts[1]), cursor: parts[2]}, nil
}

// page looks at the next certificates and gives where the scan goes on.
func (l *look) page(at place, limit int) (place, error) {
	if at.authority != "" {
		return l.issued(at, limit)
	}
	page, next, err := l.tx.Certificates(l.q.Tenant, "", imprint.Page{Limit: limit, Cursor: at.cursor, Ascending: true})
	if err != nil {
		return at, err
	}
	for n := range page {
		err = l.registered(&page[n])
		if err != nil {
			return at, err
		}
	}
	if next != "" {
		return place{cursor: next}, nil
	}
	return l.afterAuthority(""), nil
}

// afterAuthority gives the first place in what the next failing authority issued.
func (l *look) afterAuthority(id imprint.AuthorityID) place {
	var next imprint.AuthorityID
	for _, m := range l.g.all {
		if m.authority == nil || !l.below[m] || l.alive[m] {
			continue
		}
		if m.authority.ID > id && (next == "" || m.authority.ID < next) {
			next = m.authority.ID
		}
	}
	return place{authority: next, over: next == ""}
}

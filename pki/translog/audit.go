package translog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// FindingKind says what doesn't agree.
type FindingKind string

// The kinds.
const (
	// FindingDamage: a file of the log isn't what its checkpoint signs, or the log was set
	// back behind a checkpoint that is remembered.
	FindingDamage FindingKind = "DAMAGED"
	// FindingNotInLog: a certificate is in the registry, and one of our CAs signed it, or
	// it is in the record of signatures; the log doesn't have it.
	FindingNotInLog FindingKind = "NOT_IN_LOG"
	// FindingNotIssued: the log has it, and the record of signatures doesn't.
	FindingNotIssued FindingKind = "NOT_IN_RECORD"
	// FindingDiffers: both have it, and say different things of it.
	FindingDiffers FindingKind = "DIFFERS"
	// FindingSigner: the CA that it names didn't sign it.
	FindingSigner FindingKind = "WRONG_SIGNER"
	// FindingTwice: the log has it twice.
	FindingTwice FindingKind = "LOGGED_TWICE"
	// FindingRegistry: a row of the registry isn't the certificate that it is named for.
	FindingRegistry FindingKind = "REGISTRY"
	// FindingCheck: AuditConfig.Check refuses what was issued.
	FindingCheck FindingKind = "CHECK"
)

// Finding is one thing that doesn't agree.
type Finding struct {
	Kind FindingKind `json:"kind"`
	// Path is a file of the log, for damage.
	Path        string                `json:"path,omitempty"`
	Tenant      imprint.Tenant        `json:"tenant,omitzero"`
	Certificate imprint.CertificateID `json:"certificateId,omitempty"`
	Issuance    string                `json:"issuance,omitempty"`
	// Index is the entry's; -1: there is none.
	Index   int64  `json:"index"`
	Problem string `json:"problem"`
}

// AuditConfig is what an audit compares. Store, Source and Verifier must be set.
type AuditConfig struct {
	Store    imprint.Store
	Source   tiles.Source
	Verifier *tiles.Verifier
	// DeviceCA is the certificate of the built-in device CA. Nil: there is none, and what
	// names it as its signer is a finding.
	DeviceCA *x509.Certificate
	// Remembered are checkpoints that someone kept, beside the registry's own.
	Remembered []tiles.Checkpoint
	// Check looks at each certificate again, such as with the linter of its profile; its
	// error is a finding. May be nil.
	Check func(der []byte, issuance imprint.Issuance) error
	// Grace is how long after its preparation an issuance may wait for the log before that
	// is a finding. [10 minutes]
	Grace time.Duration
	Clock imprint.Clock // [time.Now]
	// Report is called with each finding.
	Report func(Finding)
}

// Audited is what an audit looked at. Only Findings is of what is wrong.
type Audited struct {
	Checkpoint tiles.Checkpoint `json:"-"`
	// Entries of the log, issuances with a certificate in the record of signatures, and
	// certificates in the registry, of which Ours have the name of one of our CAs as issuer.
	Entries      int64 `json:"entries"`
	Issuances    int64 `json:"issuances"`
	Certificates int64 `json:"certificates"`
	Ours         int64 `json:"ours"`
	// Waiting issuances aren't in the checkpoint's tree yet, and may still wait.
	Waiting int64 `json:"waiting"`
	// Unregistered certificates are in the log and not in their tenant's registry: they were
	// deleted there, or never device certificates.
	Unregistered int64 `json:"unregistered"`
	// WithoutBytes are entries that have a certificate's id alone.
	WithoutBytes int64 `json:"withoutBytes"`
	// Unchecked entries are those whose CA the store doesn't have any more, so that nobody
	// can say here who signed them.
	Unchecked int64 `json:"unchecked"`
	Findings  int64 `json:"findings"`
}

// auditPage is how many rows are read at once.
const auditPage = 1000

// Audit proves that the registry, the log and the record of signatures agree, or tells
// where they don't: to AuditConfig.Report, with the number in Audited.Findings. The error
// is one that kept it from finishing. It may run beside a server that issues. Its memory
// doesn't grow with their sizes.
//
// It reads, in this order: the registry's certificates; the checkpoint and all of the log,
// each entry with its issuance; the record of signatures. Certificates of the registry are
// compared with those two as sums over buckets of ids, under a key of this run. Only when
// sums differ, it reads again, what is in those buckets.
func Audit(ctx context.Context, config AuditConfig) (Audited, error) {
	if config.Store == nil || config.Source == nil || config.Verifier == nil {
		return Audited{}, errors.New("couldn't audit: store, source and verifier must be given")
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Grace == 0 {
		config.Grace = 10 * time.Minute
	}
	a := &audit{ctx: ctx, config: config, registry: newSums(), known: newSums(), authorities: make(map[authorityKey]*x509.Certificate)}
	for _, part := range []func() error{a.readNames, a.readRegistry, a.readLog, a.readIssuances, a.compare} {
		err := part()
		if err != nil {
			return a.done, fmt.Errorf("couldn't finish the audit: %w", err)
		}
	}
	return a.done, nil
}

type authorityKey struct {
	tenant imprint.Tenant
	id     imprint.AuthorityID
}

type audit struct {
	ctx    context.Context
	config AuditConfig
	done   Audited

	state imprint.IssuanceLog
	// names are the subjects of our CAs, as issuers have them, with all certificates of
	// each: there are few.
	names map[string][]*x509.Certificate
	// authorities are CAs by id, as they are asked for; nil for one that is gone.
	authorities map[authorityKey]*x509.Certificate

	// registry and known are the sums over the certificates of the registry that have one of
	// names as issuer: as the registry lists them, and as the log and what waits for it have
	// them.
	registry, known *sums
	// recorded counts the entries whose issuance has their index, unrecorded keeps those
	// whose issuance hasn't any, as it is while the server records a batch.
	recorded   int64
	unrecorded []unrecorded
	batch      []indexed
}

type unrecorded struct {
	index    int64
	issuance string
}

type indexed struct {
	index int64
	entry tiles.Entry
}

// maxUnrecorded bounds unrecorded: a batch of the log has at most 4096.
const maxUnrecorded = 8192

func (a *audit) find(f Finding) {
	a.done.Findings++
	if a.config.Report != nil {
		a.config.Report(f)
	}
}

func (a *audit) view(fn func(imprint.ReadTx) error) error { return a.config.Store.View(a.ctx, fn) }

// readNames reads the certificates of our CAs.
func (a *audit) readNames() error {
	a.names = make(map[string][]*x509.Certificate)
	add := func(c *x509.Certificate) { a.names[string(c.RawSubject)] = append(a.names[string(c.RawSubject)], c) }
	if a.config.DeviceCA != nil {
		add(a.config.DeviceCA)
	}
	return a.view(func(tx imprint.ReadTx) error {
		tenants, err := tx.AuthorityTenants()
		if err != nil {
			return err
		}
		for _, tenant := range tenants {
			for page := (imprint.Page{Limit: auditPage}); ; {
				authorities, next, err := tx.Authorities(tenant, page)
				if err != nil {
					return err
				}
				for i := range authorities {
					if c := authorityCertificate(&authorities[i]); c != nil {
						add(c)
					}
				}
				if next == "" {
					break
				}
				page.Cursor = next
			}
		}
		return nil
	})
}

func authorityCertificate(a *imprint.CertificateAuthority) *x509.Certificate {
	if a.Certificate == "" {
		return nil
	}
	c, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return nil
	}
	return c
}

// ours says whether a certificate has the name of one of our CAs as its issuer.
func (a *audit) ours(c *x509.Certificate) bool { return len(a.names[string(c.RawIssuer)]) > 0 }

// signed says whether one of our CAs did sign it.
func (a *audit) signed(c *x509.Certificate) bool {
	for _, ca := range a.names[string(c.RawIssuer)] {
		if signedBy(c, ca) {
			return true
		}
	}
	return false
}

func signedBy(c, ca *x509.Certificate) bool {
	return ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// eachRegistered calls yield with every certificate of the registry.
func (a *audit) eachRegistered(yield func(imprint.Certificate)) error {
	var tenants []imprint.TenantSettings
	err := a.view(func(tx imprint.ReadTx) error {
		var err error
		tenants, err = imprint.AllTenants(tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, settings := range tenants {
		for page := (imprint.Page{Limit: auditPage, Ascending: true}); ; {
			var rows []imprint.Certificate
			var next string
			err = a.view(func(tx imprint.ReadTx) error {
				var err error
				rows, next, err = tx.Certificates(settings.Tenant, "", page)
				return err
			})
			if err != nil {
				return err
			}
			for _, row := range rows {
				yield(row)
			}
			if next == "" {
				break
			}
			page.Cursor = next
		}
	}
	return nil
}

// parseRow gives the certificate of a row of the registry.
func parseRow(row *imprint.Certificate) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(derOf(row.PEM))
	if err != nil {
		return nil, fmt.Errorf("its row has no certificate: %w", err)
	}
	if pki.CertificateID(c.Raw) != row.ID {
		return nil, fmt.Errorf("its row has the certificate with id %s", pki.CertificateID(c.Raw))
	}
	return c, nil
}

func (a *audit) readRegistry() error {
	return a.eachRegistered(func(row imprint.Certificate) {
		a.done.Certificates++
		c, err := parseRow(&row)
		if err != nil {
			a.find(Finding{Kind: FindingRegistry, Tenant: row.Tenant, Certificate: row.ID, Index: -1, Problem: err.Error()})
			return
		}
		if a.ours(c) {
			a.done.Ours++
			a.registry.add(row.ID, row.Tenant)
		}
	})
}

// readLog checks the log and compares each entry with its issuance.
func (a *audit) readLog() error {
	err := a.view(func(tx imprint.ReadTx) error {
		var err error
		a.state, err = tx.IssuanceLog()
		return err
	})
	if err != nil {
		return err
	}
	damage := func(path, problem string) {
		a.find(Finding{Kind: FindingDamage, Path: path, Index: -1, Problem: problem})
	}
	remembered := a.config.Remembered
	if a.state.Checkpoint != "" {
		r, err := a.config.Verifier.Checkpoint([]byte(a.state.Checkpoint))
		if err != nil {
			damage(tiles.CheckpointPath, fmt.Sprintf("the registry remembers one of another log: %v", err))
		} else {
			remembered = append(remembered[:len(remembered):len(remembered)], r)
		}
	}
	a.done.Checkpoint, err = a.config.Verifier.Latest(a.ctx, a.config.Source)
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	if err != nil {
		// What follows compares with an empty log, and so tells what it should have.
		damage(tiles.CheckpointPath, err.Error())
		return nil
	}
	if a.done.Checkpoint.N < a.state.Size-maxUnpublished {
		damage(tiles.CheckpointPath, fmt.Sprintf("it has %d entries, and the registry recorded %d", a.done.Checkpoint.N, a.state.Size))
	}
	err = tiles.Check(a.ctx, a.config.Source, a.done.Checkpoint, tiles.CheckOptions{
		Remembered: remembered,
		Entry:      a.entry,
		Damage:     func(d tiles.Damage) { damage(d.Path, d.Problem) },
	})
	if err != nil {
		return err
	}
	err = a.flush()
	if err != nil {
		return err
	}
	return a.settleUnrecorded()
}

// maxUnpublished is how many recorded entries may lack a checkpoint: those of the batches of
// the last moments before a crash. More is a log that was set back.
const maxUnpublished = 64 << 10

func (a *audit) entry(index int64, raw []byte) error {
	a.done.Entries++
	e, err := tiles.ParseEntry(raw)
	if err != nil {
		a.find(Finding{Kind: FindingDamage, Path: tiles.CheckpointPath, Index: index, Problem: fmt.Sprintf("the entry can't be read: %v", err)})
		return nil
	}
	a.batch = append(a.batch, indexed{index, e})
	if len(a.batch) < tiles.Width {
		return nil
	}
	return a.flush()
}

// flush compares the entries of the batch.
func (a *audit) flush() error {
	rows := make([]looked, len(a.batch))
	err := a.view(func(tx imprint.ReadTx) error {
		for i, one := range a.batch {
			var err error
			rows[i], err = look(tx, one.entry)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, one := range a.batch {
		err = a.compareEntry(one.index, one.entry, rows[i])
		if err != nil {
			return err
		}
	}
	a.batch = a.batch[:0]
	return nil
}

// looked is what the store has of an entry.
type looked struct {
	issuance   imprint.LoggedIssuance // without an id: there is none
	registered []imprint.Certificate
}

func look(tx imprint.ReadTx, e tiles.Entry) (looked, error) {
	var l looked
	var err error
	l.issuance, err = tx.LoggedIssuance(e.Issuance)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return l, err
	}
	if err != nil {
		l.issuance = imprint.LoggedIssuance{LogIndex: -1}
	}
	l.registered, err = tx.CertificateTenants(e.Certificate)
	return l, err
}

// addRegistered adds a certificate that the log has, or that waits for it, as the registry
// has it.
func (a *audit) addRegistered(rows []imprint.Certificate) {
	for _, row := range rows {
		c, err := parseRow(&row)
		if err == nil && a.ours(c) { // readRegistry tells of the others
			a.known.add(row.ID, row.Tenant)
		}
	}
}

func (a *audit) compareEntry(index int64, e tiles.Entry, has looked) error {
	a.addRegistered(has.registered)
	here := false
	for _, row := range has.registered {
		here = here || row.Tenant == e.Tenant
	}
	if !here {
		a.done.Unregistered++
	}
	finding := Finding{Tenant: e.Tenant, Certificate: e.Certificate, Issuance: e.Issuance, Index: index}
	find := func(kind FindingKind, format string, args ...any) {
		finding.Kind, finding.Problem = kind, fmt.Sprintf(format, args...)
		a.find(finding)
	}
	i := has.issuance
	switch {
	case i.ID == "":
		find(FindingNotIssued, "the log has it, and the record of signatures has no issuance %q", imprint.Excerpt(e.Issuance))
	case i.LogIndex == index:
		a.recorded++
	case i.LogIndex >= 0:
		find(FindingTwice, "the log has it as entry %d, and its issuance says entry %d", index, i.LogIndex)
	case index < a.state.Size || len(a.unrecorded) >= maxUnrecorded:
		find(FindingDiffers, "the log has it, and its issuance says that it hasn't")
	default:
		a.unrecorded = append(a.unrecorded, unrecorded{index, i.ID})
	}
	if i.ID != "" {
		if problem := differs(e, &i.Issuance); problem != "" {
			find(FindingDiffers, "%s", problem)
		}
	}
	if len(e.DER) == 0 {
		a.done.WithoutBytes++
		return nil
	}
	c, err := x509.ParseCertificate(e.DER)
	if err != nil {
		find(FindingDiffers, "the log has something that isn't a certificate: %v", err)
		return nil
	}
	if i.ID != "" {
		sum := sha256.Sum256(c.RawTBSCertificate)
		if hex.EncodeToString(sum[:]) != i.TBSHash || pki.SerialHex(c.SerialNumber) != i.Serial {
			find(FindingDiffers, "what was signed isn't what was prepared: serial number %s and hash %x, and the record says %s and %s",
				pki.SerialHex(c.SerialNumber), sum, i.Serial, i.TBSHash)
		}
	}
	ca, gone, err := a.authority(e.Tenant, e.Authority)
	switch {
	case err != nil:
		return err
	case gone:
		a.done.Unchecked++
	case ca == nil || !signedBy(c, ca):
		find(FindingSigner, "its signature isn't that of %s", signerText(e.Authority))
	}
	if a.config.Check != nil && i.ID != "" {
		err = a.config.Check(e.DER, i.Issuance)
		if err != nil {
			find(FindingCheck, "%v", err)
		}
	}
	return nil
}

func signerText(id imprint.AuthorityID) string {
	if id == "" {
		return "the built-in device CA"
	}
	return "certificate authority " + imprint.Excerpt(string(id))
}

// differs says what an entry and its issuance don't agree in; empty: nothing.
func differs(e tiles.Entry, i *imprint.Issuance) string {
	switch {
	case i.CertificateID == "":
		return "the log has a certificate, and the record of signatures only the intent"
	case i.CertificateID != e.Certificate:
		return fmt.Sprintf("the record of signatures has certificate %s", i.CertificateID)
	case i.Tenant != e.Tenant:
		return fmt.Sprintf("the record of signatures has it in %s", i.Tenant)
	case i.Authority != e.Authority:
		return fmt.Sprintf("the record of signatures has it as one of %s", signerText(i.Authority))
	case len(i.Certificate) > 0 && len(e.DER) > 0 && !bytes.Equal(i.Certificate, e.DER):
		return "the record of signatures has other bytes"
	}
	return ""
}

// authority gives the certificate of a CA; gone: the store doesn't have it any more.
func (a *audit) authority(tenant imprint.Tenant, id imprint.AuthorityID) (ca *x509.Certificate, gone bool, err error) {
	if id == "" {
		return a.config.DeviceCA, false, nil
	}
	key := authorityKey{tenant, id}
	ca, known := a.authorities[key]
	if known {
		return ca, ca == nil, nil
	}
	err = a.view(func(tx imprint.ReadTx) error {
		row, err := tx.Authority(tenant, id)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil
		}
		ca = authorityCertificate(&row)
		return err
	})
	if len(a.authorities) < 10_000 {
		a.authorities[key] = ca
	}
	return ca, ca == nil, err
}

// settleUnrecorded looks again at the issuances that had no index when their entries were
// read: they are being recorded, or will be at the next start.
func (a *audit) settleUnrecorded() error {
	return a.view(func(tx imprint.ReadTx) error {
		for _, u := range a.unrecorded {
			i, err := tx.LoggedIssuance(u.issuance)
			if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
				return err
			}
			if err == nil && i.LogIndex == u.index {
				a.recorded++
			}
		}
		return nil
	})
}

// readIssuances compares the record of signatures with the log: the entries were compared
// already, so that it's enough when as many issuances have an index.
func (a *audit) readIssuances() error {
	var inLog int64
	err := a.eachIssuance(func(i imprint.LoggedIssuance, registered []imprint.Certificate) {
		a.done.Issuances++
		if i.LogIndex >= 0 && i.LogIndex < a.done.Checkpoint.N {
			inLog++
			return
		}
		for _, u := range a.unrecorded {
			if u.issuance == i.ID {
				return // its entry was read
			}
		}
		a.addRegistered(registered)
		age := a.config.Clock().Sub(i.At)
		switch {
		case age > a.config.Grace || age < -a.config.Grace || i.LogIndex >= a.done.Checkpoint.N && i.LogIndex < a.state.Size-maxUnpublished:
			a.find(Finding{Kind: FindingNotInLog, Tenant: i.Tenant, Certificate: i.CertificateID, Issuance: i.ID, Index: i.LogIndex,
				Problem: fmt.Sprintf("it was prepared at %s, and the log doesn't have it", i.At.UTC().Format(time.RFC3339))})
		default:
			a.done.Waiting++
		}
	})
	if err != nil || inLog == a.recorded {
		return err
	}
	// Some say that they have an entry that isn't theirs. Which?
	names := &entryNames{ctx: a.ctx, source: a.config.Source, size: a.done.Checkpoint.N}
	return a.eachIssuance(func(i imprint.LoggedIssuance, registered []imprint.Certificate) {
		if i.LogIndex < 0 || i.LogIndex >= a.done.Checkpoint.N || names.at(i.LogIndex) == i.ID {
			return
		}
		// Its certificate may be in the log for all that, by another entry; compare doesn't
		// count it twice, as it reads the log again.
		a.find(Finding{Kind: FindingNotInLog, Tenant: i.Tenant, Certificate: i.CertificateID, Issuance: i.ID, Index: i.LogIndex,
			Problem: fmt.Sprintf("the record of signatures says that it is entry %d, and that is another one's", i.LogIndex)})
	})
}

// eachIssuance calls yield with every issuance that has a certificate, and for those that
// aren't in the checkpoint's tree with the rows of the registry.
func (a *audit) eachIssuance(yield func(imprint.LoggedIssuance, []imprint.Certificate)) error {
	after := ""
	for {
		var rows []imprint.LoggedIssuance
		registered := make(map[string][]imprint.Certificate)
		err := a.view(func(tx imprint.ReadTx) error {
			var err error
			rows, err = tx.LoggedIssuances(after, auditPage)
			if err != nil {
				return err
			}
			for _, i := range rows {
				if i.CertificateID != "" && (i.LogIndex < 0 || i.LogIndex >= a.done.Checkpoint.N) {
					registered[i.ID], err = tx.CertificateTenants(i.CertificateID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, i := range rows {
			if i.CertificateID != "" {
				yield(i, registered[i.ID])
			}
			after = i.ID
		}
	}
}

// entryNames tells the issuances of entries, one bundle at a time.
type entryNames struct {
	ctx    context.Context
	source tiles.Source
	size   int64
	from   int64
	names  []string
}

// at gives the issuance of an entry; empty for one that can't be read, which Check told of.
func (n *entryNames) at(index int64) string {
	from := index / tiles.Width * tiles.Width
	if n.names == nil || n.from != from {
		n.from, n.names = from, make([]string, tiles.Width)
		_ = tiles.Entries(n.ctx, n.source, from, min(n.size, from+tiles.Width), func(i int64, raw []byte) error {
			e, err := tiles.ParseEntry(raw)
			if err == nil {
				n.names[i-from] = e.Issuance
			}
			return nil
		})
	}
	return n.names[index-from]
}

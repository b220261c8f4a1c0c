package translog

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

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
		a.done.Rechecked++
		err = a.config.Check(e.DER, ca, i.Issuance)
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

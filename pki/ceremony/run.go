package ceremony

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/keys"
)

// People are those in the room, as the ceremony speaks with them. A method that fails ends
// the ceremony.
type People interface {
	// Say tells all.
	Say(text string) error
	// Confirm wants the fingerprint of the reviewed script, or as much of it as shows that
	// somebody has compared it.
	Confirm(ctx context.Context, script []byte) error
	// Give hands a share to its holder. It must not keep it.
	Give(ctx context.Context, holder string, number int, share []byte) error
	// Ask asks for one more share of those that are missing. Wrong says what was wrong
	// with the one before; nil: nothing was.
	Ask(ctx context.Context, missing int, wrong error) ([]byte, error)
}

// Config is what a ceremony needs. All but Program and PKCS11Helper must be set.
type Config struct {
	Script *Script
	// Out is the directory of what comes out of it. It must not be there.
	Out    string
	Clock  imprint.Clock
	People People
	// Networks are the machine's connections to others that are up; there should be none.
	Networks []string
	// Program names program and version for the record.
	Program string
	// PKCS11Helper is that of keys.Config.
	PKCS11Helper string
}

// RecordFile is the name of the record in Config.Out.
const RecordFile = "record.jsonl"

// maxOff is how far the machine's clock may be from the day that the script names.
const maxOff = 24 * time.Hour

// unfinished ends the name of the directory of a ceremony that isn't at its end.
const unfinished = ".unfinished"

// run is one ceremony.
type run struct {
	Config
	dir    string // of files until the end
	record *recorder
	sealer imprint.Sealer
	store  *keys.Store
	named  *keys.Named
	cas    map[*step]*made
	// inStore are the names of keys that were made in the HSM.
	inStore []string
}

// made is a CA of this ceremony.
type made struct {
	signer    pki.Signer
	cert      *x509.Certificate
	authority *pki.Authority
}

// Run holds a ceremony. When it returns nil, Out has a file NAME.pem for each CA, NAME.chain.pem
// with those above it, NAME.sealed with its key where shares seal the keys, NAME.crl, and
// the record; otherwise there is no Out. Errors say what to do about what was left behind:
// keys in an HSM, shares that were handed out.
func Run(ctx context.Context, config Config) (*Report, error) {
	r := &run{Config: config, dir: config.Out + unfinished, cas: map[*step]*made{}}
	err := r.vacant()
	if err != nil {
		return nil, err
	}
	err = r.onTime()
	if err != nil {
		return nil, err
	}
	err = os.Mkdir(r.dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the directory: %w", err)
	}
	report, err := r.hold(ctx)
	if err == nil {
		return report, nil
	}
	return nil, errors.Join(r.left(err), os.RemoveAll(r.dir))
}

// left adds to an error what the ceremony left in an HSM.
func (r *run) left(err error) error {
	if len(r.inStore) == 0 {
		return err
	}
	return imprint.Errorf(imprint.CodeOf(err), "%w (these keys were made in the store and have no certificate: %s)", err, strings.Join(r.inStore, ", ")).
		WithHint("%s Delete them with the store's own tool, or use them: existing-key = true in the script.", imprint.HintOf(err))
}

// vacant refuses to write over anything.
func (r *run) vacant() error {
	for path, hint := range map[string]string{
		r.Out: "Nothing is overwritten: choose another directory.",
		r.dir: "It is of a ceremony that didn't come to its end: nobody has its keys. Delete it and begin again.",
	} {
		_, err := os.Lstat(path)
		if err == nil {
			return imprint.Errorf(imprint.CodeAlreadyExists, "%s is there already", path).WithHint("%s", hint)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("couldn't look for %s: %w", path, err)
		}
	}
	return nil
}

// onTime compares the machine's clock with the script: a machine without network, and
// perhaps without battery, has the wrong time more often than not.
func (r *run) onTime() error {
	now := r.Clock().UTC()
	if now.Before(r.Script.day.Add(-maxOff)) || now.After(r.Script.day.Add(24*time.Hour+maxOff)) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the machine's clock says %s, and the script is for %s", now.Format(time.RFC3339), r.Script.day.Format(time.DateOnly)).
			WithHint("Set the clock: date -u -s 'YYYY-MM-DD HH:MM'. The certificates begin when it says. If the day has changed, change and review the script.")
	}
	for _, one := range r.Script.cas {
		if one.present != nil && (now.Before(one.present.NotBefore) || now.After(one.present.NotAfter)) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "CA %s is valid from %s until %s, and the machine's clock says %s", one.name, one.present.NotBefore.Format(time.RFC3339),
				one.present.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339)).WithHint("Set the clock, or make a new CA.")
		}
	}
	return nil
}

func (r *run) hold(ctx context.Context) (*Report, error) {
	defer r.forget()
	var err error
	r.record, err = newRecorder(r.Clock)
	if err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{r.begin, r.unlock, r.make, r.finish} {
		err = ctx.Err()
		if err == nil {
			err = part(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	// A record that doesn't verify would be found out too late elsewhere.
	report, err := Verify(r.record.text.Bytes(), nil)
	if err != nil {
		return nil, fmt.Errorf("the record doesn't verify: %w", err)
	}
	err = durable.WriteFile(filepath.Join(r.dir, RecordFile), r.record.text.Bytes(), 0o644)
	if err != nil {
		return nil, err
	}
	err = ctx.Err() // the last moment at which the ceremony can be called off
	if err != nil {
		return nil, err
	}
	return report, r.publish()
}

// publish gives the directory its name.
func (r *run) publish() error {
	err := r.vacantOut()
	if err == nil {
		err = os.Rename(r.dir, r.Out)
	}
	if err != nil {
		return fmt.Errorf("couldn't give the directory its name: %w", err)
	}
	return durable.SyncDir(filepath.Dir(r.Out))
}

// vacantOut looks once more: a rename takes the place of an empty directory.
func (r *run) vacantOut() error {
	_, err := os.Lstat(r.Out)
	if err == nil {
		return imprint.Errorf(imprint.CodeAlreadyExists, "%s was made meanwhile", r.Out)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// forget overwrites keys as far as Go lets us.
func (r *run) forget() {
	if r.record != nil {
		r.record.destroy()
	}
	for _, one := range r.cas {
		closer, can := one.signer.(keys.Signer)
		if can {
			_ = closer.Close() // what it held is gone either way
		}
	}
	if r.named != nil {
		_ = r.named.Close()
	}
	if r.store != nil {
		_ = r.store.Close()
	}
}

func (r *run) begin(ctx context.Context) error {
	s := r.Script
	err := r.record.add(line{Step: stepBegin, Title: s.title, Script: string(s.text), ScriptID: hex.EncodeToString(s.sum[:]), Program: r.Program, Recorder: r.record.public})
	if err != nil {
		return err
	}
	err = r.record.add(line{Step: stepMachine, Networks: r.Networks})
	if err != nil {
		return err
	}
	warning := ""
	if len(r.Networks) > 0 {
		warning = fmt.Sprintf("\nWARNING: this machine has networks that are up: %s. The record says so.\n", strings.Join(r.Networks, ", "))
	}
	err = r.People.Say(fmt.Sprintf("%s\n\nIt is %s.\n%s\nSHA-256 of the script:\n\n%s", s.title, r.Clock().UTC().Format(time.RFC1123), warning, Spoken(s.sum[:])))
	if err != nil {
		return err
	}
	for _, p := range s.people {
		err = r.record.add(line{Step: stepPerson, Name: p.Name, Role: p.Role})
		if err != nil {
			return err
		}
	}
	err = r.People.Confirm(ctx, s.sum[:])
	if err != nil {
		return err
	}
	return r.record.add(line{Step: stepConfirmed, ScriptID: hex.EncodeToString(s.sum[:])})
}

// make makes the CAs in the order of the script.
func (r *run) make(ctx context.Context) error {
	for _, one := range r.Script.cas {
		err := ctx.Err()
		if err == nil {
			err = r.makeOne(ctx, one)
		}
		if err != nil {
			return fmt.Errorf("couldn't make CA %s: %w", one.name, err)
		}
	}
	return nil
}

func (r *run) makeOne(ctx context.Context, one *step) error {
	if one.present != nil {
		return r.openPresent(ctx, one)
	}
	m := &made{}
	request := pki.Request{RawSubject: one.subject, NotAfter: one.end, By: "ceremony"}
	var csrID string
	if one.csr != nil {
		sum := sha256.Sum256(one.csr.Raw)
		csrID = hex.EncodeToString(sum[:])
		request.PublicKey = one.csr.PublicKey
	} else {
		err := r.makeKey(ctx, one, m)
		if err != nil {
			return err
		}
		request.PublicKey = m.signer.Public()
	}
	r.cas[one] = m
	issued, err := r.issue(ctx, one, m, request)
	if err != nil {
		return err
	}
	m.cert = issued.Certificate
	issuer := ""
	if one.issuer != nil {
		issuer = one.issuer.name
	}
	until := m.cert.NotAfter
	err = r.record.add(line{Step: stepCertificate, CA: one.name, Issuer: issuer, Subject: pki.SubjectText(m.cert.RawSubject), CSRID: csrID, DER: m.cert.Raw, SHA256: string(issued.ID),
		Until: &until, File: one.name + ".pem"})
	if err != nil {
		return err
	}
	return r.tell(ctx, one, m)
}

// issue signs the certificate of a CA, in the two steps of package pki.
func (r *run) issue(ctx context.Context, one *step, m *made, request pki.Request) (*pki.Issued, error) {
	if one.issuer == nil {
		return pki.NewRoot(ctx, offline, pki.IssuerConfig{Signer: m.signer, Journal: r.record, Clock: r.Clock}, one.profile, request)
	}
	by, err := r.authority(one.issuer)
	if err != nil {
		return nil, err
	}
	token, err := by.Prepare(ctx, offline, one.profile, request)
	if err != nil {
		return nil, err
	}
	return by.Sign(ctx, token)
}

func (r *run) authority(one *step) (*pki.Authority, error) {
	m := r.cas[one]
	if m.authority != nil {
		return m.authority, nil
	}
	var err error
	m.authority, err = pki.NewAuthority(pki.IssuerConfig{Certificate: m.cert, Signer: m.signer, Journal: r.record, Clock: r.Clock})
	return m.authority, err
}

func (r *run) makeKey(ctx context.Context, one *step, m *made) error {
	name := storeName + ":" + one.label
	var err error
	if one.existing {
		m.signer, err = r.named.Open(ctx, name)
	} else {
		m.signer, name, err = r.named.Generate(ctx, name, keys.Kind(one.kind))
		if err == nil && r.Script.sealing == nil {
			r.inStore = append(r.inStore, strings.TrimPrefix(name, storeName+":"))
		}
	}
	if err != nil {
		return err
	}
	refusal := pki.WeakKey(m.signer.Public())
	if refusal != nil {
		return refusal
	}
	return r.noteKey(one, m.signer.Public())
}

func (r *run) noteKey(one *step, public crypto.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("couldn't encode the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return r.record.add(line{Step: stepKey, CA: one.name, Kind: string(pki.KeyKindOf(public)), KeyID: hex.EncodeToString(sum[:])})
}

// openPresent opens the key of a CA of an earlier ceremony.
func (r *run) openPresent(ctx context.Context, one *step) error {
	m := &made{cert: one.present}
	if r.Script.sealing == nil {
		signer, err := r.named.Open(ctx, storeName+":"+one.label)
		if err != nil {
			return err
		}
		m.signer = signer
	} else {
		content, err := keys.ReadSealed(r.sealer, one.sealedKey)
		if err != nil {
			return imprint.Errorf(imprint.CodeInvalidRequest, "the shares don't open its key: %w", err).
				WithHint("The file must have its name of the ceremony, and the shares must be of the set that its record names.")
		}
		m.signer, err = keys.NewSoftware(content.Key)
		if err != nil {
			return err
		}
	}
	own, comparable := m.signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !own.Equal(m.cert.PublicKey) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "its key isn't that of its certificate")
	}
	r.cas[one] = m
	until := m.cert.NotAfter
	err := r.record.add(line{Step: stepPresent, CA: one.name, Subject: pki.SubjectText(m.cert.RawSubject), DER: m.cert.Raw, SHA256: string(pki.CertificateID(m.cert.Raw)), Until: &until})
	if err != nil {
		return err
	}
	return r.tell(ctx, one, m)
}

// tell writes the files of a CA and says its fingerprint.
func (r *run) tell(ctx context.Context, one *step, m *made) error {
	files := map[string][]byte{one.name + ".pem": []byte(pki.EncodeCertificatePEM(m.cert.Raw))}
	chain := ""
	for above := one.issuer; above != nil; above = above.issuer {
		chain += pki.EncodeCertificatePEM(r.cas[above].cert.Raw)
	}
	if chain != "" {
		files[one.name+".chain.pem"] = []byte(chain)
	}
	if one.crlDays > 0 {
		der, err := r.crl(ctx, one)
		if err != nil {
			return err
		}
		files[one.name+".crl"] = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	for name, data := range files {
		err := durable.CreateFile(filepath.Join(r.dir, name), data, 0o644)
		if err != nil {
			return fmt.Errorf("couldn't write %s: %w", name, err)
		}
	}
	sum := sha256.Sum256(m.cert.Raw)
	return r.People.Say(fmt.Sprintf("\nCA %s: %s, valid until %s. SHA-256 of its certificate:\n\n%s", one.name, pki.SubjectText(m.cert.RawSubject),
		m.cert.NotAfter.Format(time.DateOnly), Spoken(sum[:])))
}

func (r *run) crl(ctx context.Context, one *step) ([]byte, error) {
	by, err := r.authority(one)
	if err != nil {
		return nil, err
	}
	now := r.Clock()
	until := now.AddDate(0, 0, one.crlDays)
	if until.After(by.Certificate().NotAfter) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a CRL of %d days would outlive the CA", one.crlDays)
	}
	// Milliseconds only grow, also from one ceremony to the next.
	der, err := by.SignCRL(ctx, pki.CRL{Number: now.UnixMilli(), ThisUpdate: now, NextUpdate: until, Entries: one.revoked})
	if err != nil {
		return nil, err
	}
	return der, r.record.add(line{Step: stepCRL, CA: one.name, DER: der, Until: &until, File: one.name + ".crl", Revoked: len(one.revoked)})
}

// finish ends the record.
func (r *run) finish(ctx context.Context) error {
	err := r.record.add(line{Step: stepEnd})
	if err != nil {
		return err
	}
	first := r.Script.cas[0]
	return r.record.sign(ctx, first.name, r.cas[first].signer)
}

package audit

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	maxLists     = 64       // files of revocation lists
	maxListBytes = 32 << 20 // of one
	// removeFromList is the reason code of an entry that takes a revocation back (RFC
	// 5280 section 5.3.1).
	removeFromList = 8
)

// revocationChecks are those that need to know what was revoked.
var revocationChecks = []imprint.AuditCheck{RevokedDeviceCertificate, RevokedCACertificate, RevokedIntermediate}

// revocationList is a list with the file that it is from.
type revocationList struct {
	file string
	list *x509.RevocationList
}

// revocations holds the revocation lists in the directory against the registry: their
// entries are looked up, so that memory is bounded by the longest list and not by the
// fleet. Imported lists are asked about each certificate instead (takenBack).
func (w *walk) revocations() error {
	dir := w.auditor.opts.Revocations
	files, err := listFiles(dir)
	if err != nil {
		w.unusable(dir, err)
	}
	told := false // by a list that is about this account
	for _, file := range files {
		lists, issuers, err := readLists(file)
		if err != nil {
			w.unusable(file, err)
		}
		for _, list := range lists {
			about, err := w.revocationList(list, issuers)
			if err != nil {
				return err
			}
			told = told || about
		}
	}
	if !told {
		err = w.unlisted()
		if err != nil {
			return err
		}
	}
	err = w.distrustBelow()
	if err != nil {
		return err
	}
	return w.revokedAuthorities()
}

// unlisted says so when nobody elsewhere could tell what was revoked.
func (w *walk) unlisted() error {
	var imported []imprint.ForeignList
	err := w.view(func(tx imprint.ReadTx) error {
		found, _, err := tx.ForeignLists(w.tenant, imprint.Page{Limit: 1})
		imported = found
		return err
	})
	if err != nil || len(imported) > 0 {
		return err
	}
	for _, check := range revocationChecks {
		w.note(check, "No revocation lists were given: what this server revoked itself is known, and nothing that CAs elsewhere revoked. Import theirs with imprint ca crl import, or put them, as PEM or DER, into the directory of --audit-revocation-lists.")
	}
	return nil
}

// unusable notes a list that can't be believed.
func (w *walk) unusable(file string, err error) {
	for _, check := range revocationChecks {
		w.fail(check, "REVOCATION_LIST_UNUSABLE", fmt.Sprintf("%s can't be used: %v.", filepath.Base(file), err))
	}
}

// listFiles names the files of a directory, by name; none when it isn't there.
func listFiles(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	if len(files) > maxLists {
		return nil, fmt.Errorf("it has %d files, and at most %d are read", len(files), maxLists)
	}
	return files, nil
}

// readLists reads the lists of a file, and the certificates of issuers that stand
// beside them.
func readLists(file string) ([]revocationList, []*x509.Certificate, error) {
	info, err := os.Stat(file) // of what a link leads to, as Kubernetes mounts files
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no file; take it out of the directory, or let its name begin with a dot")
	}
	if err == nil && info.Size() > maxListBytes {
		err = fmt.Errorf("it has %d bytes, and at most %d are read", info.Size(), maxListBytes)
	}
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var lists []revocationList
	var issuers []*x509.Certificate
	block, rest := pem.Decode(data)
	if block == nil {
		block = &pem.Block{Type: "X509 CRL", Bytes: data}
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "X509 CRL":
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil && strings.Contains(err.Error(), "unsupported crl version") {
				return lists, issuers, errors.New("it is a list of version 1; let openssl make one of version 2: openssl ca -gencrl -crlexts SECTION, and in the section of its configuration authorityKeyIdentifier = keyid:always")
			}
			if err != nil {
				return lists, issuers, fmt.Errorf("it is no revocation list: %w", err)
			}
			lists = append(lists, revocationList{file, list})
		case "CERTIFICATE":
			cert, err := pki.ParseCertificateDER(block.Bytes)
			if err != nil {
				return lists, issuers, fmt.Errorf("it has a certificate that can't be read: %w", err)
			}
			issuers = append(issuers, cert)
		}
	}
	if len(lists) == 0 {
		return nil, nil, errors.New("it has no revocation list")
	}
	return lists, issuers, nil
}

// revocationList looks at one list, and says whether it is about this account: not when it
// is of a CA of which the account has nothing. The directory is for all accounts.
func (w *walk) revocationList(l revocationList, issuers []*x509.Certificate) (bool, error) {
	unknown := errors.New("its issuer is neither a registered CA nor beside it in the file")
	refused := unknown
	err := w.view(func(tx imprint.ReadTx) error {
		registered, err := tx.CAsBySubject(w.tenant, pki.SubjectKey(l.list.RawIssuer))
		for _, ca := range registered {
			cert, unread := pki.ParseCertificatePEM(ca.PEM)
			if unread == nil {
				issuers = append(issuers, cert)
			}
		}
		return err
	})
	if err != nil {
		return false, err
	}
	for _, issuer := range issuers {
		if refused != nil && bytes.Equal(issuer.RawSubject, l.list.RawIssuer) {
			refused = l.list.CheckSignatureFrom(issuer)
		}
	}
	if refused == unknown {
		about, err := w.about(l)
		if err != nil || !about {
			return false, err
		}
	}
	if refused != nil {
		w.unusable(l.file, refused)
		return true, nil
	}
	if next := l.list.NextUpdate; w.now.After(next) {
		for _, check := range revocationChecks {
			w.note(check, fmt.Sprintf("Not all is known: the revocation list of %s in %s should have been renewed by %s: what was revoked since isn't known. Put the current one in its place.",
				pki.SubjectText(l.list.RawIssuer), filepath.Base(l.file), stamp(next)))
		}
	}
	revoked := l.revoked()
	err = w.eachOn(l, revoked, func(c imprint.Certificate) {
		w.find(RevokedDeviceCertificate, flaw{
			resource: described(c), code: "CERTIFICATE_REVOKED_BY_ISSUER",
			reason: fmt.Sprintf("Its CA, %s, revoked the certificate at %s (%s), and it is %s here.",
				pki.SubjectText(l.list.RawIssuer), stamp(revoked[c.Serial].RevocationTime), filepath.Base(l.file), c.Status),
			mitigation: revoke(c.ID),
		})
	})
	if err != nil {
		return true, err
	}
	return true, w.authoritiesOn(l, revoked)
}

// revoked are the entries of a list by their serial numbers.
func (l revocationList) revoked() map[string]x509.RevocationListEntry {
	revoked := map[string]x509.RevocationListEntry{}
	for _, entry := range l.list.RevokedCertificateEntries {
		if entry.ReasonCode != removeFromList {
			revoked[pki.SerialHex(entry.SerialNumber)] = entry
		}
	}
	return revoked
}

// eachOn calls fn for each certificate on a list with which devices can come.
func (w *walk) eachOn(l revocationList, revoked map[string]x509.RevocationListEntry, fn func(imprint.Certificate)) error {
	return w.each(slices.Sorted(maps.Keys(revoked)), func(tx imprint.ReadTx, serial string) error {
		found, err := tx.CertificatesBySerial(w.tenant, serial)
		for _, c := range found {
			if usable(c) && issuedBy(c.PEM, l.list.RawIssuer) {
				fn(c)
			}
		}
		return err
	})
}

// about says whether the account has something of the CA of a list that nobody vouches
// for: a CA that it signed, or a certificate that is on the list.
func (w *walk) about(l revocationList) (bool, error) {
	about := false
	err := w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.CAs(w.tenant, "", p)
		for _, ca := range page {
			about = about || issuedBy(ca.PEM, l.list.RawIssuer)
		}
		return next, err
	})
	if err == nil && !about {
		err = w.eachOn(l, l.revoked(), func(imprint.Certificate) { about = true })
	}
	return about, err
}

func issuedBy(text string, rawIssuer []byte) bool {
	cert, err := pki.ParseCertificatePEM(text)
	return err == nil && bytes.Equal(cert.RawIssuer, rawIssuer)
}

// authoritiesOn notes the CAs on a list.
func (w *walk) authoritiesOn(l revocationList, revoked map[string]x509.RevocationListEntry) error {
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.CAs(w.tenant, "", p)
		for _, ca := range page {
			entry, there := revoked[ca.Serial]
			if !there {
				continue
			}
			cert, unread := pki.ParseCertificatePEM(ca.PEM)
			if unread == nil && bytes.Equal(cert.RawIssuer, l.list.RawIssuer) {
				w.distrust(ca, cert, fmt.Sprintf("%s revoked the CA at %s (%s)", pki.SubjectText(l.list.RawIssuer), stamp(entry.RevocationTime), filepath.Base(l.file)))
			}
		}
		return next, err
	})
}

// view reads once, again when the store can't answer.
func (w *walk) view(fn func(imprint.ReadTx) error) error {
	return w.patiently(func() error { return w.auditor.store.View(w.ctx, fn) })
}

// atOnce is how many look-ups each does in one transaction.
const atOnce = 100

// each calls fn for each item, some in one transaction, and stores what was found.
func (w *walk) each(items []string, fn func(tx imprint.ReadTx, item string) error) error {
	if len(items) == 0 {
		return nil
	}
	at := 0
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		part := items[at:min(at+atOnce, len(items))]
		for _, item := range part {
			err := fn(tx, item)
			if err != nil {
				return "", err
			}
		}
		at += len(part)
		if at == len(items) {
			return "", nil
		}
		return "more", nil
	})
}

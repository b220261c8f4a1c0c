package audit

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	for _, file := range files {
		lists, issuers, err := readLists(file)
		if err != nil {
			w.unusable(file, err)
		}
		for _, list := range lists {
			err = w.revocationList(list, issuers)
			if err != nil {
				return err
			}
		}
	}
	if len(files) == 0 {
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

// revocationList looks at one list.
func (w *walk) revocationList(l revocationList, issuers []*x509.Certificate) error {
	refused := errors.New("its issuer is neither a registered CA nor beside it in the file")
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
		return err
	}
	for _, issuer := range issuers {
		if refused != nil && bytes.Equal(issuer.RawSubject, l.list.RawIssuer) {
			refused = l.list.CheckSignatureFrom(issuer)
		}
	}
	if refused != nil {
		w.unusable(l.file, refused)
		return nil
	}
	if next := l.list.NextUpdate; w.now.After(next) {
		for _, check := range revocationChecks {
			w.note(check, fmt.Sprintf("Not all is known: the revocation list of %s in %s should have been renewed by %s: what was revoked since isn't known. Put the current one in its place.",
				pki.SubjectText(l.list.RawIssuer), filepath.Base(l.file), stamp(next)))
		}
	}
	revoked := map[string]x509.RevocationListEntry{}
	var serials []string
	for _, entry := range l.list.RevokedCertificateEntries {
		if entry.ReasonCode != removeFromList {
			serial := pki.SerialHex(entry.SerialNumber)
			revoked[serial] = entry
			serials = append(serials, serial)
		}
	}
	err = w.each(serials, func(tx imprint.ReadTx, serial string) error {
		found, err := tx.CertificatesBySerial(w.tenant, serial)
		for _, c := range found {
			if usable(c) && issuedBy(c.PEM, l.list.RawIssuer) {
				w.find(RevokedDeviceCertificate, flaw{
					resource: described(c), code: "CERTIFICATE_REVOKED_BY_ISSUER",
					reason: fmt.Sprintf("Its CA, %s, revoked the certificate at %s (%s), and it is %s here.",
						pki.SubjectText(l.list.RawIssuer), stamp(revoked[serial].RevocationTime), filepath.Base(l.file), c.Status),
					mitigation: revoke(c.ID),
				})
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.authoritiesOn(l, revoked)
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

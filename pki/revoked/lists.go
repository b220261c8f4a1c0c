package revoked

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Check asks all that may speak against a certificate which somebody comes with for the first
// time, in the transaction that registers it. The warning is for the trace. Errors: those
// for which Is holds; the store's.
func Check(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate, now time.Time) (warning string, err error) {
	err = Refusal(tx, tenant, cert)
	if err != nil {
		return "", err
	}
	return Listed(tx, tenant, cert, now)
}

// Is says whether an error is that a certificate may not be registered.
func Is(err error) bool {
	switch imprint.CodeOf(err) {
	case imprint.CodeCertificateRevoked, imprint.CodeOnRevocationList, imprint.CodeRevocationListStale:
		return true
	}
	return false
}

// Step names the step of an attempt that tells of such an error.
func Step(err error) string {
	if imprint.CodeOf(err) == imprint.CodeCertificateRevoked {
		return "certificate.revoked"
	}
	return "certificate.crl"
}

// ByLists asks the CRLs of CAs elsewhere that were imported in a tenant (package
// ca/foreign): it refuses a certificate that is on one, and, where its list says so, every
// newcomer once the list is past its time. The warning tells of a list that is past its time
// and lets newcomers in. Errors: CodeOnRevocationList, CodeRevocationListStale; the store's.
//
// A certificate whose issuer has no imported list costs one look-up over an index.
func ByLists(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate, now time.Time) (warning string, err error) {
	lists, err := tx.ForeignListsBySubject(tenant, pki.SubjectKey(cert.RawIssuer))
	if err != nil {
		return "", fmt.Errorf("couldn't look for imported revocation lists: %w", err)
	}
	signers := map[imprint.CertificateID]bool{}
	var stale error // told unless another list has the certificate
	for n := range lists {
		l := &lists[n]
		entry, err := tx.ForeignRevocation(l.ID, l.Generation, pki.SerialHex(cert.SerialNumber))
		listed := err == nil
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return "", fmt.Errorf("couldn't look at an imported revocation list: %w", err)
		}
		if !listed && !l.Stale(now) {
			continue
		}
		signed, known := signers[l.CA]
		if !known {
			signed = signedBy(cert, l.CAPEM)
			signers[l.CA] = signed
		}
		switch {
		case !signed: // another CA's, of the same name
		case listed:
			return "", imprint.Errorf(imprint.CodeOnRevocationList, "certificate %s is on revocation list %s of its CA %s, revoked at %s (%s)", pki.CertificateID(cert.Raw), l.Number,
				l.CA, entry.RevokedAt.UTC().Format(time.RFC3339), ReasonText(entry.Reason))
		case l.RefuseStale:
			stale = imprint.Errorf(imprint.CodeRevocationListStale, "the revocation list of CA %s should have been renewed by %s, and newcomers are refused without a current one", l.CA, l.NextUpdate.UTC().Format(time.RFC3339)).
				WithHint("%s", staleHint(l))
		default:
			warning = fmt.Sprintf("the revocation list of CA %s should have been renewed by %s: what was revoked since isn't known", l.CA, l.NextUpdate.UTC().Format(time.RFC3339))
		}
	}
	if stale != nil {
		return "", stale
	}
	return warning, nil
}

func staleHint(l *imprint.ForeignList) string {
	if l.URL != "" && l.LastError != "" {
		return "It couldn't be fetched: " + l.LastError + ". Mend that; or: imprint ca crl set --ca " + string(l.CA) + " --stale allow"
	}
	return "imprint ca crl import --ca " + string(l.CA) + " FILE-OR-URL; or let newcomers in: imprint ca crl set --ca " + string(l.CA) + " --stale allow"
}

func signedBy(cert *x509.Certificate, caPEM string) bool {
	ca, err := pki.ParseCertificatePEM(caPEM)
	return err == nil && ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// ReasonText names a CRLReason of RFC 5280 section 5.3.1.
func ReasonText(reason int) string {
	names := []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation", "certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}
	if reason < 0 || reason >= len(names) || names[reason] == "" {
		return fmt.Sprintf("reason %d", reason)
	}
	return names[reason]
}

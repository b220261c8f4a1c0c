package provisioning_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
)

const officeID imprint.AuthorityID = "00000000-0000-4000-8000-000000000001"

// kept is the row of a CA of the test as one of the tenant's authorities.
func (a *authority) kept(tenant imprint.Tenant) imprint.CertificateAuthority {
	return imprint.CertificateAuthority{Tenant: tenant, ID: officeID, Status: imprint.AuthorityActive, Subject: a.cert.RawSubject, Certificate: pki.EncodeCertificatePEM(a.cert.Raw),
		CertificateID: pki.CertificateID(a.cert.Raw)}
}

// waysToRevoke are what makes a certificate one that its issuer took back.
var waysToRevoke = map[string]func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error{
	"it was issued here": func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
		return tx.PutIssuance(imprint.Issuance{ID: "i", Tenant: home, Authority: officeID, Serial: pki.SerialHex(leaf.SerialNumber), CertificateID: idOf(leaf),
			RevokedAt: instant, Reason: imprint.ReasonKeyCompromise})
	},
	"it was issued here in another account": func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
		return tx.PutIssuance(imprint.Issuance{ID: "i", Tenant: another, Authority: officeID, Serial: pki.SerialHex(leaf.SerialNumber), CertificateID: idOf(leaf), RevokedAt: instant})
	},
	"it stood on a list of before": func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
		err := tx.PutAuthority(ca.kept(home))
		if err != nil {
			return err
		}
		return tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: home, Authority: officeID, Serial: pki.SerialHex(leaf.SerialNumber), RevokedAt: instant})
	},
	"its CA was revoked": func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
		row := ca.kept(home)
		row.RevokedAt = instant
		return tx.PutAuthority(row)
	},
	"the CA above its CA was revoked": func(tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
		row := ca.kept(home)
		row.Parent = "00000000-0000-4000-8000-000000000002"
		err := tx.PutAuthority(row)
		if err != nil {
			return err
		}
		return tx.PutAuthority(imprint.CertificateAuthority{Tenant: home, ID: row.Parent, Subject: []byte("root"), RevokedAt: instant})
	},
}

// TestARevokedCertificateIsNeverProvisioned, whether its template does everything, or nothing
// but to register it.
func TestARevokedCertificateIsNeverProvisioned(t *testing.T) {
	t.Parallel()
	for name, revoke := range waysToRevoke {
		for _, body := range []string{templateOf("}}", "}"), ""} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, body, provisioning.Options{})
				leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
				update(t, w.store, func(tx imprint.Tx) error { return revoke(tx, w.ca, leaf) })
				code, steps := w.connect(t, leaf)
				if code != imprint.CodeCertificateRevoked {
					t.Errorf("got code %s, want %s", code, imprint.CodeCertificateRevoked)
				}
				checkFailure(t, steps, "certificate.revoked", imprint.CodeCertificateRevoked)
				if diff := cmp.Diff(state{}, w.state(t, idOf(leaf))); diff != "" {
					t.Errorf("something is stored (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestWhatConcernsAnotherCertificateRefusesNobody: an equal serial number, a CA of the same
// name, and what another account says of a CA that it took in.
func TestWhatConcernsAnotherCertificateRefusesNobody(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(t *testing.T, tx imprint.Tx, ca *authority, leaf *x509.Certificate) error{
		"a serial number of another CA": func(t *testing.T, tx imprint.Tx, _ *authority, leaf *x509.Certificate) error {
			row := newAuthority(t, "Line 1", nil).kept(home)
			err := tx.PutAuthority(row)
			if err != nil {
				return err
			}
			return tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: home, Authority: row.ID, Serial: pki.SerialHex(leaf.SerialNumber), RevokedAt: instant})
		},
		"a revoked CA of its issuer's name": func(t *testing.T, tx imprint.Tx, _ *authority, _ *x509.Certificate) error {
			row := newAuthority(t, "Line 1", nil).kept(home)
			row.RevokedAt = instant
			return tx.PutAuthority(row)
		},
		"another account's opinion of its CA": func(_ *testing.T, tx imprint.Tx, ca *authority, leaf *x509.Certificate) error {
			row := ca.kept(another)
			row.RevokedAt = instant
			err := tx.PutAuthority(row)
			if err != nil {
				return err
			}
			return tx.PutAdoptedRevocation(imprint.AdoptedRevocation{Tenant: another, Authority: row.ID, Serial: pki.SerialHex(leaf.SerialNumber), CertificateID: idOf(leaf), RevokedAt: instant})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, templateOf("}}", "}"), provisioning.Options{})
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			update(t, w.store, func(tx imprint.Tx) error { return put(t, tx, w.ca, leaf) })
			code, steps := w.connect(t, leaf)
			if code != imprint.CodeProvisioned {
				t.Errorf("got code %s, steps %+v", code, steps)
			}
		})
	}
}

const certificateBody = `{"Parameters":{"N":{"Type":"String"},"C":{"Type":"String"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"N"}}},
"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificatePem":{"Ref":"C"}}}}}`

// TestARevokedCertificateIsNotRegisteredByCalls: RegisterThing and bulk registration, which
// register its sister.
func TestARevokedCertificateIsNotRegisteredByCalls(t *testing.T) {
	t.Parallel()
	for name, revoke := range waysToRevoke {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			ca := newAuthority(t, "Line 1", nil)
			leaf := ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			update(t, o.store, func(tx imprint.Tx) error {
				err := tx.PutCA(ca.registered(home, ""))
				if err != nil {
					return err
				}
				return revoke(tx, ca, leaf)
			})
			_, err := o.claims.RegisterThing(t.Context(), home, certificateBody, map[string]string{"N": "unit", "C": pki.EncodeCertificatePEM(leaf.Raw)})
			if imprint.CodeOf(err) != imprint.CodeRegistrationFailure || !strings.Contains(err.Error(), "revoked") {
				t.Errorf("RegisterThing: got %v", err)
			}
			if things := o.things(home); len(things) > 0 {
				t.Errorf("it left %q behind", things)
			}
		})
	}
	w := newBulkWorld(t, sqlite.Faults{})
	ca := newAuthority(t, "Line 1", nil)
	bad, good := ca.device(t, pkix.Name{CommonName: "bad"}, nil), ca.device(t, pkix.Name{CommonName: "good"}, nil)
	update(t, w.store, func(tx imprint.Tx) error {
		err := tx.PutCA(ca.registered(home, ""))
		if err != nil {
			return err
		}
		return waysToRevoke["it was issued here"](tx, ca, bad)
	})
	var lines strings.Builder
	for _, leaf := range []*x509.Certificate{bad, good} {
		line, err := json.Marshal(map[string]string{"N": leaf.Subject.CommonName, "C": pki.EncodeCertificatePEM(leaf.Raw)})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	w.write(t, lines.String())
	task := ended(t, w.store, w.start(t, certificateBody).ID)
	if task.Status != imprint.TaskCompleted || task.Succeeded != 1 || task.Failed != 1 {
		t.Errorf("bulk registration: %s, %d succeeded, %d failed; want one each", task.Status, task.Succeeded, task.Failed)
	}
	view(t, w.store, func(tx imprint.ReadTx) error {
		_, err := tx.Certificate(home, idOf(bad))
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			t.Errorf("the revoked certificate is registered: %v", err)
		}
		_, err = tx.Certificate(home, idOf(good))
		return err
	})
}

package provisioning_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
)

// Who is on an imported list of its CA is not registered at its first connection, by JITP
// and JITR, and its trace says so; a stale list warns there, or refuses.
func TestAnImportedListJudgesFirstConnections(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"JITP": templateOf(`}}`, `,"Status":"ACTIVE"}`), "JITR": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, body, provisioning.Options{})
			fine := imprint.CodeProvisioned
			if body == "" {
				fine = imprint.CodeRegisteredPending
			}
			good, bad, late := w.ca.device(t, pkix.Name{CommonName: "good"}, nil), w.ca.device(t, pkix.Name{CommonName: "bad"}, nil), w.ca.device(t, pkix.Name{CommonName: "late"}, nil)
			lists := foreign.New(foreign.Options{Store: w.store, Clock: clock, Logger: quiet()})
			take := func(number int64, ends time.Time, refuse bool, serials ...*big.Int) {
				t.Helper()
				template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: instant.Add(-time.Hour), NextUpdate: ends}
				for _, serial := range serials {
					template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: instant.Add(-time.Hour), ReasonCode: 1})
				}
				signer := *w.ca.cert
				signer.KeyUsage |= x509.KeyUsageCRLSign
				signer.SubjectKeyId = []byte{1}
				der, err := x509.CreateRevocationList(rand.Reader, template, &signer, w.ca.key)
				if err != nil {
					t.Fatal(err)
				}
				_, err = lists.Import(t.Context(), home, foreign.Request{CA: &signer, Data: der, RefuseStale: &refuse})
				if err != nil {
					t.Fatal(err)
				}
			}
			take(1, instant.Add(time.Hour), false, bad.SerialNumber)
			code, steps := w.connect(t, bad)
			checkStep(t, code, steps, imprint.CodeOnRevocationList, imprint.VerdictFailed, "keyCompromise")
			view(t, w.store, func(tx imprint.ReadTx) error {
				_, err := tx.Certificate(home, idOf(bad))
				if imprint.CodeOf(err) != imprint.CodeNotFound {
					t.Errorf("the certificate on the list: got %v, want none", err)
				}
				events, err := tx.Events(home, 10)
				if len(events) != 0 {
					t.Errorf("%d events tell of it, want none", len(events))
				}
				return err
			})
			code, steps = w.connect(t, good)
			if code != fine || strings.Contains(stepNames(steps), "certificate.crl") {
				t.Errorf("a certificate that isn't on the list: got %s with %s, want %s", code, stepNames(steps), fine)
			}
			take(2, instant.Add(-time.Minute), true, bad.SerialNumber)
			code, steps = w.connect(t, late)
			checkStep(t, code, steps, imprint.CodeRevocationListStale, imprint.VerdictFailed, "imprint ca crl import")
			take(3, instant.Add(-time.Minute), false, bad.SerialNumber)
			code, steps = w.connect(t, late)
			checkStep(t, code, steps, "", imprint.VerdictInfo, "should have been renewed")
			if code != fine || w.engine.Counters().Unsure != 1 {
				t.Errorf("with a stale list that lets newcomers in: got %s, %d unsure; want %s, 1", code, w.engine.Counters().Unsure, fine)
			}
		})
	}
}

// A CA that stands on the imported list of the CA above it lets no device in, by JITP and
// JITR, as long as it stands there; its sister of the same key that doesn't, does.
func TestAnImportedListJudgesTheCAOfAFirstConnection(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"JITP": templateOf(`}}`, `,"Status":"ACTIVE"}`), "JITR": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, body, provisioning.Options{})
			fine := imprint.CodeProvisioned
			if body == "" {
				fine = imprint.CodeRegisteredPending
			}
			root := newAuthority(t, "Root", nil)
			signer := *root.cert
			signer.KeyUsage |= x509.KeyUsageCRLSign
			signer.SubjectKeyId = []byte{1}
			below := func(serial int64, key *ecdsa.PrivateKey) *authority {
				return &authority{key: key, cert: sign(t, &x509.Certificate{
					SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "Line 7"}, IsCA: true, BasicConstraintsValid: true,
					NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
				}, root.cert, &key.PublicKey, root.key)}
			}
			line := below(7, newKey(t))
			update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(line.registered(home, body)) })
			lists := foreign.New(foreign.Options{Store: w.store, Clock: clock, Logger: quiet()})
			take := func(number int64, entries ...x509.RevocationListEntry) {
				t.Helper()
				der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: instant.Add(-time.Hour), NextUpdate: instant.Add(time.Hour),
					RevokedCertificateEntries: entries}, &signer, root.key)
				if err != nil {
					t.Fatal(err)
				}
				_, err = lists.Import(t.Context(), home, foreign.Request{CA: &signer, Data: der})
				if err != nil {
					t.Fatal(err)
				}
			}
			connect := func() (imprint.Code, []imprint.Step) {
				return w.connect(t, line.device(t, pkix.Name{CommonName: "unit"}, nil))
			}
			listed := x509.RevocationListEntry{SerialNumber: line.cert.SerialNumber, RevocationTime: instant.Add(-time.Hour), ReasonCode: imprint.ReasonOnHold}
			take(1, listed)
			code, steps := connect()
			checkStep(t, code, steps, imprint.CodeOnRevocationList, imprint.VerdictFailed, string(pki.CertificateID(line.cert.Raw)))
			take(2)
			code, steps = connect()
			if code != fine {
				t.Errorf("when its hold ended: got %s with %+v, want %s", code, steps, fine)
			}
			take(3, listed)
			update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(below(8, line.key).registered(home, body)) })
			code, steps = connect()
			if code != fine {
				t.Errorf("with its renewed certificate: got %s with %+v, want %s", code, steps, fine)
			}
		})
	}
}

func stepNames(steps []imprint.Step) string {
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func checkStep(t *testing.T, code imprint.Code, steps []imprint.Step, want imprint.Code, verdict imprint.Verdict, words string) {
	t.Helper()
	if verdict == imprint.VerdictFailed && code != want {
		t.Errorf("got code %s, want %s", code, want)
	}
	for _, s := range steps {
		if s.Name == "certificate.crl" && s.Verdict == verdict && (verdict != imprint.VerdictFailed || s.Code == want) && strings.Contains(s.Detail+s.Fix, words) {
			return
		}
	}
	t.Errorf("no step certificate.crl is %s with %s and says %q: %+v", verdict, want, words, steps)
}

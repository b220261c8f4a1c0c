package est

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// clientKind is what a client has shown itself to be.
type clientKind int

const (
	// ownClient has a certificate of the label's authority.
	ownClient clientKind = iota + 1
	// deviceClient and stationClient have one of the CAs that the label names.
	deviceClient
	stationClient
	// passwordClient has a one-time password.
	passwordClient
)

func (k clientKind) String() string {
	return map[clientKind]string{ownClient: "a certificate of the label's authority", deviceClient: "a device's certificate", stationClient: "a station's certificate", passwordClient: "a one-time password"}[k]
}

// client is who asks.
type client struct {
	kind     clientKind
	leaf     *x509.Certificate // nil for a password
	password imprint.EnrolmentPassword
}

// name is what stands in the record of what it was given.
func (c *client) name(label imprint.LabelName) string {
	if c.kind == passwordClient {
		return fmt.Sprintf("est/%s password %s", label, c.password.ID)
	}
	return fmt.Sprintf("est/%s certificate %s", label, pki.CertificateID(c.leaf.Raw))
}

// identify finds out who asks: by a password where one is sent, else by the certificate of
// the connection.
func (v *visit) identify() (*client, error) {
	id, password, given := v.r.BasicAuth()
	if given {
		return v.byPassword(id, password)
	}
	chain := v.r.TLS.PeerCertificates
	if len(chain) == 0 {
		err := imprint.Errorf(imprint.CodeEnrolmentUnproven, "the request came without a client certificate or a password")
		if !v.label.Passwords {
			err = err.WithHint("Label %s takes no passwords: show a client certificate.", v.label.Name)
		}
		return nil, err
	}
	return v.byCertificate(chain)
}

// byPassword checks a one-time password. The same is computed whether it exists or not.
func (v *visit) byPassword(id, password string) (*client, error) {
	if v.door.failures.spent(v.r.RemoteAddr) {
		return nil, imprint.Errorf(imprint.CodeEnrolmentRate, "this address sends more than %d wrong passwords a minute", v.door.opts.WrongPasswords)
	}
	var found imprint.EnrolmentPassword
	err := v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
		var err error
		found, err = tx.EnrolmentPassword(id)
		return err
	})
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return nil, err
	}
	known := err == nil && found.Label == v.label.Name && found.Tenant == v.label.Tenant
	if known {
		// Who looks for a device that was refused has the user name.
		v.rec.Describe(func(a *imprint.Attempt) { a.ClientID = imprint.ClientID(id) })
	}
	hash := sha256.Sum256([]byte(password))
	right := subtle.ConstantTimeCompare(hash[:], padded(found.Hash)) == 1
	if !known || !right || !v.label.Passwords {
		v.door.failures.allow(v.r.RemoteAddr)
		whose := "of " + strconv.Quote(id)
		if !known {
			whose = "of that user name" // which may be a password in the wrong place: it isn't to be read in the trace
		}
		return nil, imprint.Errorf(imprint.CodeEnrolmentPassword, "the password %s isn't right for label %s", whose, v.label.Name)
	}
	now := v.door.opts.Clock()
	if !now.Before(found.ExpiresAt) {
		return nil, imprint.Errorf(imprint.CodeEnrolmentPassword, "the password %s ended at %s", id, found.ExpiresAt.Format(time.RFC3339))
	}
	v.rec.OK("est.client", "one-time password %s", id)
	return &client{kind: passwordClient, password: found}, nil
}

// padded gives a hash of the length that is compared.
func padded(hash []byte) []byte {
	if len(hash) == sha256.Size {
		return hash
	}
	return make([]byte, sha256.Size)
}

// byCertificate finds the CA that a client's certificate is of, and whether it still counts.
func (v *visit) byCertificate(chain []*x509.Certificate) (*client, error) {
	leaf := chain[0]
	kind, path, err := v.verify(chain)
	if err != nil {
		return nil, err
	}
	refusal := pki.CheckKey(leaf)
	if refusal != nil {
		return nil, refusal
	}
	err = v.counts(leaf, path)
	if err != nil {
		return nil, err
	}
	v.rec.OK("est.client", "%s: subject %q", kind, pki.SubjectText(leaf.RawSubject))
	return &client{kind: kind, leaf: leaf}, nil
}

// verify builds a path to one of the CAs of the label.
func (v *visit) verify(chain []*x509.Certificate) (clientKind, []*x509.Certificate, error) {
	leaf := chain[0]
	var why error
	for _, one := range []struct {
		kind  clientKind
		pem   string
		usage x509.ExtKeyUsage
	}{
		// What the authority signed is renewed whatever it is for.
		{ownClient, v.authority.Certificate, x509.ExtKeyUsageAny},
		{deviceClient, v.label.DeviceCAs, x509.ExtKeyUsageClientAuth}, {stationClient, v.label.StationCAs, x509.ExtKeyUsageClientAuth},
	} {
		if one.pem == "" {
			continue
		}
		anchors, err := pki.ParseCertificatesPEM(one.pem)
		if err != nil {
			return 0, nil, err
		}
		path, err := pki.VerifyPath(leaf, anchors, chain[1:], v.door.opts.Clock(), one.usage)
		if err == nil {
			return one.kind, path, nil
		}
		if slices.ContainsFunc(anchors, func(anchor *x509.Certificate) bool { return leaf.CheckSignatureFrom(anchor) == nil }) {
			why = err // its CA is the right one: this is the error that tells
		}
	}
	validity := imprint.ValidityRefusal(leaf.NotBefore, leaf.NotAfter, v.door.opts.Clock())
	if why != nil && validity != nil {
		return 0, nil, validity.WithHint("Enrol the device anew, with a one-time password or its maker's certificate.")
	}
	if why != nil {
		return 0, nil, imprint.Errorf(imprint.CodeEnrolmentDenied, "the client certificate isn't valid for label %s: %w", v.label.Name, why)
	}
	return 0, nil, imprint.Errorf(imprint.CodeEnrolmentDenied, "the client certificate of %q, issued by %q, is of no CA that label %s names", pki.SubjectText(leaf.RawSubject), pki.SubjectText(leaf.RawIssuer), v.label.Name).
		WithHint("Send the chain along, or name its CA: imprint est update %s --device-ca FILE", v.label.Name)
}

// counts refuses a certificate that the registry, the record of what was issued, or an
// imported revocation list takes back, and one whose CA is taken back.
func (v *visit) counts(leaf *x509.Certificate, path []*x509.Certificate) error {
	tenant, id := v.label.Tenant, pki.CertificateID(leaf.Raw)
	return v.door.opts.Store.View(v.r.Context(), func(tx imprint.ReadTx) error {
		registered, err := tx.Certificate(tenant, id)
		switch {
		case err == nil:
			refusal := registered.Refusal(v.door.opts.Clock())
			if refusal != nil {
				return refusal
			}
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return err
		}
		for _, cert := range path {
			warning, err := revoked.Check(tx, tenant, cert, v.door.opts.Clock())
			if err != nil {
				return err
			}
			if warning != "" {
				v.rec.Info("certificate.crl", "%s", warning)
			}
		}
		return nil
	})
}

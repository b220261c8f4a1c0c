package translog

import (
	"crypto/x509"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

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
					signs, err := signedHere(tx, &authorities[i])
					if err != nil {
						return err
					}
					if !signs {
						continue // who has its key elsewhere signs there, and logs nothing here
					}
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

// signedHere says whether an authority's key is here, or was until it was deleted for good.
func signedHere(tx imprint.ReadTx, a *imprint.CertificateAuthority) (bool, error) {
	if a.Key != "" || a.Status != imprint.AuthorityDeleted {
		return a.Key != "", nil
	}
	issued, _, err := tx.IssuancesBy(a.Tenant, a.ID, imprint.Page{Limit: 1})
	return len(issued) > 0, err
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

package rollover

import (
	"bytes"
	"crypto/x509"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxMembers bounds the CA certificates of a tenant that are looked at.
const maxMembers = 20_000

// member is one CA certificate of a tenant, as an authority, as a registered CA, or both.
type member struct {
	id   imprint.CertificateID
	cert *x509.Certificate
	// authority is nil when Imprint knows it as a registered CA alone, registered when it
	// isn't registered.
	authority  *imprint.CertificateAuthority
	registered *imprint.CACertificate
	builtIn    bool
	// issuers are those that can have signed it: all certificates of the key that did.
	// A self-signed one has none.
	issuers []*member
}

// name is what people call it.
func (m *member) name() string {
	switch {
	case m.builtIn:
		return BuiltInName
	case m.authority != nil && m.authority.Name != "":
		return m.authority.Name
	}
	return pki.SubjectText(m.cert.RawSubject)
}

func (m *member) selfSigned() bool { return bytes.Equal(m.cert.RawIssuer, m.cert.RawSubject) }

// signer is a name and a key. A CA that was renewed or cross-signed is several members of
// one signer, and what that signed verifies under each.
func (m *member) signer() string {
	return string(m.cert.RawSubject) + "\x00" + string(m.cert.RawSubjectPublicKeyInfo)
}

// usable says whether a chain may go through it: it is valid and wasn't revoked.
func (m *member) usable(now time.Time) bool {
	return !now.Before(m.cert.NotBefore) && !now.After(m.cert.NotAfter) && (m.authority == nil || m.authority.RevokedAt.IsZero())
}

// graph is the CA certificates of a tenant and who signed which. It isn't changed once it
// is made.
type graph struct {
	all       []*member
	byID      map[imprint.CertificateID]*member
	bySubject map[string][]*member
	bySigner  map[string][]*member
}

// load reads a tenant's CAs.
func load(tx imprint.ReadTx, tenant imprint.Tenant, builtIn *x509.Certificate) (*graph, error) {
	g := &graph{byID: map[imprint.CertificateID]*member{}, bySubject: map[string][]*member{}, bySigner: map[string][]*member{}}
	if builtIn != nil {
		g.add(builtIn).builtIn = true
	}
	cursor := ""
	for {
		page, next, err := tx.Authorities(tenant, imprint.Page{Limit: loadPage, Cursor: cursor, Ascending: true})
		if err != nil {
			return nil, err
		}
		for _, a := range page {
			cert, err := pki.ParseCertificatePEM(a.Certificate)
			if err != nil || a.Certificate == "" {
				continue // it has no certificate yet: nothing depends on it
			}
			g.add(cert).authority = &a
		}
		cursor = next
		if cursor == "" {
			break
		}
		err = g.full()
		if err != nil {
			return nil, err
		}
	}
	for {
		page, next, err := tx.CAs(tenant, "", imprint.Page{Limit: loadPage, Cursor: cursor, Ascending: true})
		if err != nil {
			return nil, err
		}
		for _, ca := range page {
			cert, err := pki.ParseCertificatePEM(ca.PEM)
			if err != nil {
				return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read CA certificate %s of the store: %w", ca.ID, err)
			}
			g.add(cert).registered = &ca
		}
		cursor = next
		if cursor == "" {
			break
		}
		err = g.full()
		if err != nil {
			return nil, err
		}
	}
	g.link()
	return g, nil
}

const loadPage = 500

func (g *graph) full() error {
	if len(g.all) <= maxMembers {
		return nil
	}
	return imprint.Errorf(imprint.CodeLimitExceeded, "the account has more than %d CA certificates in this region", maxMembers).
		WithHint("Delete those that are over.")
}

func (g *graph) add(cert *x509.Certificate) *member {
	id := pki.CertificateID(cert.Raw)
	if m := g.byID[id]; m != nil {
		return m
	}
	m := &member{id: id, cert: cert}
	g.all = append(g.all, m)
	g.byID[id] = m
	g.bySubject[string(cert.RawSubject)] = append(g.bySubject[string(cert.RawSubject)], m)
	g.bySigner[m.signer()] = append(g.bySigner[m.signer()], m)
	return m
}

// link finds who signed whom. One signature is looked at for each key of the issuer's name.
func (g *graph) link() {
	for _, m := range g.all {
		if !m.selfSigned() {
			m.issuers = g.signersOf(m.cert)
		}
	}
}

// signersOf gives the members that can have signed a certificate, by its signature.
func (g *graph) signersOf(cert *x509.Certificate) []*member {
	tried := map[string]bool{}
	for _, m := range g.bySubject[string(cert.RawIssuer)] {
		signer := m.signer()
		if tried[signer] {
			continue
		}
		tried[signer] = true
		if m.cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			return g.bySigner[signer]
		}
	}
	return nil
}

// below gives a member and all whose chains may go through it.
func (g *graph) below(m *member) map[*member]bool {
	found := map[*member]bool{m: true}
	for grew := true; grew; {
		grew = false
		for _, c := range g.all {
			if !found[c] && anyOf(c.issuers, found) {
				found[c], grew = true, true
			}
		}
	}
	return found
}

// without gives the members that still have a chain to where their trust begins when one
// has ended: to a self-signed one, or to one whose issuer isn't known here.
func (g *graph) without(ended *member, now time.Time) map[*member]bool {
	alive := map[*member]bool{}
	for grew := true; grew; {
		grew = false
		for _, c := range g.all {
			if alive[c] || c == ended || !c.usable(now) {
				continue
			}
			if len(c.issuers) == 0 || anyOf(c.issuers, alive) {
				alive[c], grew = true, true
			}
		}
	}
	return alive
}

func anyOf(members []*member, set map[*member]bool) bool {
	for _, m := range members {
		if set[m] {
			return true
		}
	}
	return false
}

// minPrefix is the shortest beginning of a certificate's id that names a CA.
const minPrefix = 8

// find gives the member that a person names: by an authority's name, id or ARN, or by a
// certificate's id, its beginning or its ARN.
func (g *graph) find(text string) (*member, error) {
	name := text
	if at := strings.LastIndex(name, "/"); strings.HasPrefix(name, "arn:") && at >= 0 {
		name = name[at+1:]
	}
	if name == BuiltInName {
		for _, m := range g.all {
			if m.builtIn {
				return m, nil
			}
		}
	}
	var found []*member
	for _, m := range g.all {
		switch {
		case string(m.id) == name, m.authority != nil && string(m.authority.ID) == name:
			return m, nil
		case m.authority != nil && m.authority.Name == name && name != "" && m.authority.Status != imprint.AuthorityDeleted,
			len(name) >= minPrefix && strings.HasPrefix(string(m.id), strings.ToLower(name)):
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, imprint.Errorf(imprint.CodeNotFound, "no CA of this account and region that has a certificate is called %q", imprint.Excerpt(text)).
			WithHint("imprint ca list and aws iot list-ca-certificates show them: say a name, an id or the beginning of a certificate's id.")
	}
	return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q may be any of %d CAs", imprint.Excerpt(text), len(found)).WithHint("Say more of the certificate's id.")
}

package ca

import (
	"math/big"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Certificates name the list that they are on, and nobody can change that when they are in
// the field: an authority's lists follow every layout that its certificates may name, not
// only that of today. A list of several that two layouts share has what is on it by either.

const (
	// maxLayouts bounds how often the place or the division of lists can change.
	maxLayouts = 16
	// maxTenantLists bounds the lists of one tenant.
	maxTenantLists = 16_384
)

// layoutOf is the layout that certificates name from now on.
func (e *Engine) layoutOf(a *imprint.CertificateAuthority) imprint.CRLLayout {
	l := imprint.CRLLayout{Base: a.CRLs.Base, Shards: a.Revocation.CRLShards}
	if l.Shards < 2 {
		l.Shards = 0
	}
	switch {
	case a.Revocation.CRLHost != "":
		l.Base = "http://" + a.Revocation.CRLHost
	case l.Base == "":
		l.Base = e.opts.BaseURL
	}
	return l
}

// layOut brings an authority's layouts up to its configuration, before it is stored.
func (e *Engine) layOut(tx imprint.ReadTx, a *imprint.CertificateAuthority) error {
	issued, _, err := tx.IssuancesBy(a.Tenant, a.ID, imprint.Page{Limit: 1, Ascending: true})
	if err != nil {
		return err
	}
	if len(issued) == 0 {
		a.CRLs.Layouts = nil // no certificate names any
	}
	if !a.Revocation.CRL {
		return nil
	}
	if a.CRLs.Unknown && a.Key != "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "nobody said what certificate authority %s revoked before it came here: its CRL would take all of that back", called(a)).
			WithHint("Give its last CRL (--last-crl), or say that it issued nothing (--issued-nothing).")
	}
	if a.CRLs.Base == "" {
		a.CRLs.Base = e.opts.BaseURL
	}
	present := e.layoutOf(a)
	if slices.Contains(a.CRLs.Layouts, present) {
		return nil
	}
	if present.Shards > 0 && present.Base == "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "CRLs that are divided must name where they are, or each could be put in the place of another").
			WithHint("Start the server with --pki-url http://HOST, or name a host.")
	}
	if len(a.CRLs.Layouts) >= maxLayouts {
		return imprint.Errorf(imprint.CodeLimitExceeded, "the CRLs of certificate authority %s were at %d places or divided so often: certificates may name each of them", called(a), maxLayouts).
			WithHint("Go back to one of those, or make another CA.")
	}
	a.CRLs.Layouts = append(slices.Clip(a.CRLs.Layouts), present)
	if present.Shards == 0 {
		return nil
	}
	total := len(listsOf(a))
	err = each(tx, a.Tenant, func(other *imprint.CertificateAuthority) error {
		if other.ID != a.ID {
			total += len(listsOf(other))
		}
		return nil
	})
	if err == nil && total > maxTenantLists {
		err = imprint.Errorf(imprint.CodeLimitExceeded, "the tenant's certificate authorities would have %d CRLs, at most %d are allowed", total, maxTenantLists).
			WithHint("Divide into fewer: an entry takes some 30 bytes, so that 64 lists do for millions.")
	}
	return err
}

// listsOf gives the numbers of the lists that an authority signs.
func listsOf(a *imprint.CertificateAuthority) []int {
	if a.Certificate == "" || a.Key == "" {
		return nil
	}
	var all []int
	most := 0
	for _, l := range a.CRLs.Layouts {
		if l.Shards < 2 {
			all = []int{imprint.WholeList}
		}
		most = max(most, l.Shards)
	}
	for shard := range most {
		all = append(all, shard)
	}
	return all
}

// listsWith gives the numbers of the lists that a serial number is on.
func listsWith(a *imprint.CertificateAuthority, serial string) ([]int, error) {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return nil, imprint.Errorf(imprint.CodeInternal, "the record of issuances has the serial number %q", imprint.Excerpt(serial))
	}
	var on []int
	for _, l := range a.CRLs.Layouts {
		shard := imprint.WholeList
		if l.Shards > 1 {
			shard = pki.Points{CRLShards: l.Shards}.Shard(n)
		}
		if !slices.Contains(on, shard) {
			on = append(on, shard)
		}
	}
	return on, nil
}

// urlsOf gives the URLs of one of several lists, as certificates name it.
func urlsOf(a *imprint.CertificateAuthority, shard int) []string {
	var urls []string
	for _, l := range a.CRLs.Layouts {
		if l.Base == "" || shard >= l.Shards {
			continue
		}
		url := pki.Points{CRL: crlURL(a, l), CRLShards: l.Shards}.ListURL(shard)
		if !slices.Contains(urls, url) {
			urls = append(urls, url)
		}
	}
	return urls
}

// crlURL gives the URL of a layout's list, or where its lists begin.
func crlURL(a *imprint.CertificateAuthority, l imprint.CRLLayout) string {
	url := l.Base + "/crl/" + pathOf(a)
	if l.Shards > 1 {
		return url + "/"
	}
	return url + ".crl"
}

func pathOf(a *imprint.CertificateAuthority) string {
	return string(a.Tenant.Account) + "/" + string(a.Tenant.Region) + "/" + string(a.ID)
}

// each calls fn with every authority of a tenant, those too that are gone but for their row.
func each(tx imprint.ReadTx, tenant imprint.Tenant, fn func(*imprint.CertificateAuthority) error) error {
	cursor := ""
	for {
		all, next, err := tx.Authorities(tenant, imprint.Page{Limit: MaxAuthorities, Cursor: cursor, Ascending: true})
		if err != nil {
			return err
		}
		for n := range all {
			err = fn(&all[n])
			if err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		cursor = next
	}
}

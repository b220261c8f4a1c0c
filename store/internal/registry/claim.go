package registry

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	pendingColumns  = "tenant, certificate_id, claim, client_id, token_hash, created_at, expires_at, used"
	claimColumns    = "tenant, certificate_id, template, requested_by, created_at, expires_at, device, thing, devices"
	providerColumns = "tenant, name, function_arn, operations, created_at, modified_at"
	guardColumns    = "tenant, claim, quota, not_before, not_after, networks, serial_parameter, serial_reuse, max_requests, " +
		"max_refusals, time_window, devices, serials, stopped_at, stop_code, stop_reason, created_at, modified_at"
)

var (
	putPending      = upsert("pending_certificates", 2, strings.Split(pendingColumns, ", ")...)
	putClaim        = upsert("provisioning_claims", 2, strings.Split(claimColumns, ", ")...)
	putProvider     = upsert("certificate_providers", 2, strings.Split(providerColumns, ", ")...)
	putGuard        = upsert("claim_guards", 2, strings.Split(guardColumns, ", ")...)
	putSerial       = upsert("claim_serials", 3, "tenant", "claim", "serial", "device")
	addSerial       = "INSERT INTO claim_serials (tenant, claim, serial, device) VALUES ($1, $2, $3, '') ON CONFLICT (tenant, claim, serial) DO NOTHING"
	deleteSerials   = "DELETE FROM claim_serials WHERE tenant = $1 AND claim = $2 AND serial IN (SELECT serial FROM claim_serials WHERE tenant = $1 AND claim = $2 ORDER BY serial LIMIT $3)"
	claimGuardsList = newList("Qs", guardColumns, "claim_guards WHERE tenant = $1", 1, []string{"claim"}, scanGuard,
		func(g *imprint.ClaimGuard) []any { return []any{string(g.Claim)} })
)

func scanPending(t *Tx, r Rows, p *imprint.PendingCertificate) error {
	var tenant string
	var created, expires, used int64
	err := r.Scan(&tenant, (*string)(&p.Certificate), (*string)(&p.Claim), (*string)(&p.ClientID), &p.TokenHash, &created, &expires, &used)
	p.Tenant = t.readTenant(tenant)
	p.CreatedAt, p.ExpiresAt, p.Used = readTime(created), readTime(expires), used != 0
	return err
}

func scanClaim(t *Tx, r Rows, c *imprint.ProvisioningClaim) error {
	var tenant string
	var created, expires int64
	err := r.Scan(&tenant, (*string)(&c.Certificate), (*string)(&c.Template), &c.RequestedBy, &created, &expires,
		(*string)(&c.Device), (*string)(&c.Thing), &c.Devices)
	c.Tenant = t.readTenant(tenant)
	c.CreatedAt, c.ExpiresAt = readTime(created), readTime(expires)
	return err
}

func scanProvider(t *Tx, r Rows, p *imprint.CertificateProvider) error {
	var tenant, operations string
	var created, modified int64
	err := r.Scan(&tenant, &p.Name, &p.FunctionARN, &operations, &created, &modified)
	p.Tenant = t.readTenant(tenant)
	p.Operations = strings.Fields(operations)
	p.CreatedAt, p.ModifiedAt = readTime(created), readTime(modified)
	return err
}

func scanGuard(t *Tx, r Rows, g *imprint.ClaimGuard) error {
	var tenant, networks string
	var notBefore, notAfter, reuse, window, stopped, created, modified int64
	err := r.Scan(&tenant, (*string)(&g.Claim), &g.Quota, &notBefore, &notAfter, &networks, &g.SerialParameter, &reuse,
		&g.MaxRequests, &g.MaxRefusals, &window, &g.Devices, &g.Serials, &stopped, (*string)(&g.StopCode), &g.StopReason, &created, &modified)
	if err != nil {
		return err
	}
	g.Tenant = t.readTenant(tenant)
	g.NotBefore, g.NotAfter, g.StoppedAt = readTime(notBefore), readTime(notAfter), readTime(stopped)
	g.CreatedAt, g.ModifiedAt = readTime(created), readTime(modified)
	g.SerialReuse, g.Window = reuse != 0, duration(window)
	for _, text := range strings.Fields(networks) {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("couldn't read the networks of claim %s: %w", g.Claim, err)
		}
		g.Networks = append(g.Networks, network)
	}
	return nil
}

func scanSerial(t *Tx, r Rows, s *imprint.ClaimSerial) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&s.Claim), &s.Serial, (*string)(&s.Device))
	s.Tenant = t.readTenant(tenant)
	return err
}

// PendingCertificate implements imprint.ClaimReader.
func (t *Tx) PendingCertificate(tenant imprint.Tenant, id imprint.CertificateID) (imprint.PendingCertificate, error) {
	p, found, err := first(t, scanPending,
		"SELECT "+pendingColumns+" FROM pending_certificates WHERE tenant = $1 AND certificate_id = $2", t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s waits for no registration in %s", id, tenant)
	}
	return p, err
}

// PendingCertificatesDue implements imprint.ClaimReader.
func (t *Tx) PendingCertificatesDue(before time.Time, limit int) ([]imprint.PendingCertificate, error) {
	return some(t, limit, scanPending,
		"SELECT "+pendingColumns+" FROM pending_certificates WHERE expires_at < $1 ORDER BY expires_at LIMIT $2", millis(before))
}

// PutPendingCertificate implements imprint.ClaimWriter.
func (t *Tx) PutPendingCertificate(p imprint.PendingCertificate) error {
	_, err := t.exec(putPending, t.in(p.Tenant), string(p.Certificate), string(p.Claim), string(p.ClientID), p.TokenHash,
		millis(p.CreatedAt), millis(p.ExpiresAt), flag(p.Used))
	return err
}

// DeletePendingCertificate implements imprint.ClaimWriter.
func (t *Tx) DeletePendingCertificate(tenant imprint.Tenant, id imprint.CertificateID) error {
	_, err := t.exec("DELETE FROM pending_certificates WHERE tenant = $1 AND certificate_id = $2", t.in(tenant), string(id))
	return err
}

// ProvisioningClaim implements imprint.ClaimReader.
func (t *Tx) ProvisioningClaim(tenant imprint.Tenant, id imprint.CertificateID) (imprint.ProvisioningClaim, error) {
	c, found, err := first(t, scanClaim,
		"SELECT "+claimColumns+" FROM provisioning_claims WHERE tenant = $1 AND certificate_id = $2", t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s is no provisioning claim in %s", id, tenant)
	}
	return c, err
}

// ProvisioningClaimsDue implements imprint.ClaimReader.
func (t *Tx) ProvisioningClaimsDue(before time.Time, limit int) ([]imprint.ProvisioningClaim, error) {
	return some(t, limit, scanClaim,
		"SELECT "+claimColumns+" FROM provisioning_claims WHERE expires_at < $1 ORDER BY expires_at LIMIT $2", millis(before))
}

// PutProvisioningClaim implements imprint.ClaimWriter.
func (t *Tx) PutProvisioningClaim(c imprint.ProvisioningClaim) error {
	_, err := t.exec(putClaim, t.in(c.Tenant), string(c.Certificate), string(c.Template), c.RequestedBy,
		millis(c.CreatedAt), millis(c.ExpiresAt), string(c.Device), string(c.Thing), int64(c.Devices))
	return err
}

// DeleteProvisioningClaim implements imprint.ClaimWriter.
func (t *Tx) DeleteProvisioningClaim(tenant imprint.Tenant, id imprint.CertificateID) error {
	return t.remove(imprint.ChangeCertificate, tenant, string(id),
		"DELETE FROM provisioning_claims WHERE tenant = $1 AND certificate_id = $2", t.in(tenant), string(id))
}

// CertificateProviders implements imprint.ClaimReader.
func (t *Tx) CertificateProviders(tenant imprint.Tenant) ([]imprint.CertificateProvider, error) {
	return all(t, scanProvider,
		"SELECT "+providerColumns+" FROM certificate_providers WHERE tenant = $1 ORDER BY name LIMIT $2", t.in(tenant), int64(maxPlain))
}

// PutCertificateProvider implements imprint.ClaimWriter.
func (t *Tx) PutCertificateProvider(p imprint.CertificateProvider) error {
	_, err := t.exec(putProvider, t.in(p.Tenant), p.Name, p.FunctionARN, strings.Join(p.Operations, " "),
		millis(p.CreatedAt), millis(p.ModifiedAt))
	if err == nil {
		t.changed(imprint.ChangeProvider, p.Tenant, p.Name)
	}
	return err
}

// DeleteCertificateProvider implements imprint.ClaimWriter.
func (t *Tx) DeleteCertificateProvider(tenant imprint.Tenant, name string) error {
	return t.remove(imprint.ChangeProvider, tenant, name,
		"DELETE FROM certificate_providers WHERE tenant = $1 AND name = $2", t.in(tenant), name)
}

// ClaimGuard implements imprint.ClaimReader.
func (t *Tx) ClaimGuard(tenant imprint.Tenant, claim imprint.CertificateID) (imprint.ClaimGuard, error) {
	g, found, err := first(t, scanGuard,
		"SELECT "+guardColumns+" FROM claim_guards WHERE tenant = $1 AND claim = $2", t.in(tenant), string(claim))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s has no claim guard in %s", claim, tenant)
	}
	return g, err
}

// ClaimGuards implements imprint.ClaimReader.
func (t *Tx) ClaimGuards(tenant imprint.Tenant, p imprint.Page) ([]imprint.ClaimGuard, string, error) {
	return claimGuardsList.page(t, p, nil, t.in(tenant))
}

// PutClaimGuard implements imprint.ClaimWriter.
func (t *Tx) PutClaimGuard(g imprint.ClaimGuard) error {
	networks := make([]string, len(g.Networks))
	for n, network := range g.Networks {
		networks[n] = network.String()
	}
	_, err := t.exec(putGuard, t.in(g.Tenant), string(g.Claim), int64(g.Quota), millis(g.NotBefore), millis(g.NotAfter),
		strings.Join(networks, " "), g.SerialParameter, flag(g.SerialReuse), int64(g.MaxRequests), int64(g.MaxRefusals),
		g.Window.Milliseconds(), int64(g.Devices), int64(g.Serials), millis(g.StoppedAt), string(g.StopCode), g.StopReason,
		millis(g.CreatedAt), millis(g.ModifiedAt))
	if err == nil {
		t.changed(imprint.ChangeClaimGuard, g.Tenant, string(g.Claim))
	}
	return err
}

// DeleteClaimGuard implements imprint.ClaimWriter.
func (t *Tx) DeleteClaimGuard(tenant imprint.Tenant, claim imprint.CertificateID) error {
	return t.remove(imprint.ChangeClaimGuard, tenant, string(claim),
		"DELETE FROM claim_guards WHERE tenant = $1 AND claim = $2", t.in(tenant), string(claim))
}

// ClaimSerial implements imprint.ClaimReader.
func (t *Tx) ClaimSerial(tenant imprint.Tenant, claim imprint.CertificateID, serial string) (imprint.ClaimSerial, error) {
	s, found, err := first(t, scanSerial,
		"SELECT tenant, claim, serial, device FROM claim_serials WHERE tenant = $1 AND claim = $2 AND serial = $3",
		t.in(tenant), string(claim), serial)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "serial %q isn't in the allow list of claim %s", imprint.Excerpt(serial), claim)
	}
	return s, err
}

// PutClaimSerial implements imprint.ClaimWriter.
func (t *Tx) PutClaimSerial(s imprint.ClaimSerial) error {
	_, err := t.exec(putSerial, t.in(s.Tenant), string(s.Claim), s.Serial, string(s.Device))
	return err
}

// AddClaimSerials implements imprint.ClaimWriter.
func (t *Tx) AddClaimSerials(tenant imprint.Tenant, claim imprint.CertificateID, serials []string) (int, error) {
	added := 0
	for _, serial := range serials {
		n, err := t.exec(addSerial, t.in(tenant), string(claim), serial)
		if err != nil {
			return added, err
		}
		added += int(n)
	}
	return added, nil
}

// DeleteClaimSerials implements imprint.ClaimWriter.
func (t *Tx) DeleteClaimSerials(tenant imprint.Tenant, claim imprint.CertificateID, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	n, err := t.exec(deleteSerials, t.in(tenant), string(claim), int64(min(limit, maxPage)))
	return int(n), err
}

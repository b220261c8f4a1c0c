package registry

import (
	"fmt"

	"github.com/imprint-iot/imprint"
)

const (
	settingsColumns  = "tenant, endpoint_prefix, registration_code, created_at"
	accessKeyColumns = "id, account, user_name, secret, created_at"
)

var (
	putSettings  = upsert("tenant_settings", 1, "tenant", "endpoint_prefix", "registration_code", "created_at")
	putAccessKey = upsert("access_keys", 1, "id", "account", "user_name", "secret", "created_at")
)

func scanSettings(t *Tx, r Rows, s *imprint.TenantSettings) error {
	var tenant string
	var created int64
	err := r.Scan(&tenant, &s.EndpointPrefix, &s.RegistrationCode, &created)
	s.Tenant = t.readTenant(tenant)
	s.CreatedAt = readTime(created)
	return err
}

func scanAccessKey(t *Tx, r Rows, k *imprint.AccessKey) error {
	var sealed []byte
	var created int64
	err := r.Scan(&k.ID, (*string)(&k.Account), &k.User, &sealed, &created)
	if err != nil {
		return err
	}
	k.CreatedAt = readTime(created)
	secret, err := t.sealer.Open(sealed, accessKeyContext(k.ID))
	if err != nil {
		return fmt.Errorf("couldn't open the secret of access key %s: %w", k.ID, err)
	}
	k.Secret = string(secret)
	return nil
}

// accessKeyContext binds a sealed secret to its row.
func accessKeyContext(id string) []byte { return []byte("accesskey:" + id) }

// TenantSettings implements imprint.SettingsReader.
func (t *Tx) TenantSettings(tenant imprint.Tenant) (imprint.TenantSettings, error) {
	s, found, err := first(t, scanSettings,
		"SELECT "+settingsColumns+" FROM tenant_settings WHERE tenant = $1", t.in(tenant))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "tenant %s doesn't exist", tenant)
	}
	return s, err
}

// TenantByPrefix implements imprint.SettingsReader. The empty prefix finds
// nothing.
func (t *Tx) TenantByPrefix(endpointPrefix string) (imprint.TenantSettings, error) {
	s, found, err := first(t, scanSettings,
		"SELECT "+settingsColumns+" FROM tenant_settings WHERE endpoint_prefix = $1 AND endpoint_prefix <> ''", endpointPrefix)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no tenant has the endpoint prefix %q", endpointPrefix)
	}
	return s, err
}

// TenantList implements imprint.SettingsReader.
func (t *Tx) TenantList(after imprint.Tenant, limit int) ([]imprint.TenantSettings, error) {
	// The zero tenant is "/", which comes before every digit of an account.
	return all(t, scanSettings, "SELECT "+settingsColumns+" FROM tenant_settings WHERE tenant > $1 ORDER BY tenant LIMIT $2",
		t.in(after), int64(min(limit, maxPage)))
}

// AccessKey implements imprint.SettingsReader.
func (t *Tx) AccessKey(id string) (imprint.AccessKey, error) {
	k, found, err := first(t, scanAccessKey, "SELECT "+accessKeyColumns+" FROM access_keys WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "access key %q doesn't exist", id)
	}
	return k, err
}

// AccessKeys implements imprint.SettingsReader, by id: at most 10,000.
func (t *Tx) AccessKeys(account imprint.AccountID) ([]imprint.AccessKey, error) {
	return all(t, scanAccessKey, "SELECT "+accessKeyColumns+" FROM access_keys WHERE account = $1 ORDER BY id LIMIT $2",
		string(account), int64(maxPage))
}

// PutTenantSettings implements imprint.SettingsWriter. The change's key is
// empty: a tenant has one. No two tenants can have one endpoint prefix.
func (t *Tx) PutTenantSettings(s imprint.TenantSettings) error {
	_, err := t.exec(putSettings, t.in(s.Tenant), s.EndpointPrefix, s.RegistrationCode, millis(s.CreatedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeSettings, s.Tenant, "")
	return nil
}

// PutAccessKey implements imprint.SettingsWriter. The change's tenant has an
// account and no region.
func (t *Tx) PutAccessKey(k imprint.AccessKey) error {
	sealed, err := t.sealer.Seal([]byte(k.Secret), accessKeyContext(k.ID))
	if err != nil {
		return fmt.Errorf("couldn't seal the secret of access key %s: %w", k.ID, err)
	}
	_, err = t.exec(putAccessKey, k.ID, string(k.Account), k.User, sealed, millis(k.CreatedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeAccessKey, imprint.Tenant{Account: k.Account}, k.ID)
	return nil
}

// DeleteAccessKey implements imprint.SettingsWriter.
func (t *Tx) DeleteAccessKey(id string) error {
	account, found, err := first(t, func(_ *Tx, r Rows, a *string) error { return r.Scan(a) },
		"SELECT account FROM access_keys WHERE id = $1", id)
	if err != nil || !found {
		return err
	}
	return t.remove(imprint.ChangeAccessKey, imprint.Tenant{Account: imprint.AccountID(account)}, id,
		"DELETE FROM access_keys WHERE id = $1", id)
}

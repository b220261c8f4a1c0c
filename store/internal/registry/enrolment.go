package registry

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	labelColumns    = "name, tenant, authority, profile, settings, created_at, changed_at"
	passwordColumns = "id, tenant, label, hash, subject, created_at, expires_at, used_at, authority, serial"
)

var (
	putLabel    = upsert("enrolment_labels", 1, "name", "tenant", "authority", "profile", "settings", "created_at", "changed_at")
	keepName    = upsert("enrolment_label_names", 1, "name", "account", "kept_until")
	putPassword = upsert("enrolment_passwords", 1, "id", "tenant", "label", "hash", "subject", "created_at", "expires_at", "used_at", "authority", "serial")

	labels = newList("Xs", labelColumns, "enrolment_labels WHERE tenant = $1", 1, []string{"name"}, scanLabel,
		func(l *imprint.EnrolmentLabel) []any { return []any{string(l.Name)} })
	passwords = newList("Ys", passwordColumns, "enrolment_passwords WHERE tenant = $1 AND label = $2", 2, []string{"id"}, scanPassword,
		func(p *imprint.EnrolmentPassword) []any { return []any{p.ID} })
)

// labelSettings is the column of a label that nothing is looked up by.
type labelSettings struct {
	DeviceCAs  string `json:"deviceCAs,omitempty"`
	StationCAs string `json:"stationCAs,omitempty"`
	Passwords  bool   `json:"passwords,omitempty"`
	ServerKeys bool   `json:"serverKeys,omitempty"`
	Binding    bool   `json:"binding,omitempty"`
	Window     string `json:"window,omitempty"`
}

func scanLabel(t *Tx, r Rows, l *imprint.EnrolmentLabel) error {
	var tenant, text string
	var created, changed int64
	err := r.Scan((*string)(&l.Name), &tenant, (*string)(&l.Authority), &l.Profile, &text, &created, &changed)
	if err != nil {
		return err
	}
	var s labelSettings
	err = json.Unmarshal([]byte(text), &s)
	if err != nil {
		return fmt.Errorf("couldn't read label %s: %w", l.Name, err)
	}
	l.Window, err = imprint.ParseRenewalWindow(s.Window)
	if err != nil {
		return fmt.Errorf("couldn't read label %s: %w", l.Name, err)
	}
	l.Tenant, l.CreatedAt, l.ChangedAt = t.readTenant(tenant), readTime(created), readTime(changed)
	l.DeviceCAs, l.StationCAs, l.Passwords, l.ServerKeys, l.Binding = s.DeviceCAs, s.StationCAs, s.Passwords, s.ServerKeys, s.Binding
	return nil
}

func scanPassword(t *Tx, r Rows, p *imprint.EnrolmentPassword) error {
	var tenant string
	var created, expires, used int64
	err := r.Scan(&p.ID, &tenant, (*string)(&p.Label), &p.Hash, &p.Subject, &created, &expires, &used, (*string)(&p.Authority), &p.Serial)
	p.Tenant = t.readTenant(tenant)
	p.CreatedAt, p.ExpiresAt, p.UsedAt = readTime(created), readTime(expires), readTime(used)
	if len(p.Hash) == 0 {
		p.Hash = nil
	}
	return err
}

// EnrolmentLabel implements imprint.EnrolmentReader.
func (t *Tx) EnrolmentLabel(name imprint.LabelName) (imprint.EnrolmentLabel, error) {
	l, found, err := first(t, scanLabel, "SELECT "+labelColumns+" FROM enrolment_labels WHERE name = $1", string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "enrolment label %q doesn't exist", imprint.Excerpt(string(name))).WithHint("imprint est list shows those that do.")
	}
	return l, err
}

// EnrolmentLabels implements imprint.EnrolmentReader.
func (t *Tx) EnrolmentLabels(tenant imprint.Tenant, p imprint.Page) ([]imprint.EnrolmentLabel, string, error) {
	return labels.page(t, p, nil, t.in(tenant))
}

// LabelNameKept implements imprint.EnrolmentReader.
func (t *Tx) LabelNameKept(name imprint.LabelName, at time.Time) (imprint.AccountID, error) {
	account, _, err := first(t, func(_ *Tx, r Rows, a *imprint.AccountID) error { return r.Scan((*string)(a)) },
		"SELECT account FROM enrolment_label_names WHERE name = $1 AND kept_until > $2", string(name), millis(at))
	return account, err
}

// KeepLabelName implements imprint.EnrolmentWriter.
func (t *Tx) KeepLabelName(name imprint.LabelName, account imprint.AccountID, until time.Time, most int) error {
	_, err := t.exec(keepName, string(name), string(account), millis(until))
	if err != nil {
		return err
	}
	_, err = t.exec("DELETE FROM enrolment_label_names WHERE name IN (SELECT name FROM enrolment_label_names WHERE account = $1 ORDER BY kept_until DESC LIMIT 100 OFFSET $2)",
		string(account), int64(most))
	return err
}

// EnrolmentPassword implements imprint.EnrolmentReader.
func (t *Tx) EnrolmentPassword(id string) (imprint.EnrolmentPassword, error) {
	p, found, err := first(t, scanPassword, "SELECT "+passwordColumns+" FROM enrolment_passwords WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no one-time password has the name %q", imprint.Excerpt(id))
	}
	return p, err
}

// EnrolmentPasswords implements imprint.EnrolmentReader.
func (t *Tx) EnrolmentPasswords(tenant imprint.Tenant, label imprint.LabelName, p imprint.Page) ([]imprint.EnrolmentPassword, string, error) {
	return passwords.page(t, p, nil, t.in(tenant), string(label))
}

// PutEnrolmentLabel implements imprint.EnrolmentWriter.
func (t *Tx) PutEnrolmentLabel(l imprint.EnrolmentLabel) error {
	text, err := json.Marshal(labelSettings{l.DeviceCAs, l.StationCAs, l.Passwords, l.ServerKeys, l.Binding, l.Window.String()})
	if err != nil {
		return fmt.Errorf("couldn't encode label %s: %w", l.Name, err)
	}
	_, err = t.exec(putLabel, string(l.Name), t.in(l.Tenant), string(l.Authority), l.Profile, string(text), millis(l.CreatedAt), millis(l.ChangedAt))
	return err
}

// DeleteEnrolmentLabel implements imprint.EnrolmentWriter.
func (t *Tx) DeleteEnrolmentLabel(tenant imprint.Tenant, name imprint.LabelName) error {
	_, err := t.exec("DELETE FROM enrolment_passwords WHERE tenant = $1 AND label = $2", t.in(tenant), string(name))
	if err != nil {
		return err
	}
	_, err = t.exec("DELETE FROM enrolment_labels WHERE name = $1 AND tenant = $2", string(name), t.in(tenant))
	return err
}

// PutEnrolmentPassword implements imprint.EnrolmentWriter.
func (t *Tx) PutEnrolmentPassword(p imprint.EnrolmentPassword) error {
	_, err := t.exec(putPassword, p.ID, t.in(p.Tenant), string(p.Label), blob(p.Hash), p.Subject, millis(p.CreatedAt), millis(p.ExpiresAt), millis(p.UsedAt),
		string(p.Authority), p.Serial)
	return err
}

// DeleteEnrolmentPassword implements imprint.EnrolmentWriter.
func (t *Tx) DeleteEnrolmentPassword(id string) error {
	_, err := t.exec("DELETE FROM enrolment_passwords WHERE id = $1", id)
	return err
}

// TrimEnrolmentPasswords implements imprint.EnrolmentWriter.
func (t *Tx) TrimEnrolmentPasswords(before time.Time, limit int) (int, error) {
	n, err := t.exec("DELETE FROM enrolment_passwords WHERE id IN (SELECT id FROM enrolment_passwords WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2)",
		millis(before), int64(limit))
	return int(n), err
}

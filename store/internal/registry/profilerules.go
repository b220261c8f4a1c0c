package registry

import "github.com/imprint-iot/imprint"

var putProfileRules = upsert("profile_rules", 2, "name", "from_at", "rules")

// ProfileRules implements imprint.ProfileRulesReader.
func (t *Tx) ProfileRules() ([]imprint.ProfileRules, error) {
	return all(t, func(_ *Tx, r Rows, p *imprint.ProfileRules) error {
		var from int64
		err := r.Scan(&p.Name, &from, &p.Rules)
		p.From = readTime(from)
		return err
	}, "SELECT name, from_at, rules FROM profile_rules ORDER BY name, from_at")
}

// PutProfileRules implements imprint.ProfileRulesWriter.
func (t *Tx) PutProfileRules(p imprint.ProfileRules) error {
	_, err := t.exec(putProfileRules, p.Name, millis(p.From), p.Rules)
	return err
}

package registry

import (
	"strings"

	"github.com/imprint-iot/imprint"
)

var putEventConfigurations = upsert("event_configurations", 1, "tenant", "enabled", "created_at", "modified_at")

func scanEventConfigurations(t *Tx, r Rows, c *imprint.EventConfigurations) error {
	var tenant, enabled string
	var created, modified int64
	err := r.Scan(&tenant, &enabled, &created, &modified)
	c.Tenant = t.readTenant(tenant)
	c.CreatedAt, c.ModifiedAt = readTime(created), readTime(modified)
	if enabled == "" {
		return err
	}
	for one := range strings.SplitSeq(enabled, ",") {
		c.Enabled = append(c.Enabled, imprint.EventType(one))
	}
	return err
}

// EventConfigurations implements imprint.EventConfigurationReader.
func (t *Tx) EventConfigurations(tenant imprint.Tenant) (imprint.EventConfigurations, error) {
	c, found, err := first(t, scanEventConfigurations,
		"SELECT tenant, enabled, created_at, modified_at FROM event_configurations WHERE tenant = $1", t.in(tenant))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "tenant %s has no event configurations", tenant)
	}
	return c, err
}

// PutEventConfigurations implements imprint.EventConfigurationWriter.
func (t *Tx) PutEventConfigurations(c imprint.EventConfigurations) error {
	enabled := make([]string, 0, len(c.Enabled))
	for _, one := range c.Enabled {
		enabled = append(enabled, string(one))
	}
	_, err := t.exec(putEventConfigurations, t.in(c.Tenant), strings.Join(enabled, ","), millis(c.CreatedAt), millis(c.ModifiedAt))
	return err
}

package registry

import (
	"encoding/json"
	"fmt"

	"github.com/imprint-iot/imprint"
)

const typeColumns = "tenant, name, type_id, description, searchable_attributes, propagating_attributes, " +
	"deprecated_at, created_at, modified_at"

var (
	putThingType = upsert("thing_types", 2, "tenant", "name", "type_id", "description", "searchable_attributes",
		"propagating_attributes", "deprecated_at", "created_at", "modified_at")

	thingTypes = newList("as", typeColumns, "thing_types WHERE tenant = $1", 1, []string{"name"}, scanThingType,
		func(t *imprint.ThingType) []any { return []any{string(t.Name)} })
)

func scanThingType(t *Tx, r Rows, one *imprint.ThingType) error {
	var tenant, searchable, propagating string
	var deprecated, created, modified int64
	err := r.Scan(&tenant, (*string)(&one.Name), &one.ID, &one.Description, &searchable, &propagating,
		&deprecated, &created, &modified)
	if err != nil {
		return err
	}
	one.Tenant = t.readTenant(tenant)
	one.DeprecatedAt, one.CreatedAt, one.ModifiedAt = readTime(deprecated), readTime(created), readTime(modified)
	one.SearchableAttributes, err = readItems[string](searchable)
	if err != nil {
		return fmt.Errorf("couldn't read the searchable attributes of thing type %s: %w", one.Name, err)
	}
	one.PropagatingAttributes, err = readItems[imprint.PropagatingAttribute](propagating)
	if err != nil {
		return fmt.Errorf("couldn't read the propagating attributes of thing type %s: %w", one.Name, err)
	}
	return nil
}

// writeItems gives the text of a list, empty for none; readItems is its inverse.
func writeItems[T any](items []T) (string, error) {
	if len(items) == 0 {
		return "", nil
	}
	text, err := json.Marshal(items)
	return string(text), err
}

func readItems[T any](text string) ([]T, error) {
	if text == "" {
		return nil, nil
	}
	var items []T
	err := json.Unmarshal([]byte(text), &items)
	return items, err
}

// ThingType implements imprint.ThingTypeReader.
func (t *Tx) ThingType(tenant imprint.Tenant, name imprint.ThingTypeName) (imprint.ThingType, error) {
	one, found, err := first(t, scanThingType, "SELECT "+typeColumns+" FROM thing_types WHERE tenant = $1 AND name = $2",
		t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "thing type %s doesn't exist in %s", name, tenant)
	}
	return one, err
}

// ThingTypes implements imprint.ThingTypeReader.
func (t *Tx) ThingTypes(tenant imprint.Tenant, p imprint.Page) ([]imprint.ThingType, string, error) {
	return thingTypes.page(t, p, nil, t.in(tenant))
}

// PutThingType implements imprint.ThingTypeWriter.
func (t *Tx) PutThingType(one imprint.ThingType) error {
	searchable, err := writeItems(one.SearchableAttributes)
	if err != nil {
		return fmt.Errorf("couldn't encode the searchable attributes of thing type %s: %w", one.Name, err)
	}
	propagating, err := writeItems(one.PropagatingAttributes)
	if err != nil {
		return fmt.Errorf("couldn't encode the propagating attributes of thing type %s: %w", one.Name, err)
	}
	_, err = t.exec(putThingType, t.in(one.Tenant), string(one.Name), one.ID, one.Description, searchable, propagating,
		millis(one.DeprecatedAt), millis(one.CreatedAt), millis(one.ModifiedAt))
	return err
}

// DeleteThingType implements imprint.ThingTypeWriter.
func (t *Tx) DeleteThingType(tenant imprint.Tenant, name imprint.ThingTypeName) error {
	_, err := t.exec("DELETE FROM thing_types WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	return err
}

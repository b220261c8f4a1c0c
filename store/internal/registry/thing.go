package registry

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
)

const (
	thingColumns = "tenant, name, thing_id, type_name, billing_group, attributes, version, created_at, modified_at"
	allThings    = "things WHERE tenant = $1"
	typedThings  = "things WHERE tenant = $1 AND type_name = $2 AND type_name <> ''"
)

var (
	putThing = upsert("things", 2, "tenant", "name", "thing_id", "type_name", "billing_group", "attributes", "version",
		"created_at", "modified_at")
	putThingAttachment = upsert("thing_principals", 3, "tenant", "thing", "certificate_id", "exclusive")

	things       = newList("Es", thingColumns, allThings, 1, []string{"name"}, scanThing, thingKey)
	thingsOfType = newList("Es", thingColumns, typedThings, 2, []string{"name"}, scanThing, thingKey)

	// The condition on the attributes' text narrows the search inside the
	// database; which things really match is decided on the decoded attributes.
	thingsLike       = slowly(newList("Es", thingColumns, allThings+likeAttribute(2), 2, []string{"name"}, scanThing, thingKey))
	thingsOfTypeLike = slowly(newList("Es", thingColumns, typedThings+likeAttribute(3), 3, []string{"name"}, scanThing, thingKey))

	thingPrincipals = newList("Fs", "tenant, thing, certificate_id, exclusive", "thing_principals WHERE tenant = $1 AND thing = $2", 2,
		[]string{"certificate_id"}, scanThingAttachment,
		func(a *imprint.ThingAttachment) []any { return []any{string(a.Certificate)} })
	certificateThings = newList("Gs", "tenant, thing, certificate_id, exclusive", "thing_principals WHERE tenant = $1 AND certificate_id = $2", 2,
		[]string{"thing"}, scanThingAttachment,
		func(a *imprint.ThingAttachment) []any { return []any{string(a.Thing)} })
)

func likeAttribute(arg int) string {
	return fmt.Sprintf(` AND attributes LIKE $%d ESCAPE '\'`, arg)
}

func slowly[T any](l *list[T]) *list[T] {
	l.slow = true
	return l
}

func thingKey(t *imprint.Thing) []any { return []any{string(t.Name)} }

func scanThing(t *Tx, r Rows, thing *imprint.Thing) error {
	var tenant, attributes string
	var created, modified int64
	err := r.Scan(&tenant, (*string)(&thing.Name), &thing.ID, (*string)(&thing.TypeName), (*string)(&thing.BillingGroup), &attributes,
		&thing.Version, &created, &modified)
	if err != nil {
		return err
	}
	thing.Tenant = t.readTenant(tenant)
	thing.CreatedAt, thing.ModifiedAt = readTime(created), readTime(modified)
	thing.Attributes, err = readAttributes(attributes)
	if err != nil {
		return fmt.Errorf("couldn't read the attributes of thing %s: %w", thing.Name, err)
	}
	return nil
}

// writeAttributes gives the text of attributes, empty for none; readAttributes
// is its inverse.
func writeAttributes(attributes map[string]string) (string, error) {
	if len(attributes) == 0 {
		return "", nil
	}
	text, err := json.Marshal(attributes)
	return string(text), err
}

func readAttributes(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var attributes map[string]string
	err := json.Unmarshal([]byte(text), &attributes)
	return attributes, err
}

func scanThingAttachment(t *Tx, r Rows, a *imprint.ThingAttachment) error {
	var tenant string
	var exclusive int64
	err := r.Scan(&tenant, (*string)(&a.Thing), (*string)(&a.Certificate), &exclusive)
	a.Tenant = t.readTenant(tenant)
	a.Exclusive = exclusive != 0
	return err
}

// Thing implements imprint.ThingReader.
func (t *Tx) Thing(tenant imprint.Tenant, name imprint.ThingName) (imprint.Thing, error) {
	thing, found, err := first(t, scanThing,
		"SELECT "+thingColumns+" FROM things WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "thing %s doesn't exist in %s", name, tenant)
	}
	return thing, err
}

// Things implements imprint.ThingReader. An attribute's name without a value
// selects the things that have the attribute, a value without a name those
// that have the value in any attribute. Both read the tenant's things, or those
// of the type, until the page is full: a page of a rare value costs a walk over
// all of them, which ends with the caller's context.
func (t *Tx) Things(tenant imprint.Tenant, f imprint.ThingFilter, p imprint.Page) ([]imprint.Thing, string, error) {
	if f.AttributeName == "" && f.AttributeValue == "" {
		if f.TypeName == "" {
			return things.page(t, p, nil, t.in(tenant))
		}
		return thingsOfType.page(t, p, nil, t.in(tenant), string(f.TypeName))
	}
	pattern, err := attributePattern(f)
	if err != nil {
		return nil, "", err
	}
	keep := func(thing *imprint.Thing) bool { return hasAttribute(thing, f) }
	if f.TypeName == "" {
		return thingsLike.page(t, p, keep, t.in(tenant), pattern)
	}
	return thingsOfTypeLike.page(t, p, keep, t.in(tenant), string(f.TypeName), pattern)
}

func hasAttribute(thing *imprint.Thing, f imprint.ThingFilter) bool {
	if f.AttributeName != "" {
		value, ok := thing.Attributes[f.AttributeName]
		return ok && valueMatches(value, f)
	}
	for _, value := range thing.Attributes {
		if valueMatches(value, f) {
			return true
		}
	}
	return false
}

func valueMatches(value string, f imprint.ThingFilter) bool {
	if f.AttributeValue == "" || f.PrefixValue {
		return strings.HasPrefix(value, f.AttributeValue)
	}
	return value == f.AttributeValue
}

// maxFilter bounds the text of a filter: attribute names have at most 128
// characters and values 800.
const maxFilter = 1024

// attributePattern gives a LIKE pattern that the text of all matching
// attributes has, and perhaps of others: LIKE ignores case on some engines.
func attributePattern(f imprint.ThingFilter) (string, error) {
	if len(f.AttributeName) > maxFilter || len(f.AttributeValue) > maxFilter {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "the attribute filter is longer than %d bytes", maxFilter)
	}
	name, err := json.Marshal(f.AttributeName)
	if err != nil {
		return "", fmt.Errorf("couldn't encode the attribute's name: %w", err)
	}
	value, err := json.Marshal(f.AttributeValue)
	if err != nil {
		return "", fmt.Errorf("couldn't encode the attribute's value: %w", err)
	}
	text := ":"
	if f.AttributeName != "" {
		text = string(name) + ":"
	}
	switch {
	case f.AttributeValue == "":
	case f.PrefixValue:
		text += strings.TrimSuffix(string(value), `"`)
	default:
		text += string(value)
	}
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%", nil
}

// ThingPrincipals implements imprint.ThingReader, by certificate id.
func (t *Tx) ThingPrincipals(tenant imprint.Tenant, name imprint.ThingName, p imprint.Page) ([]imprint.ThingAttachment, string, error) {
	return thingPrincipals.page(t, p, nil, t.in(tenant), string(name))
}

// CertificateThings implements imprint.ThingReader, by thing name.
func (t *Tx) CertificateThings(tenant imprint.Tenant, id imprint.CertificateID, p imprint.Page) ([]imprint.ThingAttachment, string, error) {
	return certificateThings.page(t, p, nil, t.in(tenant), string(id))
}

// PutThing implements imprint.ThingWriter.
func (t *Tx) PutThing(thing imprint.Thing) error {
	attributes, err := writeAttributes(thing.Attributes)
	if err != nil {
		return fmt.Errorf("couldn't encode the attributes of thing %s: %w", thing.Name, err)
	}
	_, err = t.exec(putThing, t.in(thing.Tenant), string(thing.Name), thing.ID, string(thing.TypeName), string(thing.BillingGroup),
		attributes, thing.Version, millis(thing.CreatedAt), millis(thing.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeThing, thing.Tenant, string(thing.Name))
	return nil
}

// DeleteThing implements imprint.ThingWriter.
func (t *Tx) DeleteThing(tenant imprint.Tenant, name imprint.ThingName) error {
	err := t.remove(imprint.ChangeThing, tenant, string(name),
		"DELETE FROM thing_group_members WHERE tenant = $1 AND thing = $2", t.in(tenant), string(name))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeThing, tenant, string(name),
		"DELETE FROM things WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
}

// PutThingAttachment implements imprint.ThingWriter. It counts as a change of
// the certificate and of the thing.
func (t *Tx) PutThingAttachment(a imprint.ThingAttachment) error {
	_, err := t.exec(putThingAttachment, t.in(a.Tenant), string(a.Thing), string(a.Certificate), flag(a.Exclusive))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeCertificate, a.Tenant, string(a.Certificate))
	t.changed(imprint.ChangeThing, a.Tenant, string(a.Thing))
	return nil
}

// DeleteThingAttachment implements imprint.ThingWriter, with the changes of
// PutThingAttachment.
func (t *Tx) DeleteThingAttachment(tenant imprint.Tenant, thing imprint.ThingName, id imprint.CertificateID) error {
	n, err := t.exec("DELETE FROM thing_principals WHERE tenant = $1 AND thing = $2 AND certificate_id = $3",
		t.in(tenant), string(thing), string(id))
	if err != nil {
		return err
	}
	if n > 0 {
		t.changed(imprint.ChangeCertificate, tenant, string(id))
		t.changed(imprint.ChangeThing, tenant, string(thing))
	}
	return nil
}

package registry

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
)

// The kinds of rows that Principal's statement gives.
const (
	certificateRow int64 = iota
	thingRow
	membershipRow
	policyRow
)

// principal reads a certificate and what is attached to it with one statement:
// its cost is mostly that of a statement and of each column, so the parts share
// their columns. CROSS JOIN makes SQLite begin with the certificate's things, which
// are few; it would rather walk all of a tenant's memberships.
const principal = `SELECT 0 AS kind, status, mode, ca_id, owned_by, previous_owner,
	not_before, not_after, created_at, modified_at, customer_version
	FROM certificates WHERE id = $1 AND tenant = $2
UNION ALL SELECT 1, part_1.thing, COALESCE(things.thing_id, ''), COALESCE(things.type_name, ''),
	COALESCE(things.billing_group, ''), COALESCE(things.attributes, ''),
	part_1.exclusive, CASE WHEN things.name IS NULL THEN 0 ELSE 1 END,
	COALESCE(things.created_at, 0), COALESCE(things.modified_at, 0), COALESCE(things.version, 0)
	FROM (SELECT thing, exclusive FROM thing_principals WHERE tenant = $2 AND certificate_id = $1
		ORDER BY thing LIMIT $4) AS part_1
	LEFT JOIN things ON things.tenant = $2 AND things.name = part_1.thing
UNION ALL SELECT 2, part_2.thing, part_2.group_name, '', '', '', 0, 0, 0, 0, 0
	FROM (SELECT attached.thing, member.group_name FROM thing_principals AS attached
		CROSS JOIN thing_group_members AS member
		WHERE attached.tenant = $2 AND attached.certificate_id = $1 AND member.tenant = $2 AND member.thing = attached.thing
		LIMIT $5) AS part_2
UNION ALL SELECT 3, part_3.policy, '', '', '', '', 0, 0, 0, 0, 0
	FROM (SELECT policy FROM policy_attachments WHERE tenant = $2 AND target = $3
		ORDER BY policy LIMIT $4) AS part_3`

// principalRow is one row of it.
type principalRow struct {
	kind    int64
	texts   [5]string
	numbers [5]int64
}

func scanPrincipalRow(_ *Tx, r Rows, row *principalRow) error {
	return r.Scan(&row.kind, &row.texts[0], &row.texts[1], &row.texts[2], &row.texts[3], &row.texts[4],
		&row.numbers[0], &row.numbers[1], &row.numbers[2], &row.numbers[3], &row.numbers[4])
}

// Principal implements imprint.CertificateReader.
func (t *Tx) Principal(tenant imprint.Tenant, id imprint.CertificateID, limit int) (imprint.Principal, error) {
	p := imprint.Principal{Certificate: imprint.Certificate{Tenant: tenant, ID: id}}
	found := false
	var memberships []principalRow
	var bad error
	err := each(t, false, scanPrincipalRow, func(row principalRow) bool {
		switch row.kind {
		case certificateRow:
			found = true
			row.certificate(&p.Certificate)
		case thingRow:
			bad = row.thing(&p)
		case membershipRow:
			memberships = append(memberships, row)
		case policyRow:
			p.Policies = append(p.Policies, imprint.PolicyName(row.texts[0]))
		}
		return bad == nil
	}, principal, string(id), t.in(tenant), p.Certificate.ARN(), int64(min(limit, maxPage)), int64(maxPage))
	if err == nil {
		err = bad
	}
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s doesn't exist in %s", id, tenant)
	}
	if err != nil {
		return imprint.Principal{}, err
	}
	for n := range memberships {
		memberships[n].membership(&p)
	}
	// An engine gives the parts in the order of their limits, most likely; the
	// language doesn't say so.
	slices.SortFunc(p.Things, func(a, b imprint.PrincipalThing) int { return cmp.Compare(a.Attachment.Thing, b.Attachment.Thing) })
	slices.Sort(p.Policies)
	for n := range p.Things {
		slices.Sort(p.Things[n].Groups)
	}
	return p, nil
}

func (row *principalRow) certificate(c *imprint.Certificate) {
	c.Status, c.Mode = imprint.CertificateStatus(row.texts[0]), imprint.CertificateMode(row.texts[1])
	c.CAID = imprint.CertificateID(row.texts[2])
	c.OwnedBy, c.PreviousOwner = imprint.AccountID(row.texts[3]), imprint.AccountID(row.texts[4])
	c.NotBefore, c.NotAfter = readTime(row.numbers[0]), readTime(row.numbers[1])
	c.CreatedAt, c.ModifiedAt = readTime(row.numbers[2]), readTime(row.numbers[3])
	c.CustomerVersion = int(row.numbers[4])
}

func (row *principalRow) thing(p *imprint.Principal) error {
	tenant, name := p.Certificate.Tenant, imprint.ThingName(row.texts[0])
	attached := imprint.PrincipalThing{Attachment: imprint.ThingAttachment{
		Tenant: tenant, Thing: name, Certificate: p.Certificate.ID, Exclusive: row.numbers[0] != 0,
	}}
	if row.numbers[1] != 0 {
		attributes, err := readAttributes(row.texts[4])
		if err != nil {
			return fmt.Errorf("couldn't read the attributes of thing %s: %w", name, err)
		}
		attached.Thing = &imprint.Thing{
			Tenant: tenant, Name: name, ID: row.texts[1], Attributes: attributes,
			TypeName: imprint.ThingTypeName(row.texts[2]), BillingGroup: imprint.BillingGroupName(row.texts[3]),
			CreatedAt: readTime(row.numbers[2]), ModifiedAt: readTime(row.numbers[3]), Version: row.numbers[4],
		}
	}
	p.Things = append(p.Things, attached)
	return nil
}

// membership adds a group to its thing, if that is there.
func (row *principalRow) membership(p *imprint.Principal) {
	for n := range p.Things {
		if string(p.Things[n].Attachment.Thing) == row.texts[0] {
			p.Things[n].Groups = append(p.Things[n].Groups, imprint.ThingGroupName(row.texts[1]))
			return
		}
	}
}

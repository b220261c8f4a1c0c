package storetest

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// pagedList is one list call with a way to add an item. Numbers give the order
// of items when ascending; several may share a creation time.
type pagedList struct {
	name string
	add  func(tx imprint.Tx, t imprint.Tenant, n int) error
	page func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error)
}

const listed = 7

func testLists(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	for _, l := range allLists() {
		t.Run(l.name, func(t *testing.T) {
			var want []int
			for n := 10; n < 10+listed*10; n += 10 {
				want = append(want, n)
				update(t, store, func(tx imprint.Tx) error {
					for _, tenant := range []imprint.Tenant{here, there, other} {
						err := l.add(tx, tenant, n)
						if err != nil {
							return err
						}
					}
					return nil
				})
			}
			for _, ascending := range []bool{true, false} {
				for _, limit := range []int{1, 3, listed, listed + 1} {
					checkPages(t, store, l, imprint.Page{Limit: limit, Ascending: ascending}, want)
				}
			}
			checkCursors(t, store, l)
			checkInsertions(t, store, l, want)
		})
	}
}

// checkPages walks the list and expects full pages, then an empty cursor.
func checkPages(t *testing.T, store imprint.Store, l pagedList, p imprint.Page, want []int) {
	t.Helper()
	want = slices.Clone(want)
	if !p.Ascending {
		slices.Reverse(want)
	}
	var got []int
	pages := 0
	for {
		var items []int
		var next string
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			items, next, err = l.page(tx, there, p)
			return err
		})
		got = append(got, items...)
		pages++
		if next == "" || pages > len(want) {
			break
		}
		if len(items) != p.Limit {
			t.Fatalf("page %d of %+v has %d items", pages, p, len(items))
		}
		p.Cursor = next
	}
	same(t, fmt.Sprintf("the list by pages of %d, ascending %t", p.Limit, p.Ascending), got, want)
	if full := (len(want) + p.Limit - 1) / p.Limit; pages != full {
		t.Errorf("got %d pages of %d, want %d", pages, p.Limit, full)
	}
}

func checkCursors(t *testing.T, store imprint.Store, l pagedList) {
	t.Helper()
	garbage := []string{"x", "!", "AAAA", strings.Repeat("A", 10_000), base64.RawURLEncoding.EncodeToString([]byte("Z\x05abc")),
		base64.RawURLEncoding.EncodeToString([]byte("A\xff\xff\xff\xff\xff\xff\xff\xff\x01")), "\x00", " "}
	view(t, store, func(tx imprint.ReadTx) error {
		for _, cursor := range garbage {
			_, _, err := l.page(tx, here, imprint.Page{Cursor: cursor, Limit: 1})
			wantCode(t, err, imprint.CodeInvalidRequest)
		}
		for _, limit := range []int{0, -1} {
			_, _, err := l.page(tx, here, imprint.Page{Limit: limit})
			wantCode(t, err, imprint.CodeInvalidRequest)
		}
		return nil
	})
}

// checkInsertions adds items before and after the cursor while the list is
// walked: nothing comes twice, and nothing that was there is missed.
func checkInsertions(t *testing.T, store imprint.Store, l pagedList, want []int) {
	t.Helper()
	p := imprint.Page{Limit: 2, Ascending: true}
	var got []int
	for i := 0; ; i++ {
		var items []int
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			items, p.Cursor, err = l.page(tx, here, p)
			return err
		})
		got = append(got, items...)
		if p.Cursor == "" || i > 100 {
			break
		}
		if i == 0 {
			update(t, store, func(tx imprint.Tx) error {
				err := l.add(tx, here, 15)
				if err != nil {
					return err
				}
				return l.add(tx, here, 45)
			})
		}
	}
	want = append(slices.Clone(want), 45)
	slices.Sort(want)
	same(t, "the list with insertions", got, want)
}

// at gives a time that three neighbouring numbers of the lists share.
func at(n int) time.Time { return instant.Add(time.Duration(n/30) * time.Second) }

func name(n int) string { return fmt.Sprintf("n%03d", n) }

// numbers turns a list's items back into their numbers.
func numbers[T any](items []T, next string, err error, key func(T) string) ([]int, string, error) {
	var all []int
	for _, item := range items {
		var n int
		text := key(item)
		_, scanErr := fmt.Sscanf(strings.TrimLeft(text[strings.LastIndex(text, "n")+1:], "0"), "%d", &n)
		if scanErr != nil && err == nil {
			err = fmt.Errorf("couldn't read %q: %w", text, scanErr)
		}
		all = append(all, n)
	}
	return all, next, err
}

func certNumbers(items []imprint.Certificate, next string, err error) ([]int, string, error) {
	var all []int
	for _, c := range items {
		all = append(all, c.CustomerVersion)
	}
	return all, next, err
}

func caNumbers(items []imprint.CACertificate, next string, err error) ([]int, string, error) {
	var all []int
	for _, c := range items {
		all = append(all, c.CustomerVersion)
	}
	return all, next, err
}

func allLists() []pagedList {
	return slices.Concat(certificateLists(), nameLists(), groupLists(), registryLists(), attachmentLists(), []pagedList{guardList()}, userLists(), taskLists(), ruleLists(), auditLists(), mitigationLists())
}

func certificateLists() []pagedList {
	addCert := func(ca imprint.CertificateID) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			shift := 0
			if ca != "" {
				shift = 1000
			}
			return tx.PutCertificate(imprint.Certificate{Tenant: t, ID: certID(n + shift), CAID: ca, CreatedAt: at(n), CustomerVersion: n})
		}
	}
	addCA := func(template imprint.TemplateName) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			c := imprint.CACertificate{Tenant: t, ID: certID(n), CreatedAt: at(n), CustomerVersion: n}
			if template != "" {
				c.Registration = &imprint.RegistrationConfig{TemplateName: template}
			}
			return tx.PutCA(c)
		}
	}
	return []pagedList{
		{"certificates", addCert(""), func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			return certNumbers(tx.Certificates(t, "", p))
		}},
		{"certificates of a CA", addCert(certID(9)), func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			return certNumbers(tx.Certificates(t, certID(9), p))
		}},
		{"CAs", addCA(""), func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			return caNumbers(tx.CAs(t, "", p))
		}},
		{"CAs of a template", addCA("line"), func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			return caNumbers(tx.CAs(t, "line", p))
		}},
	}
}

func nameLists() []pagedList {
	return []pagedList{
		{"things", func(tx imprint.Tx, t imprint.Tenant, n int) error { return tx.PutThing(thing(t, name(n))) },
			func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
				items, next, err := tx.Things(t, imprint.ThingFilter{}, p)
				return numbers(items, next, err, func(i imprint.Thing) string { return string(i.Name) })
			}},
		{"policies", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutPolicy(imprint.Policy{Tenant: t, Name: imprint.PolicyName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Policies(t, p)
			return numbers(items, next, err, func(i imprint.Policy) string { return string(i.Name) })
		}},
		{"templates", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: t, Name: imprint.TemplateName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Templates(t, p)
			return numbers(items, next, err, func(i imprint.ProvisioningTemplate) string { return string(i.Name) })
		}},
		{"template versions", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: t, Template: "line", Version: n})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.TemplateVersions(t, "line", p)
			return numbers(items, next, err, func(i imprint.TemplateVersion) string { return name(i.Version) })
		}},
		{"attempts", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutAttempt(imprint.Attempt{ID: t.String() + name(n), Tenant: t, At: at(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Attempts(imprint.AttemptFilter{Tenant: t}, p)
			return numbers(items, next, err, func(i imprint.Attempt) string { return i.ID })
		}},
		{"attempts by match", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutAttempt(imprint.Attempt{ID: "match" + t.String() + name(n), Tenant: t, At: at(n), Thing: "t", ClientID: "t"})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Attempts(imprint.AttemptFilter{Tenant: t, Match: "t"}, p)
			return numbers(items, next, err, func(i imprint.Attempt) string { return i.ID })
		}},
		{"retained messages", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutRetained(imprint.RetainedMessage{Tenant: t, Topic: name(n), Packet: []byte{0}})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.RetainedMessages(t, p)
			return numbers(items, next, err, func(i imprint.RetainedMessage) string { return i.Topic })
		}},
		{"certificate authorities", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutAuthority(imprint.CertificateAuthority{Tenant: t, ID: imprint.AuthorityID(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Authorities(t, p)
			return numbers(items, next, err, func(a imprint.CertificateAuthority) string { return string(a.ID) })
		}},
		{"enrolment labels", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutEnrolmentLabel(imprint.EnrolmentLabel{Tenant: t, Name: imprint.LabelName(string(t.Account) + string(t.Region) + name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.EnrolmentLabels(t, p)
			return numbers(items, next, err, func(l imprint.EnrolmentLabel) string { return string(l.Name) })
		}},
		{"enrolment passwords", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutEnrolmentPassword(imprint.EnrolmentPassword{ID: t.String() + name(n), Tenant: t, Label: "line"})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.EnrolmentPasswords(t, "line", p)
			return numbers(items, next, err, func(e imprint.EnrolmentPassword) string { return e.ID })
		}},
		{"rollovers", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutRollover(imprint.Rollover{Tenant: t, From: imprint.CertificateID(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Rollovers(t, p)
			return numbers(items, next, err, func(r imprint.Rollover) string { return string(r.From) })
		}},
		{"imported revocation lists", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutForeignList(imprint.ForeignList{ID: listID(t) + int64(n), Tenant: t, CA: imprint.CertificateID(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ForeignLists(t, p)
			return numbers(items, next, err, func(l imprint.ForeignList) string { return string(l.CA) })
		}},
		{"issuances", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutIssuance(imprint.Issuance{ID: t.String() + name(n), Tenant: t})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.Issuances(t, p)
			return numbers(items, next, err, func(i imprint.Issuance) string { return i.ID })
		}},
		{"issuances of an authority", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutIssuance(imprint.Issuance{ID: "by" + t.String() + name(n), Tenant: t, Authority: authorityID(3), Serial: name(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.IssuancesBy(t, authorityID(3), p)
			return numbers(items, next, err, func(i imprint.Issuance) string { return i.ID })
		}},
	}
}

func attachmentLists() []pagedList {
	const target = "eu-west-1:cognito-identity"
	return []pagedList{
		{"principals of a thing", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: t, Thing: "one", Certificate: imprint.CertificateID(name(n)), Exclusive: n%20 == 0})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.ThingPrincipals(t, "one", p)
			return numbers(items, next, err, func(i imprint.ThingAttachment) string { return string(i.Certificate) })
		}},
		{"things of a certificate", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: t, Thing: imprint.ThingName(name(n)), Certificate: certID(1)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.CertificateThings(t, certID(1), p)
			return numbers(items, next, err, func(i imprint.ThingAttachment) string { return string(i.Thing) })
		}},
		{"policies of a target", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: t, Target: target, Policy: imprint.PolicyName(name(n))})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.TargetPolicies(t, target, p)
			return numbers(items, next, err, func(i imprint.PolicyAttachment) string { return string(i.Policy) })
		}},
		{"targets of a policy", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: t, Target: strings.Repeat("x", 2000) + name(n), Policy: "one"})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			items, next, err := tx.PolicyTargets(t, "one", p)
			return numbers(items, next, err, func(i imprint.PolicyAttachment) string { return i.Target })
		}},
	}
}

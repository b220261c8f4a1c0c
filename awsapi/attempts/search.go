package attempts

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
)

// What isn't recorded under exactly what a person pasted, nor under another form of it,
// is looked for in what attempts tell: a serial number of the device's label, and what
// belongs to many devices, a CA, a template, a policy.

// quest is one look for attempts.
type quest struct {
	Recorded
	filter imprint.AttemptFilter
	forms  []string
	word   string // as it was pasted
	notes  []string
}

// maxRelated bounds the certificates that a word leads to.
const maxRelated = 5

// ofAnother says that a word is the ARN of another tenant's, if it is.
func ofAnother(word string, tenant imprint.Tenant) string {
	owner, _, err := imprint.ParseARN(strings.TrimSpace(word))
	if err != nil || owner == tenant {
		return ""
	}
	return fmt.Sprintf("The ARN is one of %s, and these are the attempts of %s: ask with an access key of that account, and its region in AWS_REGION.", owner, tenant)
}

// find lists a page of attempts. Only what nothing is recorded under literally is looked for in
// other ways, each page of it.
func (q *quest) find(ctx context.Context, page imprint.Page) ([]imprint.Attempt, string, error) {
	_, resource, err := imprint.ParseARN(strings.TrimSpace(q.word))
	elsewhere := ofAnother(q.word, q.filter.Tenant)
	switch {
	case elsewhere != "":
		q.forms = nil // a name may stand for something here, too
		q.notes = append(q.notes, elsewhere)
		return nil, "", nil
	case err == nil && ofMany(resource):
		return q.told(ctx, page)
	}
	found, next, known, err := q.literal(ctx, page)
	if err != nil || known || q.word == "" {
		return found, next, err
	}
	full, err := q.unique(ctx)
	if err != nil {
		return nil, "", err
	}
	// In a large fleet the number on a device's label is also the beginning of another
	// one's id.
	if full == "" || strings.Trim(q.word, " 0123456789") == "" {
		found, next, err = q.told(ctx, page)
		if err != nil || len(found) > 0 || full == "" {
			return found, next, err
		}
	}
	_, err = imprint.ParseCertificateID(full)
	if err == nil {
		q.notes = append(q.notes, fmt.Sprintf("%s is the beginning of %s.", q.word, full))
	}
	q.forms = []string{full}
	found, next, _, err = q.literal(ctx, page)
	return found, next, err
}

// ofMany tells whether an ARN's resource is one that many devices have to do with.
func ofMany(resource string) bool {
	kind, _, _ := strings.Cut(resource, "/")
	return kind == "policy" || kind == "provisioningtemplate" || kind == "cacert"
}

// told looks for what attempts tell.
func (q *quest) told(ctx context.Context, page imprint.Page) ([]imprint.Attempt, string, error) {
	about, err := q.subject(ctx)
	if err != nil {
		return nil, "", err
	}
	if about.matches == nil {
		return nil, "", nil
	}
	found, related, err := q.scan(ctx, page.Limit, about)
	if err == nil && len(found) == 0 && !about.device {
		q.notes = append(q.notes, fmt.Sprintf("No attempt of the newest %d tells of %s.", maxGrouped, about.called))
	}
	if err != nil || len(found) == 0 {
		return nil, "", err
	}
	q.notes = append(q.notes, about.note)
	if len(related) == 0 || !about.device {
		return found, "", nil
	}
	q.notes = append(q.notes, fmt.Sprintf("It leads to certificate %s.", strings.Join(related, ", ")))
	q.forms = related
	whole, next, _, err := q.literal(ctx, page)
	if err != nil || len(whole) == 0 && page.Cursor == "" {
		return found, "", err
	}
	return whole, next, nil
}

// literal lists what is recorded under one of the forms; known says that something is,
// though the filter may not select it.
func (q *quest) literal(ctx context.Context, page imprint.Page) (found []imprint.Attempt, next string, known bool, err error) {
	err = q.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, next, err = q.page(tx, q.filter, page, q.forms)
		if err != nil || len(found) > 0 || q.word == "" {
			known = len(found) > 0
			q.crowded(found)
			return err
		}
		all := imprint.AttemptFilter{Tenant: q.filter.Tenant, Unassigned: q.filter.Unassigned}
		some, _, err := q.page(tx, all, imprint.Page{Limit: 1}, q.forms)
		known = len(some) > 0
		return err
	})
	return found, next, known, err
}

// minPrefix is how many digits of an id name it, if no other begins with them.
const minPrefix = 6

// unique gives the id that a person began to write; empty: there is none, or there are
// several, which is noted.
func (q *quest) unique(ctx context.Context) (string, error) {
	prefix := strings.ToLower(strings.TrimSpace(q.word))
	if len(prefix) < minPrefix || len(prefix) >= 64 || !isHex(prefix) {
		return "", nil
	}
	var words []string
	err := q.Store.View(ctx, func(tx imprint.ReadTx) error {
		list, err := tx.AttemptWords(q.filter.Tenant, q.filter.Unassigned, prefix, maxRelated+1)
		words = list
		return err
	})
	if err != nil || len(words) == 0 {
		return "", err
	}
	if len(words) == 1 {
		return words[0], nil
	}
	more := ""
	if len(words) > maxRelated {
		words, more = words[:maxRelated], ", ..."
	}
	q.notes = append(q.notes, fmt.Sprintf("Several ids begin with %s: %s%s. Write more digits.", prefix, strings.Join(words, ", "), more))
	return "", nil
}

// topic is what a word stands for that many attempts may tell of.
type topic struct {
	called  string // where it isn't one device's
	note    string
	device  bool // it is one device's
	matches func(*imprint.Attempt) (related []imprint.CertificateID, matches bool)
}

// subject says what to look for in what attempts tell.
func (q *quest) subject(ctx context.Context) (topic, error) {
	_, resource, err := imprint.ParseARN(strings.TrimSpace(q.word))
	kind, name, _ := strings.Cut(resource, "/")
	if err != nil {
		name = strings.TrimSpace(q.word)
		kind, err = q.kindOf(ctx, name)
		if err != nil {
			return topic{}, err
		}
	}
	const ask = "Ask for a device by its thing, certificate or client id."
	switch kind {
	case "policy":
		return topic{called: "policy " + name, note: fmt.Sprintf("%s is a policy: these attempts tell of it. %s", name, ask), matches: telling(fmt.Sprintf("policy %q", name), "policy "+name+" attached")}, nil
	case "provisioningtemplate":
		return topic{called: "provisioning template " + name, note: fmt.Sprintf("%s is a provisioning template: these attempts used it. %s", name, ask), matches: telling("template " + name + ", version")}, nil
	case "cacert":
		return topicOfCA(name), nil
	case "":
		return topic{note: fmt.Sprintf("%s is the serial number of a device: that of its certificate's subject, or a parameter SerialNumber.", name), device: true, matches: labelled(name)}, nil
	}
	return topic{}, nil // a thing, a certificate, a client id: the forms have it
}

// kindOf gives what the registry has under a plain name that many devices may have to do with,
// as ARNs call it; empty: nothing. A thing of that name is meant before a policy or a template.
func (q *quest) kindOf(ctx context.Context, name string) (kind string, err error) {
	err = q.Store.View(ctx, func(tx imprint.ReadTx) error {
		tenant := q.filter.Tenant
		id, err := imprint.ParseCertificateID(name)
		if err == nil {
			kind = "cert"
			_, err = tx.CA(tenant, id)
			if err == nil {
				kind = "cacert"
			}
			return butNotFound(err)
		}
		_, err = tx.Thing(tenant, imprint.ThingName(name))
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		_, err = tx.Policy(tenant, imprint.PolicyName(name))
		policy := err == nil
		if policy {
			kind = "policy"
		}
		if butNotFound(err) != nil {
			return err
		}
		_, err = tx.Template(tenant, imprint.TemplateName(name))
		if err == nil {
			kind = "provisioningtemplate"
			if policy {
				q.notes = append(q.notes, fmt.Sprintf("%s is also the name of a policy: imprint explain %s", name, tenant.PolicyARN(imprint.PolicyName(name))))
			}
		}
		return butNotFound(err)
	})
	return kind, err
}

// butNotFound is an error of the store that isn't the answer.
func butNotFound(err error) error {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	return err
}

func topicOfCA(id string) topic {
	return topic{called: "CA " + id, note: fmt.Sprintf("%s is a CA: these attempts are of devices that it signed, when they were first seen. Ask for one by its certificate.", id), matches: telling(id)}
}

// telling matches attempts with a step that has one of the texts.
func telling(texts ...string) func(*imprint.Attempt) ([]imprint.CertificateID, bool) {
	return func(a *imprint.Attempt) ([]imprint.CertificateID, bool) {
		for i := range a.Steps {
			for _, text := range texts {
				if strings.Contains(a.Steps[i].Detail, text) {
					return nil, true
				}
			}
		}
		return nil, false
	}
}

// labelled matches attempts of a device by the serial number on its label, and gives its
// certificate: the attempt's own, or the one that a claim's request with that parameter
// made.
func labelled(serial string) func(*imprint.Attempt) ([]imprint.CertificateID, bool) {
	parameter := fmt.Sprintf("SerialNumber = %q (", serial)
	return func(a *imprint.Attempt) (related []imprint.CertificateID, matches bool) {
		if subjectHas(a.Subject, serial) {
			return []imprint.CertificateID{a.CertificateID}, a.CertificateID != ""
		}
		awaited := false
		for i := range a.Steps {
			s := &a.Steps[i]
			switch {
			case s.Name == "claim.request":
				awaited = false
			case s.Name == "template.parameter" && strings.Contains(s.Detail, parameter):
				matches, awaited = true, true
				if strings.Contains(s.Detail, "the certificate's subject") {
					related = append(related, a.CertificateID)
				}
			case awaited && s.Certificate != "":
				related = append(related, s.Certificate)
			}
		}
		return related, matches
	}
}

// subjectHas says whether a subject's text has a serialNumber attribute of that value.
func subjectHas(subject, serial string) bool {
	_, rest, found := strings.Cut(subject, "SERIALNUMBER=")
	if !found {
		return false
	}
	after, found := strings.CutPrefix(rest, serial)
	return found && (after == "" || strings.ContainsRune(",+", rune(after[0])))
}

// scan reads the newest entries of the trace, maxGrouped at most, and gives up to limit
// that match, newest first, with the certificates that they lead to.
func (q *quest) scan(ctx context.Context, limit int, about topic) (found []imprint.Attempt, related []string, err error) {
	filter := q.filter
	filter.Match = ""
	page := imprint.Page{Limit: groupPage}
	for read := 0; read < maxGrouped && len(found) < limit; {
		var list []imprint.Attempt
		err = q.Store.View(ctx, func(tx imprint.ReadTx) error {
			list, page.Cursor, err = tx.Attempts(filter, page)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		read += len(list)
		for i := range list {
			certificates, matches := about.matches(&list[i])
			if !matches || len(found) == limit {
				continue
			}
			found = append(found, list[i])
			for _, id := range certificates {
				if len(related) < maxRelated && id != "" && !slices.Contains(related, string(id)) {
					related = append(related, string(id))
				}
			}
		}
		if page.Cursor == "" {
			break
		}
	}
	return found, related, nil
}

// withMakers adds, behind the last of a list, the attempts that made its certificates:
// those of the claims that asked for them, newest first.
func withMakers(tx imprint.ReadTx, filter imprint.AttemptFilter, forms []string, list []imprint.Attempt) ([]imprint.Attempt, error) {
	var certificates []imprint.CertificateID
	add := func(id imprint.CertificateID) {
		if id != "" && len(certificates) < maxRelated && !slices.Contains(certificates, id) {
			certificates = append(certificates, id)
		}
	}
	for _, form := range forms {
		id, err := imprint.ParseCertificateID(form)
		if err == nil {
			add(id)
		}
	}
	for i := range list {
		add(list[i].CertificateID)
	}
	for _, id := range certificates {
		making, err := tx.AttemptsMaking(filter.Tenant, id, maxRelated)
		if err != nil {
			return nil, err
		}
		for _, a := range making {
			same := func(other imprint.Attempt) bool { return other.ID == a.ID }
			if a.ChangedAt().Before(filter.Since) || filter.FailedOnly && a.Reason() == "" || slices.ContainsFunc(list, same) {
				continue
			}
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b imprint.Attempt) int { return strings.Compare(b.ID, a.ID) })
	return list, nil
}

// withoutListed takes those out of a last page, which began with the attempt first, that the
// pages before it had: a claim may register a certificate anew that has connected long ago,
// and is found by its address, too.
func withoutListed(tx imprint.ReadTx, filter imprint.AttemptFilter, forms []string, list []imprint.Attempt, first string) ([]imprint.Attempt, error) {
	newer := slices.IndexFunc(list, func(a imprint.Attempt) bool { return a.ID <= first })
	if newer < 0 {
		newer = len(list)
	}
	page := imprint.Page{Limit: groupPage}
	for read := 0; newer > 0 && read < maxGrouped; {
		before, next, err := firstForm(tx, filter, page, forms)
		if err != nil {
			return nil, err
		}
		oldest := list[newer-1].ID
		for i := range before {
			at := slices.IndexFunc(list[:newer], func(a imprint.Attempt) bool { return a.ID == before[i].ID })
			if at >= 0 {
				list = slices.Delete(list, at, at+1)
				newer--
			}
		}
		read, page.Cursor = read+len(before), next
		if next == "" || before[len(before)-1].ID <= oldest {
			break
		}
	}
	return list, nil
}

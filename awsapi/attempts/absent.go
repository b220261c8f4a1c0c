package attempts

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// Keeping is which attempts the trace keeps.
type Keeping struct {
	Off         bool
	SuccessRate int    // attempts of devices that were let in that are kept in a second; 0: all
	Unsampled   uint64 // those that weren't, since the server began
}

// Live is a client that is connected.
type Live struct {
	ClientID    imprint.ClientID
	Certificate imprint.CertificateID
	Address     netip.Addr
}

// strangerTime is how far back handshakes are looked at that died before a device
// showed its certificate, and maxStrangers how many addresses of them are named.
const (
	strangerTime = time.Hour
	maxStrangers = 5
)

// absent says why nothing is found under a word: what is known of it, and which attempts
// may be its all the same.
func (q *quest) absent(ctx context.Context, now time.Time) ([]string, error) {
	notes := q.notes
	keeping := Keeping{}
	if q.Keeping != nil {
		keeping = q.Keeping()
	}
	if keeping.Off {
		return append(notes, "This server records no attempts: it runs with --trace=false."), nil
	}
	if q.forms == nil {
		return notes, nil // of another account: what is known here is none of it
	}
	var certificates []imprint.CertificateID
	err := q.Store.View(ctx, func(tx imprint.ReadTx) error {
		said, known, err := registered(tx, q.filter.Tenant, q.forms)
		notes, certificates = append(slices.Clone(q.notes), said...), known
		return err
	})
	if err != nil {
		return nil, err
	}
	live := q.live(certificates)
	for _, one := range live {
		notes = append(notes, fmt.Sprintf("It is connected now: client id %q from %s.", one.ClientID, one.Address))
	}
	if keeping.SuccessRate > 0 && (len(live) > 0 || keeping.Unsampled > 0) {
		notes = append(notes, fmt.Sprintf("Of devices that are let in without a failure, %d attempts a second are kept (--trace-success-rate), and %d weren't kept since the server began: it may be one of those.",
			keeping.SuccessRate, keeping.Unsampled))
	}
	strangers, err := q.strangers(ctx, now)
	if err != nil {
		return nil, err
	}
	return append(notes, strangers...), nil
}

// registered says what the registry has under the forms, and gives its certificates.
func registered(tx imprint.ReadTx, tenant imprint.Tenant, forms []string) (notes []string, certificates []imprint.CertificateID, err error) {
	for _, form := range forms {
		if id, bad := imprint.ParseCertificateID(form); bad == nil {
			cert, err := tx.Certificate(tenant, id)
			switch {
			case err == nil:
				notes = append(notes, fmt.Sprintf("Certificate %s is registered and %s, subject %q.", id, cert.Status, cert.Subject))
				certificates = append(certificates, id)
				continue
			case imprint.CodeOf(err) != imprint.CodeNotFound:
				return nil, nil, err
			}
			ca, err := tx.CA(tenant, id)
			switch {
			case err == nil:
				notes = append(notes, fmt.Sprintf("%s is a registered CA, %s, subject %q, and no attempt tells of it. Ask for a device's own certificate.", id, ca.Status, ca.Subject))
				continue
			case imprint.CodeOf(err) != imprint.CodeNotFound:
				return nil, nil, err
			}
			notes = append(notes, fmt.Sprintf("No certificate %s is registered in %s.", id, tenant))
			continue
		}
		name, bad := imprint.ParseThingName(form)
		if bad != nil {
			continue
		}
		_, err := tx.Thing(tenant, name)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		attached, _, err := tx.ThingPrincipals(tenant, name, imprint.Page{Limit: maxRelated, Ascending: true})
		if err != nil {
			return nil, nil, err
		}
		said := fmt.Sprintf("Thing %s is registered, without a certificate.", name)
		if len(attached) > 0 {
			said = fmt.Sprintf("Thing %s is registered, with", name)
		}
		for i, a := range attached {
			certificates = append(certificates, a.Certificate)
			if i > 0 {
				said += ","
			}
			said += fmt.Sprintf(" certificate %s", a.Certificate)
		}
		if len(attached) > 0 {
			said += "."
		}
		notes = append(notes, said)
	}
	return notes, certificates, nil
}

// live finds the connections of a client id and of certificates.
func (q *quest) live(certificates []imprint.CertificateID) []Live {
	if q.Connected == nil {
		return nil
	}
	var found []Live
	add := func(list []Live) {
		for _, one := range list {
			if !slices.Contains(found, one) && len(found) < maxRelated {
				found = append(found, one)
			}
		}
	}
	for _, form := range q.forms {
		add(q.Connected(q.filter.Tenant, imprint.ClientID(form), ""))
	}
	for _, id := range certificates {
		add(q.Connected(q.filter.Tenant, "", id))
	}
	return found
}

// strangers tells of handshakes that died before the device showed a certificate: of
// such a device nothing but its address is known.
func (q *quest) strangers(ctx context.Context, now time.Time) ([]string, error) {
	filter := imprint.AttemptFilter{Tenant: q.filter.Tenant, Unassigned: q.filter.Unassigned, FailedOnly: true, Since: now.Add(-strangerTime)}
	counts := map[string]int{}
	var order []string
	total := 0
	page := imprint.Page{Limit: groupPage}
	for range 10 {
		var list []imprint.Attempt
		err := q.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			list, page.Cursor, err = tx.Attempts(filter, page)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range list {
			a := &list[i]
			if a.CertificateID != "" || a.Address == "" || a.Outcome != imprint.OutcomeRefused || a.OfLine() {
				continue
			}
			total += 1 + a.Repeats
			key := a.Host() + " (" + a.Reason() + ")"
			if counts[key] == 0 {
				order = append(order, key)
			}
			counts[key] += 1 + a.Repeats
		}
		if page.Cursor == "" {
			break
		}
	}
	if total == 0 {
		return nil, nil
	}
	var named []string
	for _, key := range order {
		if len(named) == maxStrangers {
			named = append(named, "...")
			break
		}
		named = append(named, fmt.Sprintf("%d from %s", counts[key], key))
	}
	host, _, _ := strings.Cut(order[0], " ")
	attempts := "attempts"
	if total == 1 {
		attempts = "attempt"
	}
	return []string{fmt.Sprintf("In the last hour %d %s ended before a certificate was shown, and may be this device's: %s. `imprint explain %s`", total, attempts, strings.Join(named, ", "), host)}, nil
}

package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/imprint-iot/imprint"
)

const (
	// attemptsOfOne is how many attempts of one client id, the newest, are looked at.
	attemptsOfOne = 200
	// rivals is how often two connections must have ended each other before they count
	// as two devices' and not as one that came again.
	rivals = 3
	// shortly is how long a connection may have lived for that.
	shortly = 5 * time.Minute
)

// flushTrace waits until all of the trace can be read.
func (w *walk) flushTrace() error {
	flush := w.auditor.opts.Flush
	if flush == nil {
		return nil
	}
	err := flush(w.ctx)
	if err != nil {
		return fmt.Errorf("couldn't wait for the trace: %w", err)
	}
	return nil
}

// trace looks at the attempts of the last day: client ids and certificates that
// several devices have.
func (w *walk) trace() error {
	err := w.flushTrace()
	if err != nil {
		return err
	}
	since := w.now.Add(-w.auditor.opts.Window)
	limit := w.auditor.opts.MaxClients
	clients := map[imprint.ClientID]struct{}{} // counted alone
	takenOver := map[imprint.ClientID]struct{}{}
	together := newTogether(w.now, limit)
	err = w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		p.Ascending = false
		page, next, err := tx.Attempts(imprint.AttemptFilter{Tenant: w.tenant, Since: since}, p)
		for _, a := range page {
			if a.ClientID != "" && a.Outcome != imprint.OutcomeRefused {
				keep(clients, a.ClientID, limit)
				if a.Code == imprint.CodeTakenOver && !keep(takenOver, a.ClientID, limit) {
					w.fail(ConflictingClientIDs, "TRACE_TOO_LARGE", fmt.Sprintf("Connections of more than %d client ids were taken over: the %d latest of these were looked at.", limit, limit))
				}
			}
			if w.wants(DeviceCertificateShared) && !together.visit(a) {
				// No failure: a large fleet would have it each day, and all that are connected
				// now are looked at, too.
				w.note(DeviceCertificateShared, fmt.Sprintf("Devices came with more than %d certificates: the %d that came last were looked at for connections at the same time, and those that are connected now.", limit, limit))
			}
		}
		return next, err
	})
	if err != nil {
		return err
	}
	err = w.concurrent(together)
	if err != nil {
		return err
	}
	for range clients {
		w.seen(ConflictingClientIDs)
	}
	var contested []string
	for client := range takenOver {
		contested = append(contested, string(client))
	}
	slices.Sort(contested)
	return w.each(contested, func(tx imprint.ReadTx, client string) error {
		attempts, _, err := tx.Attempts(imprint.AttemptFilter{Tenant: w.tenant, Match: client, Since: since}, imprint.Page{Limit: attemptsOfOne})
		if err == nil {
			w.contest(imprint.ClientID(client), attempts)
		}
		return err
	})
}

// keep adds to a set that is bounded, and says whether the member is in it.
func keep[T comparable](set map[T]struct{}, member T, limit int) bool {
	_, known := set[member]
	if !known && len(set) < limit {
		set[member], known = struct{}{}, true
	}
	return known
}

// stillUsed finds a revoked certificate whose device came in the last day. In the fleet's
// storms it is counted with others, and found by their entry all the same.
func (w *walk) stillUsed(tx imprint.ReadTx, c *imprint.Certificate) error {
	attempts, _, err := tx.Attempts(imprint.AttemptFilter{Tenant: w.tenant, Match: string(c.ID), Since: w.now.Add(-w.auditor.opts.Window)}, imprint.Page{Limit: attemptsOfOne})
	at := slices.IndexFunc(attempts, func(a imprint.Attempt) bool { return a.Code == imprint.CodeCertificateRevoked && !a.OfLine() })
	if err != nil || at < 0 {
		return err
	}
	last, how := attempts[at], "last"
	if last.CertificateID != c.ID {
		how = "and is counted with others, the last of which came"
	}
	w.find(RevokedDeviceCertificate, flaw{
		resource: described(*c), severity: imprint.AuditLow, code: "CERTIFICATE_REVOKED_STILL_USED",
		reason:     fmt.Sprintf("The certificate is REVOKED, and a device still comes with it, %s at %s, from %s. It is refused.", how, stamp(last.At), last.Host()),
		mitigation: fmt.Sprintf("imprint explain %s shows the device: take it out of use, or give it a new certificate.", c.ID),
	})
	return nil
}

// contest judges the connections of one client id. Beyond a few in five minutes the trace
// counts them with one (trace.Options.FoldAfter), and not who ended those: there may have
// been more.
func (w *walk) contest(client imprint.ClientID, attempts []imprint.Attempt) {
	attempts = slices.DeleteFunc(attempts, func(a imprint.Attempt) bool { return a.ClientID != client || a.Outcome == imprint.OutcomeRefused })
	slices.SortFunc(attempts, func(a, b imprint.Attempt) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	var strangers, returns, things int
	var certificates []imprint.CertificateID
	var hosts []string
	for i := range attempts {
		a := &attempts[i]
		b := successor(attempts, i)
		if b == nil {
			continue
		}
		if b.CertificateID != a.CertificateID {
			strangers++
			if a.Thing != b.Thing {
				things++
			}
			certificates = append(certificates, a.CertificateID, b.CertificateID)
			continue
		}
		if a.Host() != b.Host() && a.EndedAt.Sub(a.At) < shortly {
			returns++
			hosts = append(hosts, a.Host(), b.Host())
			certificates = append(certificates, a.CertificateID)
		}
	}
	if strangers < rivals && things == 0 && returns < rivals {
		return
	}
	slices.Sort(certificates)
	certificates = slices.Compact(certificates)
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	f := flaw{
		resource: imprint.AuditResource{Kind: imprint.AuditClientID, ID: string(client)}, code: "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS",
		mitigation: fmt.Sprintf("imprint explain %s shows who ended whom. Give each device a client id of its own, and let the policy demand it: client/${iot:Connection.Thing.ThingName}", typed(string(client))),
	}
	for _, id := range certificates[:min(len(certificates), maxRelated)] {
		f.related = append(f.related, deviceCertificate(id))
	}
	if strangers > 0 {
		f.reason = fmt.Sprintf("Devices with %d certificates ended each other's connections, because they have one client id: at least %d times.", len(certificates), strangers)
	} else {
		f.reason = fmt.Sprintf("Devices at %s ended each other's connections, because they have one client id: at least %d times.", strings.Join(hosts, ", "), returns)
	}
	w.find(ConflictingClientIDs, f)
	if returns < rivals || len(certificates) != 1 {
		return
	}
	w.find(DeviceCertificateShared, flaw{
		resource: deviceCertificate(certificates[0]), related: []imprint.AuditResource{f.resource}, code: "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES",
		reason: fmt.Sprintf("Devices at %s come with this certificate and end each other's connections: at least %d times.", strings.Join(hosts, ", "), returns),
		mitigation: fmt.Sprintf("imprint explain %s shows the devices. Give each a certificate of its own. Then: %s",
			certificates[0], deactivate(certificates[0])),
	})
}

// successor gives the attempt that took the place of another: the next one. The end of
// a connection is seen a moment after it was taken over, when others may have come.
func successor(attempts []imprint.Attempt, i int) *imprint.Attempt {
	a := &attempts[i]
	if a.Code != imprint.CodeTakenOver {
		return nil
	}
	if i+1 == len(attempts) || attempts[i+1].At.After(a.EndedAt) {
		return nil
	}
	return &attempts[i+1]
}

// typed gives a word as a shell takes it. Devices choose client ids: what a person
// types because a finding says so must not be a command of theirs.
func typed(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/@%+=,") == "" && word[0] != '-' {
		return word
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, word)
	return "'" + strings.ReplaceAll(visible, "'", `'\''`) + "'"
}

package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// longestSilence is how long the server keeps a connection whose client is gone: one
// and a half of the longest keep-alive time (AWS IoT Core developer guide, "MQTT
// connection": 1200 s). Connections that were open together for longer were alive.
const longestSilence = 30 * time.Minute

// maxTogether bounds the certificates that are looked at of who is connected now.
const maxTogether = 10_000

// stay is a connection with a certificate.
type stay struct {
	client imprint.ClientID
	host   string
	at     time.Time
}

// pair are connections that one certificate had at the same time.
type pair struct {
	one, other stay
	times      int
}

// together finds certificates that several connections had at the same time, under
// different client ids: AWS's own criterion (AWS IoT Device Defender developer guide,
// "Device certificate shared"). It visits attempts from the newest to the oldest, and
// keeps two of each certificate.
type together struct {
	now    time.Time
	limit  int    // of certificates in last
	before string // id of the last one that was visited: they sort by time
	// last has, of each certificate, the connection that was visited last, and the last
	// of another client id. Of all later ones they began first, so that an earlier one
	// which outlived any under another client id outlived one of them.
	last  map[imprint.CertificateID][2]stay
	pairs map[imprint.CertificateID]*pair
}

func newTogether(now time.Time, limit int) *together {
	return &together{now: now, limit: limit, last: map[imprint.CertificateID][2]stay{}, pairs: map[imprint.CertificateID]*pair{}}
}

// visit takes the next attempt, and says whether it could: not when there are too many
// certificates. A page of attempts may have to be read again.
func (t *together) visit(a imprint.Attempt) bool {
	if a.CertificateID == "" || a.ClientID == "" || a.Outcome != imprint.OutcomeClosed && a.Outcome != imprint.OutcomeConnected {
		return true
	}
	later, known := t.last[a.CertificateID]
	if !known && len(t.last) >= t.limit {
		return false
	}
	if t.before != "" && a.ID >= t.before {
		return true
	}
	t.before = a.ID
	this := stay{a.ClientID, a.Host(), a.At}
	for _, b := range later {
		if b.client != "" && b.client != this.client && !b.at.Before(a.At) && b.at.Before(a.EndedAt) && alive(a, b.at) {
			t.met(a.CertificateID, this, b)
			break
		}
	}
	if later[0].client != this.client {
		later[1] = later[0]
	}
	later[0] = this
	t.last[a.CertificateID] = later
	return true
}

// alive says whether the client of a connection was still there at an instant: it said
// something later, or the server would have given it up. A device that lost its
// connection and came back under another client id is one device.
func alive(a imprint.Attempt, at time.Time) bool {
	switch a.Code {
	case "", imprint.CodeServerStopped: // it is on, or when it ended isn't known
		return false
	case imprint.CodeConnectionLost, imprint.CodeKeepAliveTimeout, imprint.CodeTakenOver, imprint.CodeServerShutdown:
		return a.EndedAt.Sub(at) > longestSilence
	}
	return true
}

func (t *together) met(id imprint.CertificateID, one, other stay) {
	p := t.pairs[id]
	if p == nil {
		t.pairs[id] = &pair{one, other, 1}
		return
	}
	p.times++
	if p.one.host == p.other.host && one.host != other.host {
		p.one, p.other = one, other
	}
}

// live takes those who are connected. The older of two must have outlived the time in
// which the server finds out that a client is gone.
func (t *together) live(clients []imprint.LiveClient) {
	slices.SortStableFunc(clients, func(a, b imprint.LiveClient) int {
		if a.Certificate != b.Certificate {
			return strings.Compare(string(a.Certificate), string(b.Certificate))
		}
		return a.Since.Compare(b.Since)
	})
	first := 0 // of the same certificate
	for i, newer := range clients {
		if newer.Certificate != clients[first].Certificate {
			first = i
		}
		for _, older := range clients[first:i] {
			if older.ClientID == newer.ClientID || t.now.Sub(newer.Since) <= older.KeepAlive*3/2 {
				continue
			}
			p := t.pairs[newer.Certificate]
			if p == nil || p.one.host == p.other.host {
				t.pairs[newer.Certificate] = &pair{stay{older.ClientID, older.Host, older.Since}, stay{newer.ClientID, newer.Host, newer.Since}, rivals}
			}
		}
	}
}

// concurrent finds the certificates that were, or are, in use several times at once.
// From one address it takes several times to count: firmware that opens a connection
// before it closes its last one does so once in a while.
func (w *walk) concurrent(t *together) error {
	if !w.wants(DeviceCertificateShared) {
		return nil
	}
	if w.auditor.opts.Sharing != nil {
		t.live(w.auditor.opts.Sharing(w.ctx, w.tenant, maxTogether, maxRelated))
	}
	var ids []string
	for id, p := range t.pairs {
		if p.one.host != p.other.host || p.times >= rivals {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return w.each(ids, func(tx imprint.ReadTx, id string) error {
		c, err := tx.Certificate(w.tenant, imprint.CertificateID(id))
		if err != nil || !usable(c) {
			return ignoreMissing(err)
		}
		claim, err := w.isClaim(tx, c)
		if err != nil || claim {
			return err
		}
		p := t.pairs[c.ID]
		hosts := "from " + p.one.host
		if p.one.host != p.other.host {
			hosts = "from " + p.one.host + " and " + p.other.host
		}
		w.find(DeviceCertificateShared, flaw{
			resource: described(c), code: "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES",
			related: []imprint.AuditResource{{Kind: imprint.AuditClientID, ID: string(p.one.client)}, {Kind: imprint.AuditClientID, ID: string(p.other.client)}},
			reason: fmt.Sprintf("Connections as %s and as %s had the certificate at the same time, %s, such as at %s. Who has one of these devices can pass for all.",
				typed(string(p.one.client)), typed(string(p.other.client)), hosts, stamp(p.other.at)),
			mitigation: fmt.Sprintf("imprint explain %s shows the devices. Give each a certificate of its own. Then: %s", id, deactivate(c.ID)),
		})
		return nil
	})
}

// isClaim tells certificates that devices are meant to share: those of claims, by
// their guard or by their policies.
func (w *walk) isClaim(tx imprint.ReadTx, c imprint.Certificate) (bool, error) {
	_, err := tx.ClaimGuard(w.tenant, c.ID)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return err == nil, err
	}
	attached, _, err := tx.TargetPolicies(w.tenant, c.ARN(), imprint.Page{Limit: imprint.MaxPoliciesPerCertificate, Ascending: true})
	if err != nil {
		return false, err
	}
	for _, a := range attached {
		p, err := tx.Policy(w.tenant, a.Policy)
		if err != nil {
			return false, ignoreMissing(err)
		}
		version, err := tx.PolicyVersion(w.tenant, a.Policy, p.DefaultVersion)
		if err != nil {
			return false, ignoreMissing(err)
		}
		doc, err := policy.Parse([]byte(version.Document))
		if err == nil && forClaims(doc) {
			return true, nil
		}
	}
	return false, nil
}

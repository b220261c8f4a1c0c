package renewal

import (
	"time"

	"github.com/imprint-iot/imprint"
)

// A family is what came of one certificate by renewal: renewed once more when an answer was
// lost, and renewed again in its time.
type family struct {
	top imprint.CertificateID
	// renewals are in the order in which they are found: those of a certificate before those
	// of what came of it.
	renewals []*imprint.Renewal
	byMade   map[imprint.CertificateID]*imprint.Renewal
}

// Bounds of a family that is looked at: what is beyond was ended long ago.
const (
	maxAncestors = 16
	maxFamily    = 200
)

// familyOf reads the family of a certificate: up to the oldest that a renewal leads to, as
// long as those are open, and down from there.
func familyOf(tx imprint.ReadTx, of key) (*family, error) {
	f := &family{top: of.id, byMade: map[imprint.CertificateID]*imprint.Renewal{}}
	for range maxAncestors {
		r, err := tx.Renewal(of.tenant, f.top)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			break
		}
		if err != nil {
			return nil, err
		}
		f.top = r.Renews
	}
	for queue := []imprint.CertificateID{f.top}; len(queue) > 0; queue = queue[1:] {
		made, err := tx.RenewalsOf(of.tenant, queue[0])
		if err != nil {
			return nil, err
		}
		for _, r := range made {
			if f.byMade[r.Certificate] != nil || len(f.renewals) >= maxFamily {
				continue
			}
			f.renewals = append(f.renewals, &r)
			f.byMade[r.Certificate] = &r
			queue = append(queue, r.Certificate)
		}
	}
	return f, nil
}

// all are its certificates.
func (f *family) all() []imprint.CertificateID {
	ids := []imprint.CertificateID{f.top}
	for _, r := range f.renewals {
		ids = append(ids, r.Certificate)
	}
	return ids
}

func (f *family) open() bool {
	for _, r := range f.renewals {
		if r.Open() {
			return true
		}
	}
	return false
}

// above says whether one certificate came of another.
func (f *family) above(old, made imprint.CertificateID) bool {
	for range maxFamily {
		r := f.byMade[made]
		if r == nil {
			return false
		}
		if r.Renews == old {
			return true
		}
		made = r.Renews
	}
	return false
}

// proven is when a certificate was proven; zero: it wasn't.
func (f *family) proven(id imprint.CertificateID) time.Time {
	if r := f.byMade[id]; r != nil {
		return r.ProvenAt
	}
	return time.Time{}
}

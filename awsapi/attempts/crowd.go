package attempts

import (
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
)

// IDDigits of an attempt's id name it to a person: 12 of its time and 4 of chance.
const IDDigits = 16

// crowded notes which of the attempts that were found are other devices': many that fail in
// the same way have one entry, and of that the latest device is shown.
func (q *quest) crowded(found []imprint.Attempt) {
	for i := range found {
		a := &found[i]
		if a.Devices == 0 || q.word == "" || q.about(a) || len(q.notes) >= maxRelated {
			continue
		}
		latest := a.Host()
		for _, name := range []string{string(a.CertificateID), a.Subject, string(a.ClientID)} {
			if name != "" {
				latest = name
			}
		}
		devices := "one device"
		if a.Devices > 1 {
			devices = fmt.Sprintf("%d devices", a.Devices)
		}
		q.notes = append(q.notes, fmt.Sprintf("%s is counted in attempt %s with others that failed in the same way, at least %s in all: what is shown of it is the latest of them, %s.",
			q.word, a.ID[:min(len(a.ID), IDDigits)], devices, latest))
	}
}

// about says whether an attempt is that of a form, not only counted with it.
func (q *quest) about(a *imprint.Attempt) bool {
	for _, name := range []string{a.ID, string(a.CertificateID), a.Serial, string(a.Thing), string(a.ClientID), a.Address, a.Host()} {
		if name != "" && slices.Contains(q.forms, name) {
			return true
		}
	}
	return slices.ContainsFunc(a.Steps, func(s imprint.Step) bool {
		return s.Certificate != "" && slices.Contains(q.forms, string(s.Certificate))
	})
}

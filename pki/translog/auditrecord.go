package translog

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// readIssuances compares the record of signatures with the log: the entries were compared
// already, so that it's enough when as many issuances have an index.
func (a *audit) readIssuances() error {
	var inLog int64
	err := a.eachIssuance(func(i imprint.LoggedIssuance, registered []imprint.Certificate) {
		a.done.Issuances++
		if i.LogIndex >= 0 && i.LogIndex < a.done.Checkpoint.N {
			inLog++
			return
		}
		for _, u := range a.unrecorded {
			if u.issuance == i.ID {
				return // its entry was read
			}
		}
		a.addRegistered(registered)
		age := a.config.Clock().Sub(i.At)
		switch {
		case age > a.config.Grace || age < -a.config.Grace || i.LogIndex >= a.done.Checkpoint.N && i.LogIndex < a.state.Size-maxUnpublished:
			a.find(Finding{Kind: FindingNotInLog, Tenant: i.Tenant, Certificate: i.CertificateID, Issuance: i.ID, Index: i.LogIndex,
				Problem: fmt.Sprintf("it was prepared at %s, and the log doesn't have it", i.At.UTC().Format(time.RFC3339))})
		default:
			a.done.Waiting++
		}
	})
	if err != nil || inLog == a.recorded {
		return err
	}
	// Some say that they have an entry that isn't theirs. Which?
	names := &entryNames{ctx: a.ctx, source: a.config.Source, size: a.done.Checkpoint.N}
	return a.eachIssuance(func(i imprint.LoggedIssuance, registered []imprint.Certificate) {
		if i.LogIndex < 0 || i.LogIndex >= a.done.Checkpoint.N || names.at(i.LogIndex) == i.ID {
			return
		}
		// Its certificate may be in the log for all that, by another entry; compare doesn't
		// count it twice, as it reads the log again.
		a.find(Finding{Kind: FindingNotInLog, Tenant: i.Tenant, Certificate: i.CertificateID, Issuance: i.ID, Index: i.LogIndex,
			Problem: fmt.Sprintf("the record of signatures says that it is entry %d, and that is another one's", i.LogIndex)})
	})
}

// eachIssuance calls yield with every issuance that has a certificate, and for those that
// aren't in the checkpoint's tree with the rows of the registry.
func (a *audit) eachIssuance(yield func(imprint.LoggedIssuance, []imprint.Certificate)) error {
	after := ""
	for {
		var rows []imprint.LoggedIssuance
		registered := make(map[string][]imprint.Certificate)
		err := a.view(func(tx imprint.ReadTx) error {
			var err error
			rows, err = tx.LoggedIssuances(after, auditPage)
			if err != nil {
				return err
			}
			for _, i := range rows {
				if i.CertificateID != "" && (i.LogIndex < 0 || i.LogIndex >= a.done.Checkpoint.N) {
					registered[i.ID], err = tx.CertificateTenants(i.CertificateID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, i := range rows {
			if i.CertificateID != "" {
				yield(i, registered[i.ID])
			}
			after = i.ID
		}
	}
}

// entryNames tells the issuances of entries, one bundle at a time.
type entryNames struct {
	ctx    context.Context
	source tiles.Source
	size   int64
	from   int64
	names  []string
}

// at gives the issuance of an entry; empty for one that can't be read, which Check told of.
func (n *entryNames) at(index int64) string {
	from := index / tiles.Width * tiles.Width
	if n.names == nil || n.from != from {
		n.from, n.names = from, make([]string, tiles.Width)
		_ = tiles.Entries(n.ctx, n.source, from, min(n.size, from+tiles.Width), func(i int64, raw []byte) error {
			e, err := tiles.ParseEntry(raw)
			if err == nil {
				n.names[i-from] = e.Issuance
			}
			return nil
		})
	}
	return n.names[index-from]
}

package translog

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// buckets is by how many parts of their ids certificates are summed up.
const buckets = 1 << 16

// sums tells two sets of certificates apart in memory that doesn't grow with them: for each
// bucket of ids, how many there are, and the sum of their hashes under two keys that are
// random for the process.
type sums struct{ parts []part }

type part struct {
	count    int64
	one, two uint64
}

// Under these keys nobody outside can choose certificates whose sums are alike.
var seedOne, seedTwo = maphash.MakeSeed(), maphash.MakeSeed()

func newSums() *sums { return &sums{parts: make([]part, buckets)} }

// name is what stands for a certificate in a tenant.
func name(id imprint.CertificateID, tenant imprint.Tenant) string {
	return string(id) + " " + tenant.String()
}

func bucketOf(id imprint.CertificateID) int {
	return int(maphash.String(seedOne, string(id)) % buckets)
}

func (s *sums) add(id imprint.CertificateID, tenant imprint.Tenant) {
	text := name(id, tenant)
	p := &s.parts[bucketOf(id)]
	p.count++
	p.one += maphash.String(seedOne, text)
	p.two += maphash.String(seedTwo, text)
}

// different are the buckets in which two sums differ.
func (s *sums) different(other *sums) []int {
	var differ []int
	for i, p := range s.parts {
		if p != other.parts[i] {
			differ = append(differ, i)
		}
	}
	return differ
}

// compareAtOnce is how many certificates of differing buckets are held in memory at once.
const compareAtOnce = 200_000

// compare finds the certificates of the registry that the log doesn't have.
func (a *audit) compare() error {
	differ := a.registry.different(a.known)
	for len(differ) > 0 {
		chosen := make(map[int]bool)
		var size int64
		for len(differ) > 0 && (size == 0 || size+a.registry.parts[differ[0]].count <= compareAtOnce) {
			size += a.registry.parts[differ[0]].count
			chosen[differ[0]] = true
			differ = differ[1:]
		}
		err := a.compareBuckets(chosen)
		if err != nil {
			return err
		}
	}
	return nil
}

type registration struct {
	id     imprint.CertificateID
	tenant imprint.Tenant
}

// compareBuckets compares the certificates of some buckets one by one.
func (a *audit) compareBuckets(chosen map[int]bool) error {
	missing := make(map[registration]bool)
	err := a.eachRegistered(func(row imprint.Certificate) {
		if !chosen[bucketOf(row.ID)] {
			return
		}
		c, err := parseRow(&row)
		if err == nil && a.ours(c) {
			missing[registration{row.ID, row.Tenant}] = true
		}
	})
	if err != nil {
		return err
	}
	// A certificate is in the log for all tenants that registered it.
	byID := make(map[imprint.CertificateID][]registration)
	for r := range missing {
		byID[r.id] = append(byID[r.id], r)
	}
	inLog := make(map[imprint.CertificateID]int64)
	have := func(id imprint.CertificateID) {
		for _, r := range byID[id] {
			delete(missing, r)
		}
	}
	err = a.readableEntries(func(index int64, e tiles.Entry) {
		if byID[e.Certificate] == nil {
			return
		}
		first, twice := inLog[e.Certificate]
		if twice {
			a.find(Finding{Kind: FindingTwice, Tenant: e.Tenant, Certificate: e.Certificate, Issuance: e.Issuance, Index: index,
				Problem: fmt.Sprintf("the log has it as entry %d, too", first)})
		}
		inLog[e.Certificate] = index
		have(e.Certificate)
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	err = a.eachIssuance(func(i imprint.LoggedIssuance, _ []imprint.Certificate) {
		if byID[i.CertificateID] != nil && (i.LogIndex < 0 || i.LogIndex >= a.done.Checkpoint.N) {
			have(i.CertificateID) // readIssuances told of those that wait for too long
		}
	})
	if err != nil {
		return err
	}
	for r := range missing {
		err = a.missing(r)
		if err != nil {
			return err
		}
	}
	return nil
}

// readableEntries calls yield with the entries of all bundles that can be read.
func (a *audit) readableEntries(yield func(index int64, e tiles.Entry)) error {
	for from := int64(0); from < a.done.Checkpoint.N; from += tiles.Width {
		err := a.ctx.Err()
		if err != nil {
			return err
		}
		_ = tiles.Entries(a.ctx, a.config.Source, from, min(a.done.Checkpoint.N, from+tiles.Width), func(index int64, raw []byte) error {
			e, err := tiles.ParseEntry(raw)
			if err == nil {
				yield(index, e)
			}
			return nil
		})
	}
	return nil
}

// missing tells of a certificate that the log doesn't have, when it is still registered and
// really one of ours.
func (a *audit) missing(r registration) error {
	var row imprint.Certificate
	err := a.view(func(tx imprint.ReadTx) error {
		var err error
		row, err = tx.Certificate(r.tenant, r.id)
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := parseRow(&row)
	if err != nil {
		return nil // readRegistry told of it
	}
	if !a.signed(c) {
		// Someone else's CA has the same name, as every Imprint's built-in one does.
		a.done.Ours--
		return nil
	}
	a.find(Finding{Kind: FindingNotInLog, Tenant: r.tenant, Certificate: r.id, Index: -1,
		Problem: fmt.Sprintf("it is registered since %s, one of our CAs signed it, and neither the log nor the record of signatures has it", row.CreatedAt.UTC().Format(time.RFC3339))})
	return nil
}

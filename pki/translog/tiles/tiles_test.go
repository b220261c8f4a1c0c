package tiles_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

func sample(der []byte) tiles.Entry {
	sum := sha256.Sum256(der)
	return tiles.Entry{
		Tenant: imprint.Tenant{Account: "000000000000", Region: "us-east-1"}, Authority: "00000000-0000-4000-8000-000000000001",
		Issuance: "0199", Certificate: imprint.CertificateID(hex.EncodeToString(sum[:])), DER: der,
	}
}

// The encoding is for ever: logs that are written have it.
func TestEntryHasItsEncoding(t *testing.T) {
	t.Parallel()
	raw, err := sample([]byte("DER")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := "\x01" + "\x0c000000000000" + "\x09us-east-1" + "\x2400000000-0000-4000-8000-000000000001" + "\x040199"
	sum := sha256.Sum256([]byte("DER"))
	want += string(sum[:]) + "\x00\x03DER"
	if string(raw) != want {
		t.Errorf("got %q, want %q", raw, want)
	}
	if got, want := tiles.LeafHash(raw), tlog.Hash(sha256.Sum256(append([]byte{0}, raw...))); got != want {
		t.Errorf("leaf hash: got %s, want %s", got, want)
	}
	got, err := tiles.ParseEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, sample([]byte("DER"))); diff != "" {
		t.Errorf("decoded (-got +want):\n%s", diff)
	}
}

func TestEntryThatIsTooLongLosesItsBytesAndKeepsItsCertificate(t *testing.T) {
	t.Parallel()
	e := sample(bytes.Repeat([]byte("x"), 70_000))
	raw, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e.DER = nil
	got, err := tiles.ParseEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, e); diff != "" {
		t.Errorf("decoded (-got +want):\n%s", diff)
	}
}

func TestEntryRefusesWhatItCantSay(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tiles.Entry){
		"another certificate's id": func(e *tiles.Entry) { e.Certificate = sample([]byte("other")).Certificate },
		"no id":                    func(e *tiles.Entry) { e.Certificate = "" },
		"upper case":               func(e *tiles.Entry) { e.Certificate = imprint.CertificateID(strings.ToUpper(string(e.Certificate))) },
		"no account":               func(e *tiles.Entry) { e.Tenant.Account = "" },
		"a long issuance":          func(e *tiles.Entry) { e.Issuance = strings.Repeat("1", 256) },
	} {
		e := sample([]byte("DER"))
		change(&e)
		raw, err := e.Marshal()
		if err == nil {
			t.Errorf("%s: got %q", name, raw)
		}
	}
	raw, err := sample([]byte("DER")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for size := range raw {
		_, err = tiles.ParseEntry(raw[:size])
		if err == nil {
			t.Errorf("an entry cut to %d bytes was decoded", size)
		}
	}
	_, err = tiles.ParseEntry(append(raw, 0))
	if err == nil {
		t.Error("an entry with a byte behind it was decoded")
	}
}

// What is decoded encodes to the same bytes: there are no two forms of one entry.
func FuzzEntry(f *testing.F) {
	for _, der := range []string{"", "DER", strings.Repeat("x", 300)} {
		raw, err := sample([]byte(der)).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := tiles.ParseEntry(raw)
		if err != nil {
			return
		}
		again, err := e.Marshal()
		if err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%x was decoded, and encodes to %x (%v)", raw, again, err)
		}
	})
}

// What is read as a proof writes the same text.
func FuzzProof(f *testing.F) {
	f.Add(tiles.Proof{Index: 7, Hashes: tlog.RecordProof{{1}, {2}}, Checkpoint: []byte("origin\n")}.Marshal())
	f.Add(tiles.Proof{}.Marshal())
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := tiles.ParseProof(raw)
		if err != nil {
			return
		}
		if again := p.Marshal(); !bytes.Equal(again, raw) {
			t.Errorf("%q was read, and writes as %q", raw, again)
		}
	})
}

// The frontier has the root that tlog computes, for every size.
func TestFrontierHasTheRootOfTheTree(t *testing.T) {
	t.Parallel()
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indices []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indices {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	var f tiles.Frontier
	if got, want := f.Root(), tlog.Hash(sha256.Sum256(nil)); got != want {
		t.Errorf("empty: got %s, want %s", got, want)
	}
	for n := range int64(600) {
		leaf := tlog.RecordHash([]byte{byte(n), byte(n >> 8)})
		f.Append(leaf)
		stored, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil || f.Root() != want || f.Size() != n+1 {
			t.Fatalf("%d leaves: got %s of %d, want %s (%v)", n+1, f.Root(), f.Size(), want, err)
		}
	}
}

package tiles

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/imprint-iot/imprint"
)

// MaxEntry is how long an encoded entry may be: tlog-tiles has two bytes for it.
const MaxEntry = 1<<16 - 1

// version is the first byte of every entry.
const version = 1

// Entry is what the log says of one certificate.
type Entry struct {
	Tenant imprint.Tenant
	// Authority is who signed it; empty: the built-in device CA.
	Authority imprint.AuthorityID
	// Issuance is the id of the record of the signature.
	Issuance string
	// Certificate is the SHA-256 of its DER.
	Certificate imprint.CertificateID
	// DER is the certificate. It is empty when it was deleted before it could be logged,
	// and when it is too large for an entry.
	DER []byte
}

// Marshal gives the one encoding of an entry. Numbers are big-endian.
//
//	1 byte       the version, 1
//	1 + n bytes  the account: n, and n bytes of UTF-8
//	1 + n bytes  the region
//	1 + n bytes  the authority's id; n is 0 for the built-in device CA
//	1 + n bytes  the issuance's id
//	32 bytes     the certificate's id: SHA-256 of its DER
//	2 + n bytes  the DER; n is 0 when the log doesn't have it
//
// Nothing follows. A DER that would make the entry longer than MaxEntry is left out.
func (e Entry) Marshal() ([]byte, error) {
	id, err := hex.DecodeString(string(e.Certificate))
	if err != nil || len(id) != sha256.Size || strings.ToLower(string(e.Certificate)) != string(e.Certificate) {
		return nil, fmt.Errorf("couldn't encode an entry: %q isn't a certificate's id", imprint.Excerpt(string(e.Certificate)))
	}
	raw := make([]byte, 1, 128+len(e.DER))
	raw[0] = version
	for _, text := range e.texts() {
		if len(text) > 255 {
			return nil, fmt.Errorf("couldn't encode an entry: %q is too long", imprint.Excerpt(text))
		}
		raw = append(raw, byte(len(text)))
		raw = append(raw, text...)
	}
	raw = append(raw, id...)
	der := e.DER
	if len(raw)+2+len(der) > MaxEntry {
		der = nil
	}
	raw = binary.BigEndian.AppendUint16(raw, uint16(len(der)))
	raw = append(raw, der...)
	_, err = ParseEntry(raw)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode an entry: %w", err)
	}
	return raw, nil
}

func (e Entry) texts() [4]string {
	return [4]string{string(e.Tenant.Account), string(e.Tenant.Region), string(e.Authority), e.Issuance}
}

// ParseEntry decodes an entry. It accepts exactly what Marshal gives: the DER, when it is
// there, has the SHA-256 that the entry says.
func ParseEntry(raw []byte) (Entry, error) {
	var e Entry
	if len(raw) > MaxEntry {
		return e, fmt.Errorf("the entry has %d bytes, more than %d", len(raw), MaxEntry)
	}
	if len(raw) == 0 || raw[0] != version {
		return e, errors.New("the entry isn't of a version that is known: its first byte isn't 1")
	}
	rest := raw[1:]
	var texts [4]string
	for i := range texts {
		if len(rest) == 0 {
			return e, errShort
		}
		end := 1 + int(rest[0])
		if len(rest) < end {
			return e, errShort
		}
		texts[i], rest = string(rest[1:end]), rest[end:]
	}
	if texts[0] == "" || texts[1] == "" || texts[3] == "" {
		return e, errors.New("the entry has no account, region or issuance")
	}
	if len(rest) < sha256.Size+2 {
		return e, errShort
	}
	id, size := rest[:sha256.Size], int(binary.BigEndian.Uint16(rest[sha256.Size:]))
	rest = rest[sha256.Size+2:]
	if len(rest) != size {
		return e, fmt.Errorf("the entry has %d bytes for a certificate of %d", len(rest), size)
	}
	if size > 0 {
		sum := sha256.Sum256(rest)
		if !bytes.Equal(sum[:], id) {
			return e, errors.New("the certificate in the entry hasn't the id that the entry says")
		}
		e.DER = bytes.Clone(rest)
	}
	e.Tenant = imprint.Tenant{Account: imprint.AccountID(texts[0]), Region: imprint.Region(texts[1])}
	e.Authority, e.Issuance = imprint.AuthorityID(texts[2]), texts[3]
	e.Certificate = imprint.CertificateID(hex.EncodeToString(id))
	return e, nil
}

var errShort = errors.New("the entry ends too early")

// LeafHash gives the hash of an encoded entry in the tree (RFC 6962 section 2.1).
func LeafHash(raw []byte) tlog.Hash { return tlog.RecordHash(raw) }

// splitBundle gives the entries of an entry bundle, which must be exactly count.
func splitBundle(raw []byte, count int) ([][]byte, error) {
	entries := make([][]byte, 0, count)
	for len(raw) > 0 {
		if len(entries) == count {
			return nil, fmt.Errorf("the bundle has more than its %d entries", count)
		}
		if len(raw) < 2 {
			return nil, errBundle
		}
		size := int(binary.BigEndian.Uint16(raw))
		if len(raw) < 2+size {
			return nil, errBundle
		}
		entries = append(entries, raw[2:2+size:2+size])
		raw = raw[2+size:]
	}
	if len(entries) < count {
		return nil, fmt.Errorf("the bundle has %d of its %d entries", len(entries), count)
	}
	return entries, nil
}

var errBundle = errors.New("the bundle ends inside an entry")

func certificateID(der []byte) imprint.CertificateID {
	sum := sha256.Sum256(der)
	return imprint.CertificateID(hex.EncodeToString(sum[:]))
}

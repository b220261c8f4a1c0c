package recheck

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// certificate is an X.509 certificate as its octets say it (RFC 5280 section 4.1).
type certificate struct {
	version             int64
	serial              *big.Int
	serialOctets        []byte
	inner, outer        []byte // the algorithm that is signed, and the one beside the signature
	issuer, subject     []byte
	notBefore, notAfter instant
	spki                []byte
	keyBits             []byte // of the BIT STRING
	extensions          []extension
}

// instant is a time with the type that it was written in.
type instant struct {
	time.Time
	utc bool
}

type extension struct {
	id       string
	critical bool
	value    []byte
}

func parse(der []byte) (*certificate, error) {
	input := cryptobyte.String(der)
	var whole, tbs, signature cryptobyte.String
	var outer cryptobyte.String
	if !input.ReadASN1(&whole, tag.SEQUENCE) || !input.Empty() || !whole.ReadASN1(&tbs, tag.SEQUENCE) || !whole.ReadASN1Element(&outer, tag.SEQUENCE) ||
		!whole.ReadASN1(&signature, tag.BIT_STRING) || !whole.Empty() {
		return nil, errors.New("it isn't a sequence of what is signed, an algorithm and a signature")
	}
	c := &certificate{outer: outer}
	var version, serial, inner, validity, issuer, subject, spki cryptobyte.String
	if !tbs.ReadASN1(&version, tag.Tag(0).Constructed().ContextSpecific()) || !version.ReadASN1Integer(&c.version) || !version.Empty() {
		return nil, errors.New("it has no version")
	}
	if !tbs.ReadASN1(&serial, tag.INTEGER) || len(serial) == 0 {
		return nil, errors.New("it has no serial number")
	}
	c.serialOctets, c.serial = serial, new(big.Int).SetBytes(serial)
	if !tbs.ReadASN1Element(&inner, tag.SEQUENCE) || !tbs.ReadASN1Element(&issuer, tag.SEQUENCE) || !tbs.ReadASN1(&validity, tag.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, tag.SEQUENCE) || !tbs.ReadASN1Element(&spki, tag.SEQUENCE) {
		return nil, errors.New("its algorithm, issuer, validity, subject or key can't be read")
	}
	c.inner, c.issuer, c.subject, c.spki = inner, issuer, subject, spki
	var err error
	c.notBefore, err = readInstant(&validity)
	if err == nil {
		c.notAfter, err = readInstant(&validity)
	}
	if err != nil || !validity.Empty() {
		return nil, errors.New("its validity can't be read")
	}
	var key, algorithm, bits cryptobyte.String
	if !spki.ReadASN1(&key, tag.SEQUENCE) || !key.ReadASN1(&algorithm, tag.SEQUENCE) || !key.ReadASN1(&bits, tag.BIT_STRING) || !key.Empty() || len(bits) < 2 || bits[0] != 0 {
		return nil, errors.New("its public key can't be read")
	}
	c.keyBits = bits[1:]
	c.extensions, err = readExtensions(&tbs)
	if err != nil {
		return nil, err
	}
	if !tbs.Empty() {
		return nil, errors.New("something stands behind its extensions")
	}
	return c, nil
}

func readInstant(from *cryptobyte.String) (instant, error) {
	var t time.Time
	if from.PeekASN1Tag(tag.UTCTime) {
		if !from.ReadASN1UTCTime(&t) {
			return instant{}, errors.New("it isn't a time")
		}
		return instant{t, true}, nil
	}
	if !from.ReadASN1GeneralizedTime(&t) {
		return instant{}, errors.New("it isn't a time")
	}
	return instant{t, false}, nil
}

func readExtensions(tbs *cryptobyte.String) ([]extension, error) {
	var field, list cryptobyte.String
	if !tbs.ReadASN1(&field, tag.Tag(3).Constructed().ContextSpecific()) || !field.ReadASN1(&list, tag.SEQUENCE) || !field.Empty() {
		return nil, errors.New("its extensions can't be read")
	}
	var all []extension
	seen := map[string]bool{}
	for !list.Empty() {
		var one, id, value cryptobyte.String
		e := extension{}
		if !list.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1(&id, tag.OBJECT_IDENTIFIER) {
			return nil, errors.New("an extension can't be read")
		}
		if one.PeekASN1Tag(tag.BOOLEAN) {
			if !one.ReadASN1Boolean(&e.critical) || !e.critical {
				return nil, errors.New("an extension says that it isn't critical, which DER leaves out")
			}
		}
		if !one.ReadASN1(&value, tag.OCTET_STRING) || !one.Empty() {
			return nil, errors.New("an extension can't be read")
		}
		e.id, e.value = objectID(id), value
		if seen[e.id] {
			return nil, fmt.Errorf("extension %s is there twice", e.id)
		}
		seen[e.id] = true
		all = append(all, e)
	}
	return all, nil
}

// objectID gives the text of an object identifier's octets.
func objectID(octets []byte) string {
	text, value := "", new(big.Int)
	for _, octet := range octets {
		value.Lsh(value, 7).Or(value, big.NewInt(int64(octet&0x7f)))
		if octet&0x80 != 0 {
			continue
		}
		if text == "" {
			first := int64(2)
			if value.Cmp(big.NewInt(80)) < 0 {
				first = value.Int64() / 40
			}
			text = fmt.Sprint(first)
			value.Sub(value, big.NewInt(first*40))
		}
		text += "." + value.String()
		value = new(big.Int)
	}
	return text
}

// attribute is one of a name.
type attribute struct{ id, value string }

// readName gives the attributes of a name. Values that aren't text stand as their octets.
func readName(der []byte) ([]attribute, error) {
	relative, err := readRelativeNames(der)
	return slices.Concat(relative...), err
}

// readRelativeNames gives the relative names that a name is of, each with its attributes.
func readRelativeNames(der []byte) ([][]attribute, error) {
	input := cryptobyte.String(der)
	var names cryptobyte.String
	if !input.ReadASN1(&names, tag.SEQUENCE) || !input.Empty() {
		return nil, errors.New("it isn't a name")
	}
	var all [][]attribute
	for !names.Empty() {
		var set cryptobyte.String
		if !names.ReadASN1(&set, tag.SET) || set.Empty() {
			return nil, errors.New("it isn't a name")
		}
		var attributes []attribute
		for !set.Empty() {
			var one, id, value cryptobyte.String
			var kind tag.Tag
			if !set.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1(&id, tag.OBJECT_IDENTIFIER) || !one.ReadAnyASN1(&value, &kind) || !one.Empty() {
				return nil, errors.New("it isn't a name")
			}
			text := string(value)
			switch kind {
			case 20: // T61String, which is read as ISO 8859-1
				text = ""
				for _, octet := range value {
					text += string(rune(octet))
				}
			case 30: // BMPString
				text = ""
				for i := 0; i+1 < len(value); i += 2 {
					text += string(rune(value[i])<<8 | rune(value[i+1]))
				}
			}
			attributes = append(attributes, attribute{objectID(id), text})
		}
		all = append(all, attributes)
	}
	return all, nil
}

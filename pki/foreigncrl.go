package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// MaxForeignCRL bounds the bytes of a CRL that somebody else signed: some million entries.
const MaxForeignCRL = 32 << 20

// ForeignCRL is a CRL of a CA elsewhere whose signature and extensions were checked.
type ForeignCRL struct {
	Number                 *big.Int
	ThisUpdate, NextUpdate time.Time
	Hash                   string // lowercase hex SHA-256 of the DER
	// Scope are the URLs of its issuingDistributionPoint, by spelling; none: it is about all
	// certificates of the CA.
	Scope   []string
	entries []x509.RevocationListEntry
}

// Entries gives the entries one after the other, until yield returns false.
func (c *ForeignCRL) Entries(yield func(imprint.ForeignRevocation) bool) {
	for _, e := range c.entries {
		if !yield(imprint.ForeignRevocation{Serial: SerialHex(e.SerialNumber), RevokedAt: e.RevocationTime, Reason: e.ReasonCode}) {
			return
		}
	}
}

// Len is the number of entries.
func (c *ForeignCRL) Len() int { return len(c.entries) }

var (
	oidCRLNumber        = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaCRL         = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistributedCRL   = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidAuthorityKey     = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidEntryIssuer      = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidEntryReason      = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidEntryInvalidDate = asn1.ObjectIdentifier{2, 5, 29, 24}
)

// futureCRL is how far another machine's clock may be ahead.
const futureCRL = 5 * time.Minute

// ParseForeignCRL reads a CRL, PEM or DER, and checks that it may be believed for
// certificates of its CA (RFC 5280 sections 5 and 6.3): complete, of this CA alone, about
// device certificates and all reasons, signed by the CA's key, with a number and a next
// update, and without critical extensions that nobody here understands. Errors:
// CodeInvalidRequest, which say what is wrong.
func ParseForeignCRL(data []byte, ca *x509.Certificate, now time.Time) (*ForeignCRL, error) {
	der, err := crlBytes(data)
	if err != nil {
		return nil, err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil && strings.Contains(err.Error(), "unsupported crl version") {
		return nil, badCRL("it is a list of version 1").WithHint("Let its CA sign lists of version 2, with a CRL number: openssl ca -gencrl -crlexts SECTION.")
	}
	if err != nil {
		return nil, badCRL("it is no revocation list: %w", err)
	}
	if !bytes.Equal(list.RawIssuer, ca.RawSubject) {
		return nil, badCRL("its issuer is %q, and the CA is %q", SubjectText(list.RawIssuer), SubjectText(ca.RawSubject)).
			WithHint("Say the CA that signed the list. Lists that another authority signs for a CA (indirect ones) aren't taken.")
	}
	err = list.CheckSignatureFrom(ca)
	if err != nil {
		return nil, badCRL("its signature isn't of this CA's key: %w", err).
			WithHint("The CA may have had another key: say the CA's certificate of then. SHA-1 isn't accepted.")
	}
	sum := sha256.Sum256(der)
	c := &ForeignCRL{Number: list.Number, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, Hash: hex.EncodeToString(sum[:]), entries: list.RevokedCertificateEntries}
	err = c.extensions(list)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Number == nil:
		return nil, badCRL("it has no CRL number").WithHint("Without one nobody can tell an old list from a new one: let its CA give numbers.")
	case c.Number.Sign() < 0 || c.Number.BitLen() > 160:
		return nil, badCRL("its number has more than 20 octets, or is negative (RFC 5280 section 5.2.3)")
	case c.NextUpdate.IsZero():
		return nil, badCRL("it doesn't say when the next one comes").WithHint("RFC 5280 section 5.1.2.5 demands nextUpdate.")
	case !c.NextUpdate.After(c.ThisUpdate):
		return nil, badCRL("its next update, %s, is before its own, %s", c.NextUpdate.UTC().Format(time.RFC3339), c.ThisUpdate.UTC().Format(time.RFC3339))
	case c.ThisUpdate.After(now.Add(futureCRL)):
		return nil, badCRL("it is of %s, which is in the future", c.ThisUpdate.UTC().Format(time.RFC3339)).WithHint("Check the clock of the machine that signed it, and the server's.")
	}
	return c, nil
}

func badCRL(format string, args ...any) *imprint.Error {
	e := imprint.Errorf(imprint.CodeInvalidRequest, format, args...)
	return &imprint.Error{Code: imprint.CodeInvalidRequest, Op: "couldn't take the revocation list", Err: e}
}

// crlBytes gives the DER of the one list in PEM or DER.
func crlBytes(data []byte) ([]byte, error) {
	if len(data) > MaxForeignCRL {
		return nil, badCRL("it has %d bytes, and at most %d are taken", len(data), MaxForeignCRL)
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return data, nil
	}
	var der []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		if der != nil {
			return nil, badCRL("the file has several lists").WithHint("Import each by itself.")
		}
		der = block.Bytes
	}
	if der == nil {
		return nil, badCRL("the text has no PEM block X509 CRL")
	}
	return der, nil
}

// extensions looks at those of the list and of its entries.
func (c *ForeignCRL) extensions(list *x509.RevocationList) error {
	for _, e := range list.Extensions {
		switch {
		case e.Id.Equal(oidDeltaCRL):
			return badCRL("it is a delta list, which has the changes since another list alone (RFC 5280 section 5.2.4)").
				WithHint("Import the CA's complete list: the URL in its devices' certificates (openssl x509 -noout -ext crlDistributionPoints), not that of freshestCRL.")
		case e.Id.Equal(oidDistributedCRL):
			err := c.distributionPoint(e.Value)
			if err != nil {
				return err
			}
		case e.Critical && !e.Id.Equal(oidCRLNumber) && !e.Id.Equal(oidAuthorityKey):
			return badCRL("it has the critical extension %s, which Imprint doesn't understand", e.Id)
		}
	}
	for n := range c.entries {
		for _, e := range c.entries[n].Extensions {
			switch {
			case e.Id.Equal(oidEntryIssuer):
				return badCRL("it is an indirect list: the entry of serial number %s is another CA's", SerialHex(c.entries[n].SerialNumber)).
					WithHint("Import the list that the CA itself signs.")
			case e.Critical && !e.Id.Equal(oidEntryReason) && !e.Id.Equal(oidEntryInvalidDate):
				return badCRL("the entry of serial number %s has the critical extension %s, which Imprint doesn't understand", SerialHex(c.entries[n].SerialNumber), e.Id)
			}
		}
	}
	return nil
}

// distributionPoint reads an issuingDistributionPoint (RFC 5280 section 5.2.5).
func (c *ForeignCRL) distributionPoint(value []byte) error {
	broken := badCRL("its issuingDistributionPoint can't be read")
	constructed := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed() }
	input := cryptobyte.String(value)
	var point, name cryptobyte.String
	var named bool
	if !input.ReadASN1(&point, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !point.ReadOptionalASN1(&name, &named, constructed(0)) {
		return broken
	}
	if named {
		err := c.names(name)
		if err != nil {
			return err
		}
	}
	for !point.Empty() {
		var member cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !point.ReadAnyASN1(&member, &tag) {
			return broken
		}
		set := len(member) == 1 && member[0] != 0
		switch tag {
		case cryptobyte_asn1.Tag(1).ContextSpecific(): // onlyContainsUserCerts
		case cryptobyte_asn1.Tag(2).ContextSpecific():
			if set {
				return badCRL("it is about certificates of CAs alone").WithHint("Import the list that is about devices' certificates.")
			}
		case cryptobyte_asn1.Tag(3).ContextSpecific():
			return badCRL("it is about some reasons alone").WithHint("Import a list that is about all reasons.")
		case cryptobyte_asn1.Tag(4).ContextSpecific():
			if set {
				return badCRL("it is an indirect list: its entries may be other CAs'").WithHint("Import the list that the CA itself signs.")
			}
		case cryptobyte_asn1.Tag(5).ContextSpecific():
			if set {
				return badCRL("it is about attribute certificates alone")
			}
		default:
			return broken
		}
	}
	return nil
}

// names reads a DistributionPointName. Only URLs among its names tell lists apart.
func (c *ForeignCRL) names(name cryptobyte.String) error {
	var full cryptobyte.String
	if !name.ReadASN1(&full, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) || !name.Empty() {
		return badCRL("its issuingDistributionPoint isn't named by a full name").WithHint("Names relative to the issuer aren't understood.")
	}
	for !full.Empty() {
		var one cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !full.ReadAnyASN1(&one, &tag) {
			return badCRL("its issuingDistributionPoint can't be read")
		}
		if tag == cryptobyte_asn1.Tag(6).ContextSpecific() {
			c.Scope = append(c.Scope, string(one))
		}
	}
	if len(c.Scope) == 0 {
		return badCRL("its issuingDistributionPoint has no URL").WithHint("Imprint tells the parts of a divided list apart by their URLs.")
	}
	slices.Sort(c.Scope)
	c.Scope = slices.Compact(c.Scope)
	return nil
}

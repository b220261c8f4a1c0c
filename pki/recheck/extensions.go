package recheck

import (
	"bytes"
	"crypto/sha1" // an identifier, RFC 5280 section 4.2.1.2
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// The extensions that a certificate of ours may have.
const (
	idAuthorityKey = "2.5.29.35"
	idSubjectKey   = "2.5.29.14"
	idBasic        = "2.5.29.19"
	idKeyUsage     = "2.5.29.15"
	idUsages       = "2.5.29.37"
	idNames        = "2.5.29.17"
	idConstraints  = "2.5.29.30"
	idLists        = "2.5.29.31"
	idAccess       = "1.3.6.1.5.5.7.1.1"
	idNoCheck      = "1.3.6.1.5.5.7.48.1.5"
)

func (c *certificate) extension(id string) (extension, bool) {
	for _, e := range c.extensions {
		if e.id == id {
			return e, true
		}
	}
	return extension{}, false
}

// extensions checks which there are, and what they say, by the profile's kind.
func (i *inspection) extensions() {
	r := i.rules
	must := []string{idAuthorityKey, idSubjectKey, idBasic, idKeyUsage}
	may := []string{}
	if r.Kind != kindDevice {
		if len(i.wantUsages()) > 0 {
			must = append(must, idUsages)
		}
		if !r.ca() {
			may = append(may, idNames)
		}
		if r.Kind == kindIntermediate && r.constrained() {
			must = append(must, idConstraints)
		}
		switch r.Kind {
		case kindRoot:
		case kindOCSP:
			must = append(must, idNoCheck)
		default:
			may = append(may, idLists, idAccess)
		}
	}
	for _, id := range must {
		if _, there := i.c.extension(id); !there {
			i.wrong("extension %s is missing", id)
		}
	}
	empty := bytes.Equal(i.c.subject, []byte{0x30, 0})
	for _, e := range i.c.extensions {
		if !slices.Contains(must, e.id) && !slices.Contains(may, e.id) {
			i.wrong("extension %s isn't one of the kind %s", e.id, r.Kind)
			continue
		}
		critical := e.id == idBasic || e.id == idKeyUsage || e.id == idConstraints || e.id == idNames && empty
		if e.critical != critical {
			i.wrong("extension %s has the criticality %t", e.id, e.critical)
		}
		i.value(e)
	}
	if _, there := i.c.extension(idNames); !there && (r.Names.Required || r.Kind == kindServer) && !r.ca() && r.Kind != kindDevice {
		i.wrong("profile %s demands a name in subjectAltName", r.Name)
	}
}

func (i *inspection) value(e extension) {
	want := ""
	switch e.id {
	case idSubjectKey:
		sum := sha1.Sum(i.c.keyBits)
		want = "0414" + hex.EncodeToString(sum[:])
	case idAuthorityKey:
		key, known := i.signerKey()
		if !known {
			return
		}
		want = hex.EncodeToString(slices.Concat([]byte{0x30, byte(len(key) + 2), 0x80, byte(len(key))}, key))
	case idBasic:
		want = i.wantBasic()
	case idKeyUsage:
		want = i.wantKeyUsage()
		if i.rules.ca() && hex.EncodeToString(e.value) == formerCAUsage {
			return
		}
	case idUsages:
		i.usages(e.value)
		return
	case idNames:
		i.names(e.value)
		return
	case idNoCheck:
		want = "0500"
	default:
		return // the lints and crypto/x509 look at them
	}
	if hex.EncodeToString(e.value) != want {
		i.wrong("extension %s is %x, and should be %s", e.id, e.value, want)
	}
}

// signerKey is the identifier of the CA's key: what its certificate says.
func (i *inspection) signerKey() ([]byte, bool) {
	of := i.signer
	if i.rules.Kind == kindRoot {
		of = i.c
	}
	if of == nil {
		return nil, false
	}
	e, there := of.extension(idSubjectKey)
	input, key := cryptobyte.String(e.value), cryptobyte.String(nil)
	return key, there && input.ReadASN1(&key, tag.OCTET_STRING) && len(key) < 100
}

func (i *inspection) wantBasic() string {
	switch {
	case !i.rules.ca():
		return "3000"
	case i.rules.NoPathLength:
		return "30030101ff"
	}
	return "30060101ff0201" + hex.EncodeToString([]byte{byte(i.rules.PathLength)})
}

// formerCAUsage is that of CAs that were made before they signed OCSP responses themselves:
// keyCertSign, cRLSign.
const formerCAUsage = "03020106"

func (i *inspection) wantKeyUsage() string {
	isRSA := strings.Contains(hex.EncodeToString(i.c.spki[:min(40, len(i.c.spki))]), "06092a864886f70d010101")
	switch {
	case i.rules.ca():
		return "03020186" // digitalSignature for OCSP responses, keyCertSign, cRLSign
	case isRSA && (i.rules.Kind == kindServer || i.rules.Kind == kindIDevID):
		return "030205a0" // digitalSignature, keyEncipherment
	}
	return "03020780" // digitalSignature
}

func (i *inspection) wantUsages() []string {
	const purpose = "1.3.6.1.5.5.7.3."
	var all []string
	switch i.rules.Kind {
	case kindOperational, kindClaim:
		all = append(all, purpose+"2")
	case kindServer:
		all = append(all, purpose+"1")
	case kindOCSP:
		all = append(all, purpose+"9")
	case kindIntermediate:
		if i.rules.ClientsOnly {
			all = append(all, purpose+"2")
		}
	}
	return append(all, i.rules.ExtraKeyUsages...)
}

func (i *inspection) usages(value []byte) {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	var got []string
	ok := input.ReadASN1(&list, tag.SEQUENCE) && input.Empty()
	for ok && !list.Empty() {
		var id cryptobyte.String
		ok = list.ReadASN1(&id, tag.OBJECT_IDENTIFIER)
		got = append(got, objectID(id))
	}
	if want := i.wantUsages(); !ok || !slices.Equal(got, want) {
		i.wrong("its extended key usages are %s, and profile %s has %s", strings.Join(got, ", "), i.rules.Name, strings.Join(want, ", "))
	}
}

// names checks subjectAltName by the profile's rules.
func (i *inspection) names(value []byte) {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	if !input.ReadASN1(&list, tag.SEQUENCE) || !input.Empty() || list.Empty() {
		i.wrong("its subjectAltName can't be read")
		return
	}
	r := &i.rules.Names
	seen := map[string]bool{}
	for !list.Empty() {
		var name cryptobyte.String
		var kind tag.Tag
		if !list.ReadAnyASN1(&name, &kind) {
			i.wrong("its subjectAltName can't be read")
			return
		}
		text, called, allowed := string(name), "", false
		once := strings.ToLower(fmt.Sprint(kind, " ", text))
		if seen[once] {
			i.wrong("its subjectAltName has a name twice")
		}
		seen[once] = true
		switch kind {
		case tag.Tag(1).ContextSpecific():
			called, allowed = "email", r.Email
		case tag.Tag(2).ContextSpecific():
			called, allowed = "dns", r.DNS
		case tag.Tag(6).ContextSpecific():
			called, allowed = "uri", r.URI
			_, err := url.Parse(text)
			allowed = allowed && err == nil
		case tag.Tag(7).ContextSpecific():
			called, allowed, text = "ip", r.IP && (len(name) == 4 || len(name) == 16), net.IP(name).String()
			if i.rules.Kind == kindServer && !r.DNS && !r.IP {
				allowed = true
			}
		case tag.Tag(0).ContextSpecific().Constructed():
			i.otherName(name)
			continue
		}
		if !allowed {
			i.wrong("its subjectAltName has %s %q, which profile %s doesn't allow", called, imprint.Excerpt(text), i.rules.Name)
		}
		if pattern, has := r.Patterns[called]; has && !whole(pattern, text) {
			i.wrong("its %s name %q doesn't match %s", called, imprint.Excerpt(text), pattern)
		}
	}
}

// otherName is a hardwareModuleName (RFC 4108 section 5), and nothing else.
func (i *inspection) otherName(name cryptobyte.String) {
	explicit := tag.Tag(0).ContextSpecific().Constructed()
	var id, field, module, kind, serial cryptobyte.String
	if !name.ReadASN1(&id, tag.OBJECT_IDENTIFIER) || objectID(id) != "1.3.6.1.5.5.7.8.4" || !name.ReadASN1(&field, explicit) || !name.Empty() ||
		!field.ReadASN1(&module, tag.SEQUENCE) || !field.Empty() || !module.ReadASN1(&kind, tag.OBJECT_IDENTIFIER) || !module.ReadASN1(&serial, tag.OCTET_STRING) || !module.Empty() {
		i.wrong("its subjectAltName has another name than a hardwareModuleName")
		return
	}
	subject, _ := readName(i.c.subject)
	named := slices.Contains(subject, attribute{attributes["SERIALNUMBER"], string(serial)})
	if i.rules.Names.HardwareType == "" || objectID(kind) != i.rules.Names.HardwareType || !named {
		i.wrong("its hardwareModuleName is of type %s with the serial number %q, and profile %s has type %q with that of the subject", objectID(kind),
			imprint.Excerpt(string(serial)), i.rules.Name, i.rules.Names.HardwareType)
	}
}

package policy

import (
	"strings"
)

// keyID says where the value of a condition key or variable is found.
type keyID uint8

const (
	keyOther keyID = iota // in Request.Keys or Binding.Keys
	keyClientID
	keySourceIP
	keyCurrentTime
	keyEpochTime
	keySecureTransport
	keyThingName
	keyThingTypeName
	keyThingAttribute
	keyIsAttached
	keyDomainName
	keyCertificateID
	keyCertificateSerial
	keyCertificateAvailable
	keyCertificateName
	keyConnectAttributes
	keyLastWillTopic
)

// keyRef is a condition key or variable name, resolved once when the document is parsed.
type keyRef struct {
	id    keyID
	slot  certSlot // for keyCertificateName
	list  bool     // the ".List" form
	index int      // for keyCertificateName: 0 is the first value, ".1" the second
	text  string   // as written
	name  string   // keyThingAttribute: the attribute; keyOther: the key in lower case
}

// parseKey never fails: a name that this package does not know is looked up
// among the keys that the caller gives.
func parseKey(text string) keyRef {
	lower := strings.ToLower(text)
	k := keyRef{text: text, name: lower}
	switch lower {
	case "iot:clientid":
		k.id = keyClientID
	case "aws:sourceip":
		k.id = keySourceIP
	case "aws:currenttime":
		k.id = keyCurrentTime
	case "aws:epochtime":
		k.id = keyEpochTime
	case "aws:securetransport":
		k.id = keySecureTransport
	case "iot:connection.thing.thingname":
		k.id = keyThingName
	case "iot:connection.thing.thingtypename":
		k.id = keyThingTypeName
	case "iot:connection.thing.isattached":
		k.id = keyIsAttached
	case "iot:domainname":
		k.id = keyDomainName
	case "iot:certificateid":
		k.id = keyCertificateID
	case "iot:certificate.serialnumber":
		k.id = keyCertificateSerial
	case "iot:certificate.availablekeys":
		k.id = keyCertificateAvailable
		k.list = true
	case "iot:certificate.availablekeys.list":
		k.id = keyCertificateAvailable
		k.list = true
	case "iot:connectattributes":
		k.id = keyConnectAttributes
		k.list = true
	case "iot:lastwilltopic":
		k.id = keyLastWillTopic
	default:
		k.parseStructured(lower)
	}
	return k
}

func (k *keyRef) parseStructured(lower string) {
	const attributes = "iot:connection.thing.attributes["
	// The attribute name keeps its case, so it is cut from the text as written.
	// Lower-casing can change the length of exotic letters; then it is no known key.
	if strings.HasPrefix(lower, attributes) && strings.HasSuffix(lower, "]") && strings.EqualFold(k.text[:min(len(k.text), len(attributes))], attributes) {
		k.id = keyThingAttribute
		k.name = k.text[len(attributes) : len(k.text)-1]
		return
	}
	slot, list, index, ok := parseCertificateKey(lower)
	if !ok {
		return
	}
	k.id, k.slot, k.list, k.index = keyCertificateName, slot, list, index
}

// parseCertificateKey reads iot:certificate.(subject|issuer).NAME with an
// optional ".list" or ".N" (developer guide, "X.509 Certificate AWS IoT Core policy variables").
func parseCertificateKey(lower string) (certSlot, bool, int, bool) {
	rest, ok := strings.CutPrefix(lower, "iot:certificate.")
	if !ok {
		return 0, false, 0, false
	}
	side := sideSubject
	name, ok := strings.CutPrefix(rest, "subject.")
	if !ok {
		side = sideIssuer
		name, ok = strings.CutPrefix(rest, "issuer.")
		if !ok {
			return 0, false, 0, false
		}
	}
	name, list := strings.CutSuffix(name, ".list")
	index := 0
	if dot := strings.LastIndexByte(name, '.'); !list && dot >= 0 && dot == len(name)-2 && '1' <= name[dot+1] && name[dot+1] <= '9' {
		index = int(name[dot+1] - '0')
		name = name[:dot]
	}
	for i, known := range certNames {
		if strings.EqualFold(name, known) {
			return side + certSlot(i), list, index, true
		}
	}
	return 0, false, 0, false
}

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

// keyNames are the keys that have one name. docs/policies.md tells people of each.
var keyNames = []struct {
	name string
	id   keyID
	list bool
}{
	{"iot:ClientId", keyClientID, false},
	{"iot:ConnectAttributes", keyConnectAttributes, true},
	{"iot:LastWillTopic", keyLastWillTopic, false},
	{"iot:DomainName", keyDomainName, false},
	{"iot:Connection.Thing.ThingName", keyThingName, false},
	{"iot:Connection.Thing.ThingTypeName", keyThingTypeName, false},
	{"iot:Connection.Thing.IsAttached", keyIsAttached, false},
	{"iot:Certificate.SerialNumber", keyCertificateSerial, false},
	{"iot:Certificate.AvailableKeys", keyCertificateAvailable, true},
	{"iot:Certificate.AvailableKeys.List", keyCertificateAvailable, true},
	{"iot:CertificateId", keyCertificateID, false},
	{"aws:SourceIp", keySourceIP, false},
	{"aws:CurrentTime", keyCurrentTime, false},
	{"aws:EpochTime", keyEpochTime, false},
	{"aws:SecureTransport", keySecureTransport, false},
}

// parseKey never fails: a name that this package does not know is looked up
// among the keys that the caller gives.
func parseKey(text string) keyRef {
	lower := strings.ToLower(text)
	k := keyRef{text: text, name: lower}
	for _, known := range keyNames {
		if strings.ToLower(known.name) == lower {
			k.id, k.list = known.id, known.list
			return k
		}
	}
	k.parseStructured(lower)
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

package policy

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// maxValueChars is the longest certificate attribute that is substituted, in characters.
const maxValueChars = 1024

// defaultRefused are the characters that keep a client id, a thing name, type or
// attribute, or a domain name from being substituted.
const defaultRefused = "*?$"

// Thing is the registry thing that a connection belongs to.
type Thing struct {
	Name       string
	TypeName   string // empty when the thing has no type
	Attributes map[string]string
}

// Binding is what a connection, or another caller, brings for variables and
// condition keys. The zero value of a field means that the key is absent.
type Binding struct {
	ClientID    string
	SourceIP    netip.Addr
	Thing       *Thing // nil: iot:Connection.Thing.IsAttached is "false", the other thing keys are absent
	Certificate *CertificateVariables
	DomainName  string // the SNI name or domain configuration used

	// CertificateID is iot:CertificateId. AWS does not document that the variable
	// resolves, so it counts only with ExposeCertificateID.
	CertificateID       string
	ExposeCertificateID bool

	// InsecureTransport makes aws:SecureTransport "false".
	InsecureTransport bool

	// NoConnection is set for requests outside an MQTT connection, such as HTTPS
	// publish and the control plane: client id and thing keys are absent then.
	NoConnection bool

	// RefuseInSubstitution replaces the characters "*?$" that keep a client id or a
	// thing value out of a resource. Adding '+' and '#' also stops a client
	// named "+" from widening a topic filter made with ${iot:ClientId}.
	RefuseInSubstitution string

	// Keys are further condition keys, such as aws:PrincipalArn.
	Keys *Keys
}

// Keys are condition keys with their values, found without regard to case.
type Keys struct{ values map[string][]string }

// NewKeys copies the map. Of two names that differ only in case, the values of
// both are kept, in the order of the names.
func NewKeys(values map[string][]string) *Keys {
	k := &Keys{values: make(map[string][]string, len(values))}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		lower := strings.ToLower(name)
		k.values[lower] = append(slices.Clone(k.values[lower]), values[name]...)
	}
	return k
}

// With gives these keys with further ones, whose names are new.
func (k *Keys) With(more map[string][]string) *Keys {
	if len(more) == 0 {
		return k
	}
	all := NewKeys(more)
	if k != nil {
		maps.Copy(all.values, k.values)
	}
	return all
}

func (k *Keys) get(lower string) []string {
	if k == nil {
		return nil
	}
	return k.values[lower]
}

// bound is a value with the decision whether it may be substituted.
type bound struct {
	text    string
	present bool
	refused bool
}

// Variables are the values of one connection. They never change.
type Variables struct {
	clientID, thingName, thingType, domain, certificateID, attached bound
	secureTransport, sourceIPText                                   bound
	sourceIP                                                        netip.Addr
	attributes                                                      []attribute
	certificate                                                     *CertificateVariables
	keys                                                            *Keys
}

// NewVariables copies what it needs from the binding.
func NewVariables(b Binding) *Variables {
	refused := b.RefuseInSubstitution
	if refused == "" {
		refused = defaultRefused
	}
	bind := func(s string) bound {
		return bound{text: s, present: s != "", refused: strings.ContainsAny(s, refused)}
	}
	v := &Variables{domain: bind(b.DomainName), certificate: b.Certificate, keys: b.Keys}
	v.secureTransport = bound{text: "true", present: true}
	if b.InsecureTransport {
		v.secureTransport.text = "false"
	}
	if b.SourceIP.IsValid() {
		v.sourceIP = b.SourceIP.Unmap().WithZone("")
		v.sourceIPText = bound{text: v.sourceIP.String(), present: true}
	}
	if b.ExposeCertificateID {
		v.certificateID = bind(b.CertificateID)
	}
	if b.NoConnection {
		return v
	}
	v.clientID = bind(b.ClientID)
	v.attached = bound{text: "false", present: true}
	if b.Thing == nil {
		return v
	}
	v.attached.text = "true"
	v.thingName = bind(b.Thing.Name)
	v.thingType = bind(b.Thing.TypeName)
	if len(b.Thing.Attributes) > 0 {
		v.attributes = make([]attribute, 0, len(b.Thing.Attributes))
	}
	for name, value := range b.Thing.Attributes {
		a := attribute{name, bind(value)}
		a.present = true
		v.attributes = append(v.attributes, a)
	}
	slices.SortFunc(v.attributes, func(a, b attribute) int { return strings.Compare(a.name, b.name) })
	return v
}

// attribute is one of the thing. They are a sorted slice, because every connection has
// its own, mostly of one or two: a map takes seven times as much.
type attribute struct {
	name string
	bound
}

func (v *Variables) attribute(name string) bound {
	at, found := slices.BinarySearchFunc(v.attributes, name, func(a attribute, name string) int { return strings.Compare(a.name, name) })
	if !found {
		return bound{}
	}
	return v.attributes[at].bound
}

// plain finds the keys that have one value kept in Variables.
func (v *Variables) plain(k *keyRef) bound {
	switch k.id {
	case keyClientID:
		return v.clientID
	case keySourceIP:
		return v.sourceIPText
	case keySecureTransport:
		return v.secureTransport
	case keyThingName:
		return v.thingName
	case keyThingTypeName:
		return v.thingType
	case keyThingAttribute:
		return v.attribute(k.name)
	case keyIsAttached:
		return v.attached
	case keyDomainName:
		return v.domain
	case keyCertificateID:
		return v.certificateID
	case keyCertificateSerial:
		if v.certificate != nil {
			return v.certificate.serial
		}
	case keyCertificateName:
		if v.certificate != nil && !k.list {
			return v.certificate.at(k.slot, k.index)
		}
	}
	return bound{}
}

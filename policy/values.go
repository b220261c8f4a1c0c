package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// BindingFrom puts values by the names of their variables and condition keys into a
// binding, as a person gives them: "iot:ClientId", "iot:Connection.Thing.Attributes[site]",
// "iot:Certificate.Subject.CommonName", or a key of any other prefix. A key of a
// certificate takes as many values as it has. The base isn't changed. The error
// names the key that there isn't.
func BindingFrom(base Binding, values map[string][]string) (Binding, error) {
	b := base
	if base.Thing != nil {
		thing := *base.Thing
		thing.Attributes = maps.Clone(thing.Attributes)
		b.Thing = &thing
	}
	others := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key := parseKey(name)
		err := b.put(&key, values[name], others)
		if err != nil {
			return Binding{}, err
		}
	}
	if len(others) > 0 {
		b.Keys = NewKeys(others)
	}
	return b, nil
}

func (b *Binding) put(k *keyRef, values []string, others map[string][]string) error {
	switch k.id {
	case keyOther:
		if !strings.Contains(k.text, ":") || strings.HasPrefix(k.name, "iot:") {
			return fmt.Errorf("no connection has %q: %s", k.text, nearestKey(k.text))
		}
		others[k.text] = values
		return nil
	case keyCertificateName:
		return b.putCertificate(k, values)
	case keyCertificateAvailable, keyConnectAttributes, keyLastWillTopic, keyCurrentTime, keyEpochTime:
		return fmt.Errorf("%q follows from the certificate or the request, and can't be given", k.text)
	}
	if len(values) != 1 {
		return fmt.Errorf("%q has one value, not %d", k.text, len(values))
	}
	value := values[0]
	thing := func() *Thing {
		if b.Thing == nil {
			b.Thing = &Thing{}
		}
		return b.Thing
	}
	switch k.id {
	case keyClientID:
		b.ClientID = value
	case keySourceIP:
		address, err := netip.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("%q is no address: %w", k.text, err)
		}
		b.SourceIP = address
	case keySecureTransport:
		b.InsecureTransport = strings.EqualFold(value, "false")
	case keyDomainName:
		b.DomainName = value
	case keyThingName:
		thing().Name = value
	case keyThingTypeName:
		thing().TypeName = value
	case keyThingAttribute:
		if thing().Attributes == nil {
			b.Thing.Attributes = map[string]string{}
		}
		b.Thing.Attributes[k.name] = value
	case keyIsAttached:
		if strings.EqualFold(value, "false") {
			b.Thing = nil
		} else {
			thing()
		}
	case keyCertificateID:
		b.CertificateID, b.ExposeCertificateID = value, true
	case keyCertificateSerial:
		b.ownCertificate().serial = bound{text: value, present: true}
	}
	return nil
}

// ownCertificate gives values of a certificate that may be changed.
func (b *Binding) ownCertificate() *CertificateVariables {
	own := &CertificateVariables{}
	if b.Certificate != nil {
		own.serial, own.slots = b.Certificate.serial, slices.Clone(b.Certificate.slots)
	}
	b.Certificate = own
	return own
}

func (b *Binding) putCertificate(k *keyRef, values []string) error {
	if k.list || k.index > 0 {
		return fmt.Errorf("%q is one of several values: give the attribute itself, once for each", k.text)
	}
	own := b.ownCertificate()
	own.slots = slices.DeleteFunc(own.slots, func(s slotValues) bool { return s.slot == k.slot })
	for _, value := range values {
		text := value
		if int(k.slot%sideIssuer) < firstAlternativeName {
			text = escapeName(value)
		}
		own.add(k.slot, value, text)
	}
	return nil
}

//go:build pkcs11 && cgo && !windows

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

var (
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

// find gives the one private key of a label and an id; an empty one fits all.
func (m *module) find(label string, id []byte) (*key, error) {
	name := label + "\x00" + string(id)
	m.keysMu.Lock()
	found := m.keys[name]
	m.keysMu.Unlock()
	if found != nil {
		return found, nil
	}
	err := m.within(func(session pkcs11.SessionHandle) error {
		handles, err := m.search(session, pkcs11.CKO_PRIVATE_KEY, label, id, wire.MaxItems)
		if err != nil {
			return err
		}
		switch len(handles) {
		case 0:
			return m.noKey(session)
		case 1:
			found, err = m.describe(session, handles[0])
			return err
		}
		var ids []string
		for _, handle := range handles {
			one, err := m.describe(session, handle)
			if err != nil {
				return err
			}
			ids = append(ids, fmt.Sprintf("object=%s;id=%s", one.item.Label, percent(one.item.KeyID)))
		}
		return refuse(wire.Ambiguous, "%d keys fit: %s", len(handles), strings.Join(ids, ", "))
	})
	if err != nil {
		return nil, err
	}
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	if len(m.keys) < 4*wire.MaxItems {
		m.keys[name] = found
	}
	return found, nil
}

// noKey says which keys there are instead.
func (m *module) noKey(session pkcs11.SessionHandle) error {
	const most = 10
	handles, err := m.search(session, pkcs11.CKO_PRIVATE_KEY, "", nil, most)
	if err != nil {
		return err
	}
	if len(handles) == 0 {
		return refuse(wire.NoKey, "it shows no private key at all")
	}
	var names []string
	for _, handle := range handles {
		names = append(names, fmt.Sprintf("%q", m.bytes(session, handle, pkcs11.CKA_LABEL)))
	}
	return refuse(wire.NoKey, "it has %s", strings.Join(names, ", "))
}

func percent(id []byte) string {
	var b strings.Builder
	for _, c := range id {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// search lists at most so many objects of a class.
func (m *module) search(session pkcs11.SessionHandle, class uint, label string, id []byte, most int) ([]pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if label != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	}
	if len(id) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	err := m.ctx.FindObjectsInit(session, template)
	if err != nil {
		return nil, fmt.Errorf("keys can't be looked for: %w", err)
	}
	var all []pkcs11.ObjectHandle
	for len(all) < most {
		var some []pkcs11.ObjectHandle
		some, _, err = m.ctx.FindObjects(session, most-len(all))
		if err != nil || len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	err = errors.Join(err, m.ctx.FindObjectsFinal(session))
	if err != nil {
		return nil, fmt.Errorf("keys can't be looked for: %w", err)
	}
	return all, nil
}

// bytes gives an attribute, or nothing where the object hasn't got it.
func (m *module) bytes(session pkcs11.SessionHandle, object pkcs11.ObjectHandle, attribute uint) []byte {
	values, err := m.ctx.GetAttributeValue(session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil || len(values) != 1 {
		return nil
	}
	return values[0].Value
}

// yes gives an attribute that is true or false.
func (m *module) yes(session pkcs11.SessionHandle, object pkcs11.ObjectHandle, attribute uint) bool {
	value := m.bytes(session, object, attribute)
	return len(value) == 1 && value[0] != 0
}

// describe reads what is told of a private key. A public half that isn't readable is
// a problem of this key alone.
func (m *module) describe(session pkcs11.SessionHandle, handle pkcs11.ObjectHandle) (*key, error) {
	// The id is what every object has: an error here is the token's.
	values, err := m.ctx.GetAttributeValue(session, handle, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
	if err != nil || len(values) != 1 {
		return nil, fmt.Errorf("a key's id can't be read: %w", err)
	}
	found := &key{handle: handle, item: wire.Item{
		Label: string(m.bytes(session, handle, pkcs11.CKA_LABEL)), KeyID: values[0].Value,
		// A token that doesn't say is thought the worst of.
		Extractable: !bytes.Equal(m.bytes(session, handle, pkcs11.CKA_EXTRACTABLE), []byte{0}) || !m.yes(session, handle, pkcs11.CKA_SENSITIVE),
	}}
	found.always = m.yes(session, handle, pkcs11.CKA_ALWAYS_AUTHENTICATE)
	public, err := m.publicOf(session, handle, found.item)
	if err == nil {
		found.item.Public, err = encodePublic(public)
	}
	switch {
	case err != nil:
		found.item.Problem = cut(err.Error())
	case bytes.Equal(m.bytes(session, handle, pkcs11.CKA_SIGN), []byte{0}):
		found.item.Problem = "it may not sign (CKA_SIGN is false)"
	}
	return found, nil
}

// publicOf gives the public half of a private key: RSA's stands in the key itself,
// that of a curve in a public key or certificate of the same id.
func (m *module) publicOf(session pkcs11.SessionHandle, handle pkcs11.ObjectHandle, item wire.Item) (any, error) {
	if modulus, exponent := m.bytes(session, handle, pkcs11.CKA_MODULUS), m.bytes(session, handle, pkcs11.CKA_PUBLIC_EXPONENT); len(modulus) > 0 && len(exponent) > 0 {
		return rsaPublic(modulus, exponent)
	}
	if info := m.bytes(session, handle, pkcs11.CKA_PUBLIC_KEY_INFO); len(info) > 0 {
		public, err := x509.ParsePKIXPublicKey(info)
		if err == nil {
			return public, nil
		}
	}
	if len(item.KeyID) == 0 {
		return nil, errors.New("it has no id by which its public key could be found")
	}
	publics, err := m.search(session, pkcs11.CKO_PUBLIC_KEY, "", item.KeyID, 2)
	if err != nil {
		return nil, err
	}
	if len(publics) > 1 {
		return nil, errors.New("several public keys have its id")
	}
	if len(publics) == 1 {
		object := publics[0]
		if modulus := m.bytes(session, object, pkcs11.CKA_MODULUS); len(modulus) > 0 {
			return rsaPublic(modulus, m.bytes(session, object, pkcs11.CKA_PUBLIC_EXPONENT))
		}
		return ecPublic(m.bytes(session, object, pkcs11.CKA_EC_PARAMS), m.bytes(session, object, pkcs11.CKA_EC_POINT))
	}
	certificates, err := m.search(session, pkcs11.CKO_CERTIFICATE, "", item.KeyID, 1)
	if err != nil {
		return nil, err
	}
	if len(certificates) == 1 {
		cert, err := x509.ParseCertificate(m.bytes(session, certificates[0], pkcs11.CKA_VALUE))
		if err != nil {
			return nil, fmt.Errorf("its certificate isn't readable: %w", err)
		}
		return cert.PublicKey, nil
	}
	return nil, errors.New("neither a public key nor a certificate has its id")
}

func rsaPublic(modulus, exponent []byte) (any, error) {
	e := new(big.Int).SetBytes(exponent)
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || len(modulus) > 2048 {
		return nil, errors.New("its RSA modulus or exponent is out of bounds")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}, nil
}

// ecPublic reads a point. PKCS#11 wraps it in an OCTET STRING; some modules don't.
func ecPublic(params, point []byte) (any, error) {
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(params, &oid)
	if err != nil || len(rest) > 0 {
		return nil, errors.New("its curve isn't given by name")
	}
	var curve elliptic.Curve
	switch {
	case oid.Equal(oidP256):
		curve = elliptic.P256()
	case oid.Equal(oidP384):
		curve = elliptic.P384()
	default:
		return nil, fmt.Errorf("its curve %v isn't P-256 or P-384", oid)
	}
	var inner []byte
	rest, err = asn1.Unmarshal(point, &inner)
	if err != nil || len(rest) > 0 {
		inner = point
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, inner)
	if err != nil {
		return nil, fmt.Errorf("its point isn't one of the curve: %w", err)
	}
	return public, nil
}

func (m *module) list(request *wire.Request, answer *wire.Response) error {
	return m.within(func(session pkcs11.SessionHandle) error {
		handles, err := m.search(session, pkcs11.CKO_PRIVATE_KEY, request.Label, request.KeyID, wire.MaxItems)
		if err != nil {
			return err
		}
		for _, handle := range handles {
			one, err := m.describe(session, handle)
			if err != nil {
				return err
			}
			answer.Items = append(answer.Items, one.item)
		}
		return nil
	})
}

//go:build pkcs11 && cgo && !windows

package main

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

// hashes are those that are signed, by their bits: what RSA's PKCS#1 v1.5 puts before
// the digest (RFC 8017 section 9.2, note 1), and PSS's parameters.
var hashes = map[uint16]struct {
	prefix     []byte
	hash, mask uint
	length     int
}{
	256: {prefix: []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, hash: pkcs11.CKM_SHA256, mask: pkcs11.CKG_MGF1_SHA256, length: 32},
	384: {prefix: []byte{0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30}, hash: pkcs11.CKM_SHA384, mask: pkcs11.CKG_MGF1_SHA384, length: 48},
	512: {prefix: []byte{0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40}, hash: pkcs11.CKM_SHA512, mask: pkcs11.CKG_MGF1_SHA512, length: 64},
}

func (m *module) sign(request *wire.Request, answer *wire.Response) error {
	hash, known := hashes[request.Hash]
	if !known || len(request.Digest) != hash.length {
		return refuse(wire.Protocol, "a digest of %d bytes isn't one of %d bits", len(request.Digest), request.Hash)
	}
	found, err := m.find(request.Label, request.KeyID)
	if err != nil {
		return err
	}
	var mechanism *pkcs11.Mechanism
	data := request.Digest
	switch request.Scheme {
	case wire.ECDSA:
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)
		// FIPS 186-5 section 6.4.1 takes the leftmost bits. Tokens differ in
		// what they do with more.
		data = data[:min(len(data), curveBytes(found.item.Public))]
	case wire.PKCS1:
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)
		data = append(append([]byte(nil), hash.prefix...), data...)
	case wire.PSS:
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(hash.hash, hash.mask, uint(hash.length)))
	default:
		return refuse(wire.Protocol, "there is no scheme %d", request.Scheme)
	}
	var signature []byte
	err = m.within(func(session pkcs11.SessionHandle) error {
		err := m.ctx.SignInit(session, []*pkcs11.Mechanism{mechanism}, found.handle)
		if err != nil {
			return fmt.Errorf("a signature can't be begun: %w", err)
		}
		if found.always {
			m.mu.Lock()
			pin := m.pin
			m.mu.Unlock()
			err = m.ctx.Login(session, pkcs11.CKU_CONTEXT_SPECIFIC, pin)
			if err != nil {
				return fmt.Errorf("the login for one signature failed: %w", err)
			}
		}
		signature, err = m.ctx.Sign(session, data)
		if err != nil {
			return fmt.Errorf("the signature failed: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if request.Scheme == wire.ECDSA {
		signature, err = encodeECDSA(signature)
	}
	answer.Signature = signature
	return err
}

// curveBytes is the length of a curve's order, by that of the public key.
func curveBytes(spki []byte) int {
	// A SubjectPublicKeyInfo of P-256 has 91 bytes, one of P-384 has 120.
	if len(spki) > 100 {
		return 48
	}
	return 32
}

// encodeECDSA makes DER of r and s, which PKCS#11 puts side by side.
func encodeECDSA(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, errors.New("the token gave a signature of an odd length")
	}
	half := len(raw) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
	if err != nil {
		return nil, fmt.Errorf("the signature can't be encoded: %w", err)
	}
	return der, nil
}

// generate makes a key pair that can't leave the token.
func (m *module) generate(request *wire.Request, answer *wire.Response) error {
	if request.Label == "" || len(request.KeyID) == 0 {
		return refuse(wire.Protocol, "a new key needs a label and an id")
	}
	mechanism, parameters, err := generation(request.Kind)
	if err != nil {
		return err
	}
	session, err := m.ctx.OpenSession(m.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("no session for writing can be opened: %w", err)
	}
	for _, taken := range []struct {
		label string
		id    []byte
	}{{request.Label, nil}, {"", request.KeyID}} {
		handles, err := m.search(session, pkcs11.CKO_PRIVATE_KEY, taken.label, taken.id, 1)
		if err != nil {
			return err
		}
		if len(handles) > 0 {
			return refuse(wire.Exists, "a private key with this label or id")
		}
	}
	named := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, request.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, request.KeyID),
	}
	public := append(append(append([]*pkcs11.Attribute(nil), named...), parameters...), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))
	private := append(append([]*pkcs11.Attribute(nil), named...),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	publicHandle, privateHandle, err := m.ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{mechanism}, public, private)
	if err != nil {
		return fmt.Errorf("the key can't be made: %w", err)
	}
	made, err := m.describe(session, privateHandle)
	if err == nil && made.item.Problem == "" && !made.item.Extractable {
		answer.Items = []wire.Item{made.item}
		return nil
	}
	// A key that isn't what was asked for must not be found later.
	gone := errors.Join(m.ctx.DestroyObject(session, privateHandle), m.ctx.DestroyObject(session, publicHandle))
	if err != nil || gone != nil {
		return errors.Join(err, gone)
	}
	return refuse(wire.Refused, "the token made a key that can be taken out of it or isn't readable, which was deleted: %s", made.item.Problem)
}

func generation(kind string) (*pkcs11.Mechanism, []*pkcs11.Attribute, error) {
	curve, bits := asn1.ObjectIdentifier(nil), 0
	switch kind {
	case "p256":
		curve = oidP256
	case "p384":
		curve = oidP384
	case "rsa2048":
		bits = 2048
	case "rsa3072":
		bits = 3072
	case "rsa4096":
		bits = 4096
	default:
		return nil, nil, refuse(wire.Protocol, "there is no kind %q", kind)
	}
	if bits > 0 {
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil), []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		}, nil
	}
	params, err := asn1.Marshal(curve)
	if err != nil {
		return nil, nil, fmt.Errorf("the curve's name can't be encoded: %w", err)
	}
	return pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil), []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params)}, nil
}

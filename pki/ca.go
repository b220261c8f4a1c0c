package pki

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"time"
)

// caBackdate lets clocks that are a little behind accept a new CA.
const caBackdate = time.Hour

// newCA makes a self-signed CA for end-entity certificates alone: v3, random
// serial, keyCertSign and cRLSign, path length 0. Title gets a short id
// appended, eight hex digits of its key's identifier, so that two installations
// don't make two CAs of one name.
func newCA(kind KeyKind, title string, notBefore, notAfter time.Time) (*pair, error) {
	key, err := NewKey(kind)
	if err != nil {
		return nil, err
	}
	_, keyID, err := encodedKey(key.Public())
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: title + " " + hex.EncodeToString(keyID[:4])},
		NotBefore:             notBefore.UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          keyID,
		AuthorityKeyId:        keyID,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make %s: %w", title, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read back %s: %w", title, err)
	}
	return &pair{cert: cert, key: key}, nil
}

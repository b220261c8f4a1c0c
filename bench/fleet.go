package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"runtime"
	"time"
)

// What all devices' certificates say.
const (
	organization = "Example"
	country      = "DE"
)

// authority is a CA of the bench's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes a P-256 CA.
func newAuthority(commonName string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a CA's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: commonName, Organization: []string{organization}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a CA: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

func newSerial() *big.Int {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails; crypto/rand ends the program instead
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw[:])
}

func (a *authority) pem() string { return certificatePEM(a.cert.Raw) }

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// issue signs a certificate with a new P-256 key.
func (a *authority) issue(template *x509.Certificate, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("couldn't make a key: %w", err)
	}
	template.SerialNumber = newSerial()
	template.NotBefore, template.NotAfter = now.Add(-time.Minute), now.Add(24*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("couldn't make a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("couldn't make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *authority) serverCertificate(now time.Time) (tls.Certificate, error) {
	return a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, now)
}

// device makes the device with a number.
func (a *authority) device(number int, now time.Time) (*device, error) {
	serial := fmt.Sprintf("SN%07d", number)
	certificate, err := a.issue(&x509.Certificate{
		Subject: pkix.Name{
			CommonName: fmt.Sprintf("device-%07d", number), SerialNumber: serial,
			Organization: []string{organization}, Country: []string{country},
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(certificate.Leaf.Raw)
	return &device{
		certificate: certificate, certificateID: hex.EncodeToString(sum[:]), thing: organization + "-" + serial,
	}, nil
}

// devices makes n devices on all cores.
func (a *authority) devices(ctx context.Context, n int, now time.Time) ([]*device, error) {
	made := make([]*device, n)
	_, err := each(ctx, n, runtime.GOMAXPROCS(0), func(_ context.Context, i int) (time.Duration, error) {
		one, err := a.device(i, now)
		made[i] = one
		return 0, err
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't make the devices: %w", err)
	}
	return made, nil
}

package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// imprint says whether the server's certificate is one that Imprint made.
func (x *examination) imprint() bool { return x.main != nil && madeByImprint(x.main.peers) }

func madeByImprint(peers []*x509.Certificate) bool {
	return len(peers) > 0 && strings.HasPrefix(peers[0].Issuer.CommonName, "Imprint server root")
}

// standIn is what a server is shown in place of a certificate whose key there isn't. Other
// servers are shown nothing, as a device would. Imprint looks at no certificate before
// CONNECT, which isn't sent: a handshake without one would be a failure in its trace, of
// which the doctor makes several.
func (x *examination) standIn(peers []*x509.Certificate) (*tls.Certificate, error) {
	if x.opts.Explain == "" && !madeByImprint(peers) {
		return &tls.Certificate{}, nil
	}
	if x.spare != nil {
		return x.spare, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a key in place of the device's: %w", err)
	}
	now := x.opts.Clock()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "imprint doctor, in place of a broken pair"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a certificate in place of the device's: %w", err)
	}
	x.spare = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return x.spare, nil
}

package keys

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imprint-iot/imprint"
)

const (
	// sealedSuffix ends the name of every sealed file.
	sealedSuffix = ".sealed"
	// maxSealedFile bounds what is read of a sealed file. The largest, an RSA key
	// with a certificate of 100 names, takes some 30 KiB.
	maxSealedFile = 128 << 10

	typeCertificate = "CERTIFICATE"
	typePKCS8       = "PRIVATE KEY"
)

// Sealed is what a sealed file holds: a private key, and the certificates that stand
// before it, which package pki puts there so that no crash can part them.
type Sealed struct {
	Key          crypto.Signer
	Certificates []*x509.Certificate
}

// sealContext keeps one sealed file from being copied over another.
func sealContext(name string) []byte { return []byte("imprint/pki/" + name) }

// Seal gives the content of NAME.sealed.
func Seal(sealer imprint.Sealer, name string, content Sealed) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(content.Key)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the key of %s: %w", name, err)
	}
	defer clear(der)
	var plain []byte
	for _, cert := range content.Certificates {
		plain = append(plain, pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: cert.Raw})...)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: typePKCS8, Bytes: der})
	defer clear(key)
	// In one step, so that growing leaves no copy of the key.
	plain = append(make([]byte, 0, len(plain)+len(key)), plain...)
	plain = append(plain, key...)
	defer clear(plain)
	sealed, err := sealer.Seal(plain, sealContext(name))
	if err != nil {
		return nil, fmt.Errorf("couldn't seal the key of %s: %w", name, err)
	}
	return sealed, nil
}

// ReadSealed opens a file called NAME.sealed; fs.ErrNotExist when there is none. What
// a file with the right seal holds is trusted but for its form.
func ReadSealed(sealer imprint.Sealer, path string) (Sealed, error) {
	sealed, err := readBounded(path, maxSealedFile)
	if err != nil {
		return Sealed{}, fmt.Errorf("couldn't read %s: %w", path, err)
	}
	plain, err := sealer.Open(sealed, sealContext(sealName(path)))
	if err != nil {
		return Sealed{}, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	defer clear(plain)
	content, err := decodeSealed(plain)
	if err != nil {
		return Sealed{}, fmt.Errorf("couldn't understand %s: %w", path, err)
	}
	return content, nil
}

func decodeSealed(plain []byte) (Sealed, error) {
	var content Sealed
	for {
		block, rest := pem.Decode(plain)
		if block == nil {
			return Sealed{}, errors.New("it holds no key")
		}
		plain = rest
		switch block.Type {
		case typeCertificate:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return Sealed{}, fmt.Errorf("couldn't read its certificate: %w", err)
			}
			content.Certificates = append(content.Certificates, cert)
		case typePKCS8:
			defer clear(block.Bytes)
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return Sealed{}, fmt.Errorf("couldn't read its key: %w", err)
			}
			key, ok := parsed.(crypto.Signer)
			if !ok {
				return Sealed{}, fmt.Errorf("its key is a %T, which can't sign", parsed)
			}
			content.Key = key
			return content, nil
		default:
			return Sealed{}, fmt.Errorf("it holds a block of type %q", imprint.Excerpt(block.Type))
		}
	}
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	err = errors.Join(err, f.Close())
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("it is longer than %d bytes", most)
	}
	return data, nil
}

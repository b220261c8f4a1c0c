package translog

import (
	"encoding/pem"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// encode makes the entry of an issuance. The built-in CA's certificates are in the
// registry; one that was deleted there since has an entry without its bytes, as its id
// stands for them.
func encode(tx imprint.ReadTx, i imprint.Issuance) ([]byte, error) {
	e := tiles.Entry{Tenant: i.Tenant, Authority: i.Authority, Issuance: i.ID, Certificate: i.CertificateID, DER: i.Certificate}
	if len(e.DER) == 0 {
		c, err := tx.Certificate(i.Tenant, i.CertificateID)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
		case err != nil:
			return nil, fmt.Errorf("couldn't read its certificate: %w", err)
		default:
			e.DER = derOf(c.PEM)
		}
	}
	raw, err := e.Marshal()
	if err != nil && len(e.DER) > 0 {
		// Bytes that aren't the certificate's: Audit tells of the row that has them. The
		// issuance isn't kept from the log for it.
		e.DER = nil
		raw, err = e.Marshal()
	}
	return raw, err
}

func derOf(text string) []byte {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	return block.Bytes
}

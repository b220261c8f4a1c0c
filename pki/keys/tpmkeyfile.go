package keys

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	typeTSS2 = "TSS2 PRIVATE KEY"
	// maxKeyFile bounds what is read of a key file; an RSA-4096 key takes 3 KiB.
	maxKeyFile = 16 << 10
)

// oidLoadable marks a key that TPM2_Load takes.
var oidLoadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// keyFile is a key that a TPM has wrapped for its storage key:
//
//	TPMKey ::= SEQUENCE {
//	  type        OBJECT IDENTIFIER,
//	  emptyAuth   [0] EXPLICIT BOOLEAN OPTIONAL,
//	  policy      [1] EXPLICIT SEQUENCE OF TPMPolicy OPTIONAL,
//	  secret      [2] EXPLICIT OCTET STRING OPTIONAL,
//	  authPolicy  [3] EXPLICIT SEQUENCE OF TPMAuthPolicy OPTIONAL,
//	  description [4] EXPLICIT UTF8String OPTIONAL,
//	  parent      INTEGER,
//	  pubkey      OCTET STRING,   -- TPM2B_PUBLIC
//	  privkey     OCTET STRING }  -- TPM2B_PRIVATE
type keyFile struct {
	emptyAuth bool
	parent    uint32
	// public and private are without the length that a TPM2B begins with.
	public, private []byte
}

func explicit(n uint8) cryptobyte_asn1.Tag {
	return cryptobyte_asn1.Tag(n).ContextSpecific().Constructed()
}

// parseKeyFile reads the first PEM block. Policies and keys to be imported aren't
// supported, and are errors.
func parseKeyFile(data []byte) (*keyFile, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != typeTSS2 {
		return nil, fmt.Errorf("it has no PEM block %s", typeTSS2)
	}
	input := cryptobyte.String(block.Bytes)
	var body cryptobyte.String
	var kind asn1.ObjectIdentifier
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !input.Empty() || !body.ReadASN1ObjectIdentifier(&kind) {
		return nil, errors.New("it isn't the DER of a TPM's key")
	}
	if !kind.Equal(oidLoadable) {
		return nil, fmt.Errorf("its type is %v, not that of a loadable key", kind)
	}
	f := &keyFile{}
	var field cryptobyte.String
	var present bool
	if !body.ReadOptionalASN1(&field, &present, explicit(0)) {
		return nil, errors.New("it isn't the DER of a TPM's key")
	}
	if present {
		// Some programs write true as 1, which is BER.
		var yes cryptobyte.String
		if !field.ReadASN1(&yes, cryptobyte_asn1.BOOLEAN) || len(yes) != 1 || !field.Empty() {
			return nil, errors.New("its emptyAuth isn't readable")
		}
		f.emptyAuth = yes[0] != 0
	}
	for _, tag := range []uint8{1, 2, 3} {
		if !body.ReadOptionalASN1(nil, &present, explicit(tag)) {
			return nil, errors.New("it isn't the DER of a TPM's key")
		}
		if present {
			return nil, errors.New("it has a policy, or is to be imported")
		}
	}
	if !body.SkipOptionalASN1(explicit(4)) {
		return nil, errors.New("its description isn't readable")
	}
	var public, private cryptobyte.String
	if !body.ReadASN1Integer(&f.parent) || !body.ReadASN1(&public, cryptobyte_asn1.OCTET_STRING) || !body.ReadASN1(&private, cryptobyte_asn1.OCTET_STRING) || !body.Empty() {
		return nil, errors.New("it isn't the DER of a TPM's key")
	}
	if f.parent != uint32(tpm2.TPMRHOwner) && (f.parent < minHandle || f.parent > maxHandle) {
		return nil, fmt.Errorf("its parent 0x%x is neither the owner's hierarchy nor a persistent key", f.parent)
	}
	var inner cryptobyte.String
	if !public.ReadUint16LengthPrefixed(&inner) || !public.Empty() {
		return nil, errors.New("its public part isn't a TPM2B_PUBLIC")
	}
	f.public = bytes.Clone(inner)
	if !private.ReadUint16LengthPrefixed(&inner) || !private.Empty() {
		return nil, errors.New("its private part isn't a TPM2B_PRIVATE")
	}
	f.private = bytes.Clone(inner)
	return f, nil
}

// encode gives the file's content.
func (f *keyFile) encode() []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidLoadable)
		// OpenSSL's provider asks for a password where it isn't said that there is
		// none.
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Boolean(f.emptyAuth) })
		b.AddASN1Uint64(uint64(f.parent))
		for _, part := range [][]byte{f.public, f.private} {
			b.AddASN1(cryptobyte_asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(part) })
			})
		}
	})
	// Lengths are far below what DER can say.
	return pem.EncodeToMemory(&pem.Block{Type: typeTSS2, Bytes: b.BytesOrPanic()})
}

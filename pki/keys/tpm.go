package keys

import (
	"context"
	"crypto"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// tssSuffix ends the names of key files in a directory of them.
const tssSuffix = ".tss"

// maxAuth bounds the password of a key in a TPM: a digest's length, of SHA-512 at most.
const maxAuth = 64

// tpmKey is a key in a TPM: a persistent one, or one in a file that the TPM alone can
// open.
type tpmKey struct {
	tpm *tpmDevice
	uri URI
	// file is set for a key in a file.
	file     *keyFile
	patience time.Duration
}

func (s *Store) openTPM(ctx context.Context, uri URI) (Signer, error) {
	k, err := s.tpmKey(uri)
	if err != nil {
		return nil, err
	}
	public, err := run(ctx, k.tpm, k.patience, k.public)
	if err != nil {
		return nil, err
	}
	return &remoteSigner{uri: uri, public: public, timeout: s.config.Timeout, key: k}, nil
}

func (s *Store) tpmKey(uri URI) (*tpmKey, error) {
	k := &tpmKey{tpm: s.tpms.device(uri.device), uri: uri, patience: s.config.Timeout}
	if uri.handle != 0 {
		return k, nil
	}
	if uri.file == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the URI names a TPM and no key in it").
			WithHint("Write tpm:handle=0x81008001 or tpm:file=/PATH.")
	}
	if strings.HasSuffix(uri.file, "/") {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the URI names a directory").WithHint("Write tpm:file=/PATH/NAME%s.", tssSuffix)
	}
	data, err := readBounded(uri.file, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, imprint.Errorf(imprint.CodeNotFound, "%s isn't there", uri.file).WithHint("Make the key first, or restore the file from a backup; only this TPM can open it.")
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read %s: %w", uri.file, err)
	}
	k.file, err = parseKeyFile(data)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "couldn't understand %s: %w", uri.file, err).
			WithHint("It must be a loadable key in a PEM block TSS2 PRIVATE KEY without a policy, as Imprint or `openssl genpkey -provider tpm2` makes it.")
	}
	return k, nil
}

// ownerStorage is the owner's storage key as key files mean it: TCG's template with
// nothing in unique, where TCG's guidance for provisioning has zeros.
var ownerStorage = func() tpm2.TPMTPublic {
	template := tpm2.ECCSRKTemplate
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return template
}()

// loaded is a key that the TPM can use just now.
type loaded struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

// with makes the key usable, and unloads it afterwards where it had to be loaded: a
// TPM has room for three keys.
func (k *tpmKey) with(tpm transport.TPM, use func(loaded) error) error {
	if k.file == nil {
		key, err := readPublic(tpm, tpm2.TPMHandle(k.uri.handle))
		if err != nil {
			return err
		}
		return use(key)
	}
	return withParent(tpm, k.file.parent, func(parent loaded) (err error) {
		rsp, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: tpm2.PasswordAuth(nil)},
			InPrivate:    tpm2.TPM2BPrivate{Buffer: k.file.private}, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](k.file.public),
		}.Execute(tpm)
		if errors.Is(err, tpm2.TPMRCIntegrity) {
			return imprint.Errorf(imprint.CodeKeyRefused, "the TPM can't open the key: it is of another TPM, this one was cleared, or the file is damaged: %w", err).
				WithHint("Only the TPM that made a key can use it. A TPM that was cleared has lost its keys for good.")
		}
		if err != nil {
			return explainTPM("couldn't load the key", err)
		}
		defer func() { err = errors.Join(err, flush(tpm, rsp.ObjectHandle)) }()
		key, err := readPublic(tpm, rsp.ObjectHandle)
		if err != nil {
			return err
		}
		return use(key)
	})
}

// withParent gives the storage key above a key: the standard one of the owner, which is
// derived anew, or one that stays in the TPM.
func withParent(tpm transport.TPM, parent uint32, use func(loaded) error) (err error) {
	if parent != uint32(tpm2.TPMRHOwner) {
		key, err := readPublic(tpm, tpm2.TPMHandle(parent))
		if err != nil {
			return err
		}
		return use(key)
	}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(ownerStorage)}.Execute(tpm)
	if err != nil {
		return explainTPM("couldn't make the owner's storage key", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, rsp.ObjectHandle)) }()
	return use(loaded{handle: rsp.ObjectHandle, name: rsp.Name})
}

func flush(tpm transport.TPM, handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	if err != nil {
		return explainTPM("couldn't unload a key", err)
	}
	return nil
}

func readPublic(tpm transport.TPM, handle tpm2.TPMHandle) (loaded, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return loaded{}, imprint.Errorf(imprint.CodeNotFound, "the TPM has nothing at handle 0x%x", uint32(handle)).
			WithHint("`tpm2_getcap handles-persistent` lists what is there. A TPM that was cleared has lost its keys for good.")
	}
	if err != nil {
		return loaded{}, explainTPM("couldn't read the public key", err)
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return loaded{}, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't understand the public key: %w", err)
	}
	return loaded{handle: handle, name: rsp.Name, public: *public}, nil
}

// public gives the public key of one that can sign what this package signs.
func (k *tpmKey) public(tpm transport.TPM) (crypto.PublicKey, error) {
	var public crypto.PublicKey
	err := k.with(tpm, func(key loaded) error {
		var err error
		public, err = signingKey(key.public)
		return err
	})
	return public, err
}

func signingKey(public tpm2.TPMTPublic) (crypto.PublicKey, error) {
	if !public.ObjectAttributes.SignEncrypt || public.ObjectAttributes.Restricted {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the TPM's key isn't one that signs certificates: it is for something else, or restricted to what the TPM itself says").
			WithHint("Make another key: without the attribute restricted, with sign.")
	}
	if !public.ObjectAttributes.UserWithAuth {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the TPM's key has a policy, and policies aren't supported").
			WithHint("Make another key, with the attribute userwithauth.")
	}
	key, err := tpm2.Pub(public)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the TPM's key isn't ECDSA or RSA: %w", err)
	}
	_, known := KindOf(key)
	if !known {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the TPM's key isn't P-256, P-384 or RSA with 2048, 3072 or 4096 bits")
	}
	return key, nil
}

func (k *tpmKey) sign(ctx context.Context, j job) ([]byte, error) {
	return run(ctx, k.tpm, k.patience, func(tpm transport.TPM) ([]byte, error) {
		var signature []byte
		err := k.with(tpm, func(key loaded) error {
			session, done, err := k.auth()
			if err != nil {
				return err
			}
			defer done()
			rsp, err := tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: key.handle, Name: key.name, Auth: session},
				Digest:    tpm2.TPM2BDigest{Buffer: j.digest}, InScheme: tpmScheme(j),
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(tpm)
			if err != nil {
				return k.refused(explainTPM("the signature failed", err))
			}
			signature, err = decodeSignature(rsp.Signature)
			return err
		})
		return signature, err
	})
}

func (k *tpmKey) close() error { return nil }

// auth gives the key's password, proven by HMAC so that it isn't seen on the bus
// between processor and TPM, and a function that clears it.
func (k *tpmKey) auth() (tpm2.Session, func(), error) {
	if k.uri.authSource == "" {
		return tpm2.PasswordAuth(nil), func() {}, nil
	}
	secret, err := readSecret("auth-source", k.uri.authSource, maxAuth)
	if err != nil {
		return nil, nil, err
	}
	err = k.tpm.allowed(k.lockName(), secret)
	if err != nil {
		clear(secret)
		return nil, nil, err
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(secret)), func() { clear(secret) }, nil
}

func (k *tpmKey) lockName() string { return fmt.Sprintf("%x %s", k.uri.handle, k.uri.file) }

// refused remembers a wrong password: a TPM locks all its keys after a few.
func (k *tpmKey) refused(err error) error {
	if imprint.CodeOf(err) != imprint.CodeKeyRefused || k.uri.authSource == "" {
		return err
	}
	secret, readErr := readSecret("auth-source", k.uri.authSource, maxAuth)
	if readErr == nil {
		k.tpm.refuse(k.lockName(), secret)
		clear(secret)
	}
	return err
}

var tpmHashes = map[crypto.Hash]tpm2.TPMAlgID{crypto.SHA256: tpm2.TPMAlgSHA256, crypto.SHA384: tpm2.TPMAlgSHA384, crypto.SHA512: tpm2.TPMAlgSHA512}

func tpmScheme(j job) tpm2.TPMTSigScheme {
	hash := &tpm2.TPMSSchemeHash{HashAlg: tpmHashes[j.hash]}
	algorithm := map[scheme]tpm2.TPMAlgID{schemeECDSA: tpm2.TPMAlgECDSA, schemePKCS1: tpm2.TPMAlgRSASSA, schemePSS: tpm2.TPMAlgRSAPSS}[j.scheme]
	return tpm2.TPMTSigScheme{Scheme: algorithm, Details: tpm2.NewTPMUSigScheme(algorithm, hash)}
}

func decodeSignature(signature tpm2.TPMTSignature) ([]byte, error) {
	switch signature.SigAlg {
	case tpm2.TPMAlgECDSA:
		parts, err := signature.Signature.ECDSA()
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't understand the TPM's signature: %w", err)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(parts.SignatureR.Buffer), new(big.Int).SetBytes(parts.SignatureS.Buffer)})
		if err != nil {
			return nil, fmt.Errorf("couldn't encode the TPM's signature: %w", err)
		}
		return der, nil
	case tpm2.TPMAlgRSASSA, tpm2.TPMAlgRSAPSS:
		get := signature.Signature.RSASSA
		if signature.SigAlg == tpm2.TPMAlgRSAPSS {
			get = signature.Signature.RSAPSS
		}
		rsa, err := get()
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't understand the TPM's signature: %w", err)
		}
		return rsa.Sig.Buffer, nil
	}
	return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the TPM signed with algorithm 0x%x, which wasn't asked for", uint16(signature.SigAlg))
}

// newTPMPublic describes a key to be made: fixed to this TPM and its parent, made in
// it, guarded against guessing its password.
func newTPMPublic(kind Kind) tpm2.TPMTPublic {
	public := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true,
		},
	}
	if bits := kind.bits(); bits > 0 {
		public.Type = tpm2.TPMAlgRSA
		public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(bits)})
		return public
	}
	curve := tpm2.TPMECCNistP256
	if kind == P384 {
		curve = tpm2.TPMECCNistP384
	}
	public.Type = tpm2.TPMAlgECC
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve})
	return public
}

func (s *Store) generateTPM(ctx context.Context, uri URI, kind Kind) (Signer, error) {
	if uri.handle == 0 && (uri.file == "" || strings.HasSuffix(uri.file, "/")) {
		_, err := s.tpmKey(uri)
		return nil, err
	}
	tpm := s.tpms.device(uri.device)
	made, err := run(ctx, tpm, generateTimeout, func(tpm transport.TPM) (*keyFile, error) { return makeTPMKey(tpm, uri, kind) })
	if err != nil {
		return nil, err
	}
	if uri.file != "" {
		err = durable.CreateFile(uri.file, made.encode(), 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, errFileThere(uri.file)
		}
		if err != nil {
			return nil, fmt.Errorf("couldn't keep the key: %w", err)
		}
	}
	return s.openTPM(ctx, uri)
}

// makeTPMKey makes a key under the owner's storage key and, where the URI names a
// handle, keeps it in the TPM.
func makeTPMKey(tpm transport.TPM, uri URI, kind Kind) (*keyFile, error) {
	if uri.handle != 0 {
		_, err := readPublic(tpm, tpm2.TPMHandle(uri.handle))
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "the TPM has something at handle 0x%x already", uri.handle).
				WithHint("Keys are never overwritten: choose another handle, or take the key that is there (--existing-key).")
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, err
		}
	}
	var secret []byte
	if uri.authSource != "" {
		var err error
		secret, err = readSecret("auth-source", uri.authSource, maxAuth)
		if err != nil {
			return nil, err
		}
		defer clear(secret)
	}
	made := &keyFile{emptyAuth: len(secret) == 0, parent: uint32(tpm2.TPMRHOwner)}
	err := withParent(tpm, made.parent, func(parent loaded) error {
		storage := tpm2.AuthHandle{Handle: parent.handle, Name: parent.name, Auth: tpm2.PasswordAuth(nil)}
		created, err := tpm2.Create{
			ParentHandle: storage, InPublic: tpm2.New2B(newTPMPublic(kind)),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: secret}}},
		}.Execute(tpm)
		if errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCCurve) || errors.Is(err, tpm2.TPMRCKeySize) {
			return imprint.Errorf(imprint.CodeKeyRefused, "this TPM doesn't make %s keys: %w", kind, err).
				WithHint("Every TPM 2.0 makes p256 and rsa2048.")
		}
		if err != nil {
			return explainTPM("couldn't make the key", err)
		}
		made.public, made.private = created.OutPublic.Bytes(), created.OutPrivate.Buffer
		if uri.handle == 0 {
			return nil
		}
		return persist(tpm, storage, created, tpm2.TPMHandle(uri.handle))
	})
	return made, err
}

func persist(tpm transport.TPM, parent tpm2.AuthHandle, created *tpm2.CreateResponse, handle tpm2.TPMHandle) (err error) {
	rsp, err := tpm2.Load{ParentHandle: parent, InPrivate: created.OutPrivate, InPublic: created.OutPublic}.Execute(tpm)
	if err != nil {
		return explainTPM("couldn't load the new key", err)
	}
	defer func() { err = errors.Join(err, flush(tpm, rsp.ObjectHandle)) }()
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, PersistentHandle: handle,
	}.Execute(tpm)
	if err != nil {
		return explainTPM("couldn't keep the new key in the TPM", err)
	}
	return nil
}

func (s *Store) listTPM(ctx context.Context, uri URI) ([]Info, error) {
	if uri.file != "" {
		return s.listTPMFiles(ctx, uri)
	}
	return run(ctx, s.tpms.device(uri.device), s.config.Timeout, func(tpm transport.TPM) ([]Info, error) {
		handles, err := handlesOf(tpm, minHandle)
		if err != nil {
			return nil, err
		}
		var list []Info
		for _, handle := range handles {
			if uri.handle != 0 && uri.handle != uint32(handle) || uint32(handle) > maxHandle {
				continue
			}
			info := Info{URI: URI{scheme: schemeTPM, handle: uint32(handle), device: uri.device}}
			key, err := readPublic(tpm, handle)
			if err != nil {
				return nil, err
			}
			info.Extractable = !key.public.ObjectAttributes.FixedTPM
			info.Public, err = signingKey(key.public)
			info.Kind, _ = KindOf(info.Public)
			if err != nil {
				info.Problem = err.Error()
			}
			list = append(list, info)
		}
		return list, nil
	})
}

// listTPMFiles lists the keys in the files of a directory, or in one file.
func (s *Store) listTPMFiles(ctx context.Context, uri URI) ([]Info, error) {
	paths, err := filesOf(uri, tssSuffix)
	if err != nil {
		return nil, err
	}
	var list []Info
	for _, path := range paths {
		one := uri
		one.file = path
		info := Info{URI: one, Label: strings.TrimSuffix(filepath.Base(path), tssSuffix)}
		key, err := s.tpmKey(one)
		if err == nil {
			info.Public, err = run(ctx, key.tpm, key.patience, key.public)
		}
		switch imprint.CodeOf(err) {
		case imprint.CodeKeyUnavailable:
			return nil, err // it is the TPM's problem, and none of one file
		case "":
			info.Kind, _ = KindOf(info.Public)
		default:
			info.Problem = err.Error()
		}
		list = append(list, info)
	}
	return list, nil
}

// handlesOf lists what a TPM has from a handle on: persistent or transient objects.
func handlesOf(tpm transport.TPM, from uint32) ([]tpm2.TPMHandle, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: from, PropertyCount: maxListed}.Execute(tpm)
	if err != nil {
		return nil, explainTPM("couldn't list the TPM's keys", err)
	}
	handles, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't understand the TPM's list: %w", err)
	}
	return handles.Handle, nil
}

// explainTPM gives a TPM's error a code and a hint.
func explainTPM(what string, err error) error {
	var rc tpm2.TPMRC
	if !errors.As(err, &rc) {
		return imprint.Errorf(imprint.CodeKeyUnavailable, "%s: %w", what, err)
	}
	is := func(codes ...tpm2.TPMRC) bool {
		for _, code := range codes {
			if rc.Is(code) {
				return true
			}
		}
		return false
	}
	switch {
	case is(tpm2.TPMRCLockout):
		return imprint.Errorf(imprint.CodeKeyRefused, "%s: the TPM has locked itself after wrong passwords: %w", what, err).
			WithHint("Wait until it forgets (often two hours), or `tpm2_dictionarylockout --clear-lockout`. Then correct the file that auth-source names.")
	case is(tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth):
		return imprint.Errorf(imprint.CodeKeyRefused, "%s: a password is wrong or missing: %w", what, err).
			WithHint("Name the file with the key's password by auth-source=file:/PATH in the URI. It isn't tried again unless the file is changed, so that the TPM doesn't lock itself. If the owner hierarchy has a password, make the key with tpm2-tools.")
	case is(tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles):
		return imprint.Errorf(imprint.CodeKeyUnavailable, "%s: the TPM has no room for another key: %w", what, err).
			WithHint("Another program left keys loaded: `tpm2_flushcontext -t` and `-l` unload them. Use /dev/tpmrm0, which keeps programs apart.")
	case is(tpm2.TPMRCScheme, tpm2.TPMRCHash, tpm2.TPMRCSize, tpm2.TPMRCValue, tpm2.TPMRCKey, tpm2.TPMRCAttributes):
		return imprint.Errorf(imprint.CodeKeyRefused, "%s: the TPM can't do this with this key: %w", what, err)
	}
	return imprint.Errorf(imprint.CodeKeyUnavailable, "%s: %w", what, err)
}

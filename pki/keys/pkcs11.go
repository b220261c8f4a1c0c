package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys/wire"
)

// tokenKey is a key in a PKCS#11 token.
type tokenKey struct {
	pool   *tokenPool
	token  *token
	uri    URI
	public []byte // SubjectPublicKeyInfo, as the key was opened with
}

var wireSchemes = map[scheme]wire.Scheme{schemeECDSA: wire.ECDSA, schemePKCS1: wire.PKCS1, schemePSS: wire.PSS}

func (k *tokenKey) sign(ctx context.Context, j job) ([]byte, error) {
	answer, err := k.token.call(ctx, &wire.Request{
		Op: wire.OpSign, Label: k.uri.object, KeyID: []byte(k.uri.id), Scheme: wireSchemes[j.scheme], Hash: uint16(j.hash.Size() * 8), Digest: j.digest,
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the key isn't in its token any more: %w", err).
			WithHint("Put the token back that has it, or restore the key from the token's own backup.")
	}
	if err != nil {
		return nil, err
	}
	return answer.Signature, nil
}

func (k *tokenKey) close() error {
	k.pool.release(k.token)
	return nil
}

func (s *Store) openPKCS11(ctx context.Context, uri URI) (Signer, error) {
	if uri.object == "" && uri.id == "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the URI names a token and no key in it").
			WithHint("Add ;object=LABEL or ;id=%%XX to it.")
	}
	t, err := s.tokens.take(uri.token)
	if err != nil {
		return nil, err
	}
	signer, err := s.findPKCS11(ctx, uri, t)
	if err != nil {
		s.tokens.release(t)
		return nil, err
	}
	return signer, nil
}

func (s *Store) findPKCS11(ctx context.Context, uri URI, t *token) (Signer, error) {
	answer, err := t.call(ctx, &wire.Request{Op: wire.OpFind, Label: uri.object, KeyID: []byte(uri.id)})
	if err != nil {
		return nil, err
	}
	if len(answer.Items) != 1 {
		return nil, imprint.Errorf(imprint.CodeInternal, "imprint-pkcs11 gave %d keys for one", len(answer.Items))
	}
	info := s.infoOf(uri, answer.Items[0])
	if info.Problem != "" {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the token's key can't be used: %s", info.Problem)
	}
	return &remoteSigner{
		uri: uri, public: info.Public, timeout: s.config.Timeout,
		key: &tokenKey{pool: &s.tokens, token: t, uri: uri, public: answer.Items[0].Public},
	}, nil
}

// infoOf describes a key of the token that uri names.
func (s *Store) infoOf(uri URI, item wire.Item) Info {
	uri.object, uri.id = item.Label, string(item.KeyID)
	info := Info{URI: uri, Label: strings.ToValidUTF8(item.Label, "\uFFFD"), Extractable: item.Extractable, Problem: item.Problem}
	if info.Problem != "" {
		return info
	}
	public, err := x509.ParsePKIXPublicKey(item.Public)
	if err != nil {
		info.Problem = fmt.Sprintf("its public key isn't readable: %v", err)
		return info
	}
	kind, known := KindOf(public)
	if !known {
		info.Problem = "its kind isn't P-256, P-384 or RSA with 2048, 3072 or 4096 bits"
		return info
	}
	info.Public, info.Kind = public, kind
	return info
}

func (s *Store) generatePKCS11(ctx context.Context, uri URI, kind Kind) (Signer, URI, error) {
	if uri.object == "" {
		return nil, URI{}, imprint.Errorf(imprint.CodeInvalidRequest, "the URI names no object").
			WithHint("Add ;object=LABEL to it, the name of the new key.")
	}
	if uri.id == "" {
		// Tokens tie a key's public half and its certificates to it by their id.
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		uri.id = string(id[:])
	}
	public, err := s.makePKCS11(ctx, uri, kind)
	if err != nil {
		return nil, URI{}, err
	}
	signer, err := s.openPKCS11(ctx, uri)
	if err != nil {
		return nil, URI{}, fmt.Errorf("the key was made, but: %w", err)
	}
	if !samePublic(signer.Public(), public) {
		return nil, URI{}, errors.Join(imprint.Errorf(imprint.CodeKeyUnavailable, "the token gives another key than the one that it just made"), signer.Close())
	}
	return signer, uri, nil
}

// makePKCS11 makes a key in a process for itself: that takes minutes on some tokens,
// and signatures must not wait for it, nor for its end.
func (s *Store) makePKCS11(ctx context.Context, uri URI, kind Kind) (crypto.PublicKey, error) {
	t := s.tokens.single(uri.token, generateTimeout)
	defer t.stop()
	answer, err := t.call(ctx, &wire.Request{Op: wire.OpGenerate, Label: uri.object, KeyID: []byte(uri.id), Kind: string(kind)})
	if err != nil {
		return nil, err
	}
	if len(answer.Items) != 1 || !bytes.Equal(answer.Items[0].KeyID, []byte(uri.id)) {
		return nil, imprint.Errorf(imprint.CodeInternal, "imprint-pkcs11 gave something else than the key that it made")
	}
	info := s.infoOf(uri, answer.Items[0])
	if info.Problem != "" {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the token made a key that can't be used: %s", info.Problem)
	}
	return info.Public, nil
}

func (s *Store) listPKCS11(ctx context.Context, uri URI) ([]Info, error) {
	t := s.tokens.single(uri.token, max(s.config.Timeout, defaultTimeout))
	defer t.stop()
	answer, err := t.call(ctx, &wire.Request{Op: wire.OpList, Label: uri.object, KeyID: []byte(uri.id)})
	if err != nil {
		return nil, err
	}
	list := make([]Info, 0, len(answer.Items))
	for _, item := range answer.Items {
		list = append(list, s.infoOf(uri, item))
	}
	return list, nil
}

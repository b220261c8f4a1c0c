//go:build awskms

package keys_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

const withKMS = true

// localKMS speaks the JSON protocol of AWS KMS (TrentService) as far as this package
// uses it, with real keys. It is our own reading of AWS's API: what it proves is that
// AWS's SDK for Go, with its signing and its retries, is used as its model says, not that
// AWS's servers agree.
type localKMS struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	keys    map[string]crypto.Signer // by ARN
	aliases map[string]string
	calls   map[string]int
	// trouble answers instead, where it is set.
	trouble http.HandlerFunc
}

func newLocalKMS(t testing.TB) *localKMS {
	k := &localKMS{t: t, keys: map[string]crypto.Signer{}, aliases: map[string]string{}, calls: map[string]int{}}
	k.server = httptest.NewServer(k)
	t.Cleanup(k.server.Close)
	return k
}

func (k *localKMS) uri(id string) keys.URI {
	if id != "" {
		id = "key-id=" + id + ";"
	}
	return parse(k.t, "awskms:"+id+"region=eu-central-1?endpoint="+k.server.URL)
}

func (k *localKMS) set(trouble http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.trouble = trouble
}

func (k *localKMS) called(operation string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[operation]
}

func fail(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": kind, "message": message})
}

func (k *localKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, known := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if !known || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		fail(w, 400, "UnknownOperationException", "no operation")
		return
	}
	if credential := r.Header.Get("Authorization"); !strings.HasPrefix(credential, "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/") || !strings.Contains(credential, "/eu-central-1/kms/aws4_request") {
		fail(w, 400, "IncompleteSignatureException", "not signed for KMS")
		return
	}
	var in struct {
		KeyId, KeySpec, KeyUsage, AliasName, TargetKeyId, MessageType, SigningAlgorithm string
		Message                                                                         []byte
	}
	err := json.NewDecoder(r.Body).Decode(&in)
	if err != nil {
		fail(w, 400, "SerializationException", err.Error())
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[operation]++
	if k.trouble != nil {
		trouble := k.trouble
		k.mu.Unlock()
		trouble(w, r)
		k.mu.Lock()
		return
	}
	out, kind, message := k.answer(operation, in.KeyId, in.KeySpec, in.AliasName, in.TargetKeyId, in.MessageType, in.SigningAlgorithm, in.Message)
	if kind != "" {
		fail(w, 400, kind, message)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(out)
}

var localSpecs = map[string]keys.Kind{"ECC_NIST_P256": keys.P256, "ECC_NIST_P384": keys.P384, "RSA_2048": keys.RSA2048, "RSA_3072": keys.RSA3072, "RSA_4096": keys.RSA4096}

func (k *localKMS) answer(operation, id, spec, alias, target, messageType, algorithm string, message []byte) (out any, kind, text string) {
	arn := id
	if strings.HasPrefix(id, "alias/") {
		arn = k.aliases[id]
	}
	key, there := k.keys[arn]
	switch operation {
	case "GetPublicKey", "Sign", "DescribeKey":
		if !there {
			return nil, "NotFoundException", "no such key"
		}
	}
	switch operation {
	case "CreateKey":
		made, err := keys.NewKey(localSpecs[spec])
		if err != nil {
			return nil, "ValidationException", err.Error()
		}
		arn = fmt.Sprintf("arn:aws:kms:eu-central-1:123456789012:key/%d", len(k.keys)+1)
		k.keys[arn] = made
		return map[string]any{"KeyMetadata": map[string]any{"KeyId": arn[strings.LastIndex(arn, "/")+1:], "Arn": arn}}, "", ""
	case "CreateAlias":
		k.aliases[alias] = "arn:aws:kms:eu-central-1:123456789012:key/" + target
		return map[string]any{}, "", ""
	case "DescribeKey":
		return map[string]any{"KeyMetadata": map[string]any{"KeyId": arn, "Arn": arn}}, "", ""
	case "ListKeys":
		var list []map[string]string
		for one := range k.keys {
			list = append(list, map[string]string{"KeyArn": one})
		}
		return map[string]any{"Keys": list}, "", ""
	case "GetPublicKey":
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, "KMSInternalException", err.Error()
		}
		return map[string]any{"KeyId": arn, "PublicKey": der, "KeyUsage": "SIGN_VERIFY"}, "", ""
	case "Sign":
		hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[len(algorithm)-3:]]
		var opts crypto.SignerOpts = hash
		if strings.HasPrefix(algorithm, "RSASSA_PSS") {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		kindOfKey, _ := keys.KindOf(key.Public())
		if fits := map[string]keys.Kind{"ECDSA_SHA_256": keys.P256, "ECDSA_SHA_384": keys.P384}[algorithm]; messageType != "DIGEST" || (fits != "") != strings.HasPrefix(string(kindOfKey), "p") || fits != "" && fits != kindOfKey {
			return nil, "InvalidKeyUsageException", "the algorithm isn't the key's"
		}
		signature, err := key.Sign(rand.Reader, message, opts)
		if err != nil {
			return nil, "ValidationException", err.Error()
		}
		return map[string]any{"KeyId": arn, "Signature": signature, "SigningAlgorithm": algorithm}, "", ""
	}
	return nil, "UnknownOperationException", operation
}

func credentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func TestKMSConforms(t *testing.T) {
	credentials(t)
	k := newLocalKMS(t)
	conform(t, place{store: newStore(t), kinds: keys.Kinds(), all: k.uri(""), uri: func(name string) keys.URI { return k.uri("alias/" + name) }})
}

// A key of a named KMS is known by its ARN once it is made, whatever its alias names then.
func TestANamedKeyOfKMSIsKnownByItsARN(t *testing.T) {
	credentials(t)
	k := newLocalKMS(t)
	n := named(t, nil, keys.Place{Name: "cloud", Account: account, URI: k.uri("")})
	made, name, err := n.Generate(t.Context(), "cloud:root", keys.P256)
	if err != nil || !strings.HasPrefix(name, "cloud:root;id=arn:aws:kms:eu-central-1:") {
		t.Fatalf("got %q, %v", name, err)
	}
	generate(t, newStore(t), k.uri(""), keys.P256)
	k.mu.Lock()
	k.aliases["alias/root"] = "arn:aws:kms:eu-central-1:123456789012:key/2"
	k.mu.Unlock()
	again := named(t, nil, n.Places()...)
	signer, err := again.Open(t.Context(), name)
	if err != nil || fmt.Sprint(signer.Public()) != fmt.Sprint(made.Public()) {
		t.Fatalf("by its name: %v", err)
	}
	found, err := again.List(t.Context(), account, "cloud")
	if err != nil || len(found) != 2 || again.Check(account, found[0].Name) != nil {
		t.Errorf("got %+v, %v", found, err)
	}
}

// A KMS that is slow, refuses or is gone is an error within the deadline, with the
// right code, and works again afterwards.
func TestSigningRecoversFromEveryFailureOfKMS(t *testing.T) {
	credentials(t)
	k := newLocalKMS(t)
	s := newStore(t, impatient)
	signer, _ := generate(t, s, k.uri("alias/root"), keys.P256)
	// Opened by its alias: what the alias names later isn't asked for.
	byAlias := open(t, s, k.uri("alias/root"))
	generate(t, s, k.uri(""), keys.P256)
	k.mu.Lock()
	k.aliases["alias/root"] = "arn:aws:kms:eu-central-1:123456789012:key/2"
	k.mu.Unlock()
	for _, trouble := range []struct {
		name   string
		answer http.HandlerFunc
		code   imprint.Code
		word   string
	}{
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, imprint.CodeKeyUnavailable, "in time"},
		{"broken", func(w http.ResponseWriter, _ *http.Request) { fail(w, 500, "KMSInternalException", "broken") }, imprint.CodeKeyUnavailable, ""},
		{"nonsense", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{")) }, imprint.CodeKeyUnavailable, ""},
		{"denied", func(w http.ResponseWriter, _ *http.Request) { fail(w, 400, "AccessDeniedException", "not you") }, imprint.CodeKeyRefused, "kms:Sign"},
		{"disabled", func(w http.ResponseWriter, _ *http.Request) { fail(w, 400, "DisabledException", "off") }, imprint.CodeKeyRefused, "describe-key"},
		{"deleted", func(w http.ResponseWriter, _ *http.Request) { fail(w, 400, "NotFoundException", "gone") }, imprint.CodeNotFound, "list-aliases"},
		{"bad signature", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			_ = json.NewEncoder(w).Encode(map[string]any{"Signature": []byte("x")})
		}, imprint.CodeKeyUnavailable, "doesn't verify"},
	} {
		k.set(trouble.answer)
		var err error
		within(t, 30*time.Second, trouble.name, func() { err = signOnce(context.Background(), signer, "x") })
		expect(t, err, trouble.code, trouble.word)
		k.set(nil)
		for _, one := range []keys.Signer{signer, byAlias} {
			err = signOnce(t.Context(), one, "x")
			if err != nil {
				t.Errorf("after %s: %v", trouble.name, err)
			}
		}
	}
	if k.called("Sign") == 0 {
		t.Error("nothing was signed by the server")
	}
	for id, code := range map[string]imprint.Code{"": imprint.CodeInvalidRequest, "alias/nobody": imprint.CodeNotFound} {
		_, err := s.Open(t.Context(), k.uri(id))
		expect(t, err, code)
	}
	_, _, err := s.Generate(t.Context(), k.uri("alias/root"), keys.P256)
	expect(t, err, imprint.CodeAlreadyExists, "alias")
	_, _, err = s.Generate(t.Context(), k.uri("1234"), keys.P256)
	expect(t, err, imprint.CodeInvalidRequest, "alias/NAME")
	k.server.Close()
	within(t, 30*time.Second, "a server that is gone", func() { err = signOnce(t.Context(), signer, "x") })
	expect(t, err, imprint.CodeKeyUnavailable)
}

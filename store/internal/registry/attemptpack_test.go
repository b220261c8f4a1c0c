package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
)

// TestPackedBodiesOfBeforeAreRead ensures that nobody changes the words: what was packed
// with them couldn't be read any more.
func TestPackedBodiesOfBeforeAreRead(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(attemptWords)
	if got, want := hex.EncodeToString(sum[:]), "bad7effb796b67deeb65b114374596e56434d384f337d89f8efdec7bfefea24d"; got != want {
		t.Errorf("attemptwords.txt has the SHA-256 %s, want %s: a new list is another file, with a mark of its own", got, want)
	}
	const want = `{"sni":"localhost","outcome":"provisioned","code":"ProvisionedReconnect","log":[{"t":1,"s":"register","v":"ok","d":"certificate registered"}]}`
	stored, err := base64.StdEncoding.DecodeString("AY4BAHtKViImZyAVcS5sIABQGRUEUmUNTTZwIAAxDtcJFQAoDCJ9XX0=")
	if err != nil {
		t.Fatal(err)
	}
	for what, body := range map[string][]byte{"packed": stored, "as it was before": []byte(want)} {
		got, err := unpackBody(body)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
}

func TestBodiesComeBackFromPacking(t *testing.T) {
	t.Parallel()
	var memory []byte
	for _, body := range []string{"", "{}", strings.Repeat("x", 1<<20), string(attemptWords), strings.Repeat("\x00\xff", 300), string(attemptWords[:1500])} {
		memory = packBody(memory[:0], []byte(body))
		got, err := unpackBody(memory)
		if err != nil || string(got) != body {
			t.Errorf("a body of %d bytes came back with %d, %v", len(body), len(got), err)
		}
	}
	// In front of it nothing is touched, and the words serve their end.
	packed := packBody([]byte("before"), attemptWords[:1500])
	if !bytes.HasPrefix(packed, []byte("before")) || len(packed) > 100 {
		t.Errorf("1500 bytes of words were packed into %d, %q", len(packed), packed)
	}
}

func TestWhatWasNotPackedIsAnError(t *testing.T) {
	t.Parallel()
	whole := packBody(nil, attemptWords[:500])
	for name, stored := range map[string][]byte{
		"the mark alone": {packedBody},
		"cut":            whole[:len(whole)-1],
		"too long":       append([]byte{packedBody}, s2.Encode(nil, make([]byte, maxBody+1))...),
	} {
		got, err := unpackBody(stored)
		if err == nil {
			t.Errorf("%s: got %d bytes", name, len(got))
		}
	}
}

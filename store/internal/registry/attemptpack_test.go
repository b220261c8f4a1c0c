package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"

	"github.com/imprint-iot/imprint"
)

var bodyTime = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func packed(a *imprint.Attempt) []byte {
	var w bodyWriter
	w.write(a)
	return packBody(nil, &w)
}

// wholeAttempt has everything that a body has.
func wholeAttempt(text string) imprint.Attempt {
	at := bodyTime
	return imprint.Attempt{
		At: at, EndedAt: at.Add(time.Second), SNI: text, ALPN: text, TLSVersion: text, Subject: text,
		Outcome: imprint.Outcome(text), Code: imprint.Code(text), Repeats: 3, FirstAt: at.Add(-time.Hour), Devices: 4, Sample: []string{text, "b"},
		Steps: []imprint.Step{
			{At: at, Name: text, Verdict: imprint.Verdict(text), Detail: text, Fix: text, Action: text, Resource: text, Wire: text},
			{At: at.Add(1), Name: "tls", Verdict: imprint.VerdictOK, Detail: "a"},
			{At: at.Add(2), Name: "ca", Verdict: imprint.VerdictFailed, Code: imprint.CodeCAInactive, Detail: "b", Fix: "c"},
			{At: at.Add(1), Name: "claim.registered", Verdict: imprint.VerdictInfo, Wire: "sent PUBACK 0x87", Certificate: "ab"},
			{At: at.Add(5), Name: "publish", Verdict: imprint.VerdictFailed, Action: "iot:Publish", Resource: "arn:aws:iot", Repeats: 7, LastAt: at.Add(time.Hour), Others: true},
		},
	}
}

// Whatever devices call themselves, what is told of them comes back as it was.
func TestBodiesComeBackWhole(t *testing.T) {
	t.Parallel()
	texts := []string{
		"", "plain", `"quoted" and \back`, "\x00\n\t\x1b[2J", "Gerät", "\xff\xfe", string(attemptWords),
		strings.Repeat("x", 1<<20), strings.Repeat("\x00\xff", 300),
	}
	for _, text := range texts {
		want := wholeAttempt(text)
		got := imprint.Attempt{At: want.At}
		err := readBody(packed(&want), &got)
		if err != nil {
			t.Fatalf("%.40q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%.40q: what came back differs (-want +got):\n%s", text, diff)
		}
	}
	got := imprint.Attempt{At: bodyTime}
	err := readBody(packed(&imprint.Attempt{At: bodyTime, EndedAt: bodyTime.Add(999_999), Repeats: 1, FirstAt: bodyTime.Add(1_000_001)}), &got)
	if err != nil || !got.EndedAt.Equal(bodyTime) || !got.FirstAt.Equal(bodyTime.Add(time.Millisecond)) {
		t.Errorf("milliseconds came back as %v, %v: %v", got.EndedAt, got.FirstAt, err)
	}
	got = imprint.Attempt{At: bodyTime}
	err = readBody(packed(&imprint.Attempt{At: bodyTime}), &got)
	if diff := cmp.Diff(imprint.Attempt{At: bodyTime}, got); err != nil || diff != "" {
		t.Errorf("of nothing: %v, (-want +got):\n%s", err, diff)
	}
}

// Steps come back with their nanoseconds, however far from the attempt's time they are.
func TestStepsComeBackWhenTheyWere(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]time.Time{
		"at once": bodyTime, "later": bodyTime.Add(123_456_789), "earlier": bodyTime.Add(-1), "never": {},
		"in another age": bodyTime.AddDate(700, 0, 0), "as late as can be": bodyTime.Add(math.MaxInt64), "as early": bodyTime.Add(math.MinInt64),
	} {
		want := []imprint.Step{{At: first, Name: "tls"}, {At: bodyTime.Add(2), Repeats: 1, LastAt: first}}
		got := imprint.Attempt{At: bodyTime}
		err := readBody(packed(&imprint.Attempt{At: bodyTime.Add(999_999), Steps: want}), &got)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got.Steps); diff != "" {
			t.Errorf("%s: steps differ (-want +got):\n%s", name, diff)
		}
	}
}

// TestBodiesOfBeforeAreRead ensures that nobody changes the words, or how bodies are
// written: what is stored couldn't be read any more.
func TestBodiesOfBeforeAreRead(t *testing.T) {
	t.Parallel()
	for file, words := range map[string]struct {
		text []byte
		want string
	}{
		"attemptwords.txt":     {attemptWords, "6690e06268a8a8bc931d8f07f9e190e750951535da960e65f30676d41ef317ff"},
		"attemptjsonwords.txt": {jsonWords, "bad7effb796b67deeb65b114374596e56434d384f337d89f8efdec7bfefea24d"},
	} {
		sum := sha256.Sum256(words.text)
		if got := hex.EncodeToString(sum[:]); got != words.want {
			t.Errorf("%s has the SHA-256 %s, want %s: a new list is another file, with a mark of its own", file, got, words.want)
		}
	}
	want := imprint.Attempt{At: bodyTime, SNI: "localhost", Outcome: imprint.OutcomeProvisioned, Code: imprint.CodeProvisioned,
		Steps: []imprint.Step{{At: bodyTime.Add(1), Name: "register", Verdict: imprint.VerdictOK, Detail: "certificate registered"}}}
	const text = `{"sni":"localhost","outcome":"provisioned","code":"ProvisionedReconnect","log":[{"t":1,"s":"register","v":"ok","d":"certificate registered"}]}`
	for name, stored := range map[string]string{
		"JSON":        base64.StdEncoding.EncodeToString([]byte(text)),
		"packed JSON": "AY4BAHtKViImZyAVcS5sIABQGRUEUmUNTTZwIAAxDtcJFQAoDCJ9XX0=",
		"packed":      "AhYA/9uP+c4DAAkAAAALFAAAAAEFBAgWRiBsb2NhbGhvc3R6mgMR+i6xACRyZWdpc3RlcmVk",
	} {
		body, err := base64.StdEncoding.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		got := imprint.Attempt{At: bodyTime}
		err = readBody(body, &got)
		if err != nil {
			t.Errorf("%s: %v; it is %s now", name, err, base64.StdEncoding.EncodeToString(packed(&want)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: attempts differ (-want +got):\n%s", name, diff)
		}
	}
}

// What most attempts have in common takes no room.
func TestTheWordsServeTheirEnd(t *testing.T) {
	t.Parallel()
	a := imprint.Attempt{At: bodyTime, Steps: []imprint.Step{{At: bodyTime, Name: "close",
		Detail: "closed as AWS IoT Core closes a first connection; the device's next one is let in", Wire: "closed without CONNACK"}}}
	var w bodyWriter
	w.write(&a)
	body := packBody([]byte("before"), &w)
	if !bytes.HasPrefix(body, []byte("before")) || len(body) > 60 {
		t.Errorf("%d bytes of texts were packed into %d, %q", len(w.texts), len(body), body)
	}
}

func TestWhatIsDamagedIsAnError(t *testing.T) {
	t.Parallel()
	whole := wholeAttempt("text")
	body := packed(&whole)
	for n := range body {
		err := readBody(body[:n], &imprint.Attempt{At: bodyTime})
		if err == nil {
			t.Errorf("%d of %d bytes were read", n, len(body))
		}
	}
	for name, stored := range map[string][]byte{
		"a byte more":           append([]byte{packedBody, byte(1)}, append([]byte{0}, s2.Encode(nil, []byte("x"))...)...),
		"too long":              append([]byte{packedBody, 0}, s2.Encode(nil, make([]byte, maxBody+1))...),
		"packed JSON, too long": append([]byte{packedJSON}, s2.Encode(nil, make([]byte, maxBody+1))...),
		"more steps than bytes": append(append([]byte{packedBody, 17}, append(make([]byte, 11), 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f)...), s2.Encode(nil, nil)...),
	} {
		err := readBody(stored, &imprint.Attempt{At: bodyTime})
		if err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

func FuzzReadBody(f *testing.F) {
	whole := wholeAttempt("text")
	f.Add(packed(&whole))
	f.Add([]byte(`{"sni":"a","log":[{"t":1,"s":"b"}]}`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		first := imprint.Attempt{At: bodyTime}
		if readBody(stored, &first) != nil || first.Repeats < 0 || first.Devices < 0 {
			return
		}
		// What could be read once is written so that it is read again.
		again := imprint.Attempt{At: bodyTime}
		err := readBody(packed(&first), &again)
		if diff := cmp.Diff(first, again); err != nil || diff != "" {
			t.Errorf("%v, (-first +again):\n%s", err, diff)
		}
	})
}

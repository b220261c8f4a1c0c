package registry

import (
	"encoding/base64"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
)

// FuzzCursorIsWhatAListGaveOrRefused ensures that reading a cursor never
// panics, that whatever is accepted is written back to the same text, and that
// the rest is CodeInvalidRequest.
func FuzzCursorIsWhatAListGaveOrRefused(f *testing.F) {
	f.Add(writeCursor("Ais", []any{int64(-1), "name"}))
	f.Add(writeCursor("Bs", []any{""}))
	f.Add(writeCursor("Ci", []any{int64(1 << 62)}))
	f.Add("QQ")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte("B\x81\x00a")))
	f.Add("!")
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []keyKind{"Ais", "Bs", "Ci"} {
			key, err := readCursor(kind, text)
			if err != nil {
				if got := imprint.CodeOf(err); got != imprint.CodeInvalidRequest {
					t.Errorf("got code %s, want %s", got, imprint.CodeInvalidRequest)
				}
				continue
			}
			if again := writeCursor(kind, key); again != text {
				t.Errorf("%q was read as %v, which is written as %q", text, key, again)
			}
		}
	})
}

func TestCursorsComeBackForTheirListAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Int64().Draw(t, "at")
		id := rapid.StringMatching(`[^\x00]{0,300}`).Filter(utf8.ValidString).Draw(t, "id")
		text := writeCursor("Ais", []any{at, id})
		got, err := readCursor("Ais", text)
		if diff := cmp.Diff([]any{at, id}, got); err != nil || diff != "" {
			t.Fatalf("%v, -want +got: %s", err, diff)
		}
		_, err = readCursor("Bis", text)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Fatalf("another list accepts the cursor: %v", err)
		}
	})
}

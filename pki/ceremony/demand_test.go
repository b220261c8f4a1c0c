package ceremony_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/pki/ceremony"
)

// retold is a record as somebody writes it who has the key of the first CA: whole in itself,
// with the lines that edit keeps, as it leaves them.
func retold(t *testing.T, record string, key crypto.Signer, edit func(step string, members map[string]any) bool) []byte {
	t.Helper()
	public, recorder, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var written strings.Builder
	n, prev := 0, strings.Repeat("0", 64)
	for one := range strings.Lines(record) {
		var members map[string]any
		err := json.Unmarshal([]byte(one[:strings.LastIndexByte(one, ' ')]), &members)
		if err != nil {
			t.Fatal(err)
		}
		step := members["step"].(string)
		if !edit(step, members) {
			continue
		}
		n++
		members["n"], members["prev"] = n, prev
		switch step {
		case "begin":
			members["recorder"] = public
		case "signature":
			digest := sha256.Sum256([]byte("imprint ceremony record, version 1\n" + prev + "\n"))
			members["signature"], err = key.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
		}
		body, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		whole := string(body) + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(recorder, append([]byte("imprint ceremony record line, version 1\n"), body...)))
		sum := sha256.Sum256([]byte(whole))
		prev = hex.EncodeToString(sum[:])
		written.WriteString(whole + "\n")
	}
	return []byte(written.String())
}

// TestARecordSaysAllThatTheScriptAsksFor: who has the key of the first CA leaves nobody and
// nothing out.
func TestARecordSaysAllThatTheScriptAsksFor(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	_, err := r.run(t.Context(), "out")
	if err != nil {
		t.Fatal(err)
	}
	r.give = r.shares
	key, err := ceremony.OpenSealed(t.Context(), filepath.Join(r.dir, "out", "root.sealed"), r)
	if err != nil {
		t.Fatal(err)
	}
	without := func(gone string) func(string, map[string]any) bool {
		return func(step string, _ map[string]any) bool { return step != gone }
	}
	with := func(changed, member string, value any) func(string, map[string]any) bool {
		return func(step string, members map[string]any) bool {
			if step == changed {
				members[member] = value
			}
			return true
		}
	}
	for what, c := range map[string]struct {
		edit func(string, map[string]any) bool
		want string // empty: it verifies
	}{
		"as it is":               {without(""), ""},
		"another title":          {with("begin", "title", "Acme test"), "its title is"},
		"no machine":             {without("machine"), "the machine"},
		"nobody":                 {without("person"), "a person"},
		"somebody else":          {with("person", "name", "Mallory"), "a person"},
		"nothing confirmed":      {without("confirmed"), "confirmed"},
		"another one confirmed":  {with("confirmed", "scriptSha256", strings.Repeat("0", 64)), "another script was confirmed"},
		"no shares":              {without("shares"), "shares were handed out"},
		"fewer shares":           {with("shares", "threshold", 2), "as the script says"},
		"other holders":          {with("shares", "holders", []string{"Ada", "Ada", "Ada", "Ada", "Ada"}), "as the script says"},
		"nobody unlocked":        {without("unlocked"), "shares were given"},
		"too few unlocked":       {with("unlocked", "given", []int{1, 2}), "2 shares were given, and 3 are needed"},
		"one unlocked thrice":    {with("unlocked", "given", []int{1, 1, 1}), "1 shares were given, and 3 are needed"},
		"a share that isn't one": {with("unlocked", "given", []int{1, 2, 6}), "3 shares were given, and 3 are needed"},
		"none are needed":        {with("unlocked", "threshold", 0), "other shares"},
		"of another set":         {with("unlocked", "set", "00000000"), "other shares"},
		"a store":                {func(step string, members map[string]any) bool { return !(step == "shares") || renamed(members) }, "sealed by shares"},
	} {
		_, err := ceremony.Verify(retold(t, r.get("out/record.jsonl"), key, c.edit), nil)
		var fault *ceremony.Fault
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &fault) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want a fault with %q", what, err, c.want)
		}
	}
}

// renamed makes a line one of a store.
func renamed(members map[string]any) bool {
	members["step"], members["store"] = "store", "pkcs11:token=x"
	return true
}

package main

import (
	"encoding/json"
	"maps"
	"testing"
)

// What parseParameters takes, it takes as encoding/json does, as the flows read it.
func FuzzParseParameters(f *testing.F) {
	for _, seed := range []string{
		`{"SerialNumber": "17", "Site": "lab"}`, `{}`, " {\n} \n", `{"a":1}`, `{"a":"1","a":"2"}`, `{"a":"1"`, `{"a" "1"}`, `{"a":"1",}`,
		`{"a":["x"]}`, `[]`, `"x"`, `null`, "", `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":"1"} x`, `{"a":"1"}{}`, "\ufeff{}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseParameters(text)
		if err != nil {
			return
		}
		var want map[string]string
		err = json.Unmarshal(text, &want)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, encoding/json gives %v, %v", text, got, want, err)
		}
	})
}

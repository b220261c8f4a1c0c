package wire_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

var request = wire.Request{
	ID: 7, Op: wire.OpSign, Version: wire.Version, Module: "/lib/x.so", Token: wire.Token{Label: "a", Manufacturer: "b", Model: "c", Serial: "d", Slot: "9"},
	PIN: []byte("1234"), Label: "root", KeyID: []byte{0, 1}, Kind: "p256", Scheme: wire.PSS, Hash: 384, Digest: bytes.Repeat([]byte{7}, 48),
}

var response = wire.Response{
	ID: 7, Code: wire.Refused, Message: "no", Token: wire.Token{Label: "a"}, LoginRequired: true, LastTry: true, Signature: []byte{1, 2},
	Items: []wire.Item{{Label: "root", KeyID: []byte{0}, Public: []byte{4}, Extractable: true, Problem: "p"}, {}},
}

// What one side writes, the other reads, alone and one after the other.
func TestMessagesSurviveTheirWay(t *testing.T) {
	t.Parallel()
	var pipe bytes.Buffer
	for range 2 {
		message, err := request.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		err = wire.Write(&pipe, message)
		if err != nil {
			t.Fatal(err)
		}
		message, err = response.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		err = wire.Write(&pipe, message)
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		var gotRequest wire.Request
		message, err := wire.Read(&pipe)
		if err != nil || gotRequest.Unmarshal(message) != nil {
			t.Fatal("the request isn't readable", err)
		}
		if diff := cmp.Diff(gotRequest, request); diff != "" {
			t.Errorf("request (-got +want):\n%s", diff)
		}
		var gotResponse wire.Response
		message, err = wire.Read(&pipe)
		if err != nil || gotResponse.Unmarshal(message) != nil {
			t.Fatal("the response isn't readable", err)
		}
		if diff := cmp.Diff(gotResponse, response); diff != "" {
			t.Errorf("response (-got +want):\n%s", diff)
		}
	}
	_, err := wire.Read(&pipe)
	if err != io.EOF {
		t.Errorf("at the end: got %v, want io.EOF", err)
	}
}

// Frames that are too long, cut short, or have a tail are errors, and no memory is
// taken for a length that is only claimed.
func TestWhatIsNoMessageIsRefused(t *testing.T) {
	t.Parallel()
	_, err := wire.Read(strings.NewReader("\xff\xff\xff\xff"))
	if err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a length of 4 GiB: got %v, want that it is too long", err)
	}
	for _, cut := range []string{"\x00", "\x00\x00\x00\x05abc"} {
		_, err = wire.Read(strings.NewReader(cut))
		if err == nil || err == io.EOF {
			t.Errorf("%q: got %v, want an error", cut, err)
		}
	}
	message, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var r wire.Request
	for n := range message {
		if r.Unmarshal(message[:n]) == nil {
			t.Fatalf("%d of %d bytes count as a request", n, len(message))
		}
	}
	if r.Unmarshal(append(message, 0)) == nil {
		t.Error("a request with a tail counts as one")
	}
	err = wire.Write(io.Discard, make([]byte, wire.MaxFrame+1))
	if err == nil {
		t.Error("a frame over the bound was written")
	}
	long := wire.Request{Label: strings.Repeat("x", 1<<16)}
	_, err = long.Marshal()
	if err == nil {
		t.Error("a text of 64 KiB was written")
	}
	_, err = (&wire.Response{Items: make([]wire.Item, wire.MaxItems+1)}).Marshal()
	if err == nil {
		t.Error("a list over the bound was written")
	}
}

// Whatever is read as a message is written back as the same bytes.
func FuzzMessages(f *testing.F) {
	for _, m := range []interface{ Marshal() ([]byte, error) }{&request, &response} {
		message, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r wire.Request
		if r.Unmarshal(data) == nil {
			back, err := r.Marshal()
			if err != nil || !bytes.Equal(back, data) {
				t.Errorf("request: %x became %x, %v", data, back, err)
			}
		}
		var a wire.Response
		if a.Unmarshal(data) == nil {
			back, err := a.Marshal()
			if err != nil || !bytes.Equal(back, data) {
				t.Errorf("response: %x became %x, %v", data, back, err)
			}
		}
	})
}

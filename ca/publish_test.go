package ca_test

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"

	"github.com/imprint-iot/imprint"
)

// discarded counts what a handler writes.
type discarded struct {
	header http.Header
	status int
	bytes  int
}

func (d *discarded) Header() http.Header    { return d.header }
func (d *discarded) WriteHeader(status int) { d.status = status }
func (d *discarded) Write(p []byte) (int, error) {
	if d.status == 0 {
		d.status = http.StatusOK
	}
	d.bytes += len(p)
	return len(p), nil
}

// TestALargeListIsReadOnceForAllRequests: who asks for its head, or has it, makes nobody
// read it, and those who get it share one copy.
func TestALargeListIsReadOnceForAllRequests(t *testing.T) { // not parallel: it counts what the process allocates
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", imprint.RevocationConfiguration{CRL: true})
	const size = 8 << 20
	list := imprint.RevocationList{Tenant: home, Authority: line.ID, Shard: imprint.WholeList, Number: 7, DER: make([]byte, size), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 7), DueAt: now.AddDate(0, 0, 3)}
	_, _ = rand.Read(list.DER)
	put := func() {
		t.Helper()
		err := o.store.Update(t.Context(), func(tx imprint.Tx) error { return tx.PutRevocationList(list) })
		if err != nil {
			t.Fatal(err)
		}
	}
	put()
	handler := o.Handler()
	path := "/crl/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID) + ".crl"
	ask := func(method string, header map[string]string) *discarded {
		t.Helper()
		request := httptest.NewRequest(method, path, nil)
		for name, value := range header {
			request.Header.Set(name, value)
		}
		w := &discarded{header: http.Header{}}
		handler.ServeHTTP(w, request)
		return w
	}
	allocated := func(fn func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fn()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	tag := ""
	if n := allocated(func() {
		for range 20 {
			if w := ask(http.MethodHead, nil); w.status != http.StatusOK || w.bytes != 0 || w.header.Get("Content-Length") != strconv.Itoa(size) {
				t.Fatalf("HEAD: %+v", w)
			} else {
				tag = w.header.Get("ETag")
			}
			if w := ask(http.MethodGet, map[string]string{"If-None-Match": `"x", ` + tag}); w.status != http.StatusNotModified || w.bytes != 0 {
				t.Fatalf("If-None-Match: %+v", w)
			}
		}
	}); n > size/2 {
		t.Errorf("40 requests that need no list allocated %d bytes, the list has %d", n, size)
	}
	if n := allocated(func() {
		for range 20 {
			if w := ask(http.MethodGet, nil); w.status != http.StatusOK || w.bytes != size {
				t.Fatalf("GET: %+v", w)
			}
			if w := ask(http.MethodGet, map[string]string{"Range": "bytes=0-9"}); w.status != http.StatusPartialContent || w.bytes != 10 {
				t.Fatalf("Range: %+v", w)
			}
		}
	}); n > 4*size {
		t.Errorf("40 requests for the list allocated %d bytes, the list has %d", n, size)
	}
	if _, _, held := o.Held(); held != size {
		t.Errorf("%d bytes of lists are kept", held)
	}
	// A list with the same number that is another one has another tag.
	list.ThisUpdate, list.DER = now.Add(1), list.DER[:size-1]
	list.ThisUpdate = list.ThisUpdate.AddDate(0, 0, 1)
	put()
	if w := ask(http.MethodGet, map[string]string{"If-None-Match": tag}); w.status != http.StatusOK || w.bytes != size-1 {
		t.Errorf("another list of the same number: %+v", w)
	}
	if _, _, held := o.Held(); held != size-1 {
		t.Errorf("%d bytes of lists are kept", held)
	}
	for method, want := range map[string]int{http.MethodPost: http.StatusMethodNotAllowed, http.MethodDelete: http.StatusMethodNotAllowed} {
		if w := ask(method, nil); w.status != want {
			t.Errorf("%s: got %d, want %d", method, w.status, want)
		}
	}
}

// TestCertificatesAreServedWhereTheyAreNamed: those of authorities without CRLs and OCSP
// are nobody's business.
func TestCertificatesAreServedWhereTheyAreNamed(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	server := httptest.NewServer(o.Handler())
	t.Cleanup(server.Close)
	path := func(a imprint.CertificateAuthority, suffix string) string {
		return "/ca/" + string(home.Account) + "/" + string(home.Region) + "/" + string(a.ID) + suffix
	}
	for _, r := range []imprint.RevocationConfiguration{{CRL: true}, {OCSP: true}} {
		line := o.with(root.ID, strconv.FormatBool(r.CRL), "intermediate", r)
		got := fetch(t, server, path(line, ".cer"), http.StatusOK)
		if string(got) != string(parse(t, line.Certificate).Raw) {
			t.Errorf("got %d other bytes", len(got))
		}
		for _, suffix := range []string{"", ".crl", ".cer/", ".cer/x"} {
			fetch(t, server, path(line, suffix), http.StatusNotFound)
		}
	}
	fetch(t, server, path(root, ".cer"), http.StatusNotFound)
	for _, other := range []string{"/", "/ca", "/ca//us-east-1/x.cer", "/xx" + path(root, ".cer")[3:]} {
		fetch(t, server, other, http.StatusNotFound)
	}
}

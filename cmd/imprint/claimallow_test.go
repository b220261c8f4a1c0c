package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// TestAllowListsOfSpreadsheetsAreRead ensures that the mark which spreadsheets put before
// a file is part of no serial number and of no column's name.
func TestAllowListsOfSpreadsheetsAreRead(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text, column string
		want               []string
	}{
		{"no mark", "SN-1\nSN-2\n", "", []string{"SN-1", "SN-2"}},
		{"a mark", "\ufeffSN-1\r\nSN-2\r\n", "", []string{"SN-1", "SN-2"}},
		{"a mark before quotes", "\ufeff\"SN-1\",a\n\"SN-2\",b\n", "", []string{"SN-1", "SN-2"}},
		{"a mark before the header", "\ufeff\"serial\",x\nSN-1,a\n", "serial", []string{"SN-1"}},
		{"a mark alone", "\ufeff", "", nil},
		{"nothing", "", "", nil},
		{"less than a mark", "S", "", []string{"S"}},
		{"a mark elsewhere", "SN-1\n\ufeffSN-2\n", "", []string{"SN-1", "\ufeffSN-2"}},
	} {
		var got []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in struct{ Serials []string }
			err := json.NewDecoder(r.Body).Decode(&in)
			if err != nil {
				t.Error(err)
			}
			got = append(got, in.Serials...)
			_, _ = io.WriteString(w, `{"changed":1,"total":1}`)
		}))
		c, err := client.New(client.Config{Endpoint: server.URL, KeyID: "AKIAEXAMPLE", Secret: "secret", Region: "us-east-1", HTTPClient: server.Client()})
		if err == nil {
			err = uploadSerials(t.Context(), c, "/imprint/claims/x", strings.NewReader(row.text), row.column, io.Discard)
		}
		server.Close()
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: got %q, %v; want %q", row.name, got, err, row.want)
		}
	}
}

// TestAllowListsAreSentInOrder ensures that a file without order is sent in parts that a
// request takes, each behind the one before, and all of it once.
func TestAllowListsAreSentInOrder(t *testing.T) {
	t.Parallel()
	const count = 12_345
	var file strings.Builder
	for n := range count {
		fmt.Fprintf(&file, "SN-%08d\n", n*7919%count)
	}
	var got []string
	parts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Serials []string }
		err := json.NewDecoder(r.Body).Decode(&in)
		if err != nil || len(in.Serials) > uploadSerialsAt {
			t.Errorf("got %d serials, %v", len(in.Serials), err)
		}
		got = append(got, in.Serials...)
		parts++
		_, _ = fmt.Fprintf(w, `{"changed":%d,"total":%d}`, len(in.Serials), len(got))
	}))
	defer server.Close()
	c, err := client.New(client.Config{Endpoint: server.URL, KeyID: "AKIAEXAMPLE", Secret: "secret", Region: "us-east-1", HTTPClient: server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	err = uploadSerials(t.Context(), c, "/imprint/claims/x", strings.NewReader(file.String()), "", &said)
	if err != nil || said.String() != "12345 read, 12345 added, 12345 in the allow list\n" {
		t.Errorf("got %q, %v", said.String(), err)
	}
	if len(got) != count || parts != 3 || !slices.IsSorted(got) || len(slices.Compact(got)) != count {
		t.Errorf("%d serials came in %d parts, in order %t; want %d in 3, in order and each once", len(got), parts, slices.IsSorted(got), count)
	}
}

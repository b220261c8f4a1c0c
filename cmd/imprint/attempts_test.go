package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// TestFollowShowsWhateverIsNew ensures that who watches a device sees each time that it
// comes, also where its attempts are counted together, what it is refused while it is
// on, and its end; and nothing twice.
func TestFollowShowsWhateverIsNew(t *testing.T) {
	t.Parallel()
	failed := step{Name: "policy.subscribe", Verdict: "failed", Code: "SubscribeDenied"}
	refused := func(id string, repeats int) attempt {
		return attempt{ID: id, Outcome: "refused", Code: "CAInactive", Reason: "CAInactive at ca", Repeats: repeats}
	}
	// What the server has each time it is asked, newest first.
	answers := [][]attempt{
		{refused("1", 0)},
		{refused("1", 0)},
		{refused("2", 0), refused("1", 0)},
		{refused("3", 1), refused("1", 0)},
		{refused("6", 4), refused("1", 0)},
		{refused("6", 5), refused("1", 0)}, // counted with one that is the latest yet
		{{ID: "7", Outcome: "connected"}, refused("6", 5)},
		{{ID: "7", Outcome: "connected", Reason: "SubscribeDenied", Steps: []step{failed}}, refused("6", 5)},
		{{ID: "7", Outcome: "connected", Reason: "SubscribeDenied", Steps: []step{failed, failed}}, refused("6", 5)},
		{{ID: "7", Outcome: "closed", Code: "ClientDisconnect", Reason: "SubscribeDenied", Steps: []step{failed, failed}}, refused("6", 5)},
		nil,
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		list := answers[min(asked, len(answers)-1)]
		asked++
		if asked > len(answers) {
			cancel()
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"attempts": list})
	}))
	defer server.Close()
	c, err := client.New(client.Config{Endpoint: server.URL, KeyID: "a", Secret: "b", Region: "us-east-1", HTTPClient: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = followAttempts(ctx, c, query{match: "device"}, printerFor(&out, false, false), sayOnce(io.Discard))
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line)[2:], " "))
	}
	want := []string{
		"refused CAInactive at ca 1", "refused CAInactive at ca 2", "(+1) refused CAInactive at ca 3", "(+4) refused CAInactive at ca 6", "(+5) refused CAInactive at ca 6",
		"connected 7", "connected SubscribeDenied 7", "connected SubscribeDenied 7", "closed SubscribeDenied 7",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestFollowShowsAllOfAStorm ensures that who watches is shown everything that is new, however
// much it is, in the order in which it happened, and nothing twice.
func TestFollowShowsAllOfAStorm(t *testing.T) {
	t.Parallel()
	const storm = 2600
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	polls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most, _ := strconv.Atoi(r.FormValue("maxResults"))
		next, err := strconv.Atoi(r.FormValue("nextToken"))
		if err != nil {
			next, polls = storm, polls+1
		}
		if polls > 2 {
			cancel()
		}
		var page struct {
			Attempts  []attempt `json:"attempts"`
			NextToken string    `json:"nextToken,omitempty"`
		}
		for ; next > 0 && len(page.Attempts) < most; next-- {
			page.Attempts = append(page.Attempts, attempt{ID: fmt.Sprintf("%04d", next), Outcome: "refused"})
		}
		if next > 0 {
			page.NextToken = strconv.Itoa(next)
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	defer server.Close()
	c, err := client.New(client.Config{Endpoint: server.URL, KeyID: "a", Secret: "b", Region: "us-east-1", HTTPClient: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	show := func(a attempt) error {
		got = append(got, a.ID)
		return nil
	}
	err = followAttempts(ctx, c, query{}, show, sayOnce(io.Discard))
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	if len(got) != storm || !slices.IsSorted(got) {
		t.Errorf("of %d attempts %d are shown, oldest first: %t", storm, len(got), slices.IsSorted(got))
	}
}

// TestWhatAFunctionLogsStaysInItsColumn ensures that line ends, tabs and escapes in a
// step's words neither end the table's columns nor reach the terminal.
func TestWhatAFunctionLogsStaysInItsColumn(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := printAttempt(tame(&out), attempt{ID: "1", Began: 1, Outcome: "refused", Steps: []step{
		{At: 1.001, Name: "claim.request", Verdict: "ok", Detail: "a"},
		{At: 1.002, Name: "function.log", Verdict: "info", Detail: "START\n\x1b[2Jone\ttwo\r\nEND\n"},
		{At: 1.003, Name: "claim.hook", Verdict: "failed", Detail: "denied", Fix: "type\nthis", Repeats: 2, LastAt: 2.5},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"  +1.0 ms  claim.request  ok      a",
		"  +2.0 ms  function.log           START",
		`                                  \u001b[2Jone	two`,
		"                                  END",
		"  +3.0 ms  claim.hook     FAILED  denied",
		"                                  and 2 times more, until +1500.0 ms",
		"                                  -> type",
		"                                     this",
	}
	got := strings.Split(strings.TrimRight(strings.ReplaceAll(out.String(), "\r\n", "\n"), "\n"), "\n")[1:]
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

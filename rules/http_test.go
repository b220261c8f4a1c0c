package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// receiver is the owner of a URL.
type receiver struct {
	*httptest.Server
	mu        sync.Mutex
	asked     []http.Header // confirmations
	token     string
	posts     []string
	headers   []http.Header
	statuses  []int  // of the next answers; then 200
	meanwhile func() // before each answer
	more      chan struct{}
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{more: make(chan struct{}, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.more <- struct{}{} }()
	if request.Header.Get("x-amz-rules-engine-message-type") == "DestinationConfirmation" {
		var m struct{ ConfirmationToken string }
		_ = json.Unmarshal(body, &m)
		if m.ConfirmationToken != request.URL.Query().Get("confirmationToken") {
			w.WriteHeader(http.StatusBadRequest)
		}
		r.token = m.ConfirmationToken
		r.asked = append(r.asked, request.Header)
		return
	}
	r.posts, r.headers = append(r.posts, request.URL.Path+" "+string(body)), append(r.headers, request.Header)
	if r.meanwhile != nil {
		r.meanwhile()
	}
	if len(r.statuses) > 0 {
		w.WriteHeader(r.statuses[0])
		r.statuses = r.statuses[1:]
	}
}

func (r *receiver) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.more:
		case <-timer.C:
			t.Fatalf("waited for %s; got posts %q", what, r.posts)
		}
	}
}

func post(url, confirm string, headers ...imprint.RuleField) imprint.RuleAction {
	return imprint.RuleAction{HTTP: &imprint.HTTPRuleAction{URL: url, ConfirmationURL: confirm, Headers: headers}}
}

// confirm makes a destination for the receiver and confirms it.
func (h *house) confirm(r *receiver) imprint.RuleDestination {
	h.t.Helper()
	var d imprint.RuleDestination
	h.update(func(tx imprint.Tx) error {
		asked, err := rules.Ask(tx, imprint.RuleDestination{Tenant: home, ID: "d", URL: r.URL + "/in", CreatedAt: time.Now()}, time.Now())
		d = asked
		return err
	})
	r.await(h.t, "the confirmation", func() bool { return r.token != "" })
	if got := r.asked[0].Get("x-amz-rules-engine-destination-arn"); got != d.ARN() {
		h.t.Errorf("the confirmation names %s, want %s", got, d.ARN())
	}
	h.update(func(tx imprint.Tx) error { return rules.Confirm(tx, nil, r.token, time.Now()) })
	return d
}

// TestHTTPActionsPostToConfirmedDestinationsAlone is the life of a destination.
func TestHTTPActionsPostToConfirmedDestinationsAlone(t *testing.T) {
	h, r := open(t, nil), receive(t)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT a FROM 'in/+'", &onError, post(r.URL+"/in/${topic(2)}", r.URL+"/in", imprint.RuleField{Key: "X-Topic", Value: "${topic()}"}))
	h.offer(home, "in/0", `{"a":0}`)
	h.await(t, "the error before there is a destination", func() bool { return len(h.on("errors")) == 1 })
	if got := readError(t, h.on("errors")[0].Payload).Failures; len(got) != 1 || got[0].Action != "HttpAction" || !strings.Contains(got[0].Message, "no enabled destination") {
		t.Errorf("failures: got %+v", got)
	}
	err := h.store.Update(t.Context(), func(tx imprint.Tx) error { return rules.Confirm(tx, nil, "guessed", time.Now()) })
	if imprint.CodeOf(err) != imprint.CodeUnauthorized {
		t.Errorf("a guessed token: got %v, want %s", err, imprint.CodeUnauthorized)
	}
	d := h.confirm(r)
	h.offer(home, "in/1", `{"a":1,"b":2}`)
	r.await(t, "the post", func() bool { return len(r.posts) == 1 })
	if got, want := r.posts[0], `/in/1 {"a":1}`; got != want || r.headers[0].Get("X-Topic") != "in/1" || r.headers[0].Get("Content-Type") != "application/json" {
		t.Errorf("posted: got %q with %v, want %q", got, r.headers[0], want)
	}
	h.offer(home, "in/..", `{"a":1}`)
	h.await(t, "the error of a path that leaves the destination", func() bool { return len(h.on("errors")) == 2 })
	h.update(func(tx imprint.Tx) error {
		d.Status = imprint.RuleDestinationDisabled
		return tx.PutRuleDestination(d)
	})
	h.offer(home, "in/2", `{"a":2}`)
	h.await(t, "the error of a disabled destination", func() bool { return len(h.on("errors")) == 3 })
	if len(r.posts) != 1 {
		t.Errorf("posts: got %q, want one", r.posts)
	}
}

// TestNoEscapedPathLeavesADestination ensures that devices can't choose levels that
// a server would read as steps up.
func TestNoEscapedPathLeavesADestination(t *testing.T) {
	h, r := open(t, nil), receive(t)
	h.confirm(r)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT * FROM 'in/+'", &onError, post(r.URL+"/in/${topic(2)}", r.URL+"/in"))
	for n, level := range []string{
		"..", "%2e%2e", ".%2E", "%2e%2e%2fadmin", "a%2f..%2f..%2fadmin", "%252e%252e", "%25252e.", "..%5cadmin", `..\admin`, "..;a=b", "%2e%2e%3ba", "%252e%252e%2f%25", "%" + strings.Repeat("25", 40),
	} {
		h.offer(home, "in/"+level, `{}`)
		h.await(t, "the error of "+level, func() bool { return len(h.on("errors")) == n+1 })
		if got := readError(t, h.on("errors")[n].Payload).Failures; len(got) != 1 || !strings.Contains(got[0].Message, "no enabled destination") {
			t.Errorf("%s: got %+v", level, got)
		}
	}
	for n, level := range []string{"a", "...", "a..b", "a%2fb", "%2e", "50%25"} {
		h.offer(home, "in/"+level, `{}`)
		r.await(t, "the post to "+level, func() bool { return len(r.posts) == n+1 })
	}
}

// TestHTTPDeliveriesAreTriedAgainOverARestart ensures that 5xx and 429 are tried
// again, what is owed survives, and other answers go to the error action.
func TestHTTPDeliveriesAreTriedAgainOverARestart(t *testing.T) {
	h, r := open(t, nil), receive(t)
	h.confirm(r)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT * FROM 'in'", &onError, post(r.URL+"/in", ""))
	r.mu.Lock()
	r.statuses = []int{503}
	r.mu.Unlock()
	h.offer(home, "in", `{"n":1}`)
	r.await(t, "the first try", func() bool { return len(r.posts) == 1 })
	h.end()
	h.begin()
	r.await(t, "the second try", func() bool { return len(r.posts) == 2 })
	r.mu.Lock()
	r.statuses = []int{429}
	r.mu.Unlock()
	h.offer(home, "in", `{"n":2}`)
	r.await(t, "the second try of the second", func() bool { return len(r.posts) == 4 })
	r.mu.Lock()
	r.statuses = []int{400}
	r.mu.Unlock()
	h.offer(home, "in", `{"n":3}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	got := readError(t, h.on("errors")[0].Payload)
	if string(got.Payload) != `{"n":3}` || len(got.Failures) != 1 || !strings.Contains(got.Failures[0].Message, "400") || got.Failures[0].Resource != r.URL+"/in" {
		t.Errorf("the error action's message: got %+v", got)
	}
	count := 0
	h.update(func(tx imprint.Tx) error {
		n, err := tx.RuleDeliveryUnits(home)
		count = n
		return err
	})
	if count > 1 { // the last may be on its way out
		t.Errorf("%d deliveries are still owed", count)
	}
}

// TestFirehoseActionsAppendToFiles ensures that each record is in the file once
// it is delivered.
func TestFirehoseActionsAppendToFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	h := open(t, func(o *rules.Options) {
		sinks, err := rules.OpenSinks([]string{"log=file://" + path})
		if err != nil {
			t.Fatal(err)
		}
		o.Sinks = sinks
	})
	h.put(home, "log", "SELECT n FROM 'in'", nil, imprint.RuleAction{Firehose: &imprint.FirehoseRuleAction{RoleARN: "arn", Stream: "log", Separator: "\n"}})
	const records = 50
	for range records {
		h.offer(home, "in", `{"n":1}`)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for h.Counters().Actions[rules.ActionFirehose].Done < records && ctx.Err() == nil {
		h.update(func(imprint.Tx) error { return nil }) // as long as a commit takes
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(data), strings.Repeat("{\"n\":1}\n", records); got != want {
		t.Errorf("the file has %d bytes, want %d", len(got), len(want))
	}
}

// unreadable is a store whose next transactions that change something can't read a
// destination.
type unreadable struct {
	imprint.Store
	failures atomic.Int64
}

func (u *unreadable) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	return u.Store.Update(ctx, func(tx imprint.Tx) error { return fn(unreadableTx{tx, u}) })
}

type unreadableTx struct {
	imprint.Tx
	store *unreadable
}

func (u unreadableTx) RuleDestination(t imprint.Tenant, id string) (imprint.RuleDestination, error) {
	if u.store.failures.Add(-1) >= 0 {
		return imprint.RuleDestination{}, errors.New("the disk broke")
	}
	return u.Tx.RuleDestination(t, id)
}

// TestADestinationsErrorIsWrittenDownOnceTheStoreCanBeRead ensures that a failure of the
// store doesn't count as a destination that is gone, which would stay in progress.
func TestADestinationsErrorIsWrittenDownOnceTheStoreCanBeRead(t *testing.T) {
	h := open(t, nil)
	refusing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refusing.Close)
	h.end()
	store := &unreadable{Store: h.store}
	store.failures.Store(1)
	h.Engine = rules.New(store, time.Now, h.opts)
	h.Start(h.outside)
	h.update(func(tx imprint.Tx) error {
		_, err := rules.Ask(tx, imprint.RuleDestination{Tenant: home, ID: "d", URL: refusing.URL, CreatedAt: time.Now()}, time.Now())
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for waits := true; waits; {
		var d imprint.RuleDestination
		err := h.store.View(ctx, func(tx imprint.ReadTx) error {
			queues, err := tx.DeliveryQueues(home, "", 1)
			if err != nil {
				return err
			}
			waits = len(queues) > 0
			d, err = tx.RuleDestination(home, "d")
			return err
		})
		if err != nil {
			t.Fatalf("the question is still to be asked: %v", err)
		}
		if !waits && d.Status != imprint.RuleDestinationError {
			t.Errorf("the destination is %s, want %s", d.Status, imprint.RuleDestinationError)
		}
	}
}

// TestConnectionsThatAreKeptAreBounded ensures that an account with many hosts doesn't take
// a file of the server's for each, long after its posts.
func TestConnectionsThatAreKeptAreBounded(t *testing.T) {
	h := open(t, nil)
	const hosts, most = 130, 100
	var connections, posts atomic.Int64
	var ports []string
	for n := range hosts {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posts.Add(1) }))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Add(-1)
			}
		}
		server.Start()
		t.Cleanup(server.Close)
		ports = append(ports, server.URL[strings.LastIndexByte(server.URL, ':')+1:])
		h.update(func(tx imprint.Tx) error {
			return tx.PutRuleDestination(imprint.RuleDestination{Tenant: home, ID: strconv.Itoa(n), URL: server.URL, Status: imprint.RuleDestinationEnabled})
		})
	}
	h.put(home, "post", "SELECT * FROM 'in/+'", nil, post("http://127.0.0.1:${topic(2)}/", "http://127.0.0.1/"))
	for _, port := range ports {
		h.offer(home, "in/"+port, "{}")
	}
	until(t, "the posts, and no more connections than may be kept", func() bool { return posts.Load() == hosts && connections.Load() <= most })
}

package awsapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/imprint-iot/imprint/awsapi"
)

// post makes a request with a body of some length that isn't the one it is signed for.
func post(t *testing.T, address, key string, body io.Reader, length int64) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", address+"/pings/a", body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: key, SecretAccessKey: "wrong"},
		r, strings.Repeat("0", 64), "iot", "us-east-1", now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestALargeBodyIsReadForAKnownKeyAlone: strangers would fill the memory otherwise.
func TestALargeBodyIsReadForAKnownKeyAlone(t *testing.T) {
	t.Parallel()
	for _, length := range []int64{100 << 10, -1} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			t.Parallel()
			body := &countingReader{}
			r := post(t, "http://api.example.com", "AKIDINVENTED", body, length)
			r.RequestURI = "/pings/a"
			r.Header.Set("Expect", "100-continue")
			w := httptest.NewRecorder()
			newMux(t, nil, awsapi.Handle(ping, echo)).ServeHTTP(w, r)
			wantError(t, w, 403, "UnrecognizedClientException", "No active access key")
			if body.reads != 0 {
				t.Errorf("the body was read %d times, want 0", body.reads)
			}
		})
	}
}

// TestBodiesAreBoundedOverAllRequests: who sends slowly holds what came alone, others are
// told to come again while the bytes are used up, and the slow one is cut off.
func TestBodiesAreBoundedOverAllRequests(t *testing.T) {
	t.Parallel()
	bodies := awsapi.NewBodies(awsapi.BodyLimits{Bytes: 256 << 10, Wait: time.Millisecond, Piece: 4 * time.Second})
	server := httptest.NewServer(newMux(t, func(c *awsapi.Config) { c.MaxBody, c.Bodies = 4<<20, bodies }, awsapi.Handle(ping, echo)))
	defer server.Close()
	ask := func() *http.Response {
		t.Helper()
		answer, err := server.Client().Do(post(t, server.URL, "AKIDEXAMPLE", io.LimitReader(endless{}, 200<<10), 200<<10))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer
	}
	if answer := ask(); answer.StatusCode != http.StatusForbidden {
		t.Fatalf("a request alone: got %s, want 403 for its signature", answer.Status)
	}
	slow, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	// 240 KiB of 1 MiB, and then nothing: Write complains that the body ends.
	err = post(t, server.URL, "AKIDEXAMPLE", io.LimitReader(endless{}, 240<<10), 1<<20).Write(slow)
	if err == nil {
		t.Fatal("the slow one sent all of its body")
	}
	busy := ask()
	for n := 0; n < 1000 && busy.StatusCode == http.StatusForbidden; n++ { // until what was sent has come
		busy = ask()
	}
	if busy.StatusCode != http.StatusServiceUnavailable || busy.Header.Get("Retry-After") != "5" || busy.Header.Get("X-Amzn-ErrorType") != "ServiceUnavailableException" {
		t.Errorf("beside a slow one: got %s with %v, want 503 with Retry-After", busy.Status, busy.Header)
	}
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatalf("the slow one got no answer: %v", err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusRequestTimeout {
		t.Errorf("the slow one got %s, want 408", answer.Status)
	}
	if answer := ask(); answer.StatusCode != http.StatusForbidden {
		t.Errorf("behind the slow one: got %s, want 403 for its signature", answer.Status)
	}
}

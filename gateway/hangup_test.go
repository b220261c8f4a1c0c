package gateway_test

import (
	"bufio"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// TestADeviceThatHangsUpHasPublished ensures that a request that came whole isn't given up
// because its sender doesn't wait for the answer, or has no more to send, while the store
// is slow: who is subscribed gets the message, and who subscribes later, too.
func TestADeviceThatHangsUpHasPublished(t *testing.T) {
	t.Parallel()
	// The server notices a hang-up within a fraction of this. Nothing that is right depends
	// on it.
	const notices = 200 * time.Millisecond
	for _, row := range []struct {
		name string
		half bool // only the sending direction ends
	}{{"hangs up", false}, {"half-closes", true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{})
			device := w.device(t, home)
			live := w.subscribe(t, client("localhost", device), "state")
			conn := w.dialHTTPS(t, client("localhost", device))
			if got := ask(t, conn, post("/topics/warm", "")); got.status != http.StatusOK {
				t.Fatalf("got %+v, want 200", got)
			}
			release := w.holdStore(t)
			_, err := conn.Write([]byte(post("/topics/state?qos=1&retain=true", "on")))
			if err == nil {
				err = conn.CloseWrite()
			}
			if err == nil && !row.half {
				err = conn.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			answered := make(chan int, 1)
			if row.half {
				go func() { answered <- statusFrom(conn) }()
			}
			select {
			case got := <-answered:
				t.Errorf("got status %d before the store has the message", got)
			case <-time.After(notices):
			}
			release()
			if got := receive(t, live); got.Payload != "on" || got.QoS != 1 {
				t.Errorf("who is subscribed got %+v", got)
			}
			if row.half {
				if got := <-answered; got != http.StatusOK {
					t.Errorf("got status %d, want 200", got)
				}
			}
			late := w.subscribe(t, client("localhost", device), "state")
			if got := receive(t, late); got.Payload != "on" {
				t.Errorf("who came later got %+v", got)
			}
		})
	}
}

// statusFrom reads an answer's status; 0 when none comes.
func statusFrom(conn net.Conn) int {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// holdStore has the store take nothing until release is called.
func (w *world) holdStore(t *testing.T) (release func()) {
	t.Helper()
	held, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- w.store.Update(t.Context(), func(imprint.Tx) error {
			select {
			case <-held:
			default:
				close(held)
			}
			<-free
			return nil
		})
	}()
	select {
	case <-held:
	case err := <-done:
		t.Fatalf("the store can't be held: %v", err)
	}
	return func() {
		close(free)
		err := <-done
		if err != nil {
			t.Errorf("the store was held: %v", err)
		}
	}
}

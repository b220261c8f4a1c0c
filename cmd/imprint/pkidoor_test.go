package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

const noList = "/crl/000000000000/us-east-1/00000000-0000-4000-8000-000000000000.crl"

// doorBehind gives what sends a request through the door, from an address, and tells the
// status of the answer; what is behind the door answers 404.
func doorBehind(perAddress int) func(from string) int {
	door := newPKIDoor(http.NotFoundHandler(), perAddress)
	return func(from string) int {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, noList, nil)
		request.RemoteAddr = from
		door.Handler.ServeHTTP(answer, request)
		return answer.Code
	}
}

// TestThePKIDoorIsBounded: strangers get what there is, and beyond the rate of all a 429.
func TestThePKIDoorIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // no time passes between the requests
		ask := doorBehind(0)
		for second := range 2 {
			counts := map[int]int{}
			for range 3 * maxPKIRequests {
				counts[ask("192.0.2.1:1")]++
			}
			if want := (map[int]int{http.StatusNotFound: maxPKIRequests, http.StatusTooManyRequests: 2 * maxPKIRequests}); !maps.Equal(counts, want) {
				t.Errorf("in second %d: got %v, want %v", second, counts, want)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestOneAddressDoesNotUseThePKIDoorUp: another one is served while the first is put off.
func TestOneAddressDoesNotUseThePKIDoorUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ask := doorBehind(1)
		for _, from := range []string{"192.0.2.1:1", "[2001:db8::1]:1"} {
			put := 0
			for range 2 * maxPKIRequests {
				if ask(from) == http.StatusTooManyRequests {
					put++
				}
			}
			if put < maxPKIRequests {
				t.Errorf("%s was put off %d times of %d", from, put, 2*maxPKIRequests)
			}
		}
		for from, want := range map[string]int{
			"192.0.2.1:2": http.StatusTooManyRequests, "[2001:db8::ffff]:1": http.StatusTooManyRequests, "[::ffff:192.0.2.1]:3": http.StatusTooManyRequests,
			"192.0.2.2:1": http.StatusNotFound, "[2001:db8:0:1::1]:1": http.StatusNotFound,
		} {
			if got := ask(from); got != want {
				t.Errorf("%s: got %d, want %d", from, got, want)
			}
		}
	})
}

// TestOneAddressHasSoManyConnections: further ones are closed, and when one ends there is
// room again.
func TestOneAddressHasSoManyConnections(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := &perAddressListener{Listener: ln, most: 2, open: map[string]int{}}
	t.Cleanup(func() { _ = bounded.Close() })
	accepted := make(chan net.Conn, 10)
	go func() {
		defer close(accepted)
		for {
			conn, err := bounded.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	dial()
	dial()
	first, second := <-accepted, <-accepted
	_, err = dial().Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		t.Errorf("a third connection: %v, want its end", err)
	}
	_ = first.Close()
	_ = first.Close() // counts once
	dial()
	third := <-accepted
	_, err = dial().Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		t.Errorf("a third connection again: %v, want its end", err)
	}
	_, _ = second.Close(), third.Close()
	bounded.mu.Lock()
	defer bounded.mu.Unlock()
	if len(bounded.open) != 0 {
		t.Errorf("%v is left", bounded.open)
	}
}

// TestASlowLoaderDoesNotHoldTheServersEnd.
func TestASlowLoaderDoesNotHoldTheServersEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serving := make(chan struct{})
		door := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(serving)
			<-r.Context().Done()
		})}
		ours, theirs := net.Pipe()
		go func() { _ = door.Serve(&oneConn{conn: ours, ended: make(chan struct{})}) }()
		_, err := io.WriteString(theirs, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		<-serving
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), shutdownTimeout)
		defer cancel()
		err = endPKIDoor(ctx, door)
		if err != nil || time.Since(began) != pkiGrace {
			t.Errorf("the door ended after %s: %v", time.Since(began), err)
		}
		_ = theirs.Close()
		synctest.Wait()
	})
}

// oneConn is a listener of one connection.
type oneConn struct {
	conn  net.Conn
	ended chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.ended
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { close(l.ended); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// TestAllDoorsEndBesideEachOther: the one that takes long takes no time of the others.
func TestAllDoorsEndBesideEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), shutdownTimeout)
		defer cancel()
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		var order []string
		began := time.Now()
		err := endBeside(ctx, slow,
			func(context.Context) error { order = append(order, "api"); return nil },
			func(context.Context) error { order = append(order, "broker"); return errors.New("broken") })
		if !errors.Is(err, context.DeadlineExceeded) || len(order) != 2 || order[0] != "api" || err.Error() == context.DeadlineExceeded.Error() {
			t.Errorf("got %v, ended %v", err, order)
		}
		if took := time.Since(began); took != shutdownTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

package awsapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

const (
	// freeBody is what is read of any body: a request takes as much in other ways.
	freeBody = 64 << 10
	// maxUnread bounds what is read of a body that is refused, and thrown away: most
	// clients send all of it before they look at an answer, and are told nothing when
	// the connection closes on them.
	maxUnread = 64 << 20
)

// BodyLimits bound what a server reads of bodies before it knows who sends them.
type BodyLimits struct {
	// Bytes are of all bodies that are being read. Zero means 128 MiB, which is two of
	// the largest. While a body's buffer grows it is in memory twice.
	Bytes int64
	// Wait is how long a request waits for others to be read before it is 503. Zero
	// means 2 seconds.
	Wait time.Duration
	// Piece is how long the next 64 KiB of a body may take. Zero means 5 seconds.
	Piece time.Duration
}

// Bodies counts the bodies that are being read, over all APIs of a server. What comes counts,
// and not what is announced: who sends slowly holds little.
type Bodies struct {
	limits BodyLimits
	pieces chan struct{} // one in it for each piece of freeBody bytes
}

// NewBodies makes Bodies of which none is read yet.
func NewBodies(limits BodyLimits) *Bodies {
	if limits.Bytes <= 0 {
		limits.Bytes = 128 << 20
	}
	if limits.Wait <= 0 {
		limits.Wait = 2 * time.Second
	}
	if limits.Piece <= 0 {
		limits.Piece = 5 * time.Second
	}
	return &Bodies{limits: limits, pieces: make(chan struct{}, max(1, limits.Bytes/freeBody))}
}

// take waits for room for one more piece.
func (b *Bodies) take(ctx context.Context) error {
	select {
	case b.pieces <- struct{}{}:
		return nil
	default:
	}
	patience := time.NewTimer(b.limits.Wait)
	defer patience.Stop()
	select {
	case b.pieces <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("couldn't wait to read the request's body: %w", ctx.Err())
	case <-patience.C:
	}
	return &APIError{Code: CodeUnavailable, Status: http.StatusServiceUnavailable, RetryAfter: 5 * time.Second,
		Message: "The server is reading as many bytes of other requests as it may. Try again later."}
}

// reading is a body on its way in.
type reading struct {
	mux        *Mux
	r          *http.Request
	connection *http.ResponseController
	limit      int64
	held       int       // pieces
	end        time.Time // of the time for all of it
}

// readBody reads at most as many bytes as the operation allows. Of more than freeBody, nothing
// is read for a key that nobody has, and as much at once as Bodies allow: nobody has checked
// the signature yet. done must be called once it is checked.
func (m *Mux) readBody(w http.ResponseWriter, r *http.Request, op *Operation, known func() error) (body []byte, done func(), err error) {
	in := &reading{mux: m, r: r, connection: http.NewResponseController(w), limit: m.config.MaxBody, end: time.Now().Add(m.config.BodyTime)}
	if op.MaxBody > 0 {
		in.limit = op.MaxBody
	}
	done = func() {
		for range in.held {
			<-m.config.Bodies.pieces
		}
	}
	switch {
	case r.ContentLength > in.limit:
		err = in.tooLarge()
	case r.ContentLength < 0 || r.ContentLength > freeBody:
		err = known()
	}
	if err == nil {
		body, err = in.all()
	}
	// Who asks before sending is told without, and who was too slow has no more time.
	if err != nil && r.Header.Get("Expect") == "" && !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = in.connection.SetReadDeadline(in.end)
		discard(r.Body)
	}
	return body, done, err
}

func (in *reading) tooLarge() error {
	return &APIError{Code: in.mux.config.TooLarge, Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("The request's body has more than %d bytes.", in.limit)}
}

// all reads the body piece by piece.
func (in *reading) all() ([]byte, error) {
	expected := int(in.limit) + 1
	if in.r.ContentLength >= 0 {
		expected = int(in.r.ContentLength)
	}
	room := min(freeBody, expected)
	body := make([]byte, 0, room)
	var err error
	for err == nil && len(body) < expected {
		if len(body) == room {
			err = in.next()
			if err != nil {
				return nil, err
			}
			room = min(room+freeBody, expected)
			if room > cap(body) {
				body = slices.Grow(body, min(len(body), expected-len(body)))
			}
		}
		var n int
		n, err = in.r.Body.Read(body[len(body):room])
		body = body[:len(body)+n]
	}
	switch {
	case int64(len(body)) > in.limit:
		return nil, in.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("couldn't read the request's body in time: %w: %w",
			&APIError{Code: CodeTimeout, Status: http.StatusRequestTimeout, Message: "The request's body came too slowly."}, err)
	case err == io.EOF && in.r.ContentLength < 0, len(body) == expected:
	default:
		return nil, fmt.Errorf("couldn't read the request's body: %w",
			&APIError{Code: CodeSerialization, Status: http.StatusBadRequest, Message: "The request's body ended too early."})
	}
	if in.held > 0 {
		_ = in.connection.SetReadDeadline(in.end) // that of the last piece would end what the request asks for, too
	}
	return body, nil
}

// next waits for room for a piece more, and gives the sender the time for it.
func (in *reading) next() error {
	err := in.mux.config.Bodies.take(in.r.Context())
	if err != nil {
		return err
	}
	in.held++
	// A connection that knows no deadlines is no real one.
	_ = in.connection.SetReadDeadline(earlier(time.Now().Add(in.mux.config.Bodies.limits.Piece), in.end))
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// discard reads what is left of a refused body. When it fails, or there is more, the
// connection closes behind the answer.
func discard(body io.Reader) { _, _ = io.CopyN(io.Discard, body, maxUnread) }

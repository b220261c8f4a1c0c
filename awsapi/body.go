package awsapi

import (
	"fmt"
	"io"
	"net/http"
)

// A body over largeBody bytes is one of largeBodies that are read at once.
const (
	largeBody   = 8 << 20
	largeBodies = 2
	// maxUnread bounds what is read of a body that is refused, and thrown away: most
	// clients send all of it before they look at an answer, and are told nothing when
	// the connection closes on them.
	maxUnread = 64 << 20
)

// readBody reads at most as many bytes as the operation allows. Bodies that are
// far larger than others are read a few at a time: nobody has checked yet who
// sends them.
func (m *Mux) readBody(r *http.Request, op *Operation) ([]byte, error) {
	limit := m.config.MaxBody
	if op.MaxBody > 0 {
		limit = op.MaxBody
	}
	tooLarge := &APIError{Code: m.config.TooLarge, Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("The request's body has more than %d bytes.", limit)}
	if r.ContentLength > limit {
		// Who asks before sending is told without.
		if r.Header.Get("Expect") == "" {
			discard(r.Body)
		}
		return nil, tooLarge
	}
	if limit > largeBody && (r.ContentLength > largeBody || r.ContentLength < 0) {
		select {
		case m.large <- struct{}{}:
			defer func() { <-m.large }()
		case <-r.Context().Done():
			return nil, fmt.Errorf("couldn't wait to read the request's body: %w", r.Context().Err())
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case int64(len(body)) > limit:
		discard(r.Body)
		return nil, tooLarge
	case err != nil:
		return nil, fmt.Errorf("couldn't read the request's body: %w",
			&APIError{Code: CodeSerialization, Status: http.StatusBadRequest, Message: "The request's body ended too early."})
	}
	return body, nil
}

// discard reads what is left of a refused body. When it fails, or there is more, the
// connection closes behind the answer.
func discard(body io.Reader) { _, _ = io.CopyN(io.Discard, body, maxUnread) }

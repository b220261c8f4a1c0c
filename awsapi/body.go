package awsapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// A body over largeBody bytes is one of largeBodies that are read at once.
const (
	largeBody   = 8 << 20
	largeBodies = 2
)

// readBody reads at most as many bytes as the operation allows. Bodies that are
// far larger than others are read a few at a time: nobody has checked yet who
// sends them.
func (m *Mux) readBody(w http.ResponseWriter, r *http.Request, op *Operation) ([]byte, error) {
	limit := m.config.MaxBody
	if op.MaxBody > 0 {
		limit = op.MaxBody
	}
	tooLarge := &APIError{Code: m.config.TooLarge, Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("The request's body has more than %d bytes.", limit)}
	if r.ContentLength > limit {
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
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge
	case err != nil:
		return nil, fmt.Errorf("couldn't read the request's body: %w",
			&APIError{Code: CodeSerialization, Status: http.StatusBadRequest, Message: "The request's body ended too early."})
	}
	return body, nil
}

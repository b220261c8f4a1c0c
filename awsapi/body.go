package awsapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// readBody reads at most MaxBody bytes.
func (m *Mux) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := &APIError{Code: CodeTooLarge, Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("The request's body has more than %d bytes.", m.config.MaxBody)}
	if r.ContentLength > m.config.MaxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, m.config.MaxBody))
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

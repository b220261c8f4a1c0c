package provisioning

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/imprint-iot/imprint"
)

// BulkInput opens inputs of bulk registrations.
type BulkInput interface {
	// Open gives the bytes of an account's bucket/key from an offset on, which isn't
	// more than what there was before. No account is given another's. A version that isn't empty is the one that an earlier
	// Open gave: with another one it fails. The context ends reads, too. Errors that
	// won't go away by themselves are CodeNotFound and CodeInvalidRequest.
	Open(ctx context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (BulkFile, error)
}

// BulkFile is an open input.
type BulkFile struct {
	io.ReadCloser
	Size    int64  // of the whole input; 0: not known
	Version string // stands for its content
}

// inputError is why a task can't go on: its input or its template is at fault.
type inputError struct{ error }

func (e *inputError) Unwrap() error { return e.error }

// maxLine bounds one line: a signing request or a certificate with some
// parameters.
const maxLine = 128 << 10

// bulkPosition is a place in an input: behind so many lines and bytes.
type bulkPosition struct{ line, offset int64 }

// bulkLine is one line of an input that isn't blank.
type bulkLine struct {
	at   bulkPosition // its number from 1, and where it begins
	text []byte
	err  error // it is too long
}

// parameters gives what the line says of its device.
func (l bulkLine) parameters() (map[string]string, error) {
	var parameters texts
	err := json.Unmarshal(l.text, &parameters)
	if err != nil || parameters == nil {
		return nil, lineFault(l.text)
	}
	return parameters, nil
}

// ReadBulkLines calls a function for each line of an input that isn't blank, with
// its number from 1 and its parameters, or with why a bulk registration would refuse
// it. It ends with the input, or with the function's error.
func ReadBulkLines(input io.Reader, each func(line int64, parameters map[string]string, err error) error) error {
	lines := &bulkLines{file: io.NopCloser(nil), buffer: bufio.NewReaderSize(input, 64<<10)}
	for {
		line, more, err := lines.next()
		if err != nil || !more {
			return err
		}
		parameters, err := map[string]string(nil), line.err
		if err == nil {
			parameters, err = line.parameters()
		}
		err = each(line.at.line, parameters, err)
		if err != nil {
			return err
		}
	}
}

// bulkLines reads the lines of an input.
type bulkLines struct {
	file     io.Closer
	buffer   *bufio.Reader
	size     int64
	version  string
	position bulkPosition
	failed   error // stays: what follows it would have another place
	closing  sync.Once
}

// openLines opens a task's input where the task is.
func openLines(ctx context.Context, input BulkInput, task imprint.RegistrationTask) (*bulkLines, error) {
	file, err := input.Open(ctx, task.Tenant.Account, task.Bucket, task.Key, task.Offset, task.Version)
	switch imprint.CodeOf(err) {
	case "":
	case imprint.CodeNotFound, imprint.CodeInvalidRequest:
		return nil, &inputError{err}
	default:
		return nil, fmt.Errorf("couldn't open the input: %w", err)
	}
	return &bulkLines{
		file: file, buffer: bufio.NewReaderSize(file, 64<<10), size: file.Size, version: file.Version,
		position: bulkPosition{task.Lines, task.Offset},
	}, nil
}

// Close closes the input, once.
func (l *bulkLines) Close() { l.closing.Do(func() { _ = l.file.Close() }) }

// next gives the next line that isn't blank; the flag is false at the end.
func (l *bulkLines) next() (bulkLine, bool, error) {
	for l.failed == nil {
		at := bulkPosition{l.position.line + 1, l.position.offset}
		text, tooLong, err := l.line()
		if err != nil && !errors.Is(err, io.EOF) {
			l.failed = fmt.Errorf("couldn't read the input at byte %d: %w", l.position.offset, err)
			break
		}
		if err != nil && l.position.offset == at.offset {
			return bulkLine{}, false, nil
		}
		l.position.line++
		if at.offset == 0 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		text = bytes.TrimSpace(text)
		switch {
		case tooLong:
			refusal := imprint.Errorf(imprint.CodeInvalidRequest, "the line has more than %d bytes", maxLine)
			return bulkLine{at: at, err: refusal}, true, nil
		case len(text) > 0:
			return bulkLine{at: at, text: bytes.Clone(text)}, true, nil
		}
	}
	return bulkLine{}, false, l.failed
}

// line reads to the end of a line. Of one that is too long nothing is kept.
func (l *bulkLines) line() (text []byte, tooLong bool, err error) {
	for {
		part, err := l.buffer.ReadSlice('\n')
		l.position.offset += int64(len(part))
		if len(text)+len(part) > maxLine {
			tooLong, text = true, nil
		}
		if !tooLong {
			text = append(text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, tooLong, err
		}
	}
}

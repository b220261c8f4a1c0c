package rules

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// fileSink appends records to a file, which is opened for each batch of them, so
// that it can be moved away at any time. A record is on the disk when Put
// returns; those that come together share the wait for it.
type fileSink struct {
	path string

	mu      sync.Mutex
	waiting *fileBatch // that takes records; nil: none
	writing sync.Mutex // held while a batch is written
}

// fileBatch are records that are written together.
type fileBatch struct {
	data []byte
	done chan struct{} // closed when err is set
	err  error
}

func openFileSink(at *sinkAddress) (Sink, error) {
	u := at.url
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(filepath.FromSlash(u.Path)) || strings.HasSuffix(u.Path, "/") {
		return nil, at.refuse("it must have the absolute path of a file").WithHint("Write file:///PATH, with three slashes.")
	}
	err := at.allTaken()
	if err != nil {
		return nil, err
	}
	return &fileSink{path: filepath.FromSlash(u.Path)}, nil
}

// Put implements Sink.
func (s *fileSink) Put(ctx context.Context, r Record) error {
	s.mu.Lock()
	batch := s.waiting
	leads := batch == nil
	if leads {
		batch = &fileBatch{done: make(chan struct{})}
		s.waiting = batch
	}
	batch.data = append(batch.data, r.Data...)
	s.mu.Unlock()
	if !leads {
		select {
		case <-batch.done:
			return batch.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	s.waiting = nil
	s.mu.Unlock()
	batch.err = s.write(batch.data)
	close(batch.done)
	return batch.err
}

// write appends, or leaves the file as it was.
func (s *fileSink) write(data []byte) (err error) {
	// Without O_NONBLOCK a named pipe would hold the delivery, and the server's end, until
	// somebody reads from it.
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("couldn't open the file of a sink: %w", err)
	}
	defer func() {
		closeErr := f.Close()
		if err == nil && closeErr != nil {
			err = fmt.Errorf("couldn't close the file of a sink: %w", closeErr)
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("couldn't look at the file of a sink: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the file of a sink, %s, is no file that can be made durable", s.path)
	}
	_, err = f.Write(data)
	if err != nil {
		// What is there of it would be there twice after the next try.
		_ = f.Truncate(info.Size())
		return fmt.Errorf("couldn't append to the file of a sink: %w", err)
	}
	err = f.Sync()
	if err != nil {
		return fmt.Errorf("couldn't make the file of a sink durable: %w", err)
	}
	return nil
}

// Close implements Sink.
func (s *fileSink) Close() error { return nil }

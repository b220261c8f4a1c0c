package sqlite

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// A checkpoint moves pages from the write-ahead log into the file. The policy:
//
//   - After writes that cost checkpointAfter (see cost) the checkpointer, on a
//     connection of its own, moves what it can (PASSIVE: no writer and no reader
//     waits for it, but for the disk).
//   - Under steady load it never reaches the end of the log, which so could
//     never begin anew. When the log has longLog pages after a checkpoint the
//     committer itself moves the short rest between two batches; unless a reader
//     still uses the log, the next commit then begins it anew.
//   - Close moves everything and empties the log.
const (
	checkpointAfter = 8192
	longLog         = 16384 // pages: 64 MiB
)

// checkpointer moves the log beside the committer.
type checkpointer struct {
	session *session
	logger  *slog.Logger
	asked   chan struct{} // closed by close
	done    chan struct{}
	long    atomic.Bool // the committer should move the rest
}

func newCheckpointer(s *session, logger *slog.Logger) *checkpointer {
	return &checkpointer{session: s, logger: logger, asked: make(chan struct{}, 1), done: make(chan struct{})}
}

func (k *checkpointer) work() {
	defer close(k.done)
	for range k.asked {
		pages, err := checkpoint(k.session, "PASSIVE")
		if err != nil {
			k.logger.Error("couldn't checkpoint", "error", err)
			continue
		}
		if pages >= longLog {
			k.long.Store(true)
		}
	}
}

// committed is called by the committer between batches with its session, and
// gives what counts towards the next checkpoint.
func (k *checkpointer) committed(s *session) int {
	if k.long.Swap(false) {
		_, err := checkpoint(s, "PASSIVE")
		if err != nil {
			k.logger.Error("couldn't finish a checkpoint", "error", err)
		}
		return 0
	}
	if s.writes < checkpointAfter {
		return s.writes
	}
	select {
	case k.asked <- struct{}{}:
		return 0
	default:
		// One is waiting already.
		return s.writes
	}
}

func (k *checkpointer) close() error {
	close(k.asked)
	<-k.done
	return k.session.close()
}

// checkpoint runs one and gives the length of the log in pages. That another
// connection is in the way is no error: the next one moves more.
func checkpoint(s *session, mode string) (int, error) {
	var busy, pages, moved int
	err := s.first("PRAGMA wal_checkpoint("+mode+")", &busy, &pages, &moved)
	if err != nil {
		if primary(err) == sqlite.ResultBusy {
			return 0, nil
		}
		return 0, fmt.Errorf("couldn't run a checkpoint: %w", err)
	}
	return pages, nil
}

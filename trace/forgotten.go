package trace

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// A server that is killed, or whose machine loses power, leaves attempts of devices that
// were on. The next one ends them, beside its own work.

const (
	// forgottenStep bounds one update that ends them.
	forgottenStep = 500
	// forgottenPause is how long it waits when the store fails.
	forgottenPause = 10 * time.Second
)

// forgotten lists the attempts that are connected.
func (l *Log) forgotten() ([]string, error) {
	var ids []string
	for last := ""; ; {
		var page []string
		err := l.store.View(context.Background(), func(tx imprint.ReadTx) error {
			var err error
			page, err = tx.LiveAttempts(last, trimStep)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("couldn't list them: %w", err)
		}
		ids = append(ids, page...)
		if len(page) < trimStep {
			return ids, nil
		}
		last = page[len(page)-1]
	}
}

// endForgotten ends attempts that were listed before this log wrote any, or that it lists
// now if there was an error, as of when the log began. While the store fails it tries
// again; what the log is closed before is left for the next one.
func (l *Log) endForgotten(ids []string, err error) {
	for err != nil {
		if !l.tryAgain(err) {
			return
		}
		ids, err = l.forgotten()
		// This log has written meanwhile.
		own := NewID(l.began)[:timeDigits]
		ids = slices.DeleteFunc(ids, func(id string) bool { return id >= own })
	}
	for len(ids) > 0 {
		page := ids[:min(len(ids), forgottenStep)]
		err := l.store.Update(context.Background(), func(tx imprint.Tx) error {
			for _, id := range page {
				err := endForgotten(tx, id, l.began)
				if err != nil {
					return fmt.Errorf("couldn't end attempt %s: %w", id, err)
				}
			}
			return nil
		})
		if err != nil {
			if !l.tryAgain(err) {
				return
			}
			continue
		}
		ids = ids[len(page):]
		select {
		case <-l.closing:
			return
		default:
		}
	}
}

// tryAgain waits a while after an error; false: the log is closed.
func (l *Log) tryAgain(err error) bool {
	l.opts.Logger.Error("couldn't end attempts that an earlier server left connected; trying again", "in", forgottenPause, "error", err)
	pause := time.NewTimer(forgottenPause)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-l.closing:
		return false
	}
}

func endForgotten(tx imprint.Tx, id string, now time.Time) error {
	a, err := tx.Attempt(id)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && a.Outcome != imprint.OutcomeConnected {
		return nil // trimmed meanwhile
	}
	if err != nil {
		return err
	}
	a.Outcome, a.Code, a.EndedAt = imprint.OutcomeClosed, imprint.CodeServerStopped, now
	a.Steps = append(a.Steps, imprint.Step{
		At: now, Name: "session", Verdict: imprint.VerdictInfo,
		Detail: "the server stopped without ending the connection; the time is that of its next start",
	})
	return tx.PutAttempt(a)
}

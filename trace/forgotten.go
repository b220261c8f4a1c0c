package trace

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// A server that is killed, or whose machine loses power, leaves attempts of devices that
// were on. The next one ends them, beside its own work.

// forgottenStep bounds one update that ends them.
const forgottenStep = 500

// forgotten lists the attempts that are connected before this log wrote any.
func (l *Log) forgotten() []string {
	var ids []string
	for last := ""; ; {
		var page []string
		err := l.store.View(context.Background(), func(tx imprint.ReadTx) error {
			var err error
			page, err = tx.LiveAttempts(last, trimStep)
			return err
		})
		if err != nil {
			l.opts.Logger.Error("couldn't look for attempts that an earlier server left connected", "error", err)
			return ids
		}
		ids = append(ids, page...)
		if len(page) < trimStep {
			return ids
		}
		last = page[len(page)-1]
	}
}

// endForgotten ends them, as of when the log began. What the log is closed before is left
// for the next one.
func (l *Log) endForgotten(ids []string) {
	for len(ids) > 0 {
		page := ids[:min(len(ids), forgottenStep)]
		ids = ids[len(page):]
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
			l.opts.Logger.Error("couldn't end attempts that an earlier server left connected", "error", err)
			return
		}
		select {
		case <-l.closing:
			return
		default:
		}
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

package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// failsOnce is a store of which the first read fails.
type failsOnce struct {
	imprint.Store
	reads int
}

func (f *failsOnce) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	f.reads++
	if f.reads == 1 {
		return errors.New("the disk doesn't answer")
	}
	return f.Store.View(ctx, fn)
}

// TestTheRecordIsBroughtUpToDateAfterAFailure: an hour later, and not once more after that.
func TestTheRecordIsBroughtUpToDateAfterAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &failsOnce{Store: registrytest.New(t)}
		quiet := slog.New(slog.DiscardHandler)
		s := &server{authorities: ca.New(ca.Options{Store: store, Clock: time.Now, Logger: quiet}), logger: quiet}
		defer s.authorities.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			s.keepAuthorities(ctx)
			close(ended)
		}()
		// Each hour's purge reads once, too.
		for hour, want := range []int{1, 3, 4} {
			time.Sleep(time.Duration(min(hour, 1))*purgeEvery + time.Second)
			synctest.Wait()
			if store.reads != want {
				t.Errorf("after %d hours it has read %d times, want %d", hour, store.reads, want)
			}
		}
		cancel()
		<-ended
	})
}

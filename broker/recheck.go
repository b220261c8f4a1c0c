package broker

import (
	"context"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

type recheckKey struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

// recheckQueue runs a check for each certificate that was added, once for all
// additions that came before it ran. A check that fails is run again.
type recheckQueue struct {
	check  func(context.Context, imprint.Tenant, imprint.CertificateID) error
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	todo map[recheckKey]struct{}
	wake chan struct{}
}

// recheckRetry is the pause after a check that failed, for example because the
// store couldn't be read.
const recheckRetry = 200 * time.Millisecond

func newRecheckQueue(check func(context.Context, imprint.Tenant, imprint.CertificateID) error) *recheckQueue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &recheckQueue{
		check: check, cancel: cancel, done: make(chan struct{}),
		todo: map[recheckKey]struct{}{}, wake: make(chan struct{}, 1),
	}
	go q.run(ctx)
	return q
}

func (q *recheckQueue) add(tenant imprint.Tenant, id imprint.CertificateID) {
	q.mu.Lock()
	q.todo[recheckKey{tenant, id}] = struct{}{}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *recheckQueue) close() {
	q.cancel()
	<-q.done
}

func (q *recheckQueue) run(ctx context.Context) {
	defer close(q.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		}
		q.mu.Lock()
		todo := q.todo
		q.todo = map[recheckKey]struct{}{}
		q.mu.Unlock()
		failed := false
		for key := range todo {
			err := q.check(ctx, key.tenant, key.id)
			if err != nil && ctx.Err() == nil {
				q.add(key.tenant, key.id)
				failed = true
			}
		}
		if !failed {
			continue
		}
		timer := time.NewTimer(recheckRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

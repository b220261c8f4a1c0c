package cancelable_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/cancelable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

// TestCancelEndsTheTaskOfThatTenantAlone ensures that a task of the same id elsewhere
// goes on, that canceling what is over or was never there does nothing, and that Close
// ends the rest and waits for it.
func TestCancelEndsTheTaskOfThatTenantAlone(t *testing.T) {
	t.Parallel()
	starting, stop := context.WithCancel(t.Context())
	tasks := cancelable.New(starting, 1)
	stop() // who made it may be gone
	canceled, closed := make(chan struct{}), make(chan struct{})
	tasks.Go(home, "1", func(ctx context.Context) {
		<-ctx.Done()
		close(canceled)
	})
	tasks.Go(another, "1", func(ctx context.Context) {
		<-ctx.Done()
		close(closed)
	})
	tasks.Cancel(home, "2")
	select {
	case <-canceled:
		t.Fatal("canceled by another id")
	default:
	}
	tasks.Cancel(home, "1")
	<-canceled
	tasks.Cancel(home, "1")
	select {
	case <-closed:
		t.Error("the other tenant's task has ended")
	default:
	}
	if err := tasks.Context().Err(); err != nil {
		t.Errorf("before Close: got %v, want the context to go on", err)
	}
	tasks.Close()
	select {
	case <-closed:
	default:
		t.Error("Close didn't wait for the task")
	}
}

// TestTasksTakeTurns ensures that a task waits while as many work as may, that it is
// next when one is done, and that a wait ends with the task.
func TestTasksTakeTurns(t *testing.T) {
	t.Parallel()
	tasks := cancelable.New(t.Context(), 1)
	defer tasks.Close()
	done, err := tasks.Turn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	tasks.Go(home, "1", func(ctx context.Context) {
		_, err := tasks.Turn(ctx)
		failed <- err
	})
	select {
	case err := <-failed:
		t.Fatalf("had a turn beside another: %v", err)
	default:
	}
	tasks.Cancel(home, "1")
	if err := <-failed; err != context.Canceled {
		t.Errorf("canceled while it waits: got %v, want %v", err, context.Canceled)
	}
	next := make(chan error)
	tasks.Go(home, "2", func(ctx context.Context) {
		done, err := tasks.Turn(ctx)
		if err == nil {
			done()
		}
		next <- err
	})
	done()
	if err := <-next; err != nil {
		t.Errorf("the next one: got %v, want its turn", err)
	}
}

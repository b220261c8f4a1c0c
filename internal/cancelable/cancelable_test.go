package cancelable_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

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
	done, err := tasks.Turn(t.Context(), home.Account)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	tasks.Go(home, "1", func(ctx context.Context) {
		_, err := tasks.Turn(ctx, home.Account)
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
		done, err := tasks.Turn(ctx, home.Account)
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

// TestAccountsTakeTurns ensures that one account has half of the turns at once and another
// finds one, and that what waits of several accounts comes in turns of these.
func TestAccountsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tasks := cancelable.New(t.Context(), 4)
		defer tasks.Close()
		var began []string
		end := map[string]chan struct{}{}
		task := func(id string, tenant imprint.Tenant) {
			ended := make(chan struct{})
			end[id] = ended
			tasks.Go(tenant, id, func(ctx context.Context) {
				done, err := tasks.Turn(ctx, tenant.Account)
				if err != nil {
					return
				}
				defer done()
				began = append(began, id)
				<-ended
			})
			synctest.Wait()
		}
		check := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(began, want) {
				t.Errorf("got %v, want %v", began, want)
			}
			began = nil
		}
		for n, region := range []imprint.Region{"us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "eu-north-1"} {
			task(fmt.Sprintf("a%d", n), imprint.Tenant{Account: home.Account, Region: region})
		}
		check("a0", "a1")
		task("b0", another)
		check("b0")
		task("b1", imprint.Tenant{Account: another.Account, Region: "us-west-2"})
		check()
		close(end["a0"])
		check("a2") // it waits the longest, and both have as many
		close(end["a1"])
		check("b1")
		close(end["b0"])
		check("a3")
		for _, id := range []string{"a2", "a3", "a4", "b1"} {
			close(end[id])
		}
	})
}

// TestTheOnlyTurnGoesRound ensures that an account with many tasks gets no turn more before
// another's that waits, when there is one at a time.
func TestTheOnlyTurnGoesRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tasks := cancelable.New(t.Context(), 1)
		defer tasks.Close()
		done, err := tasks.Turn(t.Context(), home.Account)
		if err != nil {
			t.Fatal(err)
		}
		var began []string
		for _, id := range []string{"a0", "a1", "a2", "b0", "b1"} {
			tenant := home
			if id[0] == 'b' {
				tenant = another
			}
			tasks.Go(tenant, id, func(ctx context.Context) {
				done, err := tasks.Turn(ctx, tenant.Account)
				if err != nil {
					return
				}
				began = append(began, id)
				done()
			})
			synctest.Wait()
		}
		done()
		synctest.Wait()
		if want := []string{"a0", "b0", "a1", "b1", "a2"}; !slices.Equal(began, want) {
			t.Errorf("got %v, want %v", began, want)
		}
	})
}

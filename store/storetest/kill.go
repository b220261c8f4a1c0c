package storetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
)

// killVariable names the data of the child process in its environment.
const killVariable = "IMPRINT_STORETEST_KILL"

// KillChild must be called first thing in TestMain. In the child process that
// Kill starts it writes until it is killed, and doesn't return.
func KillChild(open func(path string) (imprint.Store, error)) {
	path := os.Getenv(killVariable)
	if path == "" {
		return
	}
	store, err := open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "couldn't open the store:", err)
		os.Exit(2)
	}
	err = writeForever(store)
	fmt.Fprintln(os.Stderr, "couldn't write:", err)
	os.Exit(2)
}

// killKey has the child's number, the goroutine's and the change's.
const killKey = "%08x-%02d-%06d"

const (
	// queuedEach is how many messages a change puts into its goroutine's queue.
	queuedEach = 4
	// freeEach: each third change lets go of the messages of the one before.
	freeEach = 3
	// undoEach: after each seventh change comes one that undoes itself.
	undoEach = 7
)

// writeForever makes changes of several rows each from several goroutines and
// prints the key of each that is acknowledged. Between them it makes changes
// that undo themselves.
func writeForever(store imprint.Store) error {
	var print sync.Mutex
	failed := make(chan error, 16)
	run := rand.Uint32()
	for w := range 16 {
		go func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf(killKey, run, w, n)
				err := store.Update(context.Background(), func(tx imprint.Tx) error {
					err := putTrio(tx, key)
					if err != nil {
						return err
					}
					return putQueuedOf(tx, run, w, n)
				})
				if err == nil && n%undoEach == 0 {
					err = undone(store, run, w, n)
				}
				if err != nil {
					failed <- err
					return
				}
				print.Lock()
				_, err = os.Stdout.WriteString(key + "\n")
				print.Unlock()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

func putTrio(tx imprint.Tx, key string) error {
	err := tx.PutThing(thing(here, key))
	if err != nil {
		return err
	}
	err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: here, Thing: imprint.ThingName(key), Certificate: certID(1)})
	if err != nil {
		return err
	}
	return tx.PutAttempt(imprint.Attempt{ID: key, At: instant, Thing: imprint.ThingName(key)})
}

func killQueue(run uint32, w int) int64 { return int64(run)<<8 | int64(w+1) }

// putQueuedOf puts the messages of change n, each with the change's key, and
// frees those of the change before.
func putQueuedOf(tx imprint.Tx, run uint32, w, n int) error {
	queue := killQueue(run, w)
	for i := range queuedEach {
		err := tx.PutQueued(imprint.QueuedMessage{Session: queue, Seq: int64(n*queuedEach + i + 1), Packet: fmt.Appendf(nil, killKey, run, w, n)})
		if err != nil {
			return err
		}
	}
	if n%freeEach != freeEach-1 {
		return nil
	}
	last := int64(n * queuedEach)
	return tx.DeleteQueuedAll(queue, []int64{last, last - 1, last - 2, last - 3})
}

// undone queues messages, frees all others, and takes that back.
func undone(store imprint.Store, run uint32, w, n int) error {
	err := store.Update(context.Background(), func(tx imprint.Tx) error {
		err := tx.DeleteSession(killQueue(run, w))
		if err != nil {
			return err
		}
		err = tx.PutQueued(imprint.QueuedMessage{Session: killQueue(run, w), Seq: int64(n+1)*queuedEach + 1, Packet: []byte("undone")})
		if err != nil {
			return err
		}
		return errOwn
	})
	if !errors.Is(err, errOwn) {
		return fmt.Errorf("a change that undoes itself got %w", err)
	}
	return nil
}

// Kill runs the test binary as a child that writes, kills it (SIGKILL) after a
// random number of acknowledgements, and opens what it left: every acknowledged
// change must be there, none may be there in part, queues have their messages in
// order, nothing is left of changes that undid themselves, and check must find the
// data sound. The engine's TestMain must call KillChild with the same open.
func Kill(t *testing.T, path string, open func(path string) (imprint.Store, error), check func(imprint.Store) error) {
	const rounds = 3
	var acknowledged []string
	for range rounds {
		acknowledged = append(acknowledged, killed(t, path, 1+rand.IntN(600))...)
		store, err := open(path)
		if err != nil {
			t.Fatalf("couldn't open what the killed process left: %v", err)
		}
		checkTrios(t, store, acknowledged)
		checkQueues(t, store)
		err = check(store)
		if err != nil {
			t.Errorf("the data aren't sound: %v", err)
		}
		err = store.Close()
		if err != nil {
			t.Fatalf("couldn't close the store: %v", err)
		}
	}
	t.Logf("%d changes were acknowledged in %d rounds", len(acknowledged), rounds)
}

// killed starts a child and kills it after count acknowledgements. It returns
// all that it printed: the pipe may hold some more.
func killed(t *testing.T, path string, count int) []string {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), killVariable+"="+path)
	var complaint strings.Builder
	child.Stderr = &complaint
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatalf("couldn't make a pipe: %v", err)
	}
	err = child.Start()
	if err != nil {
		t.Fatalf("couldn't start the child: %v", err)
	}
	var keys []string
	reader := bufio.NewReader(out)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			break // a line cut short was not acknowledged to anyone
		}
		keys = append(keys, strings.TrimSpace(line))
		if len(keys) == count {
			err = child.Process.Kill()
			if err != nil {
				t.Fatalf("couldn't kill the child: %v", err)
			}
		}
	}
	err = child.Wait()
	if len(keys) < count {
		t.Fatalf("the child ended after %d of %d acknowledgements: %v: %s", len(keys), count, err, complaint.String())
	}
	return keys
}

func checkTrios(t *testing.T, store imprint.Store, acknowledged []string) {
	t.Helper()
	things := thingNames(t, store, here)
	attached := make(map[string]bool)
	traced := make(map[string]bool)
	view(t, store, func(tx imprint.ReadTx) error {
		attachments, _, err := tx.CertificateThings(here, certID(1), imprint.Page{Limit: 10_000})
		if err != nil {
			return err
		}
		for _, a := range attachments {
			attached[string(a.Thing)] = true
		}
		attempts, _, err := tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 10_000})
		for _, a := range attempts {
			traced[a.ID] = true
		}
		return err
	})
	if len(things) >= 10_000 {
		t.Fatal("the rounds are too long for the check")
	}
	present := make(map[string]bool)
	for _, key := range things {
		present[key] = true
		if !attached[key] || !traced[key] {
			t.Errorf("change %s is there in part", key)
		}
	}
	if len(attached) != len(things) || len(traced) != len(things) {
		t.Errorf("got %d things, %d attachments, %d attempts", len(things), len(attached), len(traced))
	}
	for _, key := range acknowledged {
		if !present[key] {
			t.Errorf("change %s was acknowledged and is lost", key)
		}
	}
}

// checkQueues compares each queue with the things of the same changes, which
// checkTrios has compared with what was acknowledged.
func checkQueues(t *testing.T, store imprint.Store) {
	t.Helper()
	want := make(map[int64][]imprint.QueuedMessage)
	for _, key := range thingNames(t, store, here) {
		var run uint32
		var w, n int
		_, err := fmt.Sscanf(key, killKey, &run, &w, &n)
		if err != nil {
			t.Fatalf("couldn't read the key %q: %v", key, err)
		}
		queue := killQueue(run, w)
		if n%freeEach == freeEach-1 {
			want[queue] = want[queue][:len(want[queue])-queuedEach]
		}
		for i := range queuedEach {
			want[queue] = append(want[queue], imprint.QueuedMessage{Session: queue, Seq: int64(n*queuedEach + i + 1), Packet: []byte(key)})
		}
	}
	total := 0
	view(t, store, func(tx imprint.ReadTx) error {
		sizes, err := tx.QueueSizes(0, 10_000)
		if len(sizes) != len(want) {
			t.Errorf("got %d queues, want %d", len(sizes), len(want))
		}
		for _, size := range sizes {
			total += size.Messages
		}
		return err
	})
	for queue, messages := range want {
		same(t, "a queue", queued(t, store, queue, 0, 10_000, 1<<30), messages)
		total -= len(messages)
	}
	if total != 0 {
		t.Errorf("the sizes of the queues are wrong by %d messages", total)
	}
}

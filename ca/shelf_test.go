package ca

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imprint-iot/imprint"
)

var shelfTenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

func shelfPlace(shard int) listPlace { return listPlace{shelfTenant, "a", shard} }

func version(number int64, size int64) listVersion {
	return listVersion{number, time.UnixMilli(number), size}
}

// TestAListIsInMemoryOnce for all that it is sent to, and no more lists than there is room
// for: those that nobody reads leave, and those that somebody reads slowly stay counted.
func TestAListIsInMemoryOnce(t *testing.T) {
	t.Parallel()
	var s shelf
	const size = maxListBytes / 2
	reads := 0
	der := make([]byte, size)
	read := func() ([]byte, error) { reads++; return der, nil }
	take := func(shard int, v listVersion) func() {
		t.Helper()
		content, release, err := s.take(t.Context(), shelfPlace(shard), v, read)
		if err != nil {
			t.Fatal(err)
		}
		end, err := content.Seek(0, io.SeekEnd)
		if err != nil || end != size {
			t.Fatalf("the content has %d bytes, %v", end, err)
		}
		return release
	}
	full := func(shard int, v listVersion) {
		t.Helper()
		_, _, err := s.take(t.Context(), shelfPlace(shard), v, read)
		if imprint.CodeOf(err) != imprint.CodeThrottled {
			t.Fatalf("without room: got %v", err)
		}
	}
	first, again := take(0, version(1, size)), take(0, version(1, size))
	if reads != 1 || s.bytes != size {
		t.Fatalf("read %d times, %d bytes in memory", reads, s.bytes)
	}
	next := take(0, version(2, size)) // a slow reader still has version 1
	if s.bytes != 2*size {
		t.Fatalf("%d bytes in memory with two versions", s.bytes)
	}
	full(1, version(1, size))
	first()
	full(1, version(1, size))
	again()
	if s.bytes != size {
		t.Fatalf("%d bytes in memory when nobody reads version 1", s.bytes)
	}
	other := take(1, version(1, size))
	full(2, version(1, size))
	next()
	third := take(2, version(1, size)) // list 0 is in nobody's hand
	third()
	other()
	if s.bytes != 2*size || len(s.held) != 2 || s.order.Len() != 2 {
		t.Errorf("%d bytes of %d lists are kept", s.bytes, len(s.held))
	}
	before := reads
	take(1, version(1, size))()
	take(2, version(1, size))()
	if reads != before {
		t.Errorf("what was kept was read again")
	}
	// One that is larger than all room is sent alone.
	der = make([]byte, 2*maxListBytes)
	large, release, err := s.take(t.Context(), shelfPlace(3), version(1, 2*maxListBytes), read)
	if err != nil || len(s.held) != 1 {
		t.Fatalf("a list beyond the room: %v, %d lists kept", err, len(s.held))
	}
	_, _ = large.Seek(0, io.SeekStart)
	der = der[:size]
	full(4, version(1, size))
	release()
	take(4, version(1, size))()
}

// TestAListThatCantBeReadIsReadAgain by who comes next.
func TestAListThatCantBeReadIsReadAgain(t *testing.T) {
	t.Parallel()
	var s shelf
	broken := errors.New("broken")
	reading, finish := make(chan struct{}), make(chan struct{})
	fails := make(chan error, 2)
	go func() {
		_, _, err := s.take(context.Background(), shelfPlace(0), version(1, 3), func() ([]byte, error) {
			close(reading)
			<-finish
			return nil, broken
		})
		fails <- err
	}()
	<-reading
	go func() {
		_, _, err := s.take(context.Background(), shelfPlace(0), version(1, 3), func() ([]byte, error) { return nil, broken })
		fails <- err
	}()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.take(ended, shelfPlace(0), version(1, 3), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("one who left: %v", err)
	}
	close(finish)
	for range 2 {
		err := <-fails
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
	if s.bytes != 0 || len(s.held) != 0 {
		t.Errorf("%d bytes of %d lists are kept", s.bytes, len(s.held))
	}
	_, _, err = s.take(t.Context(), shelfPlace(0), version(1, 3), func() ([]byte, error) { return []byte("longer"), nil })
	if imprint.CodeOf(err) != imprint.CodeUnavailable || s.bytes != 0 {
		t.Errorf("a list that was signed anew meanwhile: %v, %d bytes", err, s.bytes)
	}
	content, release, err := s.take(t.Context(), shelfPlace(0), version(1, 3), func() ([]byte, error) { return []byte("der"), nil })
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	got, err := io.ReadAll(content)
	if err != nil || !bytes.Equal(got, []byte("der")) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTheLongestUnusedAnswerLeaves for a new one, and no other does.
func TestTheLongestUnusedAnswerLeaves(t *testing.T) {
	t.Parallel()
	var r responders
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	asked := func(n int) question { return question{revokedAt: int64(n)} }
	signed := 0
	ask := func(n int) {
		t.Helper()
		a, err := r.answer(t.Context(), asked(n), at, func(context.Context) (answer, error) {
			signed++
			return answer{der: []byte{1}, from: at, until: at.Add(ocspValid)}, nil
		})
		if err != nil || len(a.der) != 1 {
			t.Fatalf("got %v, %v", a, err)
		}
	}
	for n := range maxAnswers {
		ask(n)
	}
	ask(0)
	ask(maxAnswers) // takes the place of 1
	if signed != maxAnswers+1 || len(r.answers) != maxAnswers || r.used.Len() != maxAnswers {
		t.Fatalf("signed %d, kept %d", signed, len(r.answers))
	}
	for n := 2; n <= maxAnswers; n++ {
		ask(n)
	}
	ask(0)
	if signed != maxAnswers+1 {
		t.Errorf("%d answers were signed again", signed-maxAnswers-1)
	}
	ask(1)
	if signed != maxAnswers+2 {
		t.Error("the longest unused one is there still")
	}
}

// TestEveryAuthorityKeepsItsResponder, however many are asked.
func TestEveryAuthorityKeepsItsResponder(t *testing.T) {
	t.Parallel()
	var r responders
	for n := range 3000 {
		r.add(place{tenant: shelfTenant, id: imprint.AuthorityID(rune(n))}, &responder{})
	}
	if len(r.open) != 3000 {
		t.Errorf("%d of 3000 are kept", len(r.open))
	}
}

// TestOneQuestionIsSignedOnce for all who ask it meanwhile; they wait a little, and longer
// than whoever asked first: that one may leave.
func TestOneQuestionIsSignedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r responders
		finish := make(chan struct{})
		var signed atomic.Int64
		got := make(chan error, 10)
		ask := func(ctx context.Context) {
			_, err := r.answer(ctx, question{}, time.Now(), func(ctx context.Context) (answer, error) {
				signed.Add(1)
				select {
				case <-finish:
				case <-ctx.Done():
					return answer{}, ctx.Err()
				}
				return answer{[]byte{1}, time.Now(), time.Now().Add(ocspValid)}, nil
			})
			got <- err
		}
		first, leave := context.WithCancel(t.Context())
		go ask(first)
		synctest.Wait()
		for range 3 {
			go ask(t.Context())
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(finish)
		for range 4 {
			err := <-got
			if err != nil {
				t.Error(err)
			}
		}
		if n := signed.Load(); n != 1 {
			t.Errorf("signed %d times", n)
		}
		r.forget()
		finish = make(chan struct{})
		began := time.Now()
		go ask(t.Context())
		synctest.Wait()
		go ask(t.Context())
		err := <-got
		if imprint.CodeOf(err) != imprint.CodeThrottled || time.Since(began) != patience {
			t.Errorf("one who waits for another got %v after %s", err, time.Since(began))
		}
		err = <-got
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != signTime {
			t.Errorf("a key that doesn't answer: %v after %s", err, time.Since(began))
		}
	})
}

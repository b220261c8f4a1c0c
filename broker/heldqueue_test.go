package broker

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestHeldQueueKeepsOrder compares a queue with a plain slice, over growth, reuse of
// memory and emptying.
func TestHeldQueueKeepsOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var q, other heldQueue // the other takes memory that the first gave back
		var want []int64
		next := int64(1)
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			for range rapid.SampledFrom([]int{0, 1, 7, 9, 40, 1500}).Draw(t, "pushed") {
				q.push(held{seq: next, raw: []byte{1}})
				other.push(held{seq: -next})
				want = append(want, next)
				next++
			}
			for range min(len(want), rapid.SampledFrom([]int{0, 1, 8, 30, 1500}).Draw(t, "popped")) {
				if got := q.front().seq; got != want[0] {
					t.Fatalf("got %d, want %d", got, want[0])
				}
				q.pop()
				want = want[1:]
			}
			if rapid.IntRange(0, 9).Draw(t, "drop") == 0 {
				q.drop()
				want = nil
			}
			var got []int64
			for h := range q.all() {
				got = append(got, h.seq)
			}
			if q.len() != len(want) || !slices.Equal(got, want) {
				t.Fatalf("got %d of %v, want %v", q.len(), got, want)
			}
		}
		place := int64(0)
		for h := range other.all() {
			place++
			if h.seq != -place {
				t.Fatalf("another queue's place %d has %d", place, h.seq)
			}
		}
	})
}

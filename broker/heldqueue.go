package broker

import (
	"iter"
	"sync"
)

// heldQueue is messages that wait, in order. Its memory is in pieces that are taken from
// queues that have become shorter, as a subscriber's backlog comes and goes many times a
// second: one slice would be copied as it grows, and cleared, again and again.
type heldQueue struct {
	first, last *heldPiece
	size        int
}

// heldPiece is messages in a row.
type heldPiece struct {
	items []held
	head  int // those before are taken out
	next  *heldPiece
}

const (
	// smallHeld is the first piece of a queue, and heldPerPiece the others.
	smallHeld    = 8
	heldPerPiece = 64
)

var (
	smallHeldPool = sync.Pool{New: func() any { return &heldPiece{items: make([]held, 0, smallHeld)} }}
	heldPool      = sync.Pool{New: func() any { return &heldPiece{items: make([]held, 0, heldPerPiece)} }}
)

func (q *heldQueue) len() int { return q.size }

// all gives them, the first one first.
func (q *heldQueue) all() iter.Seq[*held] {
	return func(yield func(*held) bool) {
		for p := q.first; p != nil; p = p.next {
			for n := p.head; n < len(p.items); n++ {
				if !yield(&p.items[n]) {
					return
				}
			}
		}
	}
}

// front is the first one; there must be one.
func (q *heldQueue) front() *held { return &q.first.items[q.first.head] }

func (q *heldQueue) push(h held) {
	if q.last == nil || len(q.last.items) == cap(q.last.items) {
		q.makeRoom()
	}
	q.last.items = append(q.last.items, h)
	q.size++
}

func (q *heldQueue) makeRoom() {
	if q.last == nil {
		q.first = smallHeldPool.Get().(*heldPiece)
		q.last = q.first
		return
	}
	q.last.next = heldPool.Get().(*heldPiece)
	q.last = q.last.next
}

// pop takes the first one out.
func (q *heldQueue) pop() {
	p := q.first
	p.items[p.head] = held{}
	p.head++
	q.size--
	if p.head < len(p.items) {
		return
	}
	q.first = p.next
	if q.first == nil {
		q.last = nil
	}
	p.giveBack()
}

// giveBack lets others have a piece that holds nothing.
func (p *heldPiece) giveBack() {
	p.items, p.head, p.next = p.items[:0], 0, nil
	if cap(p.items) == smallHeld {
		smallHeldPool.Put(p)
		return
	}
	heldPool.Put(p)
}

// drop empties the queue.
func (q *heldQueue) drop() {
	for p := q.first; p != nil; {
		next := p.next
		clear(p.items[p.head:])
		p.giveBack()
		p = next
	}
	*q = heldQueue{}
}

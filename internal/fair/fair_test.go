package fair

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func tenant(account string) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(account), Region: "us-east-1"}
}

// fill takes as many places as it gets.
func fill(p *Places, q Queue) int {
	n := 0
	for p.Take(fmt.Sprint(q, len(p.held)), q, 0) {
		n++
	}
	return n
}

// TestNobodyTakesWhatOthersNeed ensures that whatever accounts and queues hold,
// another gets a place, and that all regions of an account are one.
func TestNobodyTakesWhatOthersNeed(t *testing.T) {
	p := New(48)
	elsewhere := Queue{imprint.Tenant{Account: "a", Region: "eu-west-1"}, "x"}
	for _, test := range []struct {
		q    Queue
		want int
	}{
		{Queue{tenant("a"), "x"}, 16}, // a third for a queue
		{elsewhere, 8},                // half for an account
		{Queue{tenant("a"), "y"}, 0},
		{Queue{tenant("b"), "x"}, 8},
		{Queue{tenant("c"), "x"}, 6},
		{Queue{tenant("d"), "x"}, 4},
		{Queue{tenant("e"), "x"}, 2},
		{Queue{tenant("f"), "x"}, 2},
		{Queue{tenant("g"), "x"}, 1},
		{Queue{tenant("h"), "x"}, 1},
	} {
		if got := fill(p, test.q); got != test.want {
			t.Errorf("%v: got %d places, want %d", test.q, got, test.want)
		}
	}
	p = New(1)
	q := Queue{tenant("a"), "x"}
	if !p.Take("1", q, 0) || p.Take("2", q, 0) {
		t.Error("one place isn't one")
	}
	p.Give("1", q)
	if !p.Take("2", q, 1) || p.Held() != 1 {
		t.Error("the place wasn't given back")
	}
	p = New(48)
	if !p.Take("1", q, 2) || p.Take("1", q, 2) || !p.Take("2", q, 2) || p.Take("3", q, 2) {
		t.Error("the limit of a queue doesn't hold, or the same work has two places")
	}
}

// owed is work of tenants by queue, all of it due.
type owed struct {
	work  map[imprint.Tenant]map[string][]string
	steps int
}

func (o *owed) Tenants() ([]imprint.Tenant, error) {
	var list []imprint.Tenant
	for t := range o.work {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b imprint.Tenant) int { return strings.Compare(a.String(), b.String()) })
	return list, nil
}

func (o *owed) Queues(t imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	var names []string
	for name := range o.work[t] {
		if name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var list []imprint.DueQueue
	for _, name := range names[:min(limit, len(names))] {
		q := imprint.DueQueue{Name: name}
		if len(o.work[t][name]) == 0 {
			q.DueAt = time.Unix(1000, 0)
		}
		list = append(list, q)
	}
	o.steps += len(list)
	return list, nil
}

func (o *owed) Due(q Queue, limit int) ([]string, error) {
	list := o.work[q.Tenant][q.Name]
	return list[:min(limit, len(list))], nil
}

func items(list []Work[string]) string {
	var all []string
	for _, w := range list {
		all = append(all, w.Item)
	}
	return strings.Join(all, " ")
}

// TestRoundsTakeTurns ensures that tenants and their queues take turns, and that
// the next round begins with others.
func TestRoundsTakeTurns(t *testing.T) {
	from := &owed{work: map[imprint.Tenant]map[string][]string{
		tenant("a"): {"x": {"ax1", "ax2", "ax3"}, "y": {"ay1"}},
		tenant("b"): {"x": {"bx1", "bx2"}},
	}}
	r := NewRounds[string](New(4))
	for _, want := range []string{"bx1 ax1 bx2 ay1 ax2 ax3", "ax1 bx1 ay1 bx2 ax2 ax3"} {
		list, all, err := r.Next(from, time.Unix(1, 0))
		if got := items(list); got != want || !all || err != nil {
			t.Errorf("got %q, %v, %v; want %q", got, all, err, want)
		}
	}
	// A round of one place begins after the queue that the last one ended with.
	r = NewRounds[string](New(1))
	delete(from.work, tenant("b"))
	for _, want := range []string{"ax1", "ay1", "ax1"} {
		list, _, err := r.Next(from, time.Unix(1, 0))
		if got := items(list); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

// TestARoundOfManyQueuesIsBounded ensures that an account with any number of
// queues costs a bounded number of steps, that the rest comes next, and that an
// account without room costs none.
func TestARoundOfManyQueuesIsBounded(t *testing.T) {
	queues := map[string][]string{}
	for n := range 1500 {
		queues[fmt.Sprintf("q%04d", n)] = nil
	}
	queues["q1400"] = []string{"late"}
	from := &owed{work: map[imprint.Tenant]map[string][]string{tenant("a"): queues}}
	places := New(4)
	r := NewRounds[string](places)
	list, all, err := r.Next(from, time.Unix(1, 0))
	if len(list) != 0 || all || err != nil || from.steps > stepsOfTenant+pageOfQueues {
		t.Errorf("the first round: got %v, %v, %v in %d steps", list, all, err, from.steps)
	}
	list, _, err = r.Next(from, time.Unix(1, 0))
	if items(list) != "late" || err != nil {
		t.Errorf("the second round: got %v, %v", list, err)
	}
	for n := range 2 {
		if !places.Take(fmt.Sprint(n), Queue{tenant("a"), fmt.Sprint(n)}, 0) {
			t.Fatal("there are less than two places for an account")
		}
	}
	from.steps = 0
	list, _, err = r.Next(from, time.Unix(1, 0))
	if len(list) != 0 || err != nil || from.steps != 0 {
		t.Errorf("the round without room: got %v, %v in %d steps", list, err, from.steps)
	}
}

// TestWhatWaitsForItsShareIsCounted ensures that queues count that have more due than
// is under way and get no place, and no others.
func TestWhatWaitsForItsShareIsCounted(t *testing.T) {
	from := &owed{work: map[imprint.Tenant]map[string][]string{
		tenant("a"): {"x": {"ax1", "ax2", "ax3"}, "y": {"ay1"}, "z": nil},
		tenant("b"): {"x": {"bx1"}},
	}}
	places := New(3)
	check := func(when string, want int) {
		t.Helper()
		got, err := Waiting(places, from, time.Unix(1, 0))
		if got != want || err != nil {
			t.Errorf("%s: got %d, %v; want %d", when, got, err, want)
		}
	}
	check("nothing is under way", 0)
	ax, ay := Queue{tenant("a"), "x"}, Queue{tenant("a"), "y"}
	if !places.Take("ax1", ax, 0) {
		t.Fatal("a's first place")
	}
	check("the queue has its third", 1)
	if !places.Take("ay1", ay, 0) {
		t.Fatal("a's second place")
	}
	check("the account has as many as it may, and all of y is under way", 1)
	from.work[tenant("a")]["y"] = []string{"ay1", "ay2"}
	check("more of y is due", 2)
	places.Give("ax1", ax)
	places.Give("ay1", ay)
	check("all was given back", 0)
}

package broker_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestTreeAgreesWithPlainMatching compares the tree with a list of filters, each
// matched alone.
func TestTreeAgreesWithPlainMatching(t *testing.T) {
	t.Parallel()
	for _, parents := range []bool{false, true} {
		matches := mqtt.Match
		if parents {
			matches = mqtt.MatchStandard
		}
		rapid.Check(t, func(t *rapid.T) { checkTree(t, parents, matches) })
	}
}

func checkTree(t *rapid.T, parents bool, matches func(filter, topic string) bool) {
	tree := broker.NewTree(parents)
	model := map[int]map[string]mqtt.QoS{}
	// Many sessions in few places reach both ways of telling sessions apart.
	who := rapid.IntRange(0, 40)
	filters, topics := generators()
	t.Repeat(map[string]func(*rapid.T){
		"subscribe many": func(t *rapid.T) {
			f := filters.Draw(t, "filter")
			q := mqtt.QoS(rapid.IntRange(0, 1).Draw(t, "qos"))
			for range rapid.IntRange(1, 30).Draw(t, "sessions") {
				w := who.Draw(t, "session")
				if model[w] == nil {
					model[w] = map[string]mqtt.QoS{}
				}
				model[w][f] = q
				tree.Add(w, f, q)
			}
		},
		"unsubscribe": func(t *rapid.T) {
			w := who.Draw(t, "session")
			for f := range model[w] {
				tree.Remove(w, f)
				delete(model[w], f)
				break
			}
			tree.Remove(w, "never/there")
		},
		"match": func(t *rapid.T) {
			topic := topics.Draw(t, "topic")
			want := map[int]mqtt.QoS{}
			for w, filters := range model {
				for f, q := range filters {
					if matches(f, topic) {
						want[w] = max(want[w], q)
					}
				}
			}
			got, found := tree.Match(topic)
			if diff := cmp.Diff(want, got); diff != "" || found != len(want) {
				t.Fatalf("topic %q: found %d for %d sessions (-want +got)\n%s", topic, found, len(want), diff)
			}
		},
	})
	for w, filters := range model {
		for f := range filters {
			tree.Remove(w, f)
		}
	}
	if !tree.Empty() {
		t.Fatal("levels are left of subscriptions that are gone")
	}
}

// generators give filters and topics that often match.
func generators() (filters, topics *rapid.Generator[string]) {
	level := rapid.SampledFrom([]string{"a", "b", "", "$s"})
	filters = rapid.Custom(func(t *rapid.T) string {
		f := ""
		for n := rapid.IntRange(0, 3).Draw(t, "levels"); n > 0; n-- {
			f += rapid.OneOf(level, rapid.Just("+")).Draw(t, "level") + "/"
		}
		return f + rapid.OneOf(level, rapid.SampledFrom([]string{"+", "#"})).Draw(t, "last")
	}).Filter(mqtt.ValidTopicFilter)
	topics = rapid.Custom(func(t *rapid.T) string {
		s := level.Draw(t, "level")
		for n := rapid.IntRange(0, 3).Draw(t, "levels"); n > 0; n-- {
			s += "/" + level.Draw(t, "level")
		}
		return s
	}).Filter(mqtt.ValidTopicName)
	return filters, topics
}

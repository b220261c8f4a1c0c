package mqtt_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/mqtt"
)

func TestTopicNamesFollowSection47(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "/", "a/b", "//", "a//b", "$aws/things/x", "a b", "\uFEFFa", strings.Repeat("x", 65535)} {
		if err := mqtt.CheckTopicName(name); err != nil || !mqtt.ValidTopicName(name) {
			t.Errorf("%.20q: got %v, want it valid", name, err)
		}
	}
	for _, c := range []struct {
		name string
		code mqtt.ReasonCode
		rule string
	}{
		{"", nameBad, "MQTT-4.7.3-1"},
		{strings.Repeat("x", 65536), nameBad, "MQTT-4.7.3-3"},
		{"a/+", nameBad, "MQTT-4.7.0-1"},
		{"a#b", nameBad, "MQTT-4.7.0-1"},
		{"a\x00", malformed, "MQTT-4.7.3-2"},
		{"a\xff", malformed, "MQTT-1.5.4-1"},
		{"\xed\xa0\x80", malformed, "MQTT-1.5.4-1"},
	} {
		checkRefusal(t, mqtt.CheckTopicName(c.name), c.code, c.rule)
		if mqtt.ValidTopicName(c.name) {
			t.Errorf("%.20q: got valid, want not", c.name)
		}
	}
}

func TestTopicFiltersFollowSection47(t *testing.T) {
	t.Parallel()
	for _, filter := range []string{"#", "+", "/", "/#", "+/+", "a/+/b/#", "/+", "+/", "a/#", "$aws/#", "$share/g/a", "$share"} {
		if err := mqtt.CheckTopicFilter(filter); err != nil || !mqtt.ValidTopicFilter(filter) {
			t.Errorf("%q: got %v, want it valid", filter, err)
		}
	}
	for _, c := range []struct {
		filter string
		code   mqtt.ReasonCode
		rule   string
	}{
		{"", filterBad, "MQTT-4.7.3-1"},
		{strings.Repeat("x", 65536), filterBad, "MQTT-4.7.3-3"},
		{"a#", filterBad, "MQTT-4.7.1-1"},
		{"#/a", filterBad, "MQTT-4.7.1-1"},
		{"#a", filterBad, "MQTT-4.7.1-1"},
		{"a/#/", filterBad, "MQTT-4.7.1-1"},
		{"##", filterBad, "MQTT-4.7.1-1"},
		{"a+", filterBad, "MQTT-4.7.1-2"},
		{"+a/b", filterBad, "MQTT-4.7.1-2"},
		{"a/++", filterBad, "MQTT-4.7.1-2"},
		{"+#", filterBad, "MQTT-4.7.1-2"},
		{"a\x00", malformed, "MQTT-4.7.3-2"},
		{"\xc0\x80", malformed, "MQTT-1.5.4-1"},
	} {
		checkRefusal(t, mqtt.CheckTopicFilter(c.filter), c.code, c.rule)
		if mqtt.ValidTopicFilter(c.filter) {
			t.Errorf("%.20q: got valid, want not", c.filter)
		}
	}
}

func TestParseSharedFilterSplitsOrRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, group, filter string
		shared            bool
		rule              string
	}{
		{in: "a/b", filter: "a/b"},
		{in: "$share", filter: "$share"},
		{in: "$shared/g/a", filter: "$shared/g/a"},
		{in: "$share/g/a/+", group: "g", filter: "a/+", shared: true},
		{in: "$share/g/#", group: "g", filter: "#", shared: true},
		{in: "$share/g//", group: "g", filter: "/", shared: true},
		{in: "$share/g/$aws/x", group: "g", filter: "$aws/x", shared: true},
		{in: "a#", rule: "MQTT-4.7.1-1"},
		{in: "$share/", shared: true, rule: "MQTT-4.8.2-1"},
		{in: "$share//a", shared: true, rule: "MQTT-4.8.2-1"},
		{in: "$share/g", shared: true, rule: "MQTT-4.8.2-2"},
		{in: "$share/g/", shared: true, rule: "MQTT-4.8.2-2"},
		{in: "$share/#/a", shared: true, rule: "MQTT-4.8.2-2"},
		{in: "$share/g/a+", shared: true, rule: "MQTT-4.7.1-2"},
	} {
		group, filter, shared, err := mqtt.ParseSharedFilter(c.in)
		if shared != c.shared {
			t.Errorf("%q: got shared %t, want %t", c.in, shared, c.shared)
		}
		if c.rule != "" {
			checkRefusal(t, err, filterBad, c.rule)
			continue
		}
		if err != nil || group != c.group || filter != c.filter {
			t.Errorf("%q: got %q, %q, %v, want %q, %q", c.in, group, filter, err, c.group, c.filter)
		}
	}
}

func TestMatchFollowsAWSAndMatchStandardTheSpecification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		filter, topic string
		aws, standard bool
	}{
		{"sensor/#", "sensor", false, true},
		{"sensor/#", "sensor/", true, true},
		{"sensor/#", "sensor/a", true, true},
		{"sensor/#", "sensor/a/b", true, true},
		{"sensor/#", "sensors", false, false},
		{"+/#", "sensor", false, true},
		{"a/+/#", "a/b", false, true},
		{"a/+/#", "a", false, false},
		{"#", "a", true, true},
		{"#", "/", true, true},
		{"#", "a/b/c", true, true},
		{"/#", "/", true, true},
		{"/#", "a", false, false},
		{"+", "a", true, true},
		{"+", "/", false, false},
		{"+/+", "/", true, true},
		{"/+", "/a", true, true},
		{"a/+", "a", false, false},
		{"a/+", "a/", true, true},
		{"a/+", "a/b", true, true},
		{"a/+", "a/b/c", false, false},
		{"a/+/c", "a/b/c", true, true},
		{"a/+/c", "a//c", true, true},
		{"a/b", "a/b", true, true},
		{"a/b", "a/B", false, false},
		{"a/b", "a", false, false},
		{"a", "a/", false, false},
		{"a/", "a", false, false},
		{"#", "$SYS/x", false, false},
		{"+/x", "$SYS/x", false, false},
		{"$SYS/#", "$SYS/x", true, true},
		{"$SYS/#", "$SYS", false, true},
		{"$SYS/+", "$SYS/$x", true, true},
		{"a/+", "a/$x", true, true},
	} {
		if got := mqtt.Match(c.filter, c.topic); got != c.aws {
			t.Errorf("Match(%q, %q): got %t, want %t", c.filter, c.topic, got, c.aws)
		}
		if got := mqtt.MatchStandard(c.filter, c.topic); got != c.standard {
			t.Errorf("MatchStandard(%q, %q): got %t, want %t", c.filter, c.topic, got, c.standard)
		}
	}
}

// matchLevels says the same as section 4.7 in another way: level by level over
// split slices.
func matchLevels(filter, topic []string) bool {
	if len(filter) > 0 && filter[0] == "#" {
		return true
	}
	if len(filter) == 0 || len(topic) == 0 {
		return len(filter) == len(topic)
	}
	return (filter[0] == "+" || filter[0] == topic[0]) && matchLevels(filter[1:], topic[1:])
}

func TestMatchStandardAgreesWithLevelByLevelComparison(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		topic := rapid.StringMatching(`[ab$]?(/[ab$]?){0,4}`).Filter(mqtt.ValidTopicName).Draw(t, "topic")
		filter := rapid.StringMatching(`([ab$]?|\+)(/([ab$]?|\+)){0,3}(/#)?|#`).Filter(mqtt.ValidTopicFilter).Draw(t, "filter")
		want := matchLevels(strings.Split(filter, "/"), strings.Split(topic, "/"))
		if topic[0] == '$' && (filter[0] == '#' || filter[0] == '+') {
			want = false
		}
		if got := mqtt.MatchStandard(filter, topic); got != want {
			t.Errorf("MatchStandard(%q, %q): got %t, want %t", filter, topic, got, want)
		}
		parent, hasParent := strings.CutSuffix(filter, "/#")
		onParent := hasParent && strings.Count(parent, "/") == strings.Count(topic, "/")
		if got := mqtt.Match(filter, topic); got != (want && !onParent) {
			t.Errorf("Match(%q, %q): got %t, want %t", filter, topic, got, want && !onParent)
		}
	})
}

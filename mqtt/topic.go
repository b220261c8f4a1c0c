package mqtt

import (
	"strings"
	"unicode/utf8"
)

// sharePrefix starts the filter of a shared subscription (MQTT 5.0 section 4.8.2).
const sharePrefix = "$share/"

// ValidTopicName reports whether s may stand in a PUBLISH: see CheckTopicName.
func ValidTopicName(s string) bool {
	return CheckTopicName(s) == nil
}

// ValidTopicFilter reports whether s may stand in a SUBSCRIBE: see
// CheckTopicFilter.
func ValidTopicFilter(s string) bool {
	return CheckTopicFilter(s) == nil
}

// CheckTopicName returns an *Error unless s is a topic name by MQTT 5.0 section
// 4.7: 1 to 65535 bytes of UTF-8 without U+0000 and without wildcards. Limits
// of a service (length, number of levels) are the caller's.
func CheckTopicName(s string) error {
	err := checkTopicText(s, TopicNameInvalid)
	if err != nil {
		return err
	}
	if hasWildcard(s) {
		return &Error{Code: TopicNameInvalid, Rule: "MQTT-4.7.0-1", Msg: "a topic name contains a wildcard"}
	}
	return nil
}

// CheckTopicFilter returns an *Error unless s is a topic filter by MQTT 5.0
// section 4.7: like a topic name, but "+" may be a whole level and "#" the
// whole last level. It looks at "$share/name/filter" as at any other text;
// ParseSharedFilter knows more.
func CheckTopicFilter(s string) error {
	err := checkTopicText(s, TopicFilterInvalid)
	if err != nil {
		return err
	}
	return checkFilter(s, V5)
}

func checkTopicText(s string, code ReasonCode) error {
	switch {
	case s == "":
		return &Error{Code: code, Rule: "MQTT-4.7.3-1", Msg: "a topic is empty"}
	case len(s) > 65535:
		return &Error{Code: code, Rule: "MQTT-4.7.3-3", Msg: "a topic is longer than 65535 bytes"}
	case !utf8.ValidString(s):
		return malformed("MQTT-1.5.4-1", "a topic is not valid UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return malformed("MQTT-4.7.3-2", "a topic contains U+0000")
	}
	return nil
}

func hasWildcard(s string) bool {
	return strings.IndexByte(s, '+') >= 0 || strings.IndexByte(s, '#') >= 0
}

// checkFilter checks the wildcards of a filter whose text is known to be valid.
func checkFilter(s string, v Version) error {
	if s == "" {
		return &Error{Code: TopicFilterInvalid, Rule: "MQTT-4.7.3-1", Msg: "a topic filter is empty"}
	}
	for i := range len(s) {
		if s[i] != '+' && s[i] != '#' {
			continue
		}
		starts := i == 0 || s[i-1] == '/'
		last := i == len(s)-1
		if s[i] == '#' && !(starts && last) {
			return &Error{Code: TopicFilterInvalid, Rule: pick(v, "MQTT-4.7.1-2", "MQTT-4.7.1-1"),
				Msg: "# is not the whole last level of a topic filter"}
		}
		if s[i] == '+' && !(starts && (last || s[i+1] == '/')) {
			return &Error{Code: TopicFilterInvalid, Rule: pick(v, "MQTT-4.7.1-3", "MQTT-4.7.1-2"),
				Msg: "+ is not a whole level of a topic filter"}
		}
	}
	return nil
}

// ParseSharedFilter splits "$share/group/filter" (MQTT 5.0 section 4.8.2) into
// its group and the filter that topics are matched against; shared says whether
// s has that form. Any other filter comes back as it is. The error is an *Error
// when the filter, the group name or the filter inside is not valid.
func ParseSharedFilter(s string) (group, filter string, shared bool, err error) {
	rest, shared := strings.CutPrefix(s, sharePrefix)
	if !shared {
		return "", s, false, CheckTopicFilter(s)
	}
	group, filter, found := strings.Cut(rest, "/")
	switch {
	case group == "":
		return "", "", true, &Error{Code: TopicFilterInvalid, Rule: "MQTT-4.8.2-1", Msg: "a share name is empty"}
	case hasWildcard(group):
		return "", "", true, &Error{Code: TopicFilterInvalid, Rule: "MQTT-4.8.2-2", Msg: "a share name contains a wildcard"}
	case !found || filter == "":
		return "", "", true, &Error{Code: TopicFilterInvalid, Rule: "MQTT-4.8.2-2", Msg: "a share name has no topic filter after it"}
	}
	err = CheckTopicFilter(s)
	if err != nil {
		return "", "", true, err
	}
	return group, filter, true, nil
}

// Match reports whether AWS IoT Core delivers a message on topic to a
// subscription to filter. It follows the standard but for one point: "sensor/#"
// does not match "sensor" (AWS IoT Core developer guide, page "MQTT"). Both
// arguments must be valid; a shared filter must be split before.
func Match(filter, topic string) bool {
	return match(filter, topic, false)
}

// MatchStandard is the matching of MQTT 5.0 section 4.7, by which "sensor/#"
// also matches its parent "sensor". Arguments as for Match.
func MatchStandard(filter, topic string) bool {
	return match(filter, topic, true)
}

func match(filter, topic string, parent bool) bool {
	// [MQTT-4.7.2-1]: wildcards in the first level leave $ topics alone.
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	for {
		level, filterRest, moreFilter := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		name, topicRest, moreTopic := strings.Cut(topic, "/")
		if level != "+" && level != name {
			return false
		}
		switch {
		case !moreTopic && !moreFilter:
			return true
		case !moreTopic:
			return parent && filterRest == "#"
		case !moreFilter:
			return false
		}
		filter, topic = filterRest, topicRest
	}
}

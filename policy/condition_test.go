package policy_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/policy"
)

// conditional is an Allow for everything under one condition.
func conditional(condition string) string {
	return doc(fmt.Sprintf(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{%s}}`, condition))
}

func keyed(values map[string][]string) *policy.Request {
	r := ask(policy.Publish, "topic/", "t")
	r.Keys = policy.NewKeys(values)
	return r
}

// Each operator: a value that matches the policy, one that does not, and what
// an absent key gives; the IfExists form must give the same and be true when absent.
func TestOperators(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		operator, want, match, other string
		negated                      bool
	}{
		{"StringEquals", "Abc", "Abc", "abc", false},
		{"StringEquals", "a*", "a*", "ab", false},
		{"StringEquals", "${iot:ClientId}", "dev1", "dev2", false},
		{"StringEquals", "x-${iot:ClientId}", "x-dev1", "dev1", false},
		{"StringNotEquals", "Abc", "abc", "Abc", true},
		{"StringEqualsIgnoreCase", "ABC", "abc", "abd", false},
		{"StringEqualsIgnoreCase", "X${iot:ClientId}", "xDEV1", "xdev2", false},
		{"StringNotEqualsIgnoreCase", "ABC", "abd", "abc", true},
		{"StringLike", "a*c?", "abbcd", "abbc", false},
		{"StringLike", "${iot:ClientId}-*", "dev1-x", "dev2-x", false},
		{"StringNotLike", "a*", "b", "abc", true},
		{"NumericEquals", "10", "10.0", "11", false},
		{"NumericEquals", "10525622389124227206", "10525622389124227206", "10525622389124227207", false},
		{"NumericEquals", "-0", "0", "x", false},
		{"NumericNotEquals", "10", "11", "10", true},
		{"NumericLessThan", "10", "9.99", "10", false},
		{"NumericLessThan", "-1", "-2", "-0.5", false},
		{"NumericLessThanEquals", "10", "10", "10.01", false},
		{"NumericGreaterThan", "10", "100", "10", false},
		{"NumericGreaterThanEquals", "10", "10", "9", false},
		{"DateEquals", "2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00", "2026-01-02", false},
		{"DateEquals", "1767322245", "2026-01-02T02:50:45Z", "2026-01-02T02:50:46Z", false},
		{"DateNotEquals", "2026-01-02", "2026-01-03", "2026-01-02T00:00:00Z", true},
		{"DateLessThan", "2026", "2025-12", "2026-01-01", false},
		{"DateLessThanEquals", "2026-01-01", "2026-01-01", "2026-01-02", false},
		{"DateGreaterThan", "2026-01-01", "2026-01-01T00:01Z", "2026-01-01", false},
		{"DateGreaterThanEquals", "2026-01-01", "2026-01-01", "2025", false},
		{"Bool", "true", "TRUE", "false", false},
		{"Bool", "false", "false", "true", false},
		{"BinaryEquals", "QUI=", "QUI=", "QUM=", false},
		{"IpAddress", "192.0.2.0/24", "192.0.2.9", "192.0.3.9", false},
		{"IpAddress", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", false},
		{"IpAddress", "2001:db8::/32", "2001:db8::1", "2001:db9::1", false},
		{"NotIpAddress", "192.0.2.0/24", "192.0.3.9", "192.0.2.9", true},
		{"ArnEquals", "arn:aws:iot:*:000000000000:topic/a?", "arn:aws:iot:eu-west-1:000000000000:topic/ab", "arn:aws:iot:eu-west-1:000000000000:topic/a", false},
		{"ArnLike", "arn:aws:iot:*:topic:x:y", "arn:aws:iot:r:topic:x:y", "arn:aws:iot:a:b:topic:x:y", false},
		{"ArnLike", "*", "arn:aws:iot:a:b:c", "", false},
		{"ArnNotEquals", "arn:aws:iot:a:b:c", "arn:aws:iot:a:b:d", "arn:aws:iot:a:b:c", true},
		{"ArnNotLike", "arn:aws:iot:*:*:c*", "arn:aws:iot:a:b:d", "arn:aws:iot:a:b:cc", true},
	} {
		for _, suffix := range []string{"", "IfExists"} {
			name := tt.operator + suffix
			t.Run(name+" "+tt.want, func(t *testing.T) {
				t.Parallel()
				set := compile(t, conditional(fmt.Sprintf(`%q:{"x:K":%q}`, name, tt.want)))
				check(t, set, keyed(map[string][]string{"x:k": {tt.match}}), yes)
				if tt.other != "" {
					check(t, set, keyed(map[string][]string{"X:K": {tt.other}}), no)
				}
				absent := no
				if tt.negated || suffix != "" {
					absent = yes
				}
				check(t, set, keyed(nil), absent)
			})
		}
	}
}

func TestConditionRules(t *testing.T) {
	t.Parallel()
	set2 := map[string][]string{"x:k": {"a", "b"}}
	for _, tt := range []struct {
		name, condition string
		keys            map[string][]string
		want            policy.Decision
	}{
		{"Null true holds without the key", `"Null":{"x:k":"true"}`, nil, yes},
		{"Null true fails with the key", `"Null":{"x:k":true}`, set2, no},
		{"Null false holds with the key", `"Null":{"x:k":"false"}`, set2, yes},
		{"Null false fails without the key", `"Null":{"x:k":"false"}`, nil, no},
		{"Null true holds for an empty set", `"Null":{"x:k":"true"}`, map[string][]string{"x:k": {}}, yes},
		{"values of a key are ORed", `"StringEquals":{"x:k":["z","a"]}`, map[string][]string{"x:k": {"a"}}, yes},
		{"values of a negated key are NORed", `"StringNotEquals":{"x:k":["z","a"]}`, map[string][]string{"x:k": {"a"}}, no},
		{"values of a negated key pass when none matches", `"StringNotEquals":{"x:k":["z","y"]}`, map[string][]string{"x:k": {"a"}}, yes},
		{"keys are ANDed", `"StringEquals":{"x:k":"a","x:j":"b"}`, map[string][]string{"x:k": {"a"}, "x:j": {"c"}}, no},
		{"operators are ANDed", `"StringEquals":{"x:k":"a"},"Bool":{"x:j":"true"}`, map[string][]string{"x:k": {"a"}, "x:j": {"true"}}, yes},
		{"one failing operator fails", `"StringEquals":{"x:k":"a"},"Bool":{"x:j":"true"}`, map[string][]string{"x:k": {"a"}, "x:j": {"false"}}, no},
		{"ForAllValues holds when all match", `"ForAllValues:StringEquals":{"x:k":["a","b","c"]}`, set2, yes},
		{"ForAllValues fails when one does not", `"ForAllValues:StringEquals":{"x:k":["a"]}`, set2, no},
		{"ForAllValues holds for an absent key", `"ForAllValues:StringEquals":{"x:k":["a"]}`, nil, yes},
		{"ForAllValues negated holds when none matches", `"ForAllValues:StringNotEquals":{"x:k":["z"]}`, set2, yes},
		{"ForAllValues negated fails when one matches", `"ForAllValues:StringNotEquals":{"x:k":["b"]}`, set2, no},
		{"ForAnyValue holds when one matches", `"ForAnyValue:StringEquals":{"x:k":["b"]}`, set2, yes},
		{"ForAnyValue fails when none matches", `"ForAnyValue:StringEquals":{"x:k":["z"]}`, set2, no},
		{"ForAnyValue fails for an absent key", `"ForAnyValue:StringEquals":{"x:k":["a"]}`, nil, no},
		{"ForAnyValue negated holds when one differs", `"ForAnyValue:StringNotEquals":{"x:k":["a"]}`, set2, yes},
		{"ForAnyValue negated fails for an absent key", `"ForAnyValue:StringNotEquals":{"x:k":["a"]}`, nil, no},
		{"ForAnyValue with IfExists holds for an absent key", `"ForAnyValue:StringEqualsIfExists":{"x:k":["a"]}`, nil, yes},
		{"ForAllValues with StringLike", `"ForAllValues:StringLike":{"x:k":["?"]}`, set2, yes},
		{"an empty list of values matches nothing", `"StringEquals":{"x:k":[]}`, set2, no},
		{"an unresolved variable in a value matches nothing", `"StringEquals":{"x:k":"${x:none}"}`, set2, no},
		{"an unresolved variable in a negated value grants nothing", `"StringNotEquals":{"x:k":"${x:none}"}`, set2, no},
		{"a variable in a number", `"NumericEquals":{"x:k":"${x:n}"}`, map[string][]string{"x:k": {"5"}, "x:n": {"5.0"}}, yes},
		{"a variable in a date", `"DateEquals":{"x:k":"${x:n}"}`, map[string][]string{"x:k": {"2026-01-01"}, "x:n": {"2026"}}, yes},
		{"a variable in an address range", `"IpAddress":{"x:k":"${x:n}/24"}`, map[string][]string{"x:k": {"192.0.2.1"}, "x:n": {"192.0.2.0"}}, yes},
		{"a whole ARN in a variable", `"ArnEquals":{"x:k":"${x:n}"}`, map[string][]string{"x:k": {"arn:a:b:c:d:e"}, "x:n": {"arn:a:b:c:d:e"}}, yes},
		{"a star in a variable is no wildcard", `"StringLike":{"x:k":"${x:n}"}`, map[string][]string{"x:k": {"abc"}, "x:n": {"a*"}}, no},
		{"${*} in StringLike is a star", `"StringLike":{"x:k":"a${*}"}`, map[string][]string{"x:k": {"ab"}}, no},
		{"JSON numbers and booleans are values", `"NumericEquals":{"x:k":5},"Bool":{"x:j":true}`, map[string][]string{"x:k": {"5"}, "x:j": {"true"}}, yes},
		{"a malformed value of the request matches nothing", `"NumericEquals":{"x:k":"1"}`, map[string][]string{"x:k": {"1e0"}}, no},
		{"aws:CurrentTime is the time of the request", `"DateGreaterThan":{"aws:CurrentTime":"2026-05-04T03:02:00Z"},"DateLessThan":{"aws:CurrentTime":"2026-05-04T03:02:02Z"}`, nil, yes},
		{"aws:EpochTime compares as a number", `"NumericEquals":{"aws:EpochTime":"1777863721"}`, nil, yes},
		{"aws:EpochTime compares as a date", `"DateEquals":{"aws:EpochTime":"1777863721"}`, nil, yes},
		{"aws:SourceIp in range", `"IpAddress":{"aws:SourceIp":["198.51.100.0/24","192.0.2.0/28"]}`, nil, yes},
		{"aws:SourceIp outside", `"NotIpAddress":{"aws:SourceIp":"192.0.2.0/28"}`, nil, no},
		{"IsAttached", `"Bool":{"iot:Connection.Thing.IsAttached":["true"]}`, nil, yes},
		{"a thing attribute", `"StringEquals":{"iot:Connection.Thing.Attributes[site]":"A1"}`, nil, yes},
		{"thing attribute names are case-sensitive", `"StringEquals":{"iot:connection.thing.attributes[Site]":"B2"}`, nil, yes},
		{"thing attributes that differ in case are different keys", `"StringEquals":{"iot:Connection.Thing.Attributes[site]":"A1","iot:Connection.Thing.Attributes[Site]":"B2"}`, nil, yes},
		{"aws:SecureTransport", `"Bool":{"aws:SecureTransport":"true"}`, nil, yes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check(t, compile(t, conditional(tt.condition)), keyed(tt.keys), tt.want)
		})
	}
}

func TestUnresolvedVariableInANegatedDenyStillDenies(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(allow("*", "*"), `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"x:k":"${x:none}"}}}`))
	check(t, set, keyed(map[string][]string{"x:k": {"a"}}), denied)
}

func TestConnectAttributesGoals(t *testing.T) {
	t.Parallel()
	const persistent, will = policy.PersistentConnect, policy.LastWill
	all := []policy.ConnectAttributes{0, persistent, will, persistent | will}
	for _, tt := range []struct {
		name, statement string
		want            [4]policy.Decision // none, persistent, will, both
	}{
		{"no condition permits all", allow("iot:Connect", "*"), [4]policy.Decision{yes, yes, yes, yes}},
		{"persistent or plain", `{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["PersistentConnect"]}}}`, [4]policy.Decision{yes, yes, no, no}},
		{"both", `{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["PersistentConnect","LastWill"]}}}`, [4]policy.Decision{yes, yes, yes, yes}},
		{"anything but persistent", `{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringNotEquals":{"iot:ConnectAttributes":["PersistentConnect"]}}}`, [4]policy.Decision{yes, no, yes, no}},
		{"deny persistent", allow("iot:Connect", "*") + `,{"Effect":"Deny","Action":"iot:Connect","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"iot:ConnectAttributes":["PersistentConnect"]}}}`, [4]policy.Decision{yes, denied, yes, denied}},
		{"clean with or without a will", `{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill"]}}}`, [4]policy.Decision{yes, no, yes, no}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := compile(t, doc(tt.statement))
			for i, attributes := range all {
				r := ask(policy.Connect, "client/", "a")
				r.ConnectAttributes = attributes
				check(t, set, r, tt.want[i])
			}
		})
	}
}

func TestLastWillTopic(t *testing.T) {
	t.Parallel()
	set := compile(t, conditional(`"ArnEquals":{"iot:LastWillTopic":["`+arn+`topic/will/${iot:ClientId}"]}`))
	r := ask(policy.Connect, "client/", "dev1")
	check(t, set, r, no)
	r.LastWillTopic = arn + "topic/will/dev1"
	check(t, set, r, yes)
	r.LastWillTopic = arn + "topic/will/dev2"
	check(t, set, r, no)
}

func TestRequestWithoutTimeHasNoTimeKeys(t *testing.T) {
	t.Parallel()
	r := keyed(nil)
	r.Now = time.Time{}
	check(t, compile(t, conditional(`"DateLessThan":{"aws:CurrentTime":"2100-01-01"}`)), r, no)
	check(t, compile(t, conditional(`"Null":{"aws:EpochTime":"true"}`)), r, yes)
}

func TestMappedAddressCountsAsIPv4(t *testing.T) {
	t.Parallel()
	r := keyed(nil)
	r.Vars = policy.NewVariables(policy.Binding{SourceIP: netip.MustParseAddr("::ffff:192.0.2.7")})
	check(t, compile(t, conditional(`"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}`)), r, yes)
	check(t, compile(t, conditional(`"StringEquals":{"aws:SourceIp":"192.0.2.7"}`)), r, yes)
}

package policy_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imprint-iot/imprint/policy"
	"pgregory.net/rapid"
)

// sensor is a connection of a thing whose certificate has the common name cn-7.
func sensor(client, thing string) *policy.Variables {
	cert := &x509.Certificate{SerialNumber: big.NewInt(123456), Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{attribute(3, "cn-7")}}}
	b := policy.Binding{ClientID: client, Certificate: policy.NewCertificateVariables(cert)}
	if thing != "" {
		b.Thing = &policy.Thing{Name: thing}
	}
	return policy.NewVariables(b)
}

func use(action policy.Action, resource string, vars *policy.Variables) policy.Use {
	return policy.Use{Action: action, Resource: arn + resource, Vars: vars}
}

func TestLeastPolicyNamesWhatCoincides(t *testing.T) {
	t.Parallel()
	vars := sensor("sensor-7", "sensor-7")
	got, err := policy.Least([]policy.Use{
		use(policy.Connect, "client/sensor-7", vars),
		use(policy.Publish, "topic/d/sensor-7/temperature", vars), use(policy.Publish, "topic/d/sensor-7/temperature", vars),
		use(policy.Publish, "topic/site/cn-7", vars), use(policy.RetainPublish, "topic/site/cn-7", vars),
		use(policy.Publish, "topic/serial/123456", vars), use(policy.Publish, "topic/sensor-70/x", vars),
		use(policy.Publish, "topic/$aws/things/sensor-7/shadow/update", vars),
		use(policy.Subscribe, "topicfilter/d/sensor-7/#", vars), use(policy.Subscribe, "topicfilter/$share/g/a/+/b", vars),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "iot:Connect"
      ],
      "Resource": [
        "ARNclient/${iot:Connection.Thing.ThingName}"
      ]
    },
    {
      "Effect": "Allow",
      "Action": [
        "iot:Publish"
      ],
      "Resource": [
        "ARNtopic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/update",
        "ARNtopic/d/${iot:Connection.Thing.ThingName}/temperature",
        "ARNtopic/sensor-70/x",
        "ARNtopic/serial/${iot:Certificate.SerialNumber}",
        "ARNtopic/site/${iot:Certificate.Subject.CommonName}"
      ]
    },
    {
      "Effect": "Allow",
      "Action": [
        "iot:RetainPublish"
      ],
      "Resource": [
        "ARNtopic/site/${iot:Certificate.Subject.CommonName}"
      ]
    },
    {
      "Effect": "Allow",
      "Action": [
        "iot:Subscribe"
      ],
      "Resource": [
        "ARNtopicfilter/$share/g/a/+/b",
        "ARNtopicfilter/d/${iot:Connection.Thing.ThingName}/#"
      ]
    },
    {
      "Effect": "Allow",
      "Action": [
        "iot:Receive"
      ],
      "Resource": [
        "ARNtopic/a/*/b",
        "ARNtopic/d/${iot:Connection.Thing.ThingName}/*"
      ]
    }
  ]
}`
	if diff := cmp.Diff([]string{strings.ReplaceAll(want, "ARN", arn)}, got); diff != "" {
		t.Errorf("Least (-want +got):\n%s", diff)
	}
}

func TestLeastPolicyChoosesTheVariableThatBinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		use  policy.Use
		want string
	}{
		{"a client id that is neither thing nor certificate", use(policy.Connect, "client/other", sensor("other", "")), `client/other"`},
		{"the certificate's name without a thing", use(policy.Connect, "client/cn-7", sensor("cn-7", "")), `client/${iot:Certificate.Subject.CommonName}"`},
		{"a short thing as client id", use(policy.Connect, "client/t", sensor("t", "t")), `client/${iot:Connection.Thing.ThingName}"`},
		{"a short thing in a topic", use(policy.Publish, "topic/t/x", sensor("t", "t")), `topic/t/x"`},
		{"the client id in a topic", use(policy.Publish, "topic/other", sensor("other", "")), `topic/${iot:ClientId}"`},
		{"the certificate before the client id", use(policy.Publish, "topic/cn-7", sensor("cn-7", "")), `topic/${iot:Certificate.Subject.CommonName}"`},
		{"a name that is never substituted", use(policy.Publish, "topic/a$bc/x", sensor("a$bc", "")), `topic/a$bc/x"`},
		{"wildcard characters", use(policy.Publish, "topic/a*b?/${c}", sensor("other", "")), `topic/a${*}b${?}/${$}{c}"`},
		{"no variables", policy.Use{Action: policy.Publish, Resource: arn + "topic/a"}, `topic/a"`},
	} {
		got, err := policy.Least([]policy.Use{tt.use})
		if err != nil || len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("%s: got %s, %v; want %s in it", tt.name, got, err, tt.want)
		}
	}
	if got, err := policy.Least(nil); err != nil || len(got) != 0 {
		t.Errorf("without uses: got %s, %v", got, err)
	}
	if _, err := policy.Least([]policy.Use{{Action: policy.Publish, Resource: "topic/a"}}); err == nil {
		t.Error("a resource that is no ARN is taken")
	}
}

// Many topics are spread over several documents, each within the quota.
func TestLeastPolicyKeepsToTheQuota(t *testing.T) {
	t.Parallel()
	var uses []policy.Use
	for i := range 100 {
		uses = append(uses, use(policy.Publish, fmt.Sprintf("topic/%d/%s", i, strings.Repeat("x", 40)), nil), use(policy.Receive, fmt.Sprintf("topic/%d", i), nil))
	}
	got, err := policy.Least(uses)
	if err != nil || len(got) < 5 || len(got) > 10 {
		t.Fatalf("got %d documents, %v", len(got), err)
	}
}

// What a device did is allowed, by whatever names, and a twin of another name may
// not do it as soon as a variable is in it.
func TestLeastPolicyAllowsWhatWasUsed(t *testing.T) {
	t.Parallel()
	part := rapid.StringOfN(rapid.RuneFrom([]rune("ab*?${}+#é-")), 1, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		name := part.Draw(t, "name")
		thing := rapid.SampledFrom([]string{"", name, "thing"}).Draw(t, "thing")
		vars := sensor(name, thing)
		var uses []policy.Use
		for range rapid.IntRange(0, 6).Draw(t, "uses") {
			action := rapid.SampledFrom([]policy.Action{policy.Connect, policy.Publish, policy.RetainPublish, policy.Subscribe, policy.Receive}).Draw(t, "action")
			levels := rapid.SliceOfN(rapid.OneOf(part, rapid.Just(name), rapid.SampledFrom([]string{"thing", "cn-7", "+", "#", "$share", ""})), 1, 4).Draw(t, "levels")
			uses = append(uses, use(action, action.ResourceKind()+"/"+strings.Join(levels, "/"), vars))
		}
		got, err := policy.Least(uses)
		if err != nil {
			t.Fatal(err)
		}
		var named []policy.Named
		for _, text := range got {
			d, err := policy.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			named = append(named, policy.Named{Doc: d})
		}
		set := policy.Compile(named...)
		for _, u := range uses {
			if set.Decide(&policy.Request{Action: u.Action, ResourceName: u.Resource, Vars: vars}) != yes {
				t.Fatalf("%s on %s is not allowed by %s", u.Action, u.Resource, got)
			}
		}
		if set.Decide(&policy.Request{Action: policy.Connect, ResourceName: arn + "client/stranger-1", Vars: sensor("stranger-1", "thing-2")}) == yes {
			t.Fatalf("a stranger may connect: %s", got)
		}
	})
}

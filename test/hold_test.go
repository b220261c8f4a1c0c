package test

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// checkHeld takes a device through a first connection that works at once.
func (s *server) checkHeld(t *testing.T, f *factory, name string) {
	t.Helper()
	old := f.device(t, name+"-311", "P-256")
	run := s.publish(t, old, old.name, "d/"+old.name+"/x")
	if run.exit != 0 || run.connack != 0 || run.puback != 0 {
		t.Errorf("MQTT 3.1.1, first connection: got exit code %d, CONNACK %d, PUBACK %d; want 0, 0, 0\n%s", run.exit, run.connack, run.puback, run.all())
	}
	recent := f.device(t, name+"-5", "P-256")
	c := s.connect(t, recent, recent.name, dialing{})
	if got := c.ask(t, "d/"+recent.name+"/#"); !slices.Equal(got, []byte{1}) {
		t.Errorf("MQTT 5, first connection, SUBACK: got %#x, want 1", got)
	}
	if got := c.send(t, "d/"+recent.name+"/x", "at once", 1); got != 0 {
		t.Errorf("MQTT 5, first connection, PUBACK: got %#x, want 0", got)
	}
	if got, want := c.receive(t), (message{"d/" + recent.name + "/x", "at once"}); got != want {
		t.Errorf("MQTT 5, first connection, message: got %v, want %v", got, want)
	}
	if got := c.send(t, "d/other/x", "denied", 1); got != 0x87 {
		t.Errorf("MQTT 5, first connection, PUBACK of what the policy denies: got %#x, want 0x87", got)
	}
	for _, d := range []*device{old, recent} {
		after := s.registry(t)
		for _, line := range []string{"cert/" + d.id(t) + " ACTIVE", "cert/" + d.id(t) + " policy devices", "thing " + d.name + " has cert/" + d.id(t)} {
			if !slices.Contains(after, line) {
				t.Errorf("the registry lacks %q", line)
			}
		}
	}
}

func firstConnection(value string) []types.Tag {
	return []types.Tag{{Key: aws.String("imprint:first-connection"), Value: aws.String(value)}}
}

func TestHoldKeepsTheFirstConnectionAndItWorksAtOnce(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t, "--hold")
	s.checkHeld(t, s.line(t, "Hold"), "held")
	t.Run("a CA's tag close wins over --hold", func(t *testing.T) {
		f := newFactory(t, "Close", "P-256")
		s.registerCA(t, f, func(in *iot.RegisterCACertificateInput) {
			withTemplate(jitpTemplate("devices", ""))(in)
			in.Tags = firstConnection("close")
		})
		s.join(t, f.device(t, "closed-1", "P-256"))
	})
}

func TestTheTagHoldOfACAKeepsTheFirstConnectionAndItWorksAtOnce(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	plain := s.line(t, "Plain")
	tagged := newFactory(t, "Tagged", "P-256")
	caID := s.registerCA(t, tagged, func(in *iot.RegisterCACertificateInput) {
		withTemplate(jitpTemplate("devices", ""))(in)
		in.Tags = firstConnection("hold")
	})
	s.checkHeld(t, tagged, "tagged")
	s.join(t, plain.device(t, "plain-1", "P-256"))
	resource := aws.String(arn + "cacert/" + caID)
	must(s.sdk(t).UntagResource(t.Context(), &iot.UntagResourceInput{ResourceArn: resource, TagKeys: []string{"imprint:first-connection"}}))(t)
	s.join(t, tagged.device(t, "untagged-1", "P-256"))
	must(s.sdk(t).TagResource(t.Context(), &iot.TagResourceInput{ResourceArn: resource, Tags: firstConnection("hold")}))(t)
	s.checkHeld(t, tagged, "tagged-again")
}

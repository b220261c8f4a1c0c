package test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/mqtt"
)

// mosquittoVersions are the two that mosquitto's clients speak here.
var mosquittoVersions = []string{"311", "5"}

// forMosquitto runs a test with each version of the protocol.
func forMosquitto(t *testing.T, run func(t *testing.T, version, prefix string)) {
	for _, version := range mosquittoVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			run(t, version, "mq"+version)
		})
	}
}

// listen starts mosquitto_sub with more arguments and waits for its SUBACK.
func (s *side) listen(t *testing.T, id string, more []string, filters ...string) *subscriber {
	t.Helper()
	sub := s.stage.trySubscribe(t, s.device, id, more, filters...)
	sub.said.wait(t, "SUBACK", func(text string) bool { return strings.Contains(text, "received SUBACK") })
	return sub
}

// tell runs mosquitto_pub with QoS 1; it must succeed. More says what is sent.
func (s *side) tell(t *testing.T, version, topic string, more ...string) {
	t.Helper()
	id := "teller-" + version + strings.ReplaceAll(topic, "/", "-")
	args := append(s.stage.mosquittoArgs(s.device, id), "-V", version, "-q", "1", "-t", topic)
	run := runTool(t, "", cleanEnv(), "mosquitto_pub", append(args, more...)...)
	if puback := code(t, pubackLine, run.all()); run.exit != 0 || puback != 0 && puback != 0x10 {
		t.Fatalf("mosquitto_pub: got exit code %d, PUBACK %d; want 0, 0\n%s", run.exit, puback, run.all())
	}
}

// keptArgs make a session persistent.
func keptArgs(version string) []string {
	if version == "5" {
		return []string{"-V", "5", "-c", "-x", "600"}
	}
	return []string{"-V", version, "-c"}
}

func TestMosquittoGetsRetainedMessagesByTheirExactTopic(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	forMosquitto(t, func(t *testing.T, version, prefix string) {
		topic := prefix + "/kept"
		s.newTwin(t, prefix, topic)
		s.one.tell(t, version, topic, "-m", "first", "-r")
		s.one.tell(t, version, topic, "-m", "second", "-r")
		exact := s.one.listen(t, prefix+"-exact", []string{"-V", version, "-F", "message %t %p retain=%r"}, topic)
		if got := exact.await(t, topic, 1); got != "second retain=1" {
			t.Errorf("message to an exact filter: got %q, want second retain=1", got)
		}
		wide := s.one.listen(t, prefix+"-wide", []string{"-V", version, "-F", "message %t %p retain=%r"}, prefix+"/#")
		s.one.tell(t, version, topic, "-m", "third", "-r")
		if got := wide.await(t, topic, 1); got != "third retain=0" {
			t.Errorf("message to a wildcard: got %q, want third retain=0", got)
		}
		if got := exact.await(t, topic, 2); got != "third retain=0" {
			t.Errorf("message to a subscriber that is there: got %q, want third retain=0", got)
		}
		s.one.tell(t, version, topic, "-r", "-n")
		later := s.one.listen(t, prefix+"-later", []string{"-V", version}, topic)
		s.one.tell(t, version, topic, "-m", "end")
		if got := later.await(t, topic, 1); got != "end" {
			t.Errorf("message after the deletion: got %q, want end", got)
		}
	})
}

func TestMosquittoFindsItsSessionAgain(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	forMosquitto(t, func(t *testing.T, version, prefix string) {
		twin := s.newTwin(t, prefix)
		id, topic := prefix+"-sub", prefix+"/a"
		sub := s.one.listen(t, id, keptArgs(version), prefix+"/#")
		sub.kill()
		from := s.one.open(t, mqtt.Connect{ClientID: prefix + "-from", CleanStart: true}, mqtt.V5)
		want := numbered("waits", 20)
		for _, payload := range want {
			from.say(topic, payload)
			twin.clash(topic)
		}
		// It asks for another filter this time: the old one is in force all the same.
		again := s.one.listen(t, id, keptArgs(version), prefix+"-other")
		from.say(topic, "end")
		again.await(t, topic, len(want)+1)
		if diff := cmp.Diff(append(want, "end"), messages(again.said.String(), topic)); diff != "" {
			t.Errorf("messages after resuming (-want +got):\n%s", diff)
		}
	})
}

func TestMosquittoSharesASubscription(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	forMosquitto(t, func(t *testing.T, version, prefix string) {
		filter, topic := "$share/group/"+prefix+"/#", prefix+"/job"
		theirs := s.two.open(t, mqtt.Connect{ClientID: prefix + "-0", CleanStart: true}, mqtt.V5)
		theirs.subscribe(at1(filter))
		var members []*subscriber
		for n := range 2 {
			members = append(members, s.one.listen(t, fmt.Sprintf("%s-%d", prefix, n), []string{"-V", version}, filter))
		}
		from := s.one.open(t, mqtt.Connect{ClientID: prefix + "-from", CleanStart: true}, mqtt.V5)
		want := numbered("job", 40)
		for _, payload := range want {
			from.say(topic, payload)
		}
		var got []string
		until(t, "all jobs to be handed out", func() bool {
			got = got[:0]
			for _, sub := range members {
				got = append(got, messages(sub.said.String(), topic)...)
			}
			return len(got) >= len(want)
		})
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("jobs, each to one member (-want +got):\n%s", diff)
		}
		for n, sub := range members {
			if len(messages(sub.said.String(), topic)) == 0 {
				t.Errorf("jobs of member %d: got none", n)
			}
		}
		theirs.expectNothing()
	})
}

func TestMosquittosWillWaitsForItsDelay(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	watch := s.one.open(t, mqtt.Connect{ClientID: "watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1("will/#"), at1(presence+"disconnected/+"))
	args := func(delay string) []string {
		return append(keptArgs("5"), "--will-topic", "will/"+delay, "--will-payload", "after "+delay, "--will-qos", "1",
			"-D", "will", "will-delay-interval", delay)
	}
	sub := s.one.listen(t, "delays", args("1"), "x")
	sub.kill()
	checkPresence(t, watch.receive(), "disconnected", "delays", "CONNECTION_LOST")
	watch.expect("after 1")
	sub = s.one.listen(t, "returns", args("600"), "x")
	sub.kill()
	checkPresence(t, watch.receive(), "disconnected", "returns", "CONNECTION_LOST")
	s.one.listen(t, "returns", args("600"), "x")
	watch.expectNothing()
}

var expiryOf = regexp.MustCompile(`expiry=(\d+)`)

func TestMosquittoSendsPropertiesAndExpiringMessages(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	// What each property is in mosquitto_sub's format.
	format := "message %t %p expiry=%E type=%C format=%F response=%R correlation=%D user=%P"
	sub := s.one.listen(t, "props", []string{"-V", "5", "-F", format}, "props/#")
	s.one.tell(t, "5", "props/a", "-m", "full", "-D", "publish", "user-property", "b", "2", "-D", "publish", "user-property", "a", "1",
		"-D", "publish", "user-property", "b", "3", "-D", "publish", "content-type", "text/plain", "-D", "publish", "payload-format-indicator", "1",
		"-D", "publish", "response-topic", "answers", "-D", "publish", "correlation-data", "c-1", "-D", "publish", "message-expiry-interval", "600")
	got := sub.await(t, "props/a", 1)
	for _, want := range []string{"full ", "type=text/plain", "format=1", "response=answers", "correlation=c-1", "user=b:2 a:1 b:3"} {
		if !strings.Contains(got, want) {
			t.Errorf("message: got %q, want %q in it", got, want)
		}
	}
	if found := expiryOf.FindStringSubmatch(got); found == nil || len(found[1]) != 3 {
		t.Errorf("message: got %q, want an expiry of nearly 600 s", got)
	}
	// What expires while a session is away isn't delivered, and what doesn't is.
	s.one.listen(t, "late", keptArgs("5"), "late/#").kill()
	s.one.listen(t, "late-old", keptArgs("311"), "late/#").kill()
	s.one.tell(t, "5", "late/a", "-m", "expires", "-D", "publish", "message-expiry-interval", "1")
	s.one.tell(t, "5", "late/a", "-m", "retained, expires", "-r", "-D", "publish", "message-expiry-interval", "1")
	s.one.tell(t, "5", "late/a", "-m", "stays", "-D", "publish", "message-expiry-interval", "600")
	awaitSeconds(t, 2)
	for id, version := range map[string]string{"late": "5", "late-old": "311"} {
		again := s.one.listen(t, id, keptArgs(version), "late/a")
		s.one.tell(t, version, "late/a", "-m", "end "+id)
		again.said.wait(t, "the last message", func(text string) bool { return strings.Contains(text, "end "+id+"\n") })
		list := messages(again.said.String(), "late/a")
		if list[0] != "stays" || slices.Contains(list, "expires") || slices.Contains(list, "retained, expires") {
			t.Errorf("messages to %s: got %q, want none that has expired", id, list)
		}
	}
}

func TestMosquittosQoS2IsRefused(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	forMosquitto(t, func(t *testing.T, version, prefix string) {
		run := s.publish(t, s.one.device, prefix+"-pub", prefix, "-V", version, "-q", "2")
		// An MQTT 5 client knows from CONNACK; it ends without an error of its own.
		told := strings.Contains(run.all(), "QoS not supported")
		if run.exit == 0 && !told || strings.Contains(run.all(), "received PUBREC") {
			t.Errorf("PUBLISH with QoS 2: got exit code %d, want a refusal\n%s", run.exit, run.all())
		}
		sub := s.trySubscribe(t, s.one.device, prefix+"-sub", []string{"-V", version, "-q", "2"}, prefix)
		checkEnded(t, s.awaitExplained(t, prefix+"-sub", 1), "QoSNotSupported")
		sub.kill()
	})
}

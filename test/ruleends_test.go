package test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func readBody(r *http.Request) string {
	data, _ := io.ReadAll(r.Body)
	return string(data)
}

// confirm opens the enableUrl of a confirmation. Whether that works shows by the
// destination's status.
func confirm(client *http.Client, body string) {
	var m struct {
		EnableURL string `json:"enableUrl"`
	}
	_ = json.Unmarshal([]byte(body), &m)
	answer, err := client.Get(m.EnableURL)
	if err == nil {
		_ = answer.Body.Close()
	}
}

// ownDestination makes a destination and waits until its owner has confirmed it.
func (s *server) ownDestination(t *testing.T, dir, before, url string) string {
	t.Helper()
	run := s.shell(t, dir, before+"aws iot create-topic-rule-destination --destination-configuration httpUrlConfiguration={confirmationUrl="+url+"} --query topicRuleDestination.arn --output text")
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	destination := strings.TrimSpace(run.stdout)
	until(t, "the destination's confirmation", func() bool {
		run := s.shell(t, dir, before+"aws iot get-topic-rule-destination --arn "+destination+" --query topicRuleDestination.status --output text")
		return strings.TrimSpace(run.stdout) == "ENABLED"
	})
	return destination
}

// TestHTTPDeliveriesOutliveAKill ensures that a delivery arrives whose server was
// killed while the other side took its time, or after it said that it can't.
func TestHTTPDeliveriesOutliveAKill(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	owner := own(t, s.httpClient(t))
	s.ownDestination(t, dir, "", owner.URL+"/in")
	s.aws(t, dir, `iot create-topic-rule --rule-name post --topic-rule-payload '{"awsIotSqlVersion":"2016-03-23","sql":"SELECT * FROM '"'in'"'","actions":[{"http":{"url":"`+owner.URL+`/in/x"}}]}'`)
	d := s.watcher(t)
	for _, c := range []struct {
		name   string
		status int // before the kill; 0: no answer
	}{{"slow", 0}, {"unavailable", http.StatusServiceUnavailable}, {"throttled", http.StatusTooManyRequests}} {
		delivery := `/in/x {"case":"` + c.name + `"}`
		owner.set(func(string) int { return c.status })
		s.publishLines(t, d, "sender", "in", []string{`{"case":"` + c.name + `"}`})
		until(t, "the first try of "+c.name, func() bool { return owner.times(delivery) >= 1 })
		if c.status != 0 {
			until(t, "the failure to be written down", func() bool { return s.metric(t, `imprint_rule_actions_total{action="http",outcome="retried"}`) > 0 })
		}
		s.signal(killed)
		before := owner.times(delivery)
		owner.set(func(string) int { return http.StatusOK })
		s.start()
		until(t, "the delivery of "+c.name+" after the kill", func() bool { return owner.times(delivery) == before+1 })
		until(t, "it to be done", func() bool { return s.metric(t, `imprint_rule_actions_total{action="http",outcome="done"}`) == 1 })
	}
	// Nothing is owed any more: a further start delivers nothing of it.
	s.restart()
	s.publishLines(t, d, "sender", "in", []string{`{"case":"last"}`})
	until(t, "the last delivery", func() bool { return owner.times(`/in/x {"case":"last"}`) == 1 })
	if got := s.metric(t, `imprint_rule_actions_total{action="http",outcome="done"}`); got != 1 {
		t.Errorf("after the last start %v deliveries were made, want one", got)
	}
}

// TestRepublishedMessagesHaveTheirHeadersOnTheWire ensures that an MQTT 5 client
// that isn't ours sees each property that a rule sets, from constants and from the
// message that caused it, and none that it doesn't set.
func TestRepublishedMessagesHaveTheirHeadersOnTheWire(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "full.json"), `{"awsIotSqlVersion":"2016-03-23","sql":"SELECT n FROM 'in/+'","actions":[{"republish":{
 "roleArn":"arn:aws:iam::000000000000:role/r","topic":"full","qos":1,"headers":{
  "payloadFormatIndicator":"UTF8_DATA","contentType":"application/json","responseTopic":"answers/${topic(2)}",
  "correlationData":"`+base64.StdEncoding.EncodeToString([]byte("call-7"))+`","messageExpiry":"300",
  "userProperties":[{"key":"client","value":"${clientid()}"},{"key":"twice","value":"1"},{"key":"twice","value":"2"}]}}}]}`)
	writeFile(t, filepath.Join(dir, "passed.json"), `{"awsIotSqlVersion":"2016-03-23","sql":"SELECT n FROM 'in/+'","actions":[{"republish":{
 "roleArn":"arn:aws:iam::000000000000:role/r","topic":"passed","qos":1,"headers":{
  "contentType":"${get_mqtt_property('content_type')}","responseTopic":"${get_mqtt_property('response_topic')}",
  "correlationData":"${get_mqtt_property('correlation_data')}","payloadFormatIndicator":"${get_mqtt_property('format_indicator')}",
  "userProperties":[{"key":"from","value":"${get_user_properties('from')}"}]}}},
 {"republish":{"roleArn":"arn:aws:iam::000000000000:role/r","topic":"bare","qos":1}}]}`)
	for _, name := range []string{"full", "passed"} {
		s.aws(t, dir, "iot create-topic-rule --rule-name "+name+" --topic-rule-payload file://"+name+".json")
	}
	d := s.watcher(t)
	sub := s.trySubscribe(t, d, "watch", []string{"-V", "5", "-F", "message %t format=%F type=%C answer=%R correlation=%D expiry=%E user=%P payload=%p"}, "full", "passed", "bare")
	sub.said.wait(t, "SUBACK", func(text string) bool { return strings.Contains(text, "received SUBACK") })
	args := append(s.mosquittoArgs(d, "sender"), "-V", "5", "-q", "1", "-t", "in/1", "-m", `{"n":1,"m":2}`,
		"-D", "publish", "content-type", "text/plain", "-D", "publish", "response-topic", "back/1", "-D", "publish", "correlation-data", "own-1",
		"-D", "publish", "payload-format-indicator", "1", "-D", "publish", "message-expiry-interval", "60", "-D", "publish", "user-property", "from", "north")
	run := runTool(t, "", cleanEnv(), "mosquitto_pub", args...)
	if run.exit != 0 {
		t.Fatalf("mosquitto_pub: exit code %d\n%s", run.exit, run.all())
	}
	for topic, want := range map[string]string{
		"full":   `format=1 type=application/json answer=answers/1 correlation=call-7 expiry=300 user=client:sender twice:1 twice:2 payload={"n":1}`,
		"passed": `format=1 type=text/plain answer=back/1 correlation=own-1 expiry= user=from:north payload={"n":1}`,
		"bare":   `format= type= answer= correlation= expiry= user= payload={"n":1}`,
	} {
		if got := sub.await(t, topic, 1); got != want {
			t.Errorf("%s:\n got %s\nwant %s", topic, got, want)
		}
	}
	// A client of MQTT 3.1.1 gets the payload of the same message.
	old := s.subscribe(t, d, "old", "full")
	s.publishLines(t, d, "sender", "in/2", []string{`{"n":3}`})
	if got := old.await(t, "full", 1); got != `{"n":3}` {
		t.Errorf("with MQTT 3.1.1: got %s", got)
	}
	if got, want := sub.await(t, "full", 2), "answer=answers/2 "; !strings.Contains(got, want) {
		t.Errorf("the second message: got %s, want %s", got, want)
	}
	// What can't be a property is refused, or goes to the error action.
	for headers, want := range map[string]string{
		`{"payloadFormatIndicator":"JSON"}`: "UTF8_DATA", `{"correlationData":"not base64!"}`: "base64",
	} {
		run := s.shell(t, dir, `aws iot create-topic-rule --rule-name bad --topic-rule-payload '{"awsIotSqlVersion":"2016-03-23","sql":"SELECT * FROM '"'a'"'","actions":[{"republish":{"roleArn":"arn:aws:iam::000000000000:role/r","topic":"t","headers":`+headers+`}}]}'`)
		if run.exit == 0 || !strings.Contains(run.all(), want) {
			t.Errorf("headers %s: got exit code %d and %s, want %s", headers, run.exit, run.all(), want)
		}
	}
}

// ruleTwins are two accounts of one server with rules, functions, destinations,
// clients and topics of the same names.
type ruleTwins struct {
	*server
	dir           string
	owner         *slowOwner
	one, two      tenancy
	first, second *wire             // a client of each
	destinations  map[string]string // by the account's host
}

// newRuleTwins makes them. The owner takes no delivery of the first account.
func newRuleTwins(t *testing.T) *ruleTwins {
	t.Helper()
	w := &ruleTwins{dir: functionDir(t), server: startServer(t, "--private-addresses", "--rule-deliveries", "3", "--rule-delivery-age", "1h")}
	w.one, w.two = w.twoAccounts(t)
	w.owner = own(t, w.httpClient(t))
	d := selfSigned(t, "shared")
	w.destinations = w.twinRules(t, w.dir, d, w.owner.URL, w.one, w.two)
	w.first, w.second = w.connectAs(t, d, w.one.host, "twin"), w.connectAs(t, d, w.two.host, "twin")
	for _, client := range []*wire{w.first, w.second} {
		client.subscribe(at1("out"), at1("errors"))
	}
	w.owner.set(func(body string) int {
		if strings.Contains(body, "of-one") {
			return http.StatusServiceUnavailable // for good
		}
		return http.StatusOK
	})
	return w
}

// selected is what the rules make of a value.
func selected(value string) string { return `{"do":"iot","value":"` + value + `"}` }

// delivered says how often the owner was posted a value.
func (w *ruleTwins) delivered(value string) int { return w.owner.times("/in/x " + selected(value)) }

// TestRulesOfTwoTenantsNeverMeet ensures that rules, functions, destinations and
// deliveries of the same names in two accounts have nothing to do with each other:
// neither their messages, nor their calls, nor their bounds.
func TestRulesOfTwoTenantsNeverMeet(t *testing.T) {
	need(t, "openssl", "aws", "bash")
	t.Parallel()
	w := newRuleTwins(t)
	// The first account's destination covers the URL, and isn't the second's.
	w.as(t, w.two, w.dir, "iot update-topic-rule-destination --arn "+w.destinations[w.two.host]+" --status DISABLED")
	w.second.say("in", `{"value":"of-two-0"}`)
	checkBoth(t, w.second, selected("of-two-0"), "no enabled destination")
	w.as(t, w.two, w.dir, "iot update-topic-rule-destination --arn "+w.destinations[w.two.host]+" --status ENABLED")

	w.checkBounds()
	// Basic Ingest goes to the rule of the device's own account.
	w.first.say("$aws/rules/same/x", `{"value":"of-one-5"}`)
	checkBoth(t, w.first, selected("of-one-5"), "as many deliveries of")
	w.second.expectNothing()

	w.checkThings(t, w.one, w.dir, "of-one-1 of-one-2 of-one-3 of-one-4 of-one-5")
	w.checkThings(t, w.two, w.dir, "of-two-0 of-two-1 of-two-2 of-two-3 of-two-4 of-two-5")
	w.checkChanges()
	w.first.expectNothing()
	w.second.expectNothing()
}

// checkBounds ensures that the second account goes on while the first owes as much
// as it may.
func (w *ruleTwins) checkBounds() {
	t := w.t
	t.Helper()
	for _, value := range []string{"of-one-1", "of-one-2", "of-one-3"} {
		w.first.say("in", `{"value":"`+value+`"}`)
		w.first.expect(selected(value))
	}
	until(t, "all tries of the first account", func() bool {
		return w.delivered("of-one-1") > 0 && w.delivered("of-one-2") > 0 && w.delivered("of-one-3") > 0
	})
	w.first.say("in", `{"value":"of-one-4"}`)
	checkBoth(t, w.first, selected("of-one-4"), "as many deliveries of")
	for _, value := range []string{"of-two-1", "of-two-2", "of-two-3", "of-two-4", "of-two-5"} {
		w.second.say("in", `{"value":"`+value+`"}`)
		w.second.expect(selected(value))
		until(t, "the delivery of the second account", func() bool { return w.delivered(value) == 1 })
	}
	w.first.expectNothing()
	w.second.expectNothing()
}

// checkChanges ensures that what one account does to its rule and function is
// nothing to the other's.
func (w *ruleTwins) checkChanges() {
	t := w.t
	t.Helper()
	w.as(t, w.one, w.dir, "iot disable-topic-rule --rule-name same")
	w.as(t, w.one, w.dir, "lambda delete-function --function-name f")
	w.first.say("in", `{"value":"of-one-6"}`)
	w.second.say("in", `{"value":"of-two-6"}`)
	w.second.expect(selected("of-two-6"))
	w.checkThings(t, w.two, w.dir, "of-two-0 of-two-1 of-two-2 of-two-3 of-two-4 of-two-5 of-two-6")
	w.as(t, w.one, w.dir, "iot delete-topic-rule --rule-name same")
	if got := w.as(t, w.two, w.dir, "iot get-topic-rule --rule-name same --query rule.ruleDisabled"); got != "false" {
		t.Errorf("the second account's rule after the first's is deleted: disabled is %s, want false", got)
	}
}

// twinRules gives each account the same rule, with a function and a destination of
// the same names, and gives the destinations by the account's host.
func (s *server) twinRules(t *testing.T, dir string, d *device, owner string, tenancies ...tenancy) map[string]string {
	t.Helper()
	destinations := map[string]string{}
	for _, a := range tenancies {
		a.register(t, d)
		destinations[a.host] = s.ownDestination(t, dir, as(a.key), owner+"/in")
		account := accountOf(a, tenancies[0])
		s.as(t, a, dir, createFunction+" --timeout 60 --query State")
		s.as(t, a, dir, "lambda add-permission --function-name f --statement-id s --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn arn:aws:iot:us-east-1:"+account+":rule/same --query Statement")
		// The function makes a thing in the account whose credentials it was given.
		writeFile(t, filepath.Join(dir, "rule.json"), `{"awsIotSqlVersion":"2016-03-23","sql":"SELECT 'iot' AS do, value FROM 'in'","actions":[
 {"lambda":{"functionArn":"arn:aws:lambda:us-east-1:`+account+`:function:f"}},
 {"republish":{"roleArn":"arn:aws:iam::`+account+`:role/r","topic":"out","qos":1}},
 {"http":{"url":"`+owner+`/in/x","confirmationUrl":"`+owner+`/in"}}],
 "errorAction":{"republish":{"roleArn":"arn:aws:iam::`+account+`:role/r","topic":"errors","qos":1}}}`)
		s.as(t, a, dir, "iot create-topic-rule --rule-name same --topic-rule-payload file://rule.json")
	}
	return destinations
}

// accountOf gives the account's number.
func accountOf(a, home tenancy) string {
	if a.host == home.host {
		return "000000000000"
	}
	return "111111111111"
}

// as runs the AWS CLI with an account's key.
func (s *server) as(t *testing.T, a tenancy, dir, command string) string {
	t.Helper()
	run := s.shell(t, dir, as(a.key)+"aws "+command)
	if run.exit != 0 {
		t.Fatalf("aws %s: exit code %d\n%s", command, run.exit, run.all())
	}
	return strings.TrimSpace(run.stdout)
}

// checkBoth takes the republished message and that of the error action, in
// whatever order they come.
func checkBoth(t *testing.T, w *wire, payload, failure string) {
	t.Helper()
	var failed, republished bool
	for range 2 {
		m := w.receive()
		switch string(m.Topic) {
		case "out":
			republished = string(m.Payload) == payload
		case "errors":
			failed = strings.Contains(string(m.Payload), failure) && strings.Contains(string(m.Payload), "HttpAction")
		}
		if !republished && !failed {
			t.Errorf("on %s: got %s", m.Topic, m.Payload)
		}
	}
	if !republished || !failed {
		t.Errorf("got republished %t and the failure %q %t, want both", republished, failure, failed)
	}
}

// checkThings waits for the things that an account's function made.
func (s *server) checkThings(t *testing.T, a tenancy, dir, want string) {
	t.Helper()
	got := ""
	until(t, "the things "+want, func() bool {
		got = s.as(t, a, dir, "iot list-things --query 'sort(things[].thingName)' --output text")
		return len(strings.Fields(got)) >= len(strings.Fields(want))
	})
	if got = strings.Join(strings.Fields(got), " "); got != want {
		t.Errorf("things of %s: got %s, want %s", a.host, got, want)
	}
}

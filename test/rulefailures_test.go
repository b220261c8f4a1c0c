package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestAFailingRuleSaysWhyInItsOwnAccount ensures that a failure goes to the rule's
// error action and to nobody else: of two accounts with a rule and a function of the
// same names, one lacks the permission, and its function doesn't run. The fix that
// the log names mends it.
func TestAFailingRuleSaysWhyInItsOwnAccount(t *testing.T) {
	need(t, "openssl", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	one, two := s.twoAccounts(t)
	dir, d := functionDir(t), selfSigned(t, "shared")
	var clients []*wire
	for _, a := range []tenancy{one, two} {
		a.register(t, d)
		account := accountOf(a, one)
		permitted := "same"
		if a.host == two.host {
			permitted = "another"
		}
		s.as(t, a, dir, createFunction+" --timeout 60 --query State")
		s.as(t, a, dir, "lambda add-permission --function-name f --statement-id s --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn arn:aws:iot:us-east-1:"+account+":rule/"+permitted+" --query Statement")
		writeFile(t, filepath.Join(dir, "rule.json"), `{"awsIotSqlVersion":"2016-03-23","sql":"SELECT * FROM 'in'",
 "actions":[{"lambda":{"functionArn":"arn:aws:lambda:us-east-1:`+account+`:function:f"}}],
 "errorAction":{"republish":{"roleArn":"arn:aws:iam::`+account+`:role/r","topic":"errors","qos":1}}}`)
		s.as(t, a, dir, "iot create-topic-rule --rule-name same --topic-rule-payload file://rule.json")
		w := s.connectAs(t, d, a.host, "twin")
		w.subscribe(at1("errors"), at1("out"))
		clients = append(clients, w)
	}
	first, second := clients[0], clients[1]
	first.say("in", selected("of-one"))
	second.say("in", selected("of-two"))
	want := "no permission of arn:aws:lambda:us-east-1:111111111111:function:f lets iot.amazonaws.com invoke it"
	if got := string(second.receive().Payload); !strings.Contains(got, want) || !strings.Contains(got, `"failedAction":"LambdaAction"`) {
		t.Errorf("the error action's message: got %s, want %q", got, want)
	}
	s.checkThings(t, one, dir, "of-one")
	s.checkThings(t, two, dir, "")
	first.expectNothing()
	log := s.stderr.wait(t, "the fix in the log", func(text string) bool { return strings.Contains(text, "aws lambda add-permission") })
	if !strings.Contains(log, "111111111111") {
		t.Errorf("the log doesn't name the account:\n%s", log)
	}
	s.as(t, two, dir, "lambda add-permission --function-name f --statement-id fix --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn arn:aws:iot:us-east-1:111111111111:rule/same --query Statement")
	second.say("in", selected("of-two"))
	s.checkThings(t, two, dir, "of-two")

	// What isn't JSON can't be a function's event; encoded it can.
	first.say("in", "\x00\xff")
	if got := string(first.receive().Payload); !strings.Contains(got, "the message isn't JSON") {
		t.Errorf("a binary message for a function: got %s", got)
	}
	s.as(t, one, dir, `iot replace-topic-rule --rule-name same --topic-rule-payload '{"awsIotSqlVersion":"2016-03-23","sql":"SELECT encode(*, '"'base64') AS data FROM 'in'"'","actions":[
 {"lambda":{"functionArn":"arn:aws:lambda:us-east-1:000000000000:function:f"}},{"republish":{"roleArn":"arn:aws:iam::000000000000:role/r","topic":"out","qos":1}}],
 "errorAction":{"republish":{"roleArn":"arn:aws:iam::000000000000:role/r","topic":"errors","qos":1}}}'`)
	first.say("in", "\x00\xff")
	first.expect(`{"data":"AP8="}`)
	first.expectNothing()
	second.expectNothing()
}

package test

import (
	"archive/zip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// buildFunction compiles an AWS Lambda function of this package into the zip that
// the AWS CLI uploads.
func buildFunction(t *testing.T, dir, source string) string {
	t.Helper()
	bootstrap := filepath.Join(dir, "bootstrap")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", bootstrap, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("couldn't build %s: %v\n%s", source, err, out)
	}
	binary, err := os.ReadFile(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "function.zip")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(file)
	part, err := w.Create("bootstrap")
	if err == nil {
		_, err = part.Write(binary)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// awaitStatus waits until a certificate has a status.
func (s *server) awaitStatus(t *testing.T, dir, id, want string) {
	t.Helper()
	until(t, "certificate "+id+" is "+want, func() bool {
		return s.aws(t, dir, "iot describe-certificate --certificate-id "+id+" --query certificateDescription.status --output text") == want
	})
}

// jitrRule invokes the function for each registered certificate, and lets
// subscribers see the events that rules see.
const jitrRule = `{"sql":"SELECT * FROM '$aws/events/certificates/registered/+'","awsIotSqlVersion":"2016-03-23",
 "actions":[{"lambda":{"functionArn":"arn:aws:lambda:us-east-1:000000000000:function:jitr"}},
  {"republish":{"roleArn":"arn:aws:iam::000000000000:role/rules","topic":"seen/${caCertificateId}/${certificateId}","qos":1}}]}`

// TestAFunctionActivatesJITRDevices is just-in-time registration end to end: the
// AWS CLI sets it up, an AWS Lambda function decides, devices come again.
func TestAFunctionActivatesJITRDevices(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	code := buildFunction(t, dir, "./jitrfunction")
	f := newFactory(t, "JITR line", "P-256")
	registration := s.aws(t, dir, "iot get-registration-code --query registrationCode --output text")
	caID := s.aws(t, dir, "iot register-ca-certificate --ca-certificate file://"+f.cert+" --verification-certificate file://"+
		f.verification(t, registration)+" --set-as-active --allow-auto-registration --query certificateId --output text")
	early, good, bad := f.device(t, "early", "P-256"), f.device(t, "good", "P-256"), f.device(t, "bad", "P-256")

	// Nobody listens yet: the certificate waits.
	checkSilentClose(t, s.publish(t, early, "early", "d/early/x"))
	s.awaitStatus(t, dir, early.id(t), "PENDING_ACTIVATION")

	s.aws(t, dir, "lambda create-function --function-name jitr --runtime provided.al2023 --handler bootstrap --role arn:aws:iam::000000000000:role/x"+
		" --timeout 30 --environment 'Variables={ALLOWED=SN-early:SN-good}' --zip-file fileb://"+code)
	s.aws(t, dir, "lambda add-permission --function-name jitr --statement-id rules --action lambda:InvokeFunction --principal iot.amazonaws.com"+
		" --source-arn arn:aws:iot:us-east-1:000000000000:rule/jitr")
	writeFile(t, filepath.Join(dir, "rule.json"), jitrRule)
	s.aws(t, dir, "iot create-topic-rule --rule-name jitr --topic-rule-payload file://rule.json")
	watch := s.subscribe(t, s.watcher(t), "watch", "seen/#")

	// The event comes again with the next CONNECT, and the rule sees it.
	checkSilentClose(t, s.publish(t, early, "early", "d/early/x"))
	again := watch.awaitJSON(t, "seen/"+caID+"/"+early.id(t), 1)
	if got := again["certificateStatus"]; got != "PENDING_ACTIVATION" {
		t.Errorf("the repeated event says %v, want PENDING_ACTIVATION", got)
	}
	s.awaitStatus(t, dir, early.id(t), "ACTIVE")
	checkAccepted(t, s.publish(t, early, "early", "d/early/x"))

	checkSilentClose(t, s.publish(t, good, "good", "d/good/x"))
	s.awaitStatus(t, dir, good.id(t), "ACTIVE")
	checkAccepted(t, s.publish(t, good, "good", "d/good/x"))
	if got := s.aws(t, dir, "iot list-thing-principals --thing-name good --query principals[0] --output text"); !strings.HasSuffix(got, good.id(t)) {
		t.Errorf("principal of the thing good: got %s, want certificate %s", got, good.id(t))
	}
	checkRuleSteps(t, s, good.id(t))

	checkSilentClose(t, s.publish(t, bad, "bad", "d/bad/x"))
	s.awaitStatus(t, dir, bad.id(t), "REVOKED")
	checkSilentClose(t, s.publish(t, bad, "bad", "d/bad/x"))
	checkRefused(t, s.awaitExplained(t, bad.id(t), 1), "certificate", "CertificateRevoked")

	// Devices of a line with a template cause the event, too.
	s.createPolicy(t, "templated", devicePolicy)
	line := newFactory(t, "JITP line", "P-256")
	lineID := s.registerCA(t, line, withTemplate(jitpTemplate("templated", "")))
	joined := line.device(t, "joined", "P-256")
	s.join(t, joined)
	watch.awaitJSON(t, "seen/"+lineID+"/"+joined.id(t), 1)
	checkRuleMetrics(t, s.metrics(t))
}

// TestAFunctionChecksTheCAsRevocationList ensures that a function which fetches the CRL of a
// device's CA decides by it, and that a certificate waits as long as it can't: with a list
// that isn't the CA's nothing is activated.
func TestAFunctionChecksTheCAsRevocationList(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	code := buildFunction(t, dir, "./jitrfunction")
	f, stranger := newFactory(t, "CRL line", "P-256"), newFactory(t, "Another line", "P-256")
	s.registerCA(t, f, func(*iot.RegisterCACertificateInput) {})
	good, lost, late := f.device(t, "good", "P-256"), f.device(t, "lost", "P-256"), f.device(t, "late", "P-256")
	list := filepath.Join(dir, "served.crl")
	second := []string{"-crlexts", "list"}
	f.revocationList(t, list, second, lost)
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, list) }))
	t.Cleanup(served.Close)
	s.aws(t, dir, "lambda create-function --function-name jitr --runtime provided.al2023 --handler bootstrap --role arn:aws:iam::000000000000:role/x"+
		" --timeout 30 --environment 'Variables={CRL_URL="+served.URL+"}' --zip-file fileb://"+code)
	s.aws(t, dir, "lambda add-permission --function-name jitr --statement-id rules --action lambda:InvokeFunction --principal iot.amazonaws.com"+
		" --source-arn arn:aws:iot:us-east-1:000000000000:rule/jitr")
	writeFile(t, filepath.Join(dir, "rule.json"), jitrRule)
	s.aws(t, dir, "iot create-topic-rule --rule-name jitr --topic-rule-payload file://rule.json")

	checkSilentClose(t, s.publish(t, lost, "lost", "d/lost/x"))
	checkSilentClose(t, s.publish(t, good, "good", "d/good/x"))
	s.awaitStatus(t, dir, lost.id(t), "REVOKED")
	s.awaitStatus(t, dir, good.id(t), "ACTIVE")
	checkAccepted(t, s.publish(t, good, "good", "d/good/x"))

	stranger.revocationList(t, list, second)
	checkSilentClose(t, s.publish(t, late, "late", "d/late/x"))
	until(t, "the function's failure", func() bool {
		run := s.imprint(t, "explain", "--json", late.id(t))
		return run.exit == 0 && strings.Contains(run.stdout, "the list isn't the CA's")
	})
	s.awaitStatus(t, dir, late.id(t), "PENDING_ACTIVATION")
	f.revocationList(t, list, second)
	checkSilentClose(t, s.publish(t, late, "late", "d/late/x"))
	s.awaitStatus(t, dir, late.id(t), "ACTIVE")
}

func checkAccepted(t *testing.T, run mosquittoRun) {
	t.Helper()
	if run.exit != 0 || run.connack != 0 || run.puback != 0 {
		t.Fatalf("got exit code %d, CONNACK %d, PUBACK %d; want 0, 0, 0\n%s", run.exit, run.connack, run.puback, run.all())
	}
}

// checkRuleSteps says whether the trace of a first connection tells what the rule
// and the function did.
func checkRuleSteps(t *testing.T, s *server, id string) {
	t.Helper()
	until(t, "the trace has the rule and the function's log", func() bool {
		run := s.imprint(t, "explain", "--json", id)
		return run.exit == 0 && strings.Contains(run.stdout, "rule jitr: lambda to") && strings.Contains(run.stdout, "on the list: SN-good")
	})
}

// checkRuleMetrics says whether /metrics counts what the rule did.
func checkRuleMetrics(t *testing.T, text string) {
	t.Helper()
	for _, want := range []string{
		`imprint_rule_actions_total{action="lambda",outcome="done"} `, `imprint_rule_actions_total{action="republish",outcome="done"} `,
		"imprint_rule_selected_total ", "imprint_rule_waiting 0",
	} {
		if !strings.Contains(text, want) || strings.Contains(text, want+"0\n") && !strings.HasSuffix(want, "0") {
			t.Errorf("/metrics has no %q above 0", want)
		}
	}
}

// TestTheCLIHandlesTopicRules ensures that each command about rules works, and
// fails as on AWS IoT Core.
func TestTheCLIHandlesTopicRules(t *testing.T) {
	need(t, "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "rule.json"), strings.Replace(jitrRule, `{"sql"`, `{"description":"for tests","errorAction":{"republish":{"roleArn":"arn:aws:iam::000000000000:role/rules","topic":"errors"}},"sql"`, 1))
	s.aws(t, dir, "iot create-topic-rule --rule-name one --topic-rule-payload file://rule.json --tags 'team=line&empty='")
	var got struct {
		Arn  string `json:"ruleArn"`
		Rule struct {
			Name        string           `json:"ruleName"`
			SQL         string           `json:"sql"`
			Description string           `json:"description"`
			Disabled    bool             `json:"ruleDisabled"`
			Version     string           `json:"awsIotSqlVersion"`
			Actions     []map[string]any `json:"actions"`
			ErrorAction map[string]any   `json:"errorAction"`
		} `json:"rule"`
	}
	read := func() {
		t.Helper()
		err := json.Unmarshal([]byte(s.aws(t, dir, "iot get-topic-rule --rule-name one --output json")), &got)
		if err != nil {
			t.Fatal(err)
		}
	}
	read()
	if got.Arn != arn+"rule/one" || got.Rule.Name != "one" || got.Rule.Description != "for tests" || got.Rule.Version != "2016-03-23" ||
		got.Rule.Disabled || len(got.Rule.Actions) != 2 || got.Rule.Actions[1]["republish"] == nil || got.Rule.ErrorAction["republish"] == nil {
		t.Errorf("get-topic-rule: got %+v", got)
	}
	if tags := s.aws(t, dir, "iot list-tags-for-resource --resource-arn "+got.Arn+" --query 'tags[].[Key,Value]' --output text"); !strings.Contains(tags, "team\tline") {
		t.Errorf("tags of the rule: got %q, want team=line", tags)
	}
	s.aws(t, dir, "iot disable-topic-rule --rule-name one")
	read()
	if !got.Rule.Disabled {
		t.Error("the rule isn't disabled after disable-topic-rule")
	}
	if list := s.aws(t, dir, "iot list-topic-rules --rule-disabled --query 'rules[].[ruleName,topicPattern]' --output text"); list != "one\t$aws/events/certificates/registered/+" {
		t.Errorf("disabled rules: got %q", list)
	}
	if list := s.aws(t, dir, "iot list-topic-rules --topic other/topic --query 'rules[].ruleName' --output text"); list != "" {
		t.Errorf("rules for other/topic: got %q, want none", list)
	}
	s.aws(t, dir, "iot enable-topic-rule --rule-name one")
	s.aws(t, dir, `iot replace-topic-rule --rule-name one --topic-rule-payload '{"sql":"SELECT a FROM '"'a/b'"'","actions":[]}'`)
	read()
	if got.Rule.SQL != "SELECT a FROM 'a/b'" || got.Rule.Version != "2015-10-08" || len(got.Rule.Actions) != 0 {
		t.Errorf("after replace-topic-rule: got %+v", got.Rule)
	}
	s.checkRuleRefusals(t, dir)
	// Another account has no such rule, whatever it does.
	_, other := s.twoAccounts(t)
	if list := s.as(t, other, dir, "iot list-topic-rules --query 'rules[].ruleName' --output text"); list != "" {
		t.Errorf("another account's rules: got %q, want none", list)
	}
	if run := s.shell(t, dir, as(other.key)+"aws iot delete-topic-rule --rule-name one"); run.exit == 0 || !strings.Contains(run.all(), "UnauthorizedException") {
		t.Errorf("another account deletes the rule: got exit code %d and %s", run.exit, run.all())
	}
	s.aws(t, dir, "iot delete-topic-rule --rule-name one")
	if list := s.aws(t, dir, "iot list-topic-rules --query 'rules[].ruleName' --output text"); list != "" {
		t.Errorf("rules after delete-topic-rule: got %q, want none", list)
	}
}

// checkRuleRefusals looks at what the commands about rules are refused; there is a
// rule named one.
func (s *server) checkRuleRefusals(t *testing.T, dir string) {
	t.Helper()
	for command, want := range map[string][]string{
		"iot get-topic-rule --rule-name none":                                                               {"UnauthorizedException", "Access to topic rule 'none' was denied"},
		"iot delete-topic-rule --rule-name none":                                                            {"UnauthorizedException"},
		"iot enable-topic-rule --rule-name none":                                                            {"UnauthorizedException"},
		"iot create-topic-rule --rule-name one --topic-rule-payload file://rule.json":                       {"ResourceAlreadyExistsException"},
		`iot create-topic-rule --rule-name two --topic-rule-payload '{"sql":"SELECT FROM x","actions":[]}'`: {"SqlParseException", "line 1, column"},
		`iot create-topic-rule --rule-name two --topic-rule-payload '{"sql":"SELECT * FROM '"'a'"'","actions":[{"sqs":{"roleArn":"arn:aws:iam::000000000000:role/r","queueUrl":"https://example.com"}}]}'`: {"InvalidRequestException", "this server has no sqs action", "lambda, republish, http"},
		`iot create-topic-rule --rule-name two --topic-rule-payload '{"sql":"SELECT * FROM '"'a'"'","actions":[{"firehose":{"roleArn":"arn:aws:iam::000000000000:role/r","deliveryStreamName":"none"}}]}'`: {"InvalidRequestException", "no sink of that name"},
	} {
		run := s.shell(t, dir, "aws "+command)
		for _, text := range want {
			if run.exit == 0 || !strings.Contains(run.all(), text) {
				t.Errorf("aws %s: got exit code %d and %s, want %s", command, run.exit, run.all(), text)
			}
		}
	}
}

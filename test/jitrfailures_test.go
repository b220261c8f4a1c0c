package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/mqtt"
)

// jitrLine is a CA without a template in each of a server's two accounts, and a
// function that decides about its devices.
type jitrLine struct {
	*server
	factory  *factory
	dir      string
	code     string // zip of the function
	one, two tenancy
	caID     string // the same in both
}

func newJITRLine(t *testing.T) *jitrLine {
	t.Helper()
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	l := &jitrLine{server: startServer(t), factory: newFactory(t, "JITR line", "P-256"), dir: t.TempDir()}
	l.code = buildFunction(t, l.dir, "./jitrfunction")
	l.one, l.two = l.twoAccounts(t)
	for _, a := range []tenancy{l.one, l.two} {
		out := must(a.api.RegisterCACertificate(t.Context(), &iot.RegisterCACertificateInput{
			CaCertificate: aws.String(readFile(t, l.factory.cert)), CertificateMode: types.CertificateModeSniOnly, SetAsActive: true, AllowAutoRegistration: true,
		}))(t)
		l.caID = aws.ToString(out.CertificateId)
	}
	return l
}

// createFunction puts the function jitr into an account, with variables of its
// environment.
func (l *jitrLine) createFunction(t *testing.T, a tenancy, variables string) {
	t.Helper()
	l.as(t, a, l.dir, "lambda create-function --function-name jitr --runtime provided.al2023 --handler bootstrap --role arn:aws:iam::000000000000:role/x"+
		" --timeout 30 --environment 'Variables={"+variables+"}' --zip-file fileb://"+l.code)
}

// permit lets the account's rule jitr invoke its function.
func (l *jitrLine) permit(t *testing.T, a tenancy) {
	t.Helper()
	l.as(t, a, l.dir, "lambda add-permission --function-name jitr --statement-id rules --action lambda:InvokeFunction --principal iot.amazonaws.com"+
		" --source-arn arn:aws:iot:us-east-1:"+accountOf(a, l.one)+":rule/jitr")
}

// createRule makes the account's rule jitr.
func (l *jitrLine) createRule(t *testing.T, a tenancy) {
	t.Helper()
	writeFile(t, filepath.Join(l.dir, "rule.json"), strings.ReplaceAll(jitrRule, "000000000000", accountOf(a, l.one)))
	l.as(t, a, l.dir, "iot create-topic-rule --rule-name jitr --topic-rule-payload file://rule.json")
}

// first connects and is closed without an answer, as while a certificate isn't
// ACTIVE.
func (l *jitrLine) first(t *testing.T, a tenancy, d *device, clientID string) {
	t.Helper()
	w := l.dialAs(t, d, a.host)
	err := w.tryConnect(mqtt.Connect{ClientID: clientID, CleanStart: true}, mqtt.V311)
	if err == nil {
		t.Fatalf("%s is let in as %s", d.name, a.host)
	}
	_ = w.conn.Close()
}

func (l *jitrLine) status(t *testing.T, a tenancy, d *device) types.CertificateStatus {
	t.Helper()
	out := must(a.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(d.id(t))}))(t)
	return out.CertificateDescription.Status
}

func (l *jitrLine) awaitStatus(t *testing.T, a tenancy, d *device, want types.CertificateStatus) {
	t.Helper()
	until(t, d.name+" is "+string(want)+" as "+a.host, func() bool { return l.status(t, a, d) == want })
}

// attemptsOf are what an account's operator is told of a device, newest last.
func (l *jitrLine) attemptsOf(t *testing.T, a tenancy, d *device) []attempt {
	t.Helper()
	run := l.shell(t, l.dir, as(a.key)+"imprint explain --json "+d.id(t))
	var list []attempt
	err := json.Unmarshal([]byte(run.stdout), &list)
	if err != nil {
		t.Fatalf("imprint explain: %v\n%s", err, run.all())
	}
	return list
}

// awaitStep waits for a step of a device's attempts with a verdict and a text in
// its detail, and gives it.
func (l *jitrLine) awaitStep(t *testing.T, a tenancy, d *device, name, verdict, text string) traceStep {
	t.Helper()
	var found traceStep
	until(t, "the step "+name+" of "+d.name+" with "+text, func() bool {
		for _, attempt := range l.attemptsOf(t, a, d) {
			for _, step := range attempt.Steps {
				if step.Name == name && step.Verdict == verdict && strings.Contains(step.Detail, text) {
					found = step
					return true
				}
			}
		}
		return false
	})
	return found
}

// TestJITROfTwoAccountsIsDecidedInEach ensures that one CA, one device, and rules,
// functions and things of the same names in two accounts have nothing to do with
// each other: each account's function hears of its own registrations, and decides
// about its own certificate.
func TestJITROfTwoAccountsIsDecidedInEach(t *testing.T) {
	t.Parallel()
	l := newJITRLine(t)
	for a, allowed := range map[*tenancy]string{&l.one: "SN-unit:SN-both", &l.two: "SN-both"} {
		l.createFunction(t, *a, "ALLOWED="+allowed)
		l.permit(t, *a)
		l.createRule(t, *a)
	}
	watcher := selfSigned(t, "watcher")
	var watches []*wire
	for _, a := range []tenancy{l.one, l.two} {
		a.register(t, watcher)
		w := l.connectAs(t, watcher, a.host, "watch")
		w.subscribe(at1("seen/#"))
		watches = append(watches, w)
	}
	unit, both := l.factory.device(t, "unit", "P-256"), l.factory.device(t, "both", "P-256")

	l.first(t, l.one, unit, "unit")
	l.awaitStatus(t, l.one, unit, types.CertificateStatusActive)
	if got := watches[0].receive(); string(got.Topic) != "seen/"+l.caID+"/"+unit.id(t) {
		t.Errorf("the first account's rule saw %s: %s", got.Topic, got.Payload)
	}
	watches[1].expectNothing()
	_, err := l.two.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(unit.id(t))})
	if err == nil {
		t.Error("a registration of the first account is one of the second, too")
	}
	// The second account's function says no, to the second account's certificate.
	l.first(t, l.two, unit, "unit")
	l.awaitStatus(t, l.two, unit, types.CertificateStatusRevoked)
	if got := watches[1].receive(); !strings.Contains(string(got.Payload), `"awsAccountId":"111111111111"`) {
		t.Errorf("the second account's rule saw %s: %s", got.Topic, got.Payload)
	}
	watches[0].expectNothing()
	if code := l.refusedAs(t, l.two, unit, l.two.host); code != "CertificateRevoked" {
		t.Errorf("in the account that revoked it: got %s", code)
	}
	l.awaitStep(t, l.two, unit, "function.log", "info", "not on the list: SN-unit")
	l.connectAs(t, unit, l.one.host, "unit").close()
	for _, attempt := range l.attemptsOf(t, l.one, unit) {
		for _, step := range attempt.Steps {
			if strings.Contains(step.Detail, "not on the list") {
				t.Errorf("the first account is told of the second's function: %+v", step)
			}
		}
	}
	// A thing of the same name in both, whose client ids are alike at one time.
	var same []*wire
	for _, a := range []tenancy{l.one, l.two} {
		l.first(t, a, both, "both")
		l.awaitStatus(t, a, both, types.CertificateStatusActive)
		same = append(same, l.connectAs(t, both, a.host, "both"))
		things := must(a.api.ListThings(t.Context(), &iot.ListThingsInput{}))(t).Things
		want := map[string]int{l.one.host: 2, l.two.host: 1}[a.host]
		if len(things) != want {
			t.Errorf("things of %s: got %d, want %d", a.host, len(things), want)
		}
	}
	for _, w := range same {
		w.ping() // neither took the other's place
	}
}

// TestWhatGoesWrongWithJITRShows goes through the failures of docs/jitr.md in the
// order in which somebody meets who sets it up. The other account has the same CA,
// and hears of nothing.
func TestWhatGoesWrongWithJITRShows(t *testing.T) {
	t.Parallel()
	l := newJITRLine(t)
	a, d := l.one, l.factory.device(t, "unit", "P-256")
	rules := func() string {
		return l.as(t, a, l.dir, `iot list-topic-rules --topic '$aws/events/certificates/registered/`+l.caID+`' --query 'rules[].ruleName' --output text`)
	}
	connect := func() { l.first(t, a, d, "unit") }

	connect() // no rule
	if got := rules(); got != "" {
		t.Errorf("rules for the event: got %s, want none", got)
	}
	for _, attempt := range l.attemptsOf(t, a, d) {
		for _, step := range attempt.Steps {
			if step.Name == "rule" {
				t.Errorf("without a rule: got the step %+v", step)
			}
		}
	}
	l.createRule(t, a)
	if got := rules(); got != "jitr" {
		t.Errorf("rules for the event: got %q, want jitr", got)
	}
	connect() // no function
	checkFix(t, l.awaitStep(t, a, d, "rule", "failed", "function:jitr"), "FunctionMissing", "")
	// This one reaches no server: it fails.
	l.createFunction(t, a, "AWS_ENDPOINT_URL=http://127.0.0.1:1,AWS_MAX_ATTEMPTS=1,ALLOWED=SN-unit")
	connect() // no permission
	checkFix(t, l.awaitStep(t, a, d, "rule", "failed", "no permission of"), "FunctionDenied", "aws lambda add-permission")
	l.permit(t, a)
	connect()
	l.awaitStep(t, a, d, "rule", "ok", "lambda to")
	checkFix(t, l.awaitStep(t, a, d, "function", "failed", "127.0.0.1:1"), "FunctionFailed", "")
	if got := l.status(t, a, d); got != types.CertificateStatusPendingActivation {
		t.Errorf("after a function that failed: got %s", got)
	}

	// While the function is still at work, retries are closed.
	l.as(t, a, l.dir, "lambda update-function-configuration --function-name jitr --environment 'Variables={ALLOWED=SN-unit}'")
	l.as(t, a, l.dir, "lambda put-function-concurrency --function-name jitr --reserved-concurrent-executions 0")
	connect()
	connect()
	l.as(t, a, l.dir, "lambda delete-function-concurrency --function-name jitr")
	l.awaitStatus(t, a, d, types.CertificateStatusActive)
	l.connectAs(t, d, a.host, "unit").close()
	// The policy allows the thing's name alone.
	if code := l.refusedAs(t, a, d, a.host); code != "ConnectDenied" {
		t.Errorf("another client id than the thing's: got %s, want ConnectDenied", code)
	}
	_, err := l.two.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(d.id(t))})
	if err == nil {
		t.Error("the other account has the certificate, too")
	}
}

// checkFix says whether a failed step has a code, and a fix that has a text.
func checkFix(t *testing.T, step traceStep, code, fix string) {
	t.Helper()
	if step.Code != code || step.Fix == "" || !strings.Contains(step.Fix, fix) {
		t.Errorf("step %s: got %s with the fix %q, want %s with %q\n%s", step.Name, step.Code, step.Fix, code, fix, step.Detail)
	}
}

// TestAFunctionBesideATemplateMakesASecondThing ensures that a CA with a template
// causes the event, too, and that a function that doesn't look at the status makes
// a thing beside the template's.
func TestAFunctionBesideATemplateMakesASecondThing(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	t.Parallel()
	s := startServer(t, "--function-own-account")
	dir := functionDir(t)
	s.aws(t, dir, createFunction+" --timeout 30")
	s.aws(t, dir, `iot create-topic-rule --rule-name twice --topic-rule-payload '{"awsIotSqlVersion":"2016-03-23","sql":"SELECT '"'iot' AS do, concat('second-', certificateStatus)"' AS value FROM '"'\$aws/events/certificates/registered/+'"'","actions":[{"lambda":{"functionArn":"arn:aws:lambda:us-east-1:000000000000:function:f"}}]}'`)
	f := s.line(t, "Both")
	d := f.device(t, "unit", "P-256")
	s.join(t, d)
	things := ""
	until(t, "the function's thing", func() bool {
		things = strings.Join(strings.Fields(s.aws(t, dir, "iot list-things --query 'sort(things[].thingName)' --output text")), " ")
		return strings.Contains(things, "second-")
	})
	if !strings.Contains(things, "unit") {
		t.Errorf("things: got %s, want the template's, too", things)
	}
}

package test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBasicIngestNeedsAPolicyAndReachesNoSubscriber ensures that a device's Basic
// Ingest message goes to its rule if a policy allows the topic.
func TestBasicIngestNeedsAPolicyAndReachesNoSubscriber(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	s.aws(t, dir, `iot create-topic-rule --rule-name take --topic-rule-payload '{"awsIotSqlVersion":"2016-03-23","sql":"SELECT topic() AS topic, clientid() AS client, principal() AS principal","actions":[{"republish":{"roleArn":"arn:aws:iam::000000000000:role/r","topic":"taken","qos":1}}]}'`)
	d := s.watcher(t)
	watch := s.subscribe(t, d, "watch", "#")
	checkAccepted(t, s.publish(t, d, "sender", "$aws/rules/take/plant/1"))
	taken := watch.awaitJSON(t, "taken", 1)
	if taken["topic"] != "plant/1" || taken["client"] != "sender" || taken["principal"] != d.id(t) {
		t.Errorf("the rule saw %v, want topic plant/1 of sender and %s", taken, d.id(t))
	}
	// Of an unknown rule it is acknowledged, and told in the log.
	checkAccepted(t, s.publish(t, d, "sender", "$aws/rules/none/plant/1"))
	s.stderr.wait(t, "the log of the missing rule", func(text string) bool { return strings.Contains(text, "RuleNotFound") })

	s.createPolicy(t, "devices", devicePolicy)
	line := newFactory(t, "line", "P-256")
	s.registerCA(t, line, withTemplate(jitpTemplate("devices", "")))
	forbidden := line.device(t, "forbidden", "P-256")
	s.join(t, forbidden)
	if run := s.publish(t, forbidden, "forbidden", "$aws/rules/take/plant/2"); run.puback == 0 {
		t.Errorf("a Basic Ingest message that no policy allows was acknowledged:\n%s", run.all())
	}
}

// TestAnOwnerConfirmsADestinationByItsURL ensures that enableUrl works without a
// signature, for the token alone, and enables the destination of the account that
// asked: another account's of the same URL has a token of its own.
func TestAnOwnerConfirmsADestinationByItsURL(t *testing.T) {
	need(t, "aws", "bash")
	t.Parallel()
	s := startServer(t, "--private-addresses")
	dir := t.TempDir()
	owner, asked := destinationOwner(t)
	destination := s.aws(t, dir, "iot create-topic-rule-destination --destination-configuration httpUrlConfiguration={confirmationUrl="+owner+"/in} --query topicRuleDestination.arn --output text")
	status := func() string {
		t.Helper()
		return s.aws(t, dir, "iot get-topic-rule-destination --arn "+destination+" --query topicRuleDestination.status --output text")
	}
	if got := status(); got != "IN_PROGRESS" {
		t.Errorf("status of a new destination: got %s, want IN_PROGRESS", got)
	}
	enable := <-asked
	_, other := s.twoAccounts(t)
	theirs := s.as(t, other, dir, "iot create-topic-rule-destination --destination-configuration httpUrlConfiguration={confirmationUrl="+owner+"/in} --query topicRuleDestination.arn --output text")
	if their := <-asked; their == enable || theirs == destination {
		t.Errorf("the accounts' destinations are %s and %s, enabled by %s and %s", destination, theirs, enable, their)
	}
	client := s.httpClient(t)
	for _, try := range []struct {
		url    string
		status int
	}{{enable + "x", http.StatusUnauthorized}, {enable, http.StatusOK}, {enable, http.StatusOK}} {
		answer, err := client.Get(try.url)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != try.status {
			t.Errorf("GET of an enableUrl: got %d, want %d", answer.StatusCode, try.status)
		}
	}
	if got := status(); got != "ENABLED" {
		t.Errorf("status after the confirmation: got %s, want ENABLED", got)
	}
	if got := s.as(t, other, dir, "iot get-topic-rule-destination --arn "+theirs+" --query topicRuleDestination.status --output text"); got != "IN_PROGRESS" {
		t.Errorf("the other account's destination after the confirmation: got %s, want IN_PROGRESS", got)
	}
	s.aws(t, dir, "iot update-topic-rule-destination --arn "+destination+" --status DISABLED")
	if list := s.aws(t, dir, "iot list-topic-rule-destinations --query 'destinationSummaries[].status' --output text"); list != "DISABLED" {
		t.Errorf("destinations: got %s, want one that is DISABLED", list)
	}
	s.aws(t, dir, "iot delete-topic-rule-destination --arn "+destination)
	if run := s.shell(t, dir, "aws iot get-topic-rule-destination --arn "+destination); run.exit == 0 || !strings.Contains(run.all(), "UnauthorizedException") {
		t.Errorf("a deleted destination: got exit code %d and %s", run.exit, run.all())
	}
}

// destinationOwner is who a destination's URL belongs to; asked has each enableUrl that
// the owner is sent.
func destinationOwner(t *testing.T) (owner string, asked <-chan string) {
	t.Helper()
	urls := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct {
			EnableURL string `json:"enableUrl"`
		}
		_ = json.NewDecoder(r.Body).Decode(&m)
		urls <- m.EnableURL
	}))
	t.Cleanup(server.Close)
	return server.URL, urls
}

// TestPrivateAddressesAreTheFirstAccountsAlone ensures that a server as it is installed
// calls nothing on its own machine for another account, neither by a rule's destination nor
// by a webhook, and that the first account may.
func TestPrivateAddressesAreTheFirstAccountsAlone(t *testing.T) {
	need(t, "aws", "bash")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	owner, asked := destinationOwner(t)
	const create = "iot create-topic-rule-destination --query topicRuleDestination.arn --output text --destination-configuration httpUrlConfiguration={confirmationUrl="
	_, other := s.twoAccounts(t)
	theirs := s.as(t, other, dir, create+owner+"/in}")
	until(t, "the other account's destination to fail", func() bool {
		reason := s.as(t, other, dir, "iot get-topic-rule-destination --arn "+theirs+" --query topicRuleDestination.[status,statusReason] --output text")
		return strings.HasPrefix(reason, "ERROR") && strings.Contains(reason, "only the server's first account")
	})
	said := s.as(t, other, dir, "lambda create-function --function-name hook --runtime imprint.webhook --code {} --role "+role+
		" --environment Variables={IMPRINT_WEBHOOK_SECRET=a-long-random-secret} --handler "+owner+"/hook > /dev/null && "+
		as(other.key)+"aws lambda invoke --function-name hook --query FunctionError --output text out.json && cat out.json")
	if !strings.Contains(said, "only the server's first account") {
		t.Errorf("another account's webhook: got %s", said)
	}
	select {
	case url := <-asked:
		t.Errorf("another account had %s called", url)
	default:
	}
	s.aws(t, dir, create+owner+"/in}")
	<-asked
}

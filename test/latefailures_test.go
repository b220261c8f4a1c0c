package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"
)

// lateWebhook is a function elsewhere that is asked, and fails when it may.
type lateWebhook struct {
	arn   string
	asked atomic.Int64
	fail  chan struct{} // closed: it may
}

// newLateWebhook puts one onto a server as a function of that name, which a source may
// invoke.
func newLateWebhook(t *testing.T, s *server, name, source string) *lateWebhook {
	t.Helper()
	hook := &lateWebhook{arn: functionARN + name, fail: make(chan struct{})}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		hook.asked.Add(1)
		select {
		case <-hook.fail:
			http.Error(w, "the database is away", http.StatusInternalServerError)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(elsewhere.Close)
	dir := t.TempDir()
	s.aws(t, dir, "lambda create-function --function-name "+name+" --runtime imprint.webhook --handler "+elsewhere.URL+
		" --code '{}' --role arn:aws:iam::000000000000:role/x --environment 'Variables={IMPRINT_WEBHOOK_SECRET=a-long-random-secret}' --timeout 60 --query State")
	s.aws(t, dir, "lambda add-permission --function-name "+name+" --statement-id s --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn "+source+" --query Statement")
	return hook
}

// failures counts the attempts of a client that the function failed for, by what imprint
// explain says of a word; again are those of them that were made again for that. Of others
// that an entry counts it says nothing.
func (w *lateWebhook) failures(t *testing.T, s *server, word, client string) (all, again int) {
	t.Helper()
	run := s.imprint(t, "explain", "--json", "--limit", "100", word)
	var list []attempt
	err := json.Unmarshal([]byte(run.stdout), &list)
	if err != nil {
		t.Fatalf("imprint explain %s: %v\n%s", word, err, run.all())
	}
	for _, a := range list {
		failed := func(step traceStep) bool {
			return step.Name == "function" && step.Code == "FunctionFailed" && step.Verdict == "failed" && strings.Contains(step.Detail, "the database is away") && step.Fix != ""
		}
		if a.ClientID != client || !slices.ContainsFunc(a.Steps, failed) {
			continue
		}
		all++
		if a.Steps[0].Name == "trace" {
			all, again = all+a.Repeats, again+1+a.Repeats
		}
	}
	return all, again
}

// TestFunctionsThatFailLateAreFound ensures that what a function fails to do is found by who
// asks for its device: also when the device's attempt is counted in another one by then, its
// own or a fleet's, and when the device is on and nothing of its attempt was kept. Of a device
// that left before the function answered that is told.
func TestFunctionsThatFailLateAreFound(t *testing.T) {
	need(t, "openssl", "aws", "bash")
	t.Parallel()
	s := newStage(t, "IMPRINT_TRACE_SUCCESS_RATE=1", "IMPRINT_CLAIM_RATE=0", "IMPRINT_HOOK_TIMEOUT=25s")

	t.Run("of devices that were refused before", func(t *testing.T) {
		hook := newLateWebhook(t, s.server, "registered", arn+"rule/jitr")
		must(s.sdk(t).CreateTopicRule(t.Context(), &iot.CreateTopicRuleInput{RuleName: aws.String("jitr"), TopicRulePayload: &types.TopicRulePayload{
			Sql:     aws.String("SELECT * FROM '$aws/events/certificates/registered/#'"),
			Actions: []types.Action{{Lambda: &types.LambdaAction{FunctionArn: aws.String(hook.arn)}}},
		}}))(t)
		f := newFactory(t, "JITR line", "P-256")
		s.registerCA(t, f, nil)
		// The device's first attempt differs from the others, and what the rule did is a step
		// of those that it is told in time for. Of each kind three are kept whole at first, and
		// the third counts the others then.
		again := f.device(t, "again", "P-256")
		const times = 12
		for range times {
			s.refused(t, again, again.name, dialing{})
		}
		// 64 entries tell of one device each, two or three of them of the one before.
		const fleet = 70
		var units [fleet]*device
		for n := range units {
			units[n] = f.device(t, fmt.Sprintf("one-of-many-%d", n), "P-256")
			s.refused(t, units[n], units[n].name, dialing{})
		}
		s.explain(t, "all are written then")
		if got, want := s.metric(t, "imprint_attempts_folded_total"), float64(times-1-3-3+fleet-62-1); got < want {
			t.Errorf("%v attempts are counted with others, want %v at least", got, want)
		}
		until(t, "the function to be asked", func() bool { return hook.asked.Load() > 0 })
		close(hook.fail)
		for _, word := range []string{again.id(t), again.name} {
			until(t, "imprint explain "+word+" to tell of the failures of all attempts", func() bool {
				all, counted := hook.failures(t, s.server, word, again.name)
				return all == times && counted >= times-1-3-3
			})
		}
		for _, d := range []*device{units[0], units[fleet-4], units[fleet-1]} {
			for _, word := range []string{d.id(t), d.name} {
				until(t, "imprint explain "+word+" to tell of the failure", func() bool {
					all, _ := hook.failures(t, s.server, word, d.name)
					return all > 0
				})
			}
		}
	})
	t.Run("of claims of which nothing else was kept", func(t *testing.T) {
		f := s.one.fleet(t)
		hook := newLateWebhook(t, s.server, "decides", arn+"provisioningtemplate/sensors")
		must(f.api.UpdateProvisioningTemplate(t.Context(), &iot.UpdateProvisioningTemplateInput{
			TemplateName: aws.String("sensors"), PreProvisioningHook: &types.ProvisioningHook{TargetArn: aws.String(hook.arn)},
		}))(t)
		register := func(name string) asker5 {
			a := f.open5(t, f.claim, name, "json").(asker5)
			made := mustCall(t, a, "$aws/certificates/create/json", nil)
			a.send(t, registerSensor, jsonOf(t, map[string]any{"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": name}}), 1)
			return a
		}
		const claims = 8
		for n := range claims {
			register(fmt.Sprintf("waits-%d", n))
		}
		leaves := register("leaves")
		until(t, "the hook to be asked for each", func() bool { return hook.asked.Load() == claims+1 })
		_ = leaves.Disconnect(&paho.Disconnect{})
		until(t, "imprint explain to tell that the claim left", func() bool {
			return slices.ContainsFunc(s.explain(t, "leaves"), func(a attempt) bool {
				return slices.ContainsFunc(a.Steps, func(step traceStep) bool {
					return step.Name == "claim.hook" && strings.Contains(step.Detail, "the device's connection ended before it answered") && strings.Contains(step.Fix, "stay connected")
				}) && slices.ContainsFunc(a.Steps, func(step traceStep) bool {
					return step.Name == "function" && step.Verdict == "info" && strings.Contains(step.Detail, "its caller left after")
				})
			})
		})
		close(hook.fail)
		unsampled := 0
		for n := range claims {
			name := fmt.Sprintf("waits-%d", n)
			until(t, "imprint explain "+name+" to tell of the failure", func() bool {
				all, again := hook.failures(t, s.server, name, name)
				unsampled += again
				return all > 0
			})
		}
		if unsampled == 0 {
			t.Error("all attempts were sampled")
		}
	})
}

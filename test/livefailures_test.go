package test

import (
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// openPolicy lets a client use one topic under any client id.
const openPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:*:*:topic/open"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/open"}]}`

// isRefused says that a connection is on, and that a step of it failed with a fix.
func (a attempt) isRefused(step, code string) bool {
	return a.Outcome == "connected" && a.Ended == 0 && slices.ContainsFunc(a.Steps, func(s traceStep) bool {
		return s.Name == step && s.Code == code && s.Verdict == "failed" && s.Fix != ""
	})
}

// follow starts imprint explain, or imprint attempts, with --follow: its output grows.
func (s *server) follow(t *testing.T, command string, args ...string) *said {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	heard := newSaid()
	cmd := exec.CommandContext(ctx, program, append([]string{command, "--data", s.dir, "--follow"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = cleanEnv(), heard, heard
	err := cmd.Start()
	if err != nil {
		cancel()
		t.Fatalf("couldn't start imprint %s: %v", command, err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return heard
}

// talk starts mosquitto_pub, which stays on; the function lets it publish.
func (s *server) talk(t *testing.T, d *device, client, topic string) func(payload string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, toolPath(t, "mosquitto_pub"), append(s.mosquittoArgs(d, client), "-V", "5", "-q", "1", "-l", "-t", topic)...)
	cmd.Env = cleanEnv()
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("couldn't start mosquitto_pub: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return func(payload string) {
		t.Helper()
		_, err := io.WriteString(in, payload+"\n")
		if err != nil {
			t.Fatalf("mosquitto_pub is gone: %v", err)
		}
	}
}

// TestRefusalsAreToldWhileTheDeviceStaysOn ensures that what a device is refused on a
// connection that goes on is told at once, by imprint explain, with --follow, among the
// failed attempts and on $imprint/: who waits for a device that hangs in silence can't wait
// for its end.
func TestRefusalsAreToldWhileTheDeviceStaysOn(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	f := s.one.fleet(t)
	must(f.api.CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String("open"), PolicyDocument: aws.String(openPolicy)}))(t)
	sensor := selfSigned(t, "sensor")
	out := must(f.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, sensor.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(f.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("open"), Target: out.CertificateArn}))(t)
	ears := s.subscribe(t, s.one.device, "ears", "$imprint/attempts/connected/#")

	// told waits until all that tell of failures tell of one, while the client is on.
	told := func(t *testing.T, client, step, code string, followed *said) {
		t.Helper()
		until(t, "imprint explain to tell of "+step, func() bool {
			list := s.explain(t, client)
			return len(list) == 1 && list[0].isRefused(step, code)
		})
		run := s.imprint(t, "attempts", "--failed", "--json")
		var failed []attempt
		err := json.Unmarshal([]byte(run.stdout), &failed)
		if err != nil || !slices.ContainsFunc(failed, func(a attempt) bool { return a.ClientID == client && a.isRefused(step, code) }) {
			t.Errorf("imprint attempts --failed doesn't have %s of %s: %v\n%s", step, client, err, run.all())
		}
		followed.wait(t, "imprint explain --follow", func(text string) bool {
			return strings.Contains(text, "FAILED") && strings.Contains(text, step)
		})
		ears.said.wait(t, "the message on $imprint/", func(text string) bool {
			return slices.ContainsFunc(messages(text, "$imprint/attempts/connected/"+client), func(message string) bool {
				var a attempt
				err := json.Unmarshal([]byte(message), &a)
				return err == nil && a.isRefused(step, code)
			})
		})
	}

	// isOn waits until the trace has a client that is on: what it is refused comes later.
	isOn := func(t *testing.T, client string) {
		t.Helper()
		until(t, client+" to be on", func() bool {
			run := s.imprint(t, "explain", "--json", client)
			return strings.Contains(run.stdout, `"connected"`)
		})
	}

	t.Run("mosquitto_sub asks for what it may not", func(t *testing.T) {
		t.Parallel()
		followed := s.follow(t, "explain", "subscriber")
		// A client of MQTT 3.1.1 would be closed, as on AWS IoT Core.
		sub := s.trySubscribe(t, sensor, "subscriber", []string{"-V", "5"}, "open", "secret")
		sub.said.wait(t, "SUBACK", func(text string) bool { return strings.Contains(text, "received SUBACK") })
		told(t, "subscriber", "policy.subscribe", "SubscribeDenied", followed)
		select {
		case <-sub.done:
			t.Errorf("mosquitto_sub didn't stay on:\n%s", sub.said)
		default:
		}
	})
	t.Run("mosquitto_pub says what it may not", func(t *testing.T) {
		t.Parallel()
		followed := s.follow(t, "explain", "talker")
		talk := s.talk(t, sensor, "talker", "secret")
		isOn(t, "talker")
		talk("x")
		told(t, "talker", "publish", "PublishDenied", followed)
	})
	t.Run("Paho publishes what it may not", func(t *testing.T) {
		t.Parallel()
		followed := s.follow(t, "explain", "publisher")
		c := s.connect(t, sensor, "publisher", dialing{host: s.one.host})
		isOn(t, "publisher")
		if got := c.send(t, "secret", "x", 1); got != 0x87 {
			t.Fatalf("PUBACK: got %#x, want 0x87", got)
		}
		told(t, "publisher", "publish", "PublishDenied", followed)
		if got := c.send(t, "open", "x", 1); got != 0x10 && got != 0 {
			t.Errorf("the client isn't on any more: PUBACK %#x", got)
		}
	})
	t.Run("a device that was on before anybody asked", func(t *testing.T) {
		t.Parallel()
		c := s.connect(t, sensor, "elder", dialing{host: s.one.host})
		isOn(t, "elder")
		began := time.Now()
		// Each command counts from when it has started. The device had connected before
		// that, however late it is; and it is refused again until the command sees it.
		since := func() string { return time.Since(began).String() }
		refuse := func() {
			t.Helper()
			if got := c.send(t, "secret", "x", 1); got != 0x87 {
				t.Fatalf("PUBACK: got %#x, want 0x87", got)
			}
		}
		one := s.follow(t, "explain", "elder")
		one.wait(t, "the attempt of the device that is on", func(text string) bool { return strings.Contains(text, "connected") })
		all := s.follow(t, "attempts", "--failed", "--since", since())
		until(t, "imprint attempts --follow to tell of the device that is on", func() bool {
			refuse()
			_, err := all.await(t.Context(), time.Second, func(text string) bool { return strings.Contains(text, "elder") })
			return err == nil
		})
		one.wait(t, "imprint explain --follow", func(text string) bool { return strings.Contains(text, "FAILED") })
		for what, arguments := range map[string][]string{"PublishDenied": {"--group-by", "reason"}, "elder": nil} {
			arguments = append([]string{"--failed", "--since", since()}, arguments...)
			until(t, "imprint attempts "+strings.Join(arguments, " ")+" to have "+what, func() bool {
				refuse()
				arguments[2] = since()
				return strings.Contains(s.imprint(t, "attempts", arguments...).stdout, what)
			})
		}
	})
	t.Run("a claim that can't hear why", func(t *testing.T) {
		t.Parallel()
		followed := s.follow(t, "explain", "claimant")
		c := s.connect(t, f.claim, "claimant", dialing{host: s.one.host})
		const topic = "$aws/provisioning-templates/sensors/provision/json"
		if got := c.mqtt5Reasons(t, topic+"/accepted"); got != "[1]" {
			t.Fatalf("SUBACK: got %s, want [1]", got)
		}
		isOn(t, "claimant")
		if got := c.send(t, topic, `{"certificateOwnershipToken":"nobody's","parameters":{"SerialNumber":"1"}}`, 1); got != 0 {
			t.Fatalf("PUBACK: got %#x, want 0", got)
		}
		told(t, "claimant", "claim.token", "OwnershipTokenInvalid", followed)
		told(t, "claimant", "answer", "AnswerNotSubscribed", followed)
		if got := c.mqtt5Reasons(t, topic+"/rejected"); got != "[1]" {
			t.Errorf("the claim isn't on any more: SUBACK %s", got)
		}
	})
}

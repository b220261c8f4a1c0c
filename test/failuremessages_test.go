package test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"

	"github.com/imprint-iot/imprint/mqtt"
)

// online is a device that joined and is on, with Paho.
func (w *ward) online(t *testing.T) (*device, *mqtt5) {
	t.Helper()
	d := w.b.joined("")(t)
	return d, w.server().connect(t, d, d.name, dialing{})
}

// puback publishes with QoS 1 and disconnects, and gives the answer in the table's
// words.
func puback(t *testing.T, c *mqtt5, p *paho.Publish) string {
	t.Helper()
	p.QoS, p.Payload = 1, []byte("x")
	answer, err := c.Publish(soon(t), p)
	if answer == nil {
		t.Fatalf("couldn't publish on %s: %v", p.Topic, err)
	}
	_ = c.Disconnect(&paho.Disconnect{})
	return fmt.Sprintf("PUBACK %#x", answer.ReasonCode)
}

// suback subscribes, likewise.
func suback(t *testing.T, c *mqtt5, filter string) string {
	t.Helper()
	reasons := c.ask(t, filter)
	_ = c.Disconnect(&paho.Disconnect{})
	return fmt.Sprintf("SUBACK %#x", reasons[0])
}

// rude is a way to break rules on a connection that is on: what no library does.
func rude(id string, packet func(mqtt.Version) []byte) func(*ward, *testing.T, string) way {
	return func(w *ward, t *testing.T, _ string) way {
		wire := w.side.open(t, mqtt.Connect{ClientID: id, CleanStart: true}, mqtt.V5)
		wire.sendBytes(packet(mqtt.V5))
		said := wire.ended()
		if said == nil {
			t.Fatal("the server closed without DISCONNECT")
		}
		return way{word: id, seen: goodbye(byte(said.Reason))}
	}
}

var messageWays = map[string]func(*ward, *testing.T, string) way{
	"publish denied": func(w *ward, t *testing.T, _ string) way {
		d, c := w.online(t)
		return way{word: d.name, seen: puback(t, c, &paho.Publish{Topic: "elsewhere/x"})}
	},
	"publish denied, MQTT 3.1.1": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		run := w.server().publish(t, d, d.name, "elsewhere/x", "-A", from)
		seen := fmt.Sprintf("exit code %d, PUBACK %d", run.exit, run.puback)
		if run.connack == 0 && run.exit != 0 && run.puback == noConnack {
			seen = "closed without PUBACK"
		}
		return way{word: from, seen: seen}
	},
	"topic for topicfilter": func(w *ward, t *testing.T, _ string) way {
		d := w.holding(t, "mistaken", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"`+arn+`topic/mistaken/#"}]}`)
		return way{word: d.name, seen: suback(t, w.server().connect(t, d, d.name, dialing{}), "mistaken/#")}
	},
	"subscribe denied, MQTT 3.1.1": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		sub := w.server().trySubscribe(t, d, d.name, []string{"-A", from, "-W", "20"}, "elsewhere/x")
		sub.said.wait(t, "the end of the connection", func(text string) bool {
			// mosquitto_sub comes again by itself.
			return strings.Count(text, "sending CONNECT") > 1 || strings.Contains(text, "received SUBACK")
		})
		sub.kill()
		seen := "closed without SUBACK"
		if strings.Contains(sub.said.String(), "received SUBACK") {
			seen = "SUBACK"
		}
		return way{word: from, seen: seen}
	},
	"receive denied": func(w *ward, t *testing.T, _ string) way {
		d, c := w.online(t)
		c.ask(t, "mute/#", "d/"+d.name+"/#")
		c.send(t, "mute/"+d.name, "kept", 1)
		c.send(t, "d/"+d.name+"/x", "sent", 1)
		seen := "no message comes"
		// A connection keeps its order, so that what comes first is all that came.
		if m := c.receive(t); m.topic == "mute/"+d.name {
			seen = "the message"
		}
		_ = c.Disconnect(&paho.Disconnect{})
		return way{word: d.name, seen: seen, names: map[string]string{"client": d.name}}
	},
	"retain denied": func(w *ward, t *testing.T, _ string) way {
		d, c := w.online(t)
		return way{word: d.name, seen: puback(t, c, &paho.Publish{Topic: "d/" + d.name + "/x", Retain: true})}
	},
	"topic of the service": func(w *ward, t *testing.T, _ string) way {
		c := w.server().connect(t, w.side.device, "impersonator", dialing{})
		return way{word: "impersonator", seen: puback(t, c, &paho.Publish{Topic: presence + "connected/other"})}
	},
	"topic too deep": func(w *ward, t *testing.T, _ string) way {
		c := w.server().connect(t, w.side.device, "deep-topic", dialing{})
		return way{word: "deep-topic", seen: puback(t, c, &paho.Publish{Topic: "1/2/3/4/5/6/7/8/9"})}
	},
	"filter too deep": func(w *ward, t *testing.T, _ string) way {
		return way{word: "deep-filter", seen: suback(t, w.server().connect(t, w.side.device, "deep-filter", dialing{}), "1/2/3/4/5/6/7/8/#")}
	},
	"wildcard in a topic":  rude("wild", packet(publishing("a/+", 0))),
	"QoS 2":                rude("twice", packet(publishing("a", 2))),
	"SUBSCRIBE with QoS 2": rude("twice-told", packet(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a", QoS: 2}}})),
	"oversized":            rude("giant", packet(&mqtt.Publish{Topic: []byte("a"), Payload: make([]byte, 128<<10+1)})),
	"malformed packet":     rude("garbler", raw("\x00\x00")),
	"second CONNECT":       rude("again", packet(&mqtt.Connect{ClientID: "again", CleanStart: true, KeepAlive: 60})),
	"publish rate": func(w *ward, t *testing.T, _ string) way {
		wire := w.hasty.one.open(t, mqtt.Connect{ClientID: "chatty", CleanStart: true}, mqtt.V5)
		var all []byte
		for n := range 60 {
			all = (&mqtt.Publish{Topic: []byte("a"), QoS: 1, PacketID: uint16(n + 1)}).Append(all, mqtt.V5)
		}
		wire.sendBytes(all)
		for {
			packet, err := wire.tryRead(patience)
			if err != nil {
				t.Fatal(err)
			}
			if ack, ok := packet.(*mqtt.Ack); ok && ack.Reason >= mqtt.UnspecifiedError {
				wire.close()
				return way{on: w.hasty.server, word: "chatty", seen: fmt.Sprintf("PUBACK %#x", uint8(ack.Reason))}
			}
		}
	},
	"keep-alive": func(w *ward, t *testing.T, _ string) way {
		wire := w.hasty.one.open(t, mqtt.Connect{ClientID: "asleep", CleanStart: true, KeepAlive: 1}, mqtt.V5)
		return way{on: w.hasty.server, word: "asleep", seen: goodbye(byte(wire.ended().Reason))}
	},
	"client id taken over": func(w *ward, t *testing.T, _ string) way {
		first := w.server().connect(t, w.side.device, "same", dialing{})
		w.server().connect(t, w.side.device, "same", dialing{})
		return way{word: "same", seen: goodbye(first.goodbye(t))}
	},
	"cut": func(w *ward, t *testing.T, _ string) way {
		w.server().connect(t, w.side.device, "unplugged", dialing{}).cut()
		return way{word: "unplugged", seen: "the network fails"}
	},
}

// desk connects as a claim and subscribes to the answers of fleet provisioning.
func (w *ward) desk(t *testing.T, d *device, client, template string) asker5 {
	t.Helper()
	return deskOf(t, w.fleet, d, client, template)
}

func deskOf(t *testing.T, f *fleet, d *device, client, template string) asker5 {
	t.Helper()
	c := f.stage.connect(t, d, client, dialing{host: f.host})
	for _, topic := range []string{"$aws/certificates/create/json", createFromCSR, provisionBy(template)} {
		if got := fmt.Sprint(c.ask(t, topic+"/accepted", topic+"/rejected")); got != "[1 1]" {
			t.Fatalf("SUBACK of the answers to %s: got %s, want [1 1]", topic, got)
		}
	}
	return asker5{c}
}

const createFromCSR = "$aws/certificates/create-from-csr/json"

func provisionBy(template string) string {
	return "$aws/provisioning-templates/" + template + "/provision/json"
}

// made has a certificate made and gives the request to register it.
func (w *ward) made(t *testing.T, a asker, serial string) map[string]any {
	t.Helper()
	_, csr := w.request(t, serial)
	out := mustCall(t, a, createFromCSR, map[string]any{"certificateSigningRequest": csr})
	return map[string]any{"certificateOwnershipToken": out.Token, "parameters": map[string]string{"SerialNumber": serial}}
}

// registering is a way to fail at RegisterThing; the retry asks again.
func (w *ward) registering(t *testing.T, client, template, serial string, names map[string]string) way {
	t.Helper()
	a := w.desk(t, w.side.device, client, template)
	request := w.made(t, a, serial)
	seen := answered(call(t, a, provisionBy(template), request))
	a.leave(t)
	return way{word: client, seen: seen, names: names}
}

// again lets a way's device register with a new connection and certificate.
func (w *ward) again(d *device, client, template, serial string) func(*testing.T, string) {
	return func(t *testing.T, _ string) {
		t.Helper()
		a := w.desk(t, d, client+"-again", template)
		defer a.leave(t)
		mustCall(t, a, provisionBy(template), w.made(t, a, serial))
	}
}

// weakRequest is a signing request with an RSA key of 1024 bits.
func weakRequest(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
	csr := filepath.Join(dir, "weak.csr")
	openssl(t, dir, "req", "-new", "-nodes", "-subj", "/CN=weak", "-newkey", "rsa:1024", "-keyout", filepath.Join(dir, "weak.key"), "-out", csr)
	return readFile(t, csr)
}

// hooked makes a template with a hook.
func (w *ward) hooked(t *testing.T, name, function string) {
	t.Helper()
	must(w.api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String(name), TemplateBody: aws.String(fleetTemplate), ProvisioningRoleArn: aws.String(role), Enabled: aws.Bool(true),
		PreProvisioningHook: &types.ProvisioningHook{TargetArn: aws.String(functionARN + function)},
	}))(t)
}

const functionARN = "arn:aws:lambda:us-east-1:000000000000:function:"

// guarded is a claim certificate of its own with a guard.
func (w *ward) guarded(t *testing.T, name string, flags ...string) *device {
	t.Helper()
	d := w.holding(t, name, watcherPolicy)
	run := w.server().imprint(t, "claim", append([]string{"guard", d.id(t)}, flags...)...)
	if run.exit != 0 {
		t.Fatalf("imprint claim guard: exit code %d\n%s", run.exit, run.all())
	}
	return d
}

// unanswered waits until the server tells of an answer that it keeps, and says what the
// device got.
func (w *ward) unanswered(t *testing.T, c *mqtt5, client, code string) string {
	t.Helper()
	until(t, code+" of "+client, func() bool {
		return slices.ContainsFunc(w.server().explain(t, client), func(a attempt) bool { return explained(a, code) })
	})
	defer func() { _ = c.Disconnect(&paho.Disconnect{}) }()
	select {
	case m := <-c.messages:
		return "an answer on " + m.topic
	default:
		return "no answer comes"
	}
}

var claimWays = map[string]func(*ward, *testing.T, string) way{
	"claim may not subscribe": func(w *ward, t *testing.T, _ string) way {
		d := w.holding(t, "claim-deaf", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Receive"],"Resource":"*"}]}`)
		return way{word: d.name, seen: suback(t, w.server().connect(t, d, d.name, dialing{}), createFromCSR+"/accepted")}
	},
	"claim may not publish": func(w *ward, t *testing.T, _ string) way {
		c := w.server().connect(t, w.claim, "claim-mute", dialing{})
		return way{word: "claim-mute", seen: puback(t, c, &paho.Publish{Topic: provisionBy("others")})}
	},
	"claim may not receive": func(w *ward, t *testing.T, _ string) way {
		d := w.holding(t, "claim-blind", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Subscribe"],"Resource":"*"}]}`)
		c := w.server().connect(t, d, d.name, dialing{})
		c.ask(t, "$aws/certificates/create/json/accepted")
		c.send(t, "$aws/certificates/create/json", "{}", 1)
		return way{word: d.name, seen: w.unanswered(t, c, d.name, "ReceiveDenied")}
	},
	"wrong rejected topic": func(w *ward, t *testing.T, _ string) way {
		c := w.server().connect(t, w.claim, "claim-elsewhere", dialing{})
		c.ask(t, registerSensor+"/accepted", registerSensor+"/error")
		c.send(t, registerSensor, "{}", 1)
		return way{word: "claim-elsewhere", seen: w.unanswered(t, c, "claim-elsewhere", "AnswerNotSubscribed")}
	},
	"payload isn't JSON": func(w *ward, t *testing.T, _ string) way {
		a := w.desk(t, w.claim, "claim-garbled", "sensors")
		answer, body := a.ask(t, registerSensor, []byte("{"))
		var out claimed
		err := json.Unmarshal(body, &out)
		if err != nil {
			t.Fatalf("answer on %s: %v in %s", answer, err, body)
		}
		a.leave(t)
		return way{word: "claim-garbled", seen: answered(out, strings.HasSuffix(answer, "/accepted"))}
	},
	"weak CSR": func(w *ward, t *testing.T, _ string) way {
		a := w.desk(t, w.claim, "claim-weak", "sensors")
		defer a.leave(t)
		return way{word: "claim-weak", seen: answered(call(t, a, createFromCSR, map[string]any{"certificateSigningRequest": weakRequest(t)}))}
	},
	"malformed token": func(w *ward, t *testing.T, _ string) way {
		a := w.desk(t, w.claim, "claim-malformed", "sensors")
		defer a.leave(t)
		return way{word: "claim-malformed", seen: answered(call(t, a, registerSensor, map[string]any{"certificateOwnershipToken": "eyJ2ZXJzaW9uIjoiMSJ9"}))}
	},
	"reused token": func(w *ward, t *testing.T, _ string) way {
		a := w.desk(t, w.claim, "claim-reused", "sensors")
		defer a.leave(t)
		request := w.made(t, a, "allow-reused")
		mustCall(t, a, registerSensor, request)
		return way{word: "claim-reused", seen: answered(call(t, a, registerSensor, request))}
	},
	"expired token": func(w *ward, t *testing.T, _ string) way {
		a := deskOf(t, w.brief, w.brief.claim, "claim-late", "sensors")
		defer a.leave(t)
		request := map[string]any{"certificateOwnershipToken": w.stale.Token, "parameters": map[string]string{"SerialNumber": "late"}}
		until(t, "the token to expire", func() bool { return time.Since(w.staleSince) > 2*time.Second })
		out, accepted := call(t, a, registerSensor, request)
		return way{on: w.hasty.server, word: "claim-late", seen: answered(out, accepted)}
	},
	"other claim's token": func(w *ward, t *testing.T, _ string) way {
		first := w.desk(t, w.claim, "claim-first", "sensors")
		request := w.made(t, first, "allow-other")
		first.leave(t)
		a := w.desk(t, w.side.device, "claim-second", "sensors")
		defer a.leave(t)
		return way{word: "claim-second", seen: answered(call(t, a, registerSensor, request))}
	},
	"missing parameter": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "plain", true)
		a := w.desk(t, w.side.device, "claim-lacking", "plain")
		defer a.leave(t)
		request := w.made(t, a, "lacking")
		request["parameters"] = map[string]string{"Site": "lab"}
		return way{word: "claim-lacking", seen: answered(call(t, a, provisionBy("plain"), request))}
	},
	"no such template": func(w *ward, t *testing.T, _ string) way {
		gone := w.registering(t, "claim-lost", "lost", "lost-1", map[string]string{"template": "lost"})
		gone.dir, gone.person = asFile(t, "template.json", fleetTemplate), map[string]string{"ROLE": role}
		gone.retry = w.again(w.side.device, "claim-lost", "lost", "lost-2")
		return gone
	},
	"fleet template disabled": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "closed", false)
		gone := w.registering(t, "claim-closed", "closed", "closed-1", map[string]string{"template": "closed"})
		gone.retry = w.again(w.side.device, "claim-closed", "closed", "closed-2")
		return gone
	},
	"hook denies": func(w *ward, t *testing.T, _ string) way {
		return w.registering(t, "claim-denied", "sensors", "deny-1", nil)
	},
	"hook times out": func(w *ward, t *testing.T, _ string) way {
		return w.registering(t, "claim-hanging", "sensors", "hang-1", nil)
	},
	"hook crashes": func(w *ward, t *testing.T, _ string) way {
		return w.registering(t, "claim-crashed", "sensors", "crash-1", map[string]string{"function": functionARN + "decide"})
	},
	"hook without permission": func(w *ward, t *testing.T, _ string) way {
		w.hooked(t, "unpermitted", "decide")
		gone := w.registering(t, "claim-unpermitted", "unpermitted", "allow-unpermitted", map[string]string{"templateArn": arn + "provisioningtemplate/unpermitted"})
		gone.retry = w.again(w.side.device, "claim-unpermitted", "unpermitted", "allow-permitted")
		return gone
	},
	"hook missing": func(w *ward, t *testing.T, _ string) way {
		w.hooked(t, "unhooked", "nobody")
		return w.registering(t, "claim-unhooked", "unhooked", "unhooked-1", nil)
	},
	"claim quota": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "counted", true)
		d := w.guarded(t, "claim-full", "--quota", "1")
		a := w.desk(t, d, d.name, "counted")
		defer a.leave(t)
		mustCall(t, a, provisionBy("counted"), w.made(t, a, "counted-1"))
		_, csr := w.request(t, "counted-2")
		return way{word: d.name, seen: answered(call(t, a, createFromCSR, map[string]any{"certificateSigningRequest": csr})),
			names: map[string]string{"certificate": d.id(t)}, person: map[string]string{"--quota N": "--quota 2"}, retry: w.again(d, d.name, "counted", "counted-3")}
	},
	"claim stopped": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "stoppable", true)
		d := w.guarded(t, "claim-stopped", "--max-refusals", "1", "--window", "1h")
		misuse := w.desk(t, d, "claim-misused", "stoppable")
		for range 2 {
			mustReject(t, misuse, provisionBy("stoppable"), map[string]any{"certificateOwnershipToken": ""}, 400, "InvalidCertificateOwnershipToken")
		}
		misuse.leave(t)
		a := w.desk(t, d, d.name, "stoppable")
		defer a.leave(t)
		_, csr := w.request(t, "stopped-1")
		return way{word: d.name, seen: answered(call(t, a, createFromCSR, map[string]any{"certificateSigningRequest": csr})),
			names: map[string]string{"certificate": d.id(t)}, retry: w.again(d, d.name, "stoppable", "stopped-2")}
	},
	"serial not allowed": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "listed", true)
		d := w.guarded(t, "claim-unlisted", "--serial-parameter", "SerialNumber")
		a := w.desk(t, d, d.name, "listed")
		defer a.leave(t)
		seen := answered(call(t, a, provisionBy("listed"), w.made(t, a, "listed-1")))
		return way{word: d.name, seen: seen, names: map[string]string{"certificate": d.id(t)},
			dir: asFile(t, "serials.csv", "listed-1\n"), retry: w.again(d, d.name, "listed", "listed-1")}
	},
	"network not allowed": func(w *ward, t *testing.T, _ string) way {
		w.plainTemplate(t, "near", true)
		d := w.guarded(t, "claim-far", "--network", "192.0.2.0/24")
		a := w.desk(t, d, d.name, "near")
		defer a.leave(t)
		_, csr := w.request(t, "far-1")
		return way{word: d.name, seen: answered(call(t, a, createFromCSR, map[string]any{"certificateSigningRequest": csr})),
			names: map[string]string{"certificate": d.id(t), "address": "127.0.0.1"}, retry: w.again(d, d.name, "near", "far-2")}
	},
	"trusted user's claim expired": func(w *ward, t *testing.T, from string) way {
		s := w.hasty.server
		until(t, "the claim to expire", func() bool { return time.Now().After(w.claimEnds) })
		return way{on: s, word: from, seen: turnedAway(t, s, w.installer, "installer", from), retry: func(t *testing.T, printed string) {
			var out struct {
				Certificate string `json:"certificatePem"`
				Pair        struct {
					Private string `json:"PrivateKey"`
				} `json:"keyPair"`
			}
			err := json.Unmarshal([]byte(printed), &out)
			if err != nil {
				t.Fatalf("create-provisioning-claim: %v\n%s", err, printed)
			}
			d := writtenDevice(t, "installer", out.Certificate, out.Pair.Private)
			admitted(s, d, "installer-again")(t, "")
		}}
	},
}

// plainTemplate makes a template for claims, without a hook.
func (w *ward) plainTemplate(t *testing.T, name string, enabled bool) {
	t.Helper()
	must(w.api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String(name), TemplateBody: aws.String(fleetTemplate), ProvisioningRoleArn: aws.String(role), Enabled: aws.Bool(enabled),
	}))(t)
}

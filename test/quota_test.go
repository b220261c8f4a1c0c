package test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// explained says whether an attempt has a failed step with a code.
func explained(a attempt, code string) bool {
	return slices.ContainsFunc(a.Steps, func(s traceStep) bool {
		return s.Verdict == "failed" && s.Code == code && s.Detail != "" && s.Fix != ""
	})
}

func TestAboveItsRateAPublisherIsToldAndNobodyElseIs(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_PUBLISH_RATE=20")
	watch := s.one.open(t, mqtt.Connect{ClientID: "watch", CleanStart: true}, mqtt.V5)
	watch.subscribe(at1("rate/#"))
	theirs := s.two.open(t, mqtt.Connect{ClientID: "eager-5", CleanStart: true}, mqtt.V5)
	for _, version := range bothVersions {
		id := "eager-" + short(version)
		w := s.one.open(t, mqtt.Connect{ClientID: id, CleanStart: true}, version)
		before := s.metric(t, "imprint_publish_throttled_total")
		const sent = 60
		var all []byte
		for n := range sent {
			all = (&mqtt.Publish{Topic: []byte("rate/" + id), Payload: fmt.Append(nil, n), QoS: 1, PacketID: uint16(n + 1)}).Append(all, version)
		}
		w.sendBytes((&mqtt.Pingreq{}).Append(all, version))
		taken, refused := 0, 0
		for pong := false; !pong; {
			packet, err := w.tryRead(patience)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			ack, ok := packet.(*mqtt.Ack)
			_, pong = packet.(*mqtt.Pingresp)
			switch {
			case !ok:
			case ack.Reason == mqtt.Success:
				taken++
			case version == mqtt.V5 && ack.Reason == mqtt.QuotaExceeded:
				refused++
			default:
				t.Errorf("PUBACK above the rate: got %s, want 0x97", ack.Reason)
			}
		}
		throttled := s.metric(t, "imprint_publish_throttled_total") - before
		if throttled == 0 || throttled > sent-20 {
			t.Errorf("imprint_publish_throttled_total, %s: got %v more, want some, and 20 at least let through", id, throttled)
		}
		// An MQTT 3.1.1 client can't be told: those messages get no PUBACK.
		if taken != sent-int(throttled) || version == mqtt.V5 && refused != int(throttled) {
			t.Errorf("%s: got %d PUBACKs with success and %d with 0x97, want %d and %v", id, taken, refused, sent-int(throttled), throttled)
		}
		watch.ping()
		if got := len(watch.inbox); got != sent-int(throttled) {
			t.Errorf("messages of %s: got %d, want the %v that weren't discarded", id, got, sent-throttled)
		}
		watch.inbox = nil
		// Another connection, and one of the other tenant, have rates of their own.
		watch.say("rate/watch", "still here")
		watch.expect("still here")
		theirs.say("rate/theirs", "still here")
		w.close()
		if list := s.awaitExplained(t, id, 1); len(list) == 1 && !explained(list[0], "PublishRateExceeded") {
			t.Errorf("attempt of %s: got no step with PublishRateExceeded in %+v", id, list[0].Steps)
		}
	}
}

func TestAboveItsThroughputAConnectionIsReadMoreSlowly(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_THROUGHPUT_RATE=100000")
	w := s.one.open(t, mqtt.Connect{ClientID: "wide", CleanStart: true}, mqtt.V5)
	other := s.one.open(t, mqtt.Connect{ClientID: "other", CleanStart: true}, mqtt.V5)
	began := time.Now()
	for range 4 {
		w.publish(mqtt.Publish{Topic: []byte("wide/a"), Payload: make([]byte, 60_000), QoS: 1})
		other.say("wide/b", "not delayed")
	}
	// A second's worth at once, and the rest at the rate.
	if took := time.Since(began); took < time.Second {
		t.Errorf("240 kB at 100 kB a second took %s, want at least a second", took)
	}
	if got := s.metric(t, "imprint_throughput_delayed_total"); got == 0 {
		t.Error("imprint_throughput_delayed_total: got 0, want some")
	}
}

func TestMoreInFlightThanTheReceiveMaximumEndsTheConnection(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_MAX_INFLIGHT=4")
	// Somebody who is away makes the PUBACKs wait for the disk.
	away := s.one.open(t, persistent("away", mqtt.V5), mqtt.V5)
	away.subscribe(at1("many/#"))
	away.close()
	burst := func(v mqtt.Version, id func(n int) uint16) []byte {
		var all []byte
		for n := range 200 {
			all = (&mqtt.Publish{Topic: []byte("many/a"), Payload: fmt.Append(nil, n), QoS: 1, PacketID: id(n)}).Append(all, v)
		}
		return all
	}
	ascending := func(n int) uint16 { return uint16(n + 1) }
	w := s.one.open(t, mqtt.Connect{ClientID: "many-5", CleanStart: true}, mqtt.V5)
	if got := w.connack.Properties.ReceiveMaximum; got != 4 {
		t.Errorf("Receive Maximum of CONNACK: got %d, want 4", got)
	}
	w.sendBytes(burst(mqtt.V5, ascending))
	if goodbye := w.ended(); goodbye == nil || goodbye.Reason != mqtt.ReceiveMaximumExceeded {
		t.Errorf("DISCONNECT: got %+v, want 0x93", goodbye)
	}
	checkEnded(t, s.awaitExplained(t, "many-5", 1), "ReceiveMaximumExceeded")
	// MQTT 3.1.1 knows no such limit: all are taken, one after the other.
	w = s.one.open(t, mqtt.Connect{ClientID: "many-311", CleanStart: true}, mqtt.V311)
	w.sendBytes(burst(mqtt.V311, ascending))
	for n := range 200 {
		packet, err := w.tryRead(patience)
		ack, ok := packet.(*mqtt.Ack)
		if err != nil || !ok || ack.PacketID != uint16(n+1) {
			t.Fatalf("PUBACK %d: got %v, %v", n+1, packet, err)
		}
	}
	// One identifier for all is refused while it is in use.
	w = s.one.open(t, mqtt.Connect{ClientID: "same-5", CleanStart: true}, mqtt.V5)
	w.sendBytes(burst(mqtt.V5, func(int) uint16 { return 7 }))
	refused := 0
	for range 200 {
		packet, err := w.tryRead(patience)
		ack, ok := packet.(*mqtt.Ack)
		if err != nil || !ok {
			t.Fatalf("answers: got %v, %v; want PUBACKs", packet, err)
		}
		if ack.Reason == mqtt.PacketIdentifierInUse {
			refused++
		}
	}
	if refused == 0 {
		t.Error("200 messages with one identifier at once: none was refused with 0x91")
	}
	w.close()
	if list := s.awaitExplained(t, "same-5", 1); len(list) == 1 && !explained(list[0], "PacketIdentifierInUse") {
		t.Errorf("attempt: got no step with PacketIdentifierInUse in %+v", list[0].Steps)
	}
}

func TestQuotasOfOneTenantAreNotThoseOfAnother(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_MAX_RETAINED=3", "IMPRINT_MAX_SESSION_MESSAGES=10", "IMPRINT_MAX_SESSIONS=2")
	retained := func(n int, payload string) mqtt.Publish {
		return mqtt.Publish{Topic: fmt.Appendf(nil, "quota/%d", n), Payload: []byte(payload), QoS: 1, Retain: true}
	}
	w := s.one.open(t, mqtt.Connect{ClientID: "keeps", CleanStart: true}, mqtt.V5)
	for n := range 3 {
		w.publish(retained(n, "kept"))
	}
	reason, err := w.tryPublish(retained(3, "too many"))
	if err != nil || reason != mqtt.QuotaExceeded {
		t.Errorf("one retained message too many: got PUBACK %s, %v; want 0x97", reason, err)
	}
	w.publish(retained(0, "replaced"))
	w.publish(retained(1, ""))
	w.publish(retained(3, "now there is room"))
	theirs := s.two.open(t, mqtt.Connect{ClientID: "keeps", CleanStart: true}, mqtt.V5)
	for n := range 3 {
		theirs.publish(retained(n, "theirs"))
	}
	w.close()
	if list := s.awaitExplained(t, "keeps", 1); len(list) == 1 && !explained(list[0], "RetainedMessagesQuotaExceeded") {
		t.Errorf("attempt: got no step with RetainedMessagesQuotaExceeded in %+v", list[0].Steps)
	}

	sub := s.one.open(t, persistent("full", mqtt.V5), mqtt.V5)
	sub.subscribe(at1("full/#"))
	sub.close()
	from := s.one.open(t, mqtt.Connect{ClientID: "full-from", CleanStart: true}, mqtt.V5)
	want := numbered("message", 15)
	for n, payload := range want {
		reason, err := from.tryPublish(mqtt.Publish{Topic: []byte("full/a"), Payload: []byte(payload), QoS: 1})
		if err != nil || reason != mqtt.Success {
			t.Fatalf("message %d: got %s (%v), want success, also where the queue has no room", n, reason, err)
		}
	}
	if got := s.metric(t, "imprint_session_queue_full_total"); got != 5 {
		t.Errorf("imprint_session_queue_full_total: got %v, want 5", got)
	}
	again := s.one.open(t, persistent("full", mqtt.V5), mqtt.V5)
	again.expect(want[:10]...)
	again.expectNothing()
	again.close()
	if list := s.awaitExplained(t, "full", 1); len(list) == 1 && !explained(list[0], "SessionQueueFull") {
		t.Errorf("attempt: got no step with SessionQueueFull in %+v", list[0].Steps)
	}
}

func TestAClientIDThatConnectsTooOftenIsRefused(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t, "IMPRINT_CONNECT_RATE=2", "IMPRINT_TRACE_FOLD_AFTER=0")
	for _, version := range bothVersions {
		id := "hasty-" + short(version)
		refused, admitted := 0, 0
		// However slowly connections come, some of them come within one second.
		for deadline := time.Now().Add(patience); refused+admitted < 8 || refused == 0 && time.Now().Before(deadline); {
			w, err := s.one.tryDial(t, "")
			if err != nil {
				t.Fatal(err)
			}
			err = w.tryConnect(mqtt.Connect{ClientID: id, CleanStart: true}, version)
			switch {
			case err == nil:
				w.close()
				admitted++
				continue
			case version == mqtt.V5 && (w.connack == nil || w.connack.Reason != mqtt.QuotaExceeded && w.connack.Reason != mqtt.ConnectionRateExceeded):
				t.Errorf("CONNACK: got %+v, %v; want 0x97", w.connack, err)
			case version == mqtt.V311 && w.connack != nil:
				t.Errorf("CONNACK: got %+v, want a close without a word", w.connack)
			}
			refused++
			_ = w.conn.Close()
		}
		if refused == 0 || admitted < 2 {
			t.Errorf("%s: refused %d connections and let %d in, want some, and 2 at least", id, refused, admitted)
		}
		// The same name elsewhere, and other names here, are let in.
		s.two.open(t, mqtt.Connect{ClientID: id, CleanStart: true}, version).close()
		s.one.open(t, mqtt.Connect{ClientID: id + "-other", CleanStart: true}, version).close()
		codes := 0
		s.awaitRefusals(t)
		for _, a := range s.attempts(t, 200) {
			if a.ClientID == id && a.Outcome == "refused" && a.Code == "ConnectRateExceeded" && explained(a, a.Code) {
				codes++
			}
		}
		if codes != refused {
			t.Errorf("attempts of %s refused with ConnectRateExceeded: got %d, want %d", id, codes, refused)
		}
	}
}

func TestASlowReaderWithAPersistentSessionLosesNothing(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	s := newStage(t)
	slow := s.one.open(t, persistent("slow", mqtt.V5), mqtt.V5)
	slow.subscribe(at1("flood/#"))
	from := s.one.open(t, mqtt.Connect{ClientID: "flood-from", CleanStart: true}, mqtt.V311)
	payload := bytes.Repeat([]byte("x"), 100<<10)
	var want []string
	for n := range 120 {
		want = append(want, fmt.Sprintf("%03d", n))
		from.publish(mqtt.Publish{Topic: []byte("flood/a"), Payload: append([]byte(want[n]), payload...), QoS: 1})
	}
	// Whether it reads on or comes again, all of it is there.
	got := map[string]bool{}
	take := func(w *wire) {
		for len(got) < len(want) {
			packet, err := w.tryNext(patience)
			if err != nil {
				return
			}
			m, ok := packet.(*mqtt.Publish)
			if ok {
				got[string(m.Payload[:3])] = true
			}
		}
	}
	take(slow)
	slow.cut()
	if len(got) < len(want) {
		again := s.one.open(t, persistent("slow", mqtt.V5), mqtt.V5)
		take(again)
	}
	for _, payload := range want {
		if !got[payload] {
			t.Errorf("message %s: never came", payload)
		}
	}
}

package test

import (
	"strings"
	"testing"
)

// TestAKilledServersConnectionsEndInTheTrace ensures that the attempts of devices that were
// on when the server was killed end with ServerStopped at the next start, with what had
// failed before, that imprint explain says so in words, and that those of devices which left
// before or came since stay as they are.
func TestAKilledServersConnectionsEndInTheTrace(t *testing.T) {
	need(t, "openssl", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := newStage(t)
	s.subscribe(t, s.one.device, "listens", "in/#")
	s.connect(t, s.one.device, "idle", dialing{})
	troubled := s.connect(t, s.one.device, "troubled", dialing{})
	if got := troubled.send(t, "$aws/x", "x", 1); got != 0x90 {
		t.Fatalf("PUBACK: got %#x, want 0x90", got)
	}
	s.publish(t, s.one.device, "gone", "out")
	ended := func(client string) (attempt, bool) {
		list := s.explain(t, client)
		if len(list) != 1 {
			return attempt{}, false // it isn't written yet
		}
		return list[0], list[0].Ended > 0
	}
	on := []string{"listens", "idle", "troubled"}
	for _, client := range on {
		until(t, client+" to be on", func() bool {
			list := s.explain(t, client)
			return len(list) == 1 && list[0].Outcome == "connected" && list[0].Ended == 0 &&
				(client != "troubled" || list[0].isRefused("publish", "ReservedTopic"))
		})
	}
	until(t, "the end of who left", func() bool { _, is := ended("gone"); return is })

	s.signal(killed)
	s.start()
	s.connect(t, s.one.device, "fresh", dialing{})
	for _, client := range on {
		until(t, "the end of "+client, func() bool { _, is := ended(client); return is })
		a, _ := ended(client)
		last := a.Steps[len(a.Steps)-1]
		if a.Outcome != "closed" || a.Code != "ServerStopped" || a.Ended < a.Began || last.Name != "session" || !strings.Contains(last.Detail, "the server stopped without ending the connection") {
			t.Errorf("%s: the attempt ended as %s %s with %+v", client, a.Outcome, a.Code, last)
		}
		text := s.imprint(t, "explain", client).stdout
		for _, want := range []string{"closed ServerStopped", "the server stopped without ending the connection; the time is that of its next start", "next: The device notices that its connection is gone and comes again."} {
			if !strings.Contains(text, want) {
				t.Errorf("imprint explain %s doesn't say %q:\n%s", client, want, text)
			}
		}
		if told := strings.Contains(text, "is none that clients may publish to"); told != (client == "troubled") {
			t.Errorf("imprint explain %s tells of a reserved topic: %t\n%s", client, told, text)
		}
	}
	if a, _ := ended("gone"); a.Code != "ClientDisconnect" {
		t.Errorf("who left before the kill: got %s %s", a.Outcome, a.Code)
	}
	until(t, "who came since to be on", func() bool {
		list := s.explain(t, "fresh")
		return len(list) == 1 && list[0].Outcome == "connected" && list[0].Ended == 0
	})
	// What nobody was refused is no failure.
	failed := s.imprint(t, "attempts", "--failed", "--since", "1h").stdout
	if strings.Contains(failed, "idle") || !strings.Contains(failed, "troubled") {
		t.Errorf("the failed attempts are\n%s", failed)
	}
}

package test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

func TestSIGTERMTellsDevicesAndEndsWithExitCode0(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub", "stdbuf")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Shutdown")
	first := s.join5(t, f.device(t, "stay-1", "P-256"), dialing{})
	second := s.join5(t, f.device(t, "stay-2", "P-256"), dialing{})
	old := f.device(t, "stay-3", "P-256")
	s.join(t, old)
	s.subscribe(t, old, old.name, "d/stay-3/#")
	if exit := s.signal(syscall.SIGTERM); exit != 0 {
		t.Errorf("exit code: got %d, want 0", exit)
	}
	for _, c := range []*mqtt5{first, second} {
		if got := c.goodbye(t); got != 0x8b {
			t.Errorf("DISCONNECT: got %#x, want 0x8b", got)
		}
	}
	s.start()
	for _, name := range []string{"stay-1", "stay-2", "stay-3"} {
		list := s.explain(t, name)
		if len(list) == 0 || list[0].Outcome != "closed" || list[0].Code != "ServerShuttingDown" {
			t.Errorf("newest attempt of %s: got %+v, want closed ServerShuttingDown", name, list)
		}
	}
}

func TestSIGTERMIsObeyedWhileSlowPeersHoldTheirConnections(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.tcp(t, "127.0.0.1")
	s.tcp(t, "127.0.0.1")
	if exit := s.signal(syscall.SIGTERM); exit != 0 {
		t.Errorf("exit code: got %d, want 0", exit)
	}
}

func TestHealthReadinessAndMetricsAnswerOverTLS(t *testing.T) {
	need(t, "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.join(t, s.line(t, "Metrics").device(t, "counted-1", "P-256"))
	client := s.httpClient(t)
	get := func(path string) string {
		response, err := client.Get(s.at().APIURL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: got status %d, want 200\n%s", path, response.StatusCode, body)
		}
		return string(body)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
		var answer struct {
			Status string `json:"status"`
		}
		err := json.Unmarshal([]byte(get(path)), &answer)
		if err != nil || answer.Status != want {
			t.Errorf("%s: got %+v, %v; want status %s", path, answer, err, want)
		}
	}
	metrics := get("/metrics")
	for _, want := range []string{"imprint_handshakes_total 2\n", "imprint_handshakes_failed_total 0\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %q:\n%s", want, metrics)
		}
	}
	// Plain HTTP gets no answer of ours.
	response, err := http.Get(strings.Replace(s.at().APIURL, "https:", "http:", 1) + "/healthz")
	if err == nil {
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Error("/healthz answers without TLS")
		}
	}
}

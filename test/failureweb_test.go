package test

import (
	"strings"
	"testing"
)

// asked is what curl was answered on the HTTPS port, in the table's words.
func (w *ward) asked(t *testing.T, from, address string, args ...string) way {
	t.Helper()
	args = append([]string{"--silent", "--show-error", "--ipv4", "--interface", from, "--cacert", w.server().at().CABundle, "--max-time", "20", "--output", "/dev/null", "--write-out", "HTTP %{http_code}"}, args...)
	run := runTool(t, "", cleanEnv(), "curl", append(args, address)...)
	if run.exit != 0 {
		t.Fatalf("curl: exit code %d\n%s", run.exit, run.all())
	}
	return way{word: from, seen: run.stdout}
}

var webWays = map[string]func(*ward, *testing.T, string) way{
	"HTTPS publish denied": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		return w.asked(t, from, w.server().httpsURL(t)+"/topics/elsewhere/x?qos=1", "--cert", d.cert, "--key", d.key, "--data", "x")
	},
	"MQTT on the HTTPS port": func(w *ward, t *testing.T, from string) way {
		d := w.b.joined("")(t)
		_, port, _ := strings.Cut(strings.TrimPrefix(w.server().httpsURL(t), "https://"), ":")
		run := runTool(t, "", cleanEnv(), "mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-A", from, "--cafile", w.server().at().CABundle,
			"--cert", d.cert, "--key", d.key, "-i", "plain", "-t", "a", "-m", "b")
		if run.exit == 0 {
			t.Errorf("mosquitto_pub without ALPN: exit code 0\n%s", run.all())
		}
		return way{word: from, seen: "closed"}
	},
	"HTTPS without a certificate": func(w *ward, t *testing.T, from string) way {
		return w.asked(t, from, w.server().httpsURL(t)+"/topics/elsewhere/x?qos=1", "--data", "x")
	},
	"WebSocket signature": func(w *ward, t *testing.T, from string) way {
		address, signature, found := strings.Cut(w.server().presigned(t, w.server().httpsURL(t)), "X-Amz-Signature=")
		if !found {
			t.Fatalf("the URL has no signature: %s", address)
		}
		last := signature[:len(signature)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(signature, "0")]
		return w.asked(t, from, address+"X-Amz-Signature="+last, "--http1.1", "--header", "Connection: Upgrade", "--header", "Upgrade: websocket",
			"--header", "Sec-WebSocket-Version: 13", "--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "--header", "Sec-WebSocket-Protocol: mqtt")
	},
}

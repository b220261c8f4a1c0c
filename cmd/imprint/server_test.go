package main

import "testing"

// TestLinksForOthersNameTheServerAsTheyKnowIt ensures that a link which another
// machine opens doesn't lead to that machine.
func TestLinksForOthersNameTheServerAsTheyKnowIt(t *testing.T) {
	t.Parallel()
	const devices = "a1-ats.iot.us-east-1.example.com:8883"
	for _, row := range []struct {
		name, listen string
		hosts        []string
		domain, want string
	}{
		{"nothing is set", ":9443", nil, "", "localhost"},
		{"a name", ":9443", []string{"iot.example.test", "192.0.2.1"}, "", "iot.example.test"},
		{"a name and a domain", "0.0.0.0:9443", []string{"iot.example.test"}, "example.com", "iot.example.test"},
		{"a domain", "[::]:9443", nil, "example.com", "a1-ats.iot.us-east-1.example.com"},
		{"this machine alone, for a proxy", "127.0.0.1:9443", []string{"iot.example.test"}, "", "iot.example.test"},
		{"one address that the API listens on", "192.0.2.7:9443", []string{"iot.example.test"}, "example.com", "192.0.2.7"},
	} {
		if got := linkHost(row.listen, row.hosts, row.domain, devices, "localhost"); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}

package outward

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// TestPublicAddressesAlone ensures what is refused, however it is written.
func TestPublicAddressesAlone(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:80": false, "127.9.9.9:80": false, "[::1]:80": false, "0.0.0.0:80": false, "[::]:80": false,
		"10.1.2.3:443": false, "172.16.0.1:443": false, "172.31.255.255:443": false, "192.168.0.1:443": false, "100.100.100.200:80": false,
		"169.254.169.254:80": false, "[fd00:ec2::254]:80": false, "[fe80::1%eth0]:80": false, "224.0.0.1:80": false, "255.255.255.255:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::ffff:10.0.0.1]:80": false, "[64:ff9b::a00:1]:80": false, "[2002:7f00:1::1]:80": false, "[2001:0:1::1]:80": false,
		"8.8.8.8:443": true, "172.32.0.1:443": true, "[2606:4700::1111]:443": true, "[::ffff:8.8.8.8]:443": true,
	} {
		err := control("tcp", address, nil)
		var refused *Refused
		if got := err == nil; got != want || !want && !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want allowed %v", address, err, want)
		}
	}
}

// TestAddressesOfThisMachineAreRefused ensures that, whatever they are.
func TestAddressesOfThisMachineAreRefused(t *testing.T) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		ip := a.(*net.IPNet).IP
		if control("tcp", net.JoinHostPort(ip.String(), "443"), nil) == nil {
			t.Errorf("%s is let through", ip)
		}
	}
}

// TestNamesThatLeadToThisMachineAreRefused ensures that the address counts and not the
// name, and that no proxy is asked.
func TestNamesThatLeadToThisMachineAreRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the server was reached") }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	through := http.ProxyURL(&url.URL{Scheme: "http", Host: server.Listener.Addr().String()})
	client := &http.Client{Transport: Transport(&http.Transport{Proxy: through}, time.Minute)}
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]"} {
		_, err = client.Get("http://" + host + ":" + port)
		var refused *Refused
		if !errors.As(err, &refused) || !refused.Address.IsLoopback() {
			t.Errorf("%s: got %v, want a refusal", host, err)
		}
	}
}

package bench_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/bench"
	"github.com/imprint-iot/imprint/mqtt"
)

// forgetful serves MQTT over TLS and never has a session of a client. It gives
// its address.
func forgetful(t *testing.T, config *tls.Config) *bench.Visitor {
	t.Helper()
	certificate, roots, err := bench.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{certificate}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			answer(tls.Server(conn, config))
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	v, err := bench.NewVisitor(ln.Addr().String(), roots)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// answer accepts whatever one client asks for, until it leaves.
func answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		head, err := in.Peek(2)
		if err != nil {
			return
		}
		header, _, err := mqtt.ParseFixedHeader(head)
		if err != nil {
			return
		}
		body := make([]byte, header.Size+header.Remaining)
		_, err = io.ReadFull(in, body)
		if err != nil {
			return
		}
		switch header.Type {
		case mqtt.TypeConnect:
			_, _ = conn.Write((&mqtt.Connack{}).Append(nil, mqtt.V311))
		case mqtt.TypeSubscribe:
			_, _ = conn.Write((&mqtt.Suback{PacketID: 1, Codes: []mqtt.ReasonCode{mqtt.GrantedQoS1}}).Append(nil, mqtt.V311))
		}
	}
}

func TestResumptionIsToldFromFullHandshakes(t *testing.T) {
	t.Parallel()
	err := forgetful(t, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}).CheckResumption(t.Context())
	if err != nil {
		t.Errorf("with tickets: got %v, want no error", err)
	}
	err = forgetful(t, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
	}).CheckResumption(t.Context())
	if !errors.Is(err, bench.ErrNotResumed) {
		t.Errorf("without tickets: got %v, want %v", err, bench.ErrNotResumed)
	}
}

func TestServersThatKeepNoSessionAreTold(t *testing.T) {
	t.Parallel()
	err := forgetful(t, &tls.Config{MinVersion: tls.VersionTLS13}).CheckPersistence(t.Context())
	if !errors.Is(err, bench.ErrNoSession) {
		t.Errorf("got %v, want %v", err, bench.ErrNoSession)
	}
}

func startMosquitto(t *testing.T, first ...string) *bench.Mosquitto {
	t.Helper()
	m, err := bench.StartMosquitto(t.Context(), "", filepath.Join(t.TempDir(), "mosquitto"), first...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := m.Stop()
		if err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestMessagesToAnAbsentDeviceWaitForIt(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t)
	err := m.CheckPersistence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sent, came, err := m.ToAbsent(t.Context())
	if err != nil || sent != 500 || came != 500 {
		t.Errorf("got %d acknowledged, %d after coming again, and %v, want 500 of each", sent, came, err)
	}
}

// TestMosquittoTakesAnotherPortWhenItsOwnIsTaken ensures that a program which takes the port
// before mosquitto does neither ends the measurement nor is measured.
func TestMosquittoTakesAnotherPortWhenItsOwnIsTaken(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	m := startMosquitto(t, ln.Addr().String())
	if m.Address() == ln.Addr().String() {
		t.Fatal("the port of another program is taken for mosquitto's")
	}
	err = m.CheckPersistence(t.Context())
	if err != nil {
		t.Error(err)
	}
}

func TestMosquittoChecksCertificatesAndRules(t *testing.T) {
	t.Parallel()
	m := startMosquitto(t)
	first, second := m.Things()
	want := "models/sensor-1/flow/x"
	got, err := m.First(t.Context(), "devices/"+second+"/read-by-another", "devices/"+first+"/written-by-another", "other", want)
	if err != nil || got != want {
		t.Errorf("the first message that came is %q (%v), want %q, the one that the rules allow", got, err, want)
	}
	stranger, err := bench.NewVisitor(m.Address(), m.Roots())
	if err != nil {
		t.Fatal(err)
	}
	err = stranger.CheckPersistence(t.Context())
	if err == nil {
		t.Error("a device of another CA was let in")
	}
}

func TestBrokerRefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	good := func() bench.BrokerOptions {
		return bench.BrokerOptions{Connections: 10, Payload: 64, Lasting: 1, Concurrency: 1, NoMosquitto: true}
	}
	for want, change := range map[string]func(*bench.BrokerOptions){
		"9 connections":        func(o *bench.BrokerOptions) { o.Connections = bench.MinConnections - 1 },
		"200001 connections":   func(o *bench.BrokerOptions) { o.Connections = bench.MaxDevices + 1 },
		"-1 messages":          func(o *bench.BrokerOptions) { o.Count = -1 },
		"19 bytes":             func(o *bench.BrokerOptions) { o.Payload = bench.MinPayload - 1 },
		"131073 bytes":         func(o *bench.BrokerOptions) { o.Payload = bench.MaxPayload + 1 },
		"rounds of 0s":         func(o *bench.BrokerOptions) { o.Lasting = 0 },
		"rounds of 10m0":       func(o *bench.BrokerOptions) { o.Lasting = bench.MaxLasting + 1 },
		`"speed"`:              func(o *bench.BrokerOptions) { o.Only = []string{"memory", "speed"} },
		"package mosquitto":    func(o *bench.BrokerOptions) { o.NoMosquitto, o.Mosquitto = false, "/nowhere/mosquitto" },
		"0 connections at a t": func(o *bench.BrokerOptions) { o.Concurrency = 0 },
	} {
		opts := good()
		change(&opts)
		_, err := bench.Broker(context.Background(), bench.Target{}, opts)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestSourceAddressesAreOnLoopbackAndHaveFewConnectionsEach(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for n := range bench.MaxDevices {
		ip := bench.SourceOf(n)
		if !ip.IsLoopback() {
			t.Fatalf("device %d comes from %s, want a loopback address", n, ip)
		}
		counts[ip.String()]++
	}
	for ip, n := range counts {
		if n > 10_000 {
			t.Errorf("%d connections come from %s, want 10000 at most", n, ip)
		}
	}
}

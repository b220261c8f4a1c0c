package gateway_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/mqtt"
)

// loadVariable makes this test program a load generator instead, so that what
// the door costs can be told from what its clients cost.
const loadVariable = "IMPRINT_TEST_LOAD"

// load is what the generator does: each worker connects again and again with
// one device certificate, until its standard input ends or, if Count is set,
// Count connections were made in all.
type load struct {
	Address string   `json:"address"`
	Workers int      `json:"workers"`
	Count   int      `json:"count"`
	Resume  bool     `json:"resume"`
	Version uint16   `json:"version"`
	Curves  []uint16 `json:"curves"`
	Cert    [][]byte `json:"cert"`
	Key     []byte   `json:"key"`
}

// generate is the load generator. It says "warm" when every worker has
// connected once, waits for a line, and says "done" at the end.
func generate(spec string) error {
	var l load
	err := json.Unmarshal([]byte(spec), &l)
	if err != nil {
		return err
	}
	cert, err := l.certificate()
	if err != nil {
		return err
	}
	var next atomic.Int64
	var stop atomic.Bool
	configs := make([]*tls.Config, l.Workers)
	for n := range configs {
		configs[n] = l.client(cert)
		err = l.once(configs[n], n)
		if err != nil {
			return err
		}
	}
	in := bufio.NewReader(os.Stdin)
	fmt.Println("warm")
	_, err = in.ReadString('\n')
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		stop.Store(true)
	}()
	var workers sync.WaitGroup
	failed := make(chan error, l.Workers)
	for n := range l.Workers {
		workers.Go(func() {
			for !stop.Load() && (l.Count == 0 || next.Add(1) <= int64(l.Count)) {
				err := l.once(configs[n], n)
				if err != nil && l.Count > 0 {
					failed <- err
					return
				}
			}
		})
	}
	workers.Wait()
	fmt.Println("done")
	select {
	case err = <-failed:
		return err
	default:
		return nil
	}
}

func (l load) certificate() (tls.Certificate, error) {
	key, err := x509.ParsePKCS8PrivateKey(l.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: l.Cert, PrivateKey: key}, nil
}

func (l load) client(cert tls.Certificate) *tls.Config {
	config := client("localhost", cert)
	config.MinVersion, config.MaxVersion = l.Version, l.Version
	for _, curve := range l.Curves {
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(curve))
	}
	if l.Resume {
		config.ClientSessionCache = &oneSession{}
	}
	return config
}

// once connects to CONNACK and closes.
func (l load) once(config *tls.Config, worker int) error {
	raw, err := net.Dial("tcp", l.Address)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(raw, config)
	_, err = conn.Write((&mqtt.Connect{ClientID: "device-" + strconv.Itoa(worker), CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V311))
	if err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 4))
	return err
}

// generator is a running load generator.
type generator struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (w *world) generator(b testing.TB, l load, cert tls.Certificate) *generator {
	b.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	l.Address, l.Cert, l.Key = w.address, cert.Certificate, key
	spec, err := json.Marshal(l)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), loadVariable+"="+string(spec))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	err = cmd.Start()
	if err != nil {
		b.Fatal(err)
	}
	g := &generator{cmd: cmd, in: in, out: bufio.NewReader(out)}
	g.want(b, "warm\n")
	return g
}

func (g *generator) want(b testing.TB, line string) {
	b.Helper()
	got, err := g.out.ReadString('\n')
	if err != nil || got != line {
		b.Fatalf("the load generator said %q, %v, want %q", got, err, line)
	}
}

func (g *generator) begin(b testing.TB) {
	b.Helper()
	_, err := io.WriteString(g.in, "go\n")
	if err != nil {
		b.Fatal(err)
	}
}

// end stops the generator and waits for it.
func (g *generator) end(b testing.TB) {
	b.Helper()
	_ = g.in.Close()
	g.want(b, "done\n")
	err := g.cmd.Wait()
	if err != nil {
		b.Error(err)
	}
}

// ownCPU is the processor time of this process, user and system.
func ownCPU(b testing.TB) time.Duration {
	b.Helper()
	var usage unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &usage)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// linger is the trace's as the server has it.
const linger = 100 * time.Millisecond

// BenchmarkReconnect tells what a known device's connection costs the server,
// from the socket to CONNACK, trace included. Its clients are another process.
func BenchmarkReconnect(b *testing.B) {
	classical := []uint16{uint16(tls.X25519)}
	for _, row := range []struct {
		name string
		load load
	}{
		{"TLS1.3/full", load{Version: tls.VersionTLS13}},
		{"TLS1.3/resumed", load{Version: tls.VersionTLS13, Resume: true}},
		{"TLS1.3-X25519/full", load{Version: tls.VersionTLS13, Curves: classical}},
		{"TLS1.3-X25519/resumed", load{Version: tls.VersionTLS13, Curves: classical, Resume: true}},
		{"TLS1.2/full", load{Version: tls.VersionTLS12}},
		{"TLS1.2/resumed", load{Version: tls.VersionTLS12, Resume: true}},
	} {
		b.Run(row.name, func(b *testing.B) {
			w := newWorld(b, settings{linger: linger, tickets: openTickets(b, gateway.TicketOptions{})})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(b, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			row.load.Workers, row.load.Count = 64, b.N
			g := w.generator(b, row.load, cert)
			before := ownCPU(b)
			b.ResetTimer()
			g.begin(b)
			g.want(b, "done\n")
			b.StopTimer()
			b.ReportMetric(float64((ownCPU(b)-before).Microseconds())/float64(b.N), "cpu-µs/conn")
			err := g.cmd.Wait()
			if err != nil {
				b.Error(err)
			}
			if got, want := w.gateway.Counters().Resumed > 0, row.load.Resume; got != want {
				b.Errorf("sessions resumed: %t, want %t", got, want)
			}
		})
	}
}

// BenchmarkLiveDevicesInAStorm tells how long a device that is on waits for its
// answers while others make full handshakes as fast as they can, for several
// bounds of the handshakes that compute at once.
func BenchmarkLiveDevicesInAStorm(b *testing.B) {
	for _, row := range []struct {
		name       string
		concurrent int
		storm      bool
	}{
		{"calm", 0, false},
		{"storm/default", 0, true},
		{"storm/one for each processor", runtime.GOMAXPROCS(0), true},
		{"storm/unbounded", 1 << 20, true},
	} {
		b.Run(row.name, func(b *testing.B) {
			w := newWorld(b, settings{linger: linger, tickets: openTickets(b, gateway.TicketOptions{}), options: gateway.Options{ConcurrentHandshakes: row.concurrent}})
			cert := selfSigned(ecdsaKey(), "device")
			w.register(b, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			live, accepted, err := w.connect(b, client("localhost", cert))
			if err != nil || !accepted {
				b.Fatalf("accepted %t, %v", accepted, err)
			}
			_ = live.SetDeadline(time.Time{})
			if row.storm {
				g := w.generator(b, load{Version: tls.VersionTLS13, Workers: 400}, cert)
				g.begin(b)
				defer g.end(b)
			}
			w.ping(b, live, b.N)
		})
	}
}

// ping reports the percentiles of n PINGREQ to PINGRESP on a live connection, 2
// ms apart.
func (w *world) ping(b *testing.B, live net.Conn, n int) {
	b.Helper()
	took := make([]time.Duration, 0, n)
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	before := w.gateway.Counters().HandshakesOK
	b.ResetTimer()
	for range n {
		<-ticker.C
		began := time.Now()
		_, err := live.Write([]byte{0xc0, 0})
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.ReadFull(live, make([]byte, 2))
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	b.StopTimer()
	slices.Sort(took)
	for _, percent := range []int{50, 90, 99} {
		b.ReportMetric(float64(took[len(took)*percent/100].Microseconds()), fmt.Sprintf("p%d-µs", percent))
	}
	c := w.gateway.Counters()
	b.ReportMetric(float64(c.HandshakesOK-before)/b.Elapsed().Seconds(), "handshakes/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdleConnection tells what one device that is on takes of memory, its
// client's side included, with and without session tickets.
func BenchmarkIdleConnection(b *testing.B) {
	for name, tickets := range map[string]bool{"tickets": true, "none": false} {
		b.Run(name, func(b *testing.B) {
			s := settings{}
			if tickets {
				s.tickets = openTickets(b, gateway.TicketOptions{})
			}
			w := newWorld(b, s)
			cert := selfSigned(ecdsaKey(), "device")
			w.register(b, home, cert, imprint.ModeDefault, imprint.CertificateActive)
			before := memoryInUse()
			for n := range b.N {
				conn := tls.Client(w.dial(b), client("localhost", cert))
				_, err := conn.Write((&mqtt.Connect{ClientID: "device-" + strconv.Itoa(n), CleanStart: true, KeepAlive: 600}).Append(nil, mqtt.V311))
				if err != nil {
					b.Fatal(err)
				}
				_, err = io.ReadFull(conn, make([]byte, 4))
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(memoryInUse()-before)/float64(b.N), "B/conn")
		})
	}
}

func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

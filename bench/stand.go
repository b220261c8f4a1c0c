package bench

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// Target says how the children are started and found.
type Target struct {
	// Program is the path of the program that both children run.
	Program string
	// ServerArgs is the command line of an Imprint server that keeps everything
	// in dir, listens on free loopback ports, and carries out Obey.
	ServerArgs func(dir string) []string
	// BareArgs is the command line of ServeBare.
	BareArgs []string
	// Facts reads where the server of dir is. It fails until the server has
	// opened its ports.
	Facts func(dir string) (Facts, error)
}

// Facts are what a bench must know of a server.
type Facts struct {
	APIURL      string // https://host:port
	MQTTAddress string // host:port; the port is open on 127.0.0.1
	RootPath    string // PEM file of the server's root
	Account     string
	Region      string
	KeyID       string // access key of an operator
	Secret      string
}

// Options are what a person can choose.
type Options struct {
	Devices     int       // 1 to MaxDevices
	Concurrency int       // connections at a time, 1 to MaxConcurrency
	FullOnly    bool      // Handshake alone: no reconnects that resume their TLS session
	ServerFlags []string  // further flags of the server
	KeepData    bool      // leave the server's data directory for inspection
	CPUProfile  string    // file for a profile of the server in the measured part; empty: none
	Messages    io.Writer // what goes on and what the children say, for people
}

// Bounds of Options: the ports of one address, and half of what the server
// admits from one address before CONNECT.
const (
	MaxDevices     = 200_000
	MaxConcurrency = 256
)

func (o Options) check() error {
	if o.Devices < 1 || o.Devices > MaxDevices {
		return fmt.Errorf("couldn't run with %d devices: 1 to %d are possible", o.Devices, MaxDevices)
	}
	if o.Concurrency < 1 || o.Concurrency > MaxConcurrency {
		return fmt.Errorf("couldn't run with %d connections at a time: 1 to %d are possible", o.Concurrency, MaxConcurrency)
	}
	return nil
}

// warmUp is how many devices come before anything is measured.
func (o Options) warmUp() int { return min(o.Devices/10+1, 200) }

// bareWarmUp is how many handshakes the reference gets before it is probed: its
// first ones cost a fifth more.
const bareWarmUp = 500

const (
	startTimeout = 60 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// stand is everything that a bench needs, running.
type stand struct {
	opts    Options
	dir     string
	server  *child
	facts   Facts
	door    door
	api     *client.Client
	bare    *bareServer
	ca      *authority
	warmers []*device // for the warm-up
	devices []*device // for the measured part
}

// newStand starts both children and makes and announces the devices. It leaves
// nothing behind when it fails.
func newStand(ctx context.Context, target Target, opts Options) (*stand, error) {
	err := opts.check()
	if err != nil {
		return nil, err
	}
	_, err = cpuTime(os.Getpid())
	if err != nil {
		return nil, err
	}
	if opts.Messages == nil {
		opts.Messages = io.Discard
	}
	if opts.CPUProfile != "" {
		opts.CPUProfile, err = filepath.Abs(opts.CPUProfile)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't find the place of the CPU profile: %w", err)
	}
	s := &stand{opts: opts}
	err = s.open(ctx, target)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stand) open(ctx context.Context, target Target) error {
	dir, err := os.MkdirTemp("", "imprint-bench-")
	if err != nil {
		return fmt.Errorf("couldn't make a data directory: %w", err)
	}
	s.dir = dir
	s.server, err = startChild("Imprint server", target.Program, append(target.ServerArgs(dir), s.opts.ServerFlags...), s.opts.Messages)
	if err != nil {
		return err
	}
	err = s.awaitServer(ctx, target)
	if err != nil {
		return err
	}
	s.bare, err = startBare(ctx, target, s.opts.Messages)
	if err != nil {
		return err
	}
	return s.makeDevices(ctx)
}

// awaitServer waits until the server says that it is ready for devices.
func (s *stand) awaitServer(ctx context.Context, target Target) error {
	return s.await(ctx, startTimeout, "the Imprint server isn't ready", func(ctx context.Context) error {
		facts, err := target.Facts(s.dir)
		if err != nil {
			return err
		}
		if s.api == nil {
			s.facts = facts
			s.api, err = client.New(client.Config{
				Endpoint: facts.APIURL, KeyID: facts.KeyID, Secret: facts.Secret, Region: facts.Region, RootPath: facts.RootPath,
			})
		}
		if err != nil {
			return err
		}
		err = s.api.Call(ctx, "GET", "/readyz", nil, nil)
		if err != nil {
			return err
		}
		s.door, err = newDoor(facts)
		return err
	})
}

// await polls until check passes, the server ends, or the time is up.
func (s *stand) await(ctx context.Context, timeout time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		last := check(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-s.server.ended:
			return s.server.lost()
		case <-ctx.Done():
			return fmt.Errorf("%s (%w): %w", what, ctx.Err(), last)
		}
	}
}

func newDoor(facts Facts) (door, error) {
	_, port, err := net.SplitHostPort(facts.MQTTAddress)
	if err != nil {
		return door{}, fmt.Errorf("couldn't read the devices' address: %w", err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(facts.RootPath)
	if err != nil {
		return door{}, fmt.Errorf("couldn't read the server's root: %w", err)
	}
	if !roots.AppendCertsFromPEM(text) {
		return door{}, fmt.Errorf("couldn't read the server's root: %s holds no certificate", facts.RootPath)
	}
	return door{address: net.JoinHostPort("127.0.0.1", port), roots: roots}, nil
}

func (s *stand) makeDevices(ctx context.Context) error {
	now := time.Now()
	ca, err := newAuthority("Imprint bench device CA", now)
	if err != nil {
		return err
	}
	err = registerAuthority(ctx, s.api, ca, s.facts, now)
	if err != nil {
		return err
	}
	s.ca = ca
	all, err := ca.devices(ctx, s.opts.warmUp()+s.opts.Devices, now)
	if err != nil {
		return err
	}
	s.warmers, s.devices = all[:s.opts.warmUp()], all[s.opts.warmUp():]
	return nil
}

// settle returns when everything that the server recorded so far is in its
// registry: the list of attempts waits for that.
func (s *stand) settle(ctx context.Context) error {
	err := s.api.Call(ctx, "GET", attempts.Path+"?maxResults=1", nil, nil)
	if err != nil {
		return fmt.Errorf("couldn't wait for the trace: %w", err)
	}
	return nil
}

// explain adds to a device's failure why the server refused the last device
// that it refused, if it refused one.
func (s *stand) explain(ctx context.Context, failure error) error {
	var page struct {
		Attempts []struct {
			Code  string `json:"code"`
			Steps []struct {
				Verdict string `json:"verdict"`
				Detail  string `json:"detail"`
			} `json:"steps"`
		} `json:"attempts"`
	}
	err := s.api.Call(ctx, "GET", attempts.Path+"?failed=true&maxResults=1", nil, &page)
	if err != nil || len(page.Attempts) == 0 {
		return failure // what is known already says more
	}
	refused := page.Attempts[0]
	for _, step := range refused.Steps {
		if step.Verdict == "failed" {
			return fmt.Errorf("%w; the server's last refusal is %s: %s", failure, refused.Code, step.Detail)
		}
	}
	return failure
}

// measured is what a measured part took.
type measured struct {
	before, after float64 // handshakes of the reference per CPU-second
	cpu, wall     time.Duration
}

// reference is the mean of the two probes.
func (m measured) reference() float64 { return (m.before + m.after) / 2 }

// measure runs a load between two probes of the reference with the devices.
func (s *stand) measure(ctx context.Context, devices []*device, profile string, load func(context.Context) error) (measured, error) {
	var m measured
	_, err := s.bare.probe(ctx, devices[:min(len(devices), bareWarmUp)], s.opts.Concurrency)
	if err != nil {
		return m, err
	}
	m.before, err = s.bare.probe(ctx, devices, s.opts.Concurrency)
	if err != nil {
		return m, err
	}
	err = s.profiled(ctx, profile, func() error {
		m.cpu, m.wall, err = s.timed(ctx, load)
		return err
	})
	if err != nil {
		return m, err
	}
	m.after, err = s.bare.probe(ctx, devices, s.opts.Concurrency)
	return m, err
}

// timed gives the CPU time of the server and the time of the clock that a load
// takes, up to its last write.
func (s *stand) timed(ctx context.Context, load func(context.Context) error) (cpu, wall time.Duration, err error) {
	err = s.settle(ctx)
	if err != nil {
		return 0, 0, err
	}
	used, err := s.server.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	err = load(ctx)
	if err != nil {
		return 0, 0, err
	}
	err = s.settle(ctx)
	if err != nil {
		return 0, 0, err
	}
	wall = time.Since(began)
	now, err := s.server.cpu()
	return now - used, wall, err
}

// profiled runs a measured part, under the profiler if a file is named for it.
func (s *stand) profiled(ctx context.Context, profile string, part func() error) error {
	if profile == "" {
		return part()
	}
	err := s.server.order(ctx, profileOrder+profile)
	if err != nil {
		return err
	}
	err = part()
	return errors.Join(err, s.server.order(ctx, profileEndOrder))
}

// close ends the children and removes the data directory.
func (s *stand) close() error {
	var errs []error
	if s.bare != nil {
		errs = append(errs, s.bare.stop())
	}
	if s.server != nil {
		errs = append(errs, s.server.stop())
	}
	switch {
	case s.dir == "":
	case s.opts.KeepData:
		_, _ = fmt.Fprintf(s.opts.Messages, "the server's data directory is kept: %s\n", s.dir)
	default:
		err := os.RemoveAll(s.dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("couldn't remove the data directory: %w", err))
		}
	}
	return errors.Join(errs...)
}

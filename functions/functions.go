// Package functions runs what a hook, a rule, a certificate provider or an
// operator invokes: AWS Lambda functions, unmodified, in processes of this
// machine; webhooks; and functions of a real AWS Lambda.
//
//	s, err := functions.New(store, clock, functions.Options{CodeDir: code, WorkDir: work})
//	...
//	s.Start()
//	result, err := s.Invoke(ctx, imprint.FunctionCall{Tenant: t, ARN: arn, Payload: event, Principal: "iot.amazonaws.com", SourceARN: template})
//
// What it promises: a process gets one event at a time, over the Runtime API of
// AWS Lambda (version 2018-06-01) on a loopback port of its own, and is kept warm
// for the next; init, run time, memory, answers, logs, processes, waiting calls
// and queues are bounded; where the system allows it, a function has a user of its
// own, out of reach of the others, and a PID namespace, so that nothing that it
// starts outlives it; an asynchronous call is durable when InvokeLater returns, and is tried again after
// failures, also over a restart.
//
// What it does not do: wall functions off from the machine. They have no container;
// its network and /tmp are theirs, too: a private directory is in TMPDIR. A server
// that isn't root has one user for all functions, and then runs those of one account
// alone. It has no VPCs, layers, container images, file systems, streaming answers
// or X-Ray.
//
// Sources: AWS Lambda's "Runtime API", "Configure environment variables", Invoke
// of its API reference, and aws-lambda-go, whose client is the oracle of the
// tests.
package functions

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// The runtimes of functions that don't run on this machine. Their handler is
// what is called.
const (
	// RuntimeWebhook posts events to an https URL.
	RuntimeWebhook = "imprint.webhook"
	// RuntimeRemote invokes a function of a service that speaks AWS Lambda's
	// Invoke API, by its ARN.
	RuntimeRemote = "imprint.remote"
)

// User is who processes run as.
type User struct{ UID, GID uint32 }

// Credentials let a function call this server's own API.
type Credentials struct {
	AccessKeyID, SecretAccessKey string
	// Endpoint is the API's URL, Roots the PEM file that verifies it; empty: the
	// system's roots do.
	Endpoint, Roots string
}

// Attempts keep what a run says about an attempt.
type Attempts interface {
	Append(attemptID string, steps ...imprint.Step)
}

// Options tune a Service. Zero values give the defaults in brackets.
type Options struct {
	// CodeDir keeps the functions' zips. Required.
	CodeDir string
	// WorkDir holds what is unpacked, and the processes' own directories. It is
	// emptied at the start; User must be able to reach it. Required.
	WorkDir string
	// UIDBase begins the range of user ids out of which each function gets one of its
	// own; only root can give them. The first is for trying interpreters. 0: all
	// functions share one user.
	UIDBase uint32
	// User runs the processes where they share one user; nil: the server's own user.
	User *User
	// Account is the only one whose functions run here while they share one user;
	// empty: those of all accounts do.
	Account imprint.AccountID
	// PrivateAccount is the only one whose webhooks and functions elsewhere may be on this
	// machine or in a private network; empty: those of all accounts may.
	PrivateAccount imprint.AccountID
	// Credentials gives the functions of a tenant what they call this server with;
	// nil: nothing.
	Credentials func(context.Context, imprint.Tenant) (Credentials, error)
	// Attempts get log and duration of runs that belong to one; nil: nobody does.
	Attempts Attempts
	// AllowOwnAccount lets the rules, templates and providers of a function's own
	// account invoke it without AddPermission.
	AllowOwnAccount bool

	// TmpMB is the size of the /tmp that each process has of its own, in memory, where the
	// system lets this server mount; 0: all share the machine's.
	TmpMB int

	// MaxCode bounds the bytes of the zips of one account's functions and their versions
	// [10 GiB].
	MaxCode int64

	UIDs           int           // how long that range is [30,000]
	MaxProcesses   int           // of all functions [64]
	MaxConcurrency int           // of one function [16]
	MaxWaiting     int           // calls of one function that wait for a process [1000]
	MaxHeld        int           // bytes of the calls that somebody waits for, of all accounts [256 MiB]
	InitTimeout    time.Duration // of a process [10 s, as AWS Lambda]
	Idle           time.Duration // until an unused process ends [5 min]
	MaxQueued      int           // asynchronous calls of one account that wait [100,000]
	// QueueWorkers are the asynchronous calls under way: of one account never more
	// than are left to others, half at most, of one function a third [48].
	QueueWorkers int
	// RetryAfter are the pauses after the failures of an asynchronous call [1 and
	// 2 min]; it is given up after one failure more.
	RetryAfter []time.Duration
	// QueueAge is how long an asynchronous call is kept [6 h].
	QueueAge time.Duration
	Logger   *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	for _, n := range []struct {
		value    *int
		fallback int
	}{{&o.UIDs, 30_000}, {&o.MaxProcesses, 64}, {&o.MaxConcurrency, 16}, {&o.MaxWaiting, 1000}, {&o.MaxHeld, 256 << 20}, {&o.MaxQueued, 100_000}, {&o.QueueWorkers, 48}} {
		if *n.value <= 0 {
			*n.value = n.fallback
		}
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&o.InitTimeout, 10 * time.Second}, {&o.Idle, 5 * time.Minute}, {&o.QueueAge, 6 * time.Hour}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.MaxCode <= 0 {
		o.MaxCode = 10 << 30
	}
	if o.RetryAfter == nil {
		o.RetryAfter = []time.Duration{time.Minute, 2 * time.Minute}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Counters are what a Service has done since it began.
type Counters struct {
	Invocations, Errors, Timeouts, Throttles, ColdStarts, Denied uint64
	Duration                                                     time.Duration // of all runs
	Queued, Retried, GivenUp                                     uint64        // asynchronous calls
	Processes, Waiting                                           int           // now
}

// Service runs functions. It implements imprint.Functions.
type Service struct {
	store imprint.Store
	clock imprint.Clock
	opts  Options
	host  *host
	code  *codeStore
	slots slots // of functions that run elsewhere
	room  *room // of calls that somebody waits for

	// clients are those of webhooks and remotes with roots of their own, by those.
	clientsMu sync.Mutex
	clients   *fair.Memory[string, *http.Client]
	// plain are those of servers whose roots the system has, by whether they are bounded to
	// public addresses: all accounts share them.
	plain map[bool]*http.Client

	queue   *queue
	closing sync.Once

	invocations, failed, timeouts, throttles, coldStarts, denied atomic.Uint64
	duration                                                     atomic.Int64
}

var _ imprint.Functions = (*Service)(nil)

// New makes a Service. Start begins with the asynchronous calls; Close ends it.
func New(store imprint.Store, clock imprint.Clock, opts Options) (*Service, error) {
	opts = opts.withDefaults()
	code, err := openCode(store, opts.CodeDir)
	if err != nil {
		return nil, err
	}
	err = makeWorkDir(opts.WorkDir)
	if err != nil {
		return nil, err
	}
	// Processes find it by this name also where a link to it isn't there.
	opts.WorkDir, err = filepath.EvalSymlinks(opts.WorkDir)
	if err != nil {
		return nil, fmt.Errorf("couldn't find the functions' working directory: %w", err)
	}
	err = writeRuntimes(opts.WorkDir)
	if err != nil {
		return nil, err
	}
	s := &Service{
		store: store, clock: clock, opts: opts, code: code, room: newRoom(opts.MaxHeld),
		slots:   slots{held: map[functionKey]int{}, waiting: map[functionKey][]chan struct{}{}},
		clients: fair.NewMemory[string, *http.Client](maxClients), plain: map[bool]*http.Client{},
	}
	s.clients.Dropped = (*http.Client).CloseIdleConnections
	s.host, err = newHost(clock, opts, code)
	if err != nil {
		return nil, err
	}
	s.queue = newQueue(s)
	return s, nil
}

// Start begins to run asynchronous calls, those that an earlier run of the server
// left first. It is called once, when functions can be given their credentials.
func (s *Service) Start() { s.queue.crew.Start() }

// Close ends all processes. Asynchronous calls that are under way or wait stay in
// the store. It may be called again.
func (s *Service) Close() { s.closing.Do(s.end) }

func (s *Service) end() {
	s.queue.crew.Close()
	s.host.close()
	s.clientsMu.Lock()
	for _, client := range s.plain {
		client.CloseIdleConnections()
	}
	for client := range s.clients.Values() {
		client.CloseIdleConnections()
	}
	s.clientsMu.Unlock()
	err := os.RemoveAll(s.opts.WorkDir)
	if err != nil {
		s.opts.Logger.Warn("couldn't remove the functions' working directory", "error", err)
	}
}

// Counters gives the present counts.
func (s *Service) Counters() Counters {
	processes, waiting := s.host.now()
	return Counters{
		Invocations: s.invocations.Load(), Errors: s.failed.Load(), Timeouts: s.timeouts.Load(), Throttles: s.throttles.Load(),
		ColdStarts: s.coldStarts.Load(), Denied: s.denied.Load(), Duration: time.Duration(s.duration.Load()),
		Queued: s.queue.accepted.Load(), Retried: s.queue.retried.Load(), GivenUp: s.queue.givenUp.Load(),
		Processes: processes, Waiting: waiting,
	}
}

// Waits are the functions that wait for a share of their account: of asynchronous calls
// under way, and of processes.
type Waits struct{ Calls, Processes int }

// Waits tells what waits now.
func (s *Service) Waits(ctx context.Context) (Waits, error) {
	calls, err := s.queue.crew.Waiting(ctx)
	return Waits{Calls: calls, Processes: s.host.waitForShare()}, err
}

// makeWorkDir makes an empty directory that others may look through but not
// list. One that somebody else made is refused: it may lie in a directory that
// all may write.
func makeWorkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err == nil && (!info.IsDir() || !ownedByServer(info)) {
		return imprint.Errorf(imprint.CodeUnavailable, "couldn't use %s for functions: it is there and belongs to somebody else", dir).
			WithHint("Remove it, or name another directory with --function-dir.")
	}
	err = os.RemoveAll(dir)
	if err != nil {
		return fmt.Errorf("couldn't empty the functions' working directory: %w", err)
	}
	return openDir(dir, 0o711)
}

// openDir makes a directory with just that mode, whatever the umask.
func openDir(dir string, mode os.FileMode) error {
	err := os.MkdirAll(dir, mode)
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		return fmt.Errorf("couldn't make a directory for functions: %w", err)
	}
	return nil
}

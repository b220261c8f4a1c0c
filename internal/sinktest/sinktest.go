// Package sinktest starts the real servers that sinks of topic rules write to, each
// in a process, directory and loopback port of its own: PostgreSQL and NATS, as
// Debian's packages postgresql and nats-server have them.
//
//	database := sinktest.StartPostgres(t)
//	database.Stop() // and database.Start(): the same one again, with its data
//
// A program that is missing fails the test. PostgreSQL doesn't run as root: tests
// that do start it as Debian's user postgres.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/imprint-iot/imprint/internal/ownport"
)

// patience bounds the start and the end of a process.
const patience = time.Minute

// process is a server that can be stopped and started again.
type process struct {
	t      *testing.T
	path   string
	args   []string
	as     *syscall.Credential // nil: as the test
	port   string
	end    os.Signal
	answer func(context.Context) error // nil once the server answers

	log   lines
	cmd   *exec.Cmd // nil: it doesn't run
	ended chan struct{}
}

// lines are what a process said.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Start starts the server and returns when it answers.
func (p *process) Start() {
	p.t.Helper()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Dir = string(filepath.Separator)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	err := cmd.Start()
	if err != nil {
		p.t.Fatalf("couldn't start %s: %v", p.path, err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(p.ended)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err = p.answer(ctx)
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-p.ended:
			p.t.Fatalf("%s ended: %s", p.path, &p.log)
		case <-ctx.Done():
			p.t.Fatalf("%s doesn't answer: %v\n%s", p.path, err, &p.log)
		}
	}
}

// Stop ends the server. Its data stays for the next Start.
func (p *process) Stop() {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(p.end)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.ended
		p.t.Errorf("%s had to be killed: %s", p.path, &p.log)
	}
	p.cmd = nil
}

// directory makes one that others than the test's user may own.
func directory(t *testing.T, owner *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "imprint-sink-")
	if err == nil && owner != nil {
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// ownPort is a port that stays the server's while it is stopped.
func ownPort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(ownport.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// find gives the path of a program.
func find(t *testing.T, name, debian, pattern string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s is missing: install the package %s", name, debian)
	}
	slices.Sort(found)
	return found[len(found)-1]
}

// Postgres is a PostgreSQL cluster with the database postgres.
type Postgres struct {
	process
	dir string
	// User is its superuser, whose password is in PasswordFile.
	User, Password, PasswordFile string
}

// StartPostgres makes a cluster and starts it; it is gone when the test ends.
func StartPostgres(t *testing.T) *Postgres {
	t.Helper()
	p := &Postgres{User: "imprint", Password: "pass word of '" + t.Name() + "'"}
	p.t, p.end, p.port, p.answer = t, syscall.SIGINT, ownPort(t), p.ping // SIGINT is its fast shutdown
	if os.Getuid() == 0 {
		p.as = debianUser(t, "postgres")
	}
	initdb := find(t, "initdb", "postgresql", "/usr/lib/postgresql/*/bin/initdb")
	dir := directory(t, p.as)
	p.dir = dir
	data := filepath.Join(dir, "data")
	p.PasswordFile = filepath.Join(dir, "password")
	err := os.WriteFile(p.PasswordFile, []byte(p.Password+"\n"), 0o600)
	if err == nil && p.as != nil {
		err = os.Chown(p.PasswordFile, int(p.as.Uid), int(p.as.Gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(initdb, "-D", data, "-U", p.User, "-A", "scram-sha-256", "--pwfile", p.PasswordFile, "-E", "UTF8", "--no-sync")
	cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Credential: p.as}, dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("couldn't make a cluster: %v\n%s", err, out)
	}
	p.path = filepath.Join(filepath.Dir(initdb), "postgres")
	p.args = []string{"-D", data, "-h", "127.0.0.1", "-p", p.port, "-k", "", "-c", "fsync=off", "-c", "max_connections=20"}
	t.Cleanup(p.Stop)
	p.Start()
	return p
}

// UseTLS starts it again with a certificate of an authority for some names and
// addresses. It still takes who comes in plain text.
func (p *Postgres) UseTLS(ca *CA, names ...string) {
	p.t.Helper()
	certificate, key := ca.Issue(p.dir, names...)
	for _, path := range []string{certificate, key} {
		if p.as == nil {
			break
		}
		err := os.Chown(path, int(p.as.Uid), int(p.as.Gid))
		if err != nil {
			p.t.Fatal(err)
		}
	}
	p.Stop()
	p.args = append(p.args, "-c", "ssl=on", "-c", "ssl_cert_file="+certificate, "-c", "ssl_key_file="+key)
	p.Start()
}

// debianUser is whom a server runs as that doesn't run as root.
func debianUser(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	found, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("there is no user %s to run it as: %v", name, err)
	}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil || gidErr != nil {
		t.Fatalf("user %s: %v", name, errors.Join(err, gidErr))
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// URL is where it is, without the password; parameters begin with "?".
func (p *Postgres) URL(parameters string) string {
	return "postgres://" + p.User + "@127.0.0.1:" + p.port + "/postgres" + parameters
}

func (p *Postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(p.URL("?sslmode=disable"))
	if err != nil {
		return nil, err
	}
	config.Password = p.Password
	return pgx.ConnectConfig(ctx, config)
}

func (p *Postgres) ping(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Exec runs a statement.
func (p *Postgres) Exec(statement string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := p.connect(ctx)
	if err == nil {
		_, err = conn.Exec(ctx, statement)
		_ = conn.Close(ctx)
	}
	if err != nil {
		p.t.Fatalf("%s: %v", statement, err)
	}
}

// Rows gives what a query answers, each row's columns as text with bars between.
func (p *Postgres) Rows(query string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		var texts []string
		for _, v := range values {
			if data, ok := v.([]byte); ok {
				v = string(data)
			}
			texts = append(texts, fmt.Sprint(v))
		}
		return strings.Join(texts, "|"), err
	})
}

// NATS is a server with JetStream.
type NATS struct{ process }

// StartNATS starts a server; settings are lines for its configuration file.
func StartNATS(t *testing.T, settings string) *NATS {
	t.Helper()
	n := &NATS{}
	n.t, n.end, n.port, n.answer = t, syscall.SIGTERM, ownPort(t), n.ping
	n.path = find(t, "nats-server", "nats-server", "/usr/sbin/nats-server")
	dir := directory(t, nil)
	config := filepath.Join(dir, "nats.conf")
	err := os.WriteFile(config, []byte("jetstream { store_dir: \""+dir+"\" }\n"+settings), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n.args = []string{"-a", "127.0.0.1", "-p", n.port, "-c", config}
	t.Cleanup(n.Stop)
	n.Start()
	return n
}

// Address is its host and port.
func (n *NATS) Address() string { return net.JoinHostPort("127.0.0.1", n.port) }

// ping waits for the greeting.
func (n *NATS) ping(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", n.Address())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	until, _ := ctx.Deadline()
	err = conn.SetReadDeadline(until)
	if err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// Connect gives a client that finds the server again after a restart.
func (n *NATS) Connect(options ...nats.Option) *nats.Conn {
	n.t.Helper()
	conn, err := nats.Connect("nats://"+n.Address(), append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond)}, options...)...)
	if err != nil {
		n.t.Fatalf("couldn't connect to NATS: %v", err)
	}
	n.t.Cleanup(conn.Close)
	return conn
}

package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// announcement is what the bare server says when it listens.
type announcement struct {
	Address string `json:"address"`
	Root    string `json:"root"` // PEM
}

// What a client of the bare server asks for with its first byte.
const (
	askClose = 0 // to close
	askHold  = 1 // to answer with a byte and wait for more
)

// ServeBare is the reference server: it completes mutual-TLS handshakes on a
// loopback port, reads one byte and closes, or holds the connection where the
// byte asks for that. It makes itself a P-256 root and certificate, announces
// where it is on out, and runs until the context ends.
func ServeBare(ctx context.Context, out io.Writer) error {
	root, err := newAuthority("Imprint bench reference root", time.Now())
	if err != nil {
		return err
	}
	certificate, err := root.serverCertificate(time.Now())
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("couldn't listen for the reference: %w", err)
	}
	stopped := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stopped()
	said, err := json.Marshal(announcement{Address: ln.Addr().String(), Root: root.pem()})
	if err != nil {
		return fmt.Errorf("couldn't announce the reference: %w", err)
	}
	_, err = fmt.Fprintln(out, mark+string(said))
	if err != nil {
		return fmt.Errorf("couldn't announce the reference: %w", err)
	}
	return acceptBare(ctx, ln, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
	})
}

func acceptBare(ctx context.Context, ln net.Listener, config *tls.Config) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("couldn't accept for the reference: %w", err)
		}
		open.Go(func() { serveBare(ctx, conn, config) })
	}
}

// serveBare serves one connection. A client that breaks off is reported by the
// client.
func serveBare(ctx context.Context, conn net.Conn, config *tls.Config) {
	secure := tls.Server(conn, config)
	defer func() { _ = secure.Close() }()
	_ = conn.SetDeadline(time.Now().Add(connectionTimeout))
	var one [1]byte
	_, err := secure.Read(one[:])
	if err != nil || one[0] != askHold {
		return
	}
	_, err = secure.Write(one[:])
	if err != nil {
		return
	}
	stopped := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopped()
	_ = conn.SetDeadline(time.Time{})
	_, _ = secure.Read(one[:])
}

// bareServer is the reference as its user sees it.
type bareServer struct {
	*child
	door door
}

func startBare(ctx context.Context, target Target, messages io.Writer) (*bareServer, error) {
	c, err := startChild("reference server", target.Program, target.BareArgs, messages)
	if err != nil {
		return nil, err
	}
	line, err := c.answer(ctx)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	var said announcement
	err = json.Unmarshal([]byte(line), &said)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't understand the reference server: %w", err), c.stop())
	}
	roots := x509.NewCertPool()
	block, _ := pem.Decode([]byte(said.Root))
	if block == nil || !roots.AppendCertsFromPEM([]byte(said.Root)) {
		return nil, errors.Join(errors.New("couldn't read the reference server's root"), c.stop())
	}
	return &bareServer{child: c, door: door{address: said.Address, roots: roots}}, nil
}

// probe gives the handshakes that the reference completes per CPU-second.
func (b *bareServer) probe(ctx context.Context, devices []*device, concurrency int) (float64, error) {
	before, err := b.cpu()
	if err != nil {
		return 0, err
	}
	_, err = eachDevice(ctx, devices, concurrency, b.handshake)
	if err != nil {
		return 0, fmt.Errorf("couldn't probe the reference: %w", err)
	}
	after, err := b.cpu()
	if err != nil {
		return 0, err
	}
	return perSecond(len(devices), after-before), nil
}

// handshake ends when the server closed, so that it has verified the client.
func (b *bareServer) handshake(ctx context.Context, d *device) (time.Duration, error) {
	began := time.Now()
	conn, _, err := b.door.open(ctx, d)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte{askClose})
	if err != nil {
		return 0, fmt.Errorf("couldn't write: %w", err)
	}
	var one [1]byte
	_, err = conn.Read(one[:])
	if !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("couldn't see the connection close: %w", err)
	}
	return time.Since(began), nil
}

// hold opens a connection that the server holds.
func (b *bareServer) hold(ctx context.Context, d *device, source net.IP) (net.Conn, error) {
	conn, _, err := b.door.dial(ctx, d, approach{source: source})
	if err != nil {
		return nil, err
	}
	_, err = conn.Write([]byte{askHold})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't write: %w", err), conn.Close())
	}
	var one [1]byte
	_, err = io.ReadFull(conn, one[:])
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't have the connection held: %w", err), conn.Close())
	}
	return conn, conn.SetDeadline(time.Time{})
}

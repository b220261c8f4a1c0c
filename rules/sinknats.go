package rules

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/imprint-iot/imprint"
)

const (
	// natsDialPatience bounds the connecting to one server.
	natsDialPatience = 2 * time.Second
	// natsPutPatience bounds one record whose context has no bound.
	natsPutPatience = 30 * time.Second
	natsPort        = "4222"
)

// natsSink publishes records, one message each. It has a connection from the
// first record on, which comes back by itself while it can.
//
// Source: NATS documentation, "Client Protocol" and "JetStream Model Deep Dive",
// "Message Deduplication".
type natsSink struct {
	subject string // with the placeholders of recordSubject
	stream  bool   // a record counts when JetStream has acknowledged it
	servers string
	options []nats.Option

	turn chan struct{} // held by who looks at conn or changes it
	conn *nats.Conn    // nil: none
}

func openNATSSink(at *sinkAddress) (Sink, error) {
	subject := strings.TrimPrefix(at.url.Path, "/")
	err := at.checkSubject(subject)
	if err != nil {
		return nil, err
	}
	s := &natsSink{subject: subject, turn: make(chan struct{}, 1)}
	s.stream, err = at.takeBool("jetstream")
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, host := range at.hosts {
		if host == "" {
			return nil, at.refuse("its URL has no host").WithHint("Write %s://HOST:%s/SUBJECT.", at.url.Scheme, natsPort)
		}
		urls = append(urls, at.url.Scheme+"://"+host)
	}
	s.servers = strings.Join(urls, ",")
	s.options, err = natsOptions(at)
	if err != nil {
		return nil, err
	}
	return s, at.allTaken()
}

// natsOptions are those of a connection: who the server is to NATS, how it knows
// NATS, and that nothing waits in memory while there is no connection.
func natsOptions(at *sinkAddress) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("imprint"), nats.Timeout(natsDialPatience), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second),
		nats.ReconnectBufSize(-1), nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		// What goes wrong is told by each record's own error.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	files := map[string]string{}
	for _, parameter := range []string{"credentials", "nkey", "password-file", "token-file", "ca", "cert", "key"} {
		path, err := at.takeFile(parameter)
		if err != nil {
			return nil, err
		}
		files[parameter] = path
	}
	if path := files["credentials"]; path != "" {
		options = append(options, nats.UserCredentials(path))
	}
	if path := files["nkey"]; path != "" {
		seed, err := nats.NkeyOptionFromSeed(path)
		if err != nil {
			return nil, at.refuse("the file of nkey has no seed of a user")
		}
		options = append(options, seed)
	}
	user, path := at.url.User.Username(), files["password-file"]
	if (user == "") != (path == "") {
		return nil, at.refuse("a user and password-file belong together").
			WithHint("Write %s://USER@HOST/SUBJECT?password-file=/PATH.", at.url.Scheme)
	}
	if path != "" {
		options = append(options, nats.UserInfoHandler(func() (string, string) {
			password, _ := firstLine(path) // the server refuses an empty one
			return user, password
		}))
	}
	if path := files["token-file"]; path != "" {
		options = append(options, nats.TokenHandler(func() string {
			token, _ := firstLine(path)
			return token
		}))
	}
	if path := files["ca"]; path != "" {
		options = append(options, nats.RootCAs(path))
	}
	if (files["cert"] == "") != (files["key"] == "") {
		return nil, at.refuse("cert and key belong together")
	}
	if path := files["cert"]; path != "" {
		options = append(options, nats.ClientCert(path, files["key"]))
	}
	return options, nil
}

// checkSubject refuses what can't be published on, and subjects of the server
// itself.
func (at *sinkAddress) checkSubject(subject string) error {
	plain := recordSubject(subject, Record{Rule: "r", Tenant: imprint.Tenant{Account: "0", Region: "r"}})
	const longest = 256
	bad := subject == "" || len(subject) > longest || strings.HasPrefix(subject, "$") || strings.ContainsAny(plain, "*> \t\r\n{}/\x00")
	for token := range strings.SplitSeq(subject, ".") {
		bad = bad || token == ""
	}
	if bad {
		return at.refuse("the path of its URL is no subject that can be published on").
			WithHint("For example %s://HOST/imprint.{account}.{rule}: tokens between dots, no wildcards, and {account}, {region} and {rule} where they are wanted.", at.url.Scheme)
	}
	return nil
}

// recordSubject puts what a record is of into a subject: none of it has dots or
// blanks.
func recordSubject(subject string, r Record) string {
	if !strings.Contains(subject, "{") {
		return subject
	}
	return strings.NewReplacer("{account}", string(r.Tenant.Account), "{region}", string(r.Tenant.Region), "{rule}", string(r.Rule)).Replace(subject)
}

// Put implements Sink. Without JetStream a record is where it should be when the
// server has read it: NATS promises no more.
func (s *natsSink) Put(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, natsPutPatience)
	defer cancel()
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	message := &nats.Msg{Subject: recordSubject(s.subject, r), Data: r.Data, Header: nats.Header{}}
	message.Header.Set(jetstream.MsgIDHeader, r.ID)
	for _, f := range recordHeaders(r) {
		message.Header.Set(f.Key, f.Value)
	}
	if s.stream {
		err = publishToStream(ctx, conn, message)
	} else {
		err = s.publish(ctx, conn, message)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return permanent{fmt.Errorf("couldn't publish to NATS: %w", err)}
	}
	if err != nil {
		return fmt.Errorf("couldn't publish to NATS: %w", err)
	}
	return nil
}

func publishToStream(ctx context.Context, conn *nats.Conn, message *nats.Msg) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, message)
	return err
}

// publish returns when the server has read the message. A subject that the user
// may not publish on is told by an error on the connection that comes before the
// answer to the flush and names no message. It stays the connection's last error,
// so that such a connection is given up.
func (s *natsSink) publish(ctx context.Context, conn *nats.Conn, message *nats.Msg) error {
	err := conn.PublishMsg(message)
	if err != nil {
		return err
	}
	err = conn.FlushWithContext(ctx)
	if err != nil {
		return err
	}
	err = conn.LastError()
	if errors.Is(err, nats.ErrPermissionViolation) {
		conn.Close()
		return err
	}
	return nil
}

// connection gives the one that there is, or connects.
func (s *natsSink) connection(ctx context.Context) (*nats.Conn, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("couldn't wait for a connection to NATS: %w", ctx.Err())
	}
	defer func() { <-s.turn }()
	if s.conn != nil && !s.conn.IsClosed() {
		return s.conn, nil
	}
	conn, err := nats.Connect(s.servers, s.options...)
	if err != nil {
		return nil, fmt.Errorf("couldn't connect to NATS: %w", err)
	}
	s.conn = conn
	return conn, nil
}

// Close implements Sink.
func (s *natsSink) Close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	return nil
}

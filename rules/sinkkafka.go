//go:build kafka

package rules

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const (
	// kafkaPatience bounds one record, whose worker others wait for.
	kafkaPatience     = 10 * time.Second
	kafkaDialPatience = 3 * time.Second
	// maxKafkaBuffered bounds the records that are under way; workers are fewer.
	maxKafkaBuffered = 1000
	kafkaPort        = "9092"
	// recordID is the header with a record's id: it is the same when the record
	// comes again.
	recordID = "Imprint-Record"
	// Keys of requests (Kafka's protocol guide, "The Messages").
	saslHandshake    = 17
	saslAuthenticate = 36
)

// kafkaSink produces records. Each counts when all in-sync replicas have it; the
// client numbers them, so that its own repetitions come once.
type kafkaSink struct {
	servers []string
	topic   string
	client  *kgo.Client
	trouble trouble
}

var _ producer = (*kafkaSink)(nil)

func openKafkaSink(at *sinkAddress) (Sink, error) {
	s := &kafkaSink{topic: strings.TrimPrefix(at.url.Path, "/")}
	const longest = 249
	if s.topic == "" || len(s.topic) > longest || strings.ContainsAny(s.topic, "/ \t\r\n\x00") {
		return nil, at.refuse("the path of its URL is no topic").WithHint("Write kafka://HOST:%s,HOST:%s/TOPIC.", kafkaPort, kafkaPort)
	}
	for _, host := range at.hosts {
		if host == "" {
			return nil, at.refuse("its URL has no host").WithHint("Write kafka://HOST:%s,HOST:%s/TOPIC.", kafkaPort, kafkaPort)
		}
		s.servers = append(s.servers, host)
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(s.servers...), kgo.ClientID("imprint"), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(kafkaPatience), kgo.ProduceRequestTimeout(kafkaPatience), kgo.RetryTimeout(kafkaPatience),
		// A record that waited too long is tried again from the outbox.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.DialTimeout(kafkaDialPatience), kgo.MaxBufferedRecords(maxKafkaBuffered), kgo.DisableClientMetrics(),
		kgo.RecordPartitioner(choosing{kgo.StickyKeyPartitioner(nil)}),
		kgo.WithHooks(&s.trouble), kgo.WithLogger(&s.trouble),
	}
	config, err := at.takeTLS()
	if err != nil {
		return nil, err
	}
	if config != nil {
		options = append(options, kgo.DialTLSConfig(config))
	}
	mechanism, err := at.takeSASL(config != nil)
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		options = append(options, kgo.SASL(mechanism))
	}
	err = at.allTaken()
	if err != nil {
		return nil, err
	}
	s.client, err = kgo.NewClient(options...)
	if err != nil {
		return nil, at.refuse("Kafka's client doesn't take its URL").WithHint("Write kafka://HOST:%s,HOST:%s/TOPIC.", kafkaPort, kafkaPort)
	}
	return s, nil
}

// takeTLS gives what connections are secured with; nil: they aren't.
func (at *sinkAddress) takeTLS() (*tls.Config, error) {
	secure, err := at.takeBool("tls")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, parameter := range []string{"ca", "cert", "key"} {
		files[parameter], err = at.takeFile(parameter)
		if err != nil {
			return nil, err
		}
		if files[parameter] != "" && !secure {
			return nil, at.refuse("%s is for tls=true", parameter)
		}
	}
	if !secure {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if path := files["ca"]; path != "" {
		pem, err := os.ReadFile(path)
		config.RootCAs = x509.NewCertPool()
		if err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, at.refuse("the file of ca has no PEM certificate")
		}
	}
	if files["cert"] != "" || files["key"] != "" {
		pair, err := tls.LoadX509KeyPair(files["cert"], files["key"])
		if err != nil {
			return nil, at.refuse("cert and key aren't PEM files that belong together")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// takeSASL gives how the server proves who it is; nil: it doesn't. The password is
// read for each connection.
func (at *sinkAddress) takeSASL(secure bool) (sasl.Mechanism, error) {
	path, err := at.takeFile("password-file")
	if err != nil {
		return nil, err
	}
	user, mechanism := at.url.User.Username(), at.take("mechanism")
	if (user == "") != (path == "") || user == "" && mechanism != "" {
		return nil, at.refuse("a user and password-file belong together").WithHint("Write kafka://USER@HOST/TOPIC?password-file=/PATH.")
	}
	if user == "" {
		return nil, nil
	}
	byScram := func(context.Context) (scram.Auth, error) {
		password, err := firstLine(path)
		return scram.Auth{User: user, Pass: password}, err
	}
	switch mechanism {
	case "", "SCRAM-SHA-512":
		return scram.Sha512(byScram), nil
	case "SCRAM-SHA-256":
		return scram.Sha256(byScram), nil
	case "PLAIN":
		if !secure {
			return nil, at.refuse("PLAIN without tls=true would show the password to the network").WithHint("Add tls=true, or use a SCRAM mechanism.")
		}
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := firstLine(path)
			return plain.Auth{User: user, Pass: password}, err
		}), nil
	}
	return nil, at.refuse("there is no such mechanism").WithHint("There are SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN.")
}

func (s *kafkaSink) brokers() []string { return s.servers }

// Put implements Sink.
func (s *kafkaSink) Put(ctx context.Context, r Record) error {
	record := &kgo.Record{Topic: s.topic, Value: r.Data, Timestamp: r.At, Headers: []kgo.RecordHeader{{Key: recordID, Value: []byte(r.ID)}}}
	for _, f := range recordHeaders(r) {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: f.Key, Value: []byte(f.Value)})
	}
	return s.send(ctx, record)
}

// produce gives Kafka what a kafka action asks for, and nothing more than that
// but the id.
func (s *kafkaSink) produce(ctx context.Context, id string, p production) error {
	record := &kgo.Record{Topic: p.Topic, Value: p.Data}
	if p.Key != "" {
		record.Key = []byte(p.Key)
	}
	if p.Partition != nil {
		ctx = context.WithValue(ctx, partitionKey{}, *p.Partition)
	}
	for _, h := range p.Headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: []byte(h.Value)})
	}
	record.Headers = append(record.Headers, kgo.RecordHeader{Key: recordID, Value: []byte(id)})
	return s.send(ctx, record)
}

func (s *kafkaSink) send(ctx context.Context, record *kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaPatience)
	defer cancel()
	done := make(chan error, 1)
	s.client.TryProduce(ctx, record, func(_ *kgo.Record, err error) { done <- err })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		s.trouble.forget()
		return nil
	}
	err = fmt.Errorf("couldn't produce to Kafka: %w", s.trouble.explain(err))
	for _, final := range []error{kerr.MessageTooLarge, kerr.InvalidRecord, kerr.InvalidTopicException} {
		if errors.Is(err, final) {
			return permanent{err}
		}
	}
	return err
}

// trouble is why there is no connection. The client tries again until a record's
// time is over, and then says no more than that.
type trouble struct {
	mu   sync.Mutex
	last error // nil: none since the last record that came through
}

var (
	_ kgo.HookBrokerConnect = (*trouble)(nil)
	_ kgo.HookBrokerE2E     = (*trouble)(nil)
	_ kgo.Logger            = (*trouble)(nil)
)

func (t *trouble) remember(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = err
}

func (t *trouble) forget() { t.remember(nil) }

// explain adds the reason to the error of a record.
func (t *trouble) explain(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return err
	}
	return fmt.Errorf("%w (%w)", t.last, err)
}

// OnBrokerConnect implements kgo.HookBrokerConnect. Its error is that of TLS, or of
// SASL, of which the other hook says more.
func (t *trouble) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && !errors.Is(t.last, err) {
		t.last = fmt.Errorf("couldn't connect to %s: %w", net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), err)
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E. A broker may hang up on who it doesn't
// know, without a word.
func (t *trouble) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	err := e2e.Err()
	if err != nil && (key == saslHandshake || key == saslAuthenticate) {
		t.remember(fmt.Errorf("couldn't authenticate by SASL, user or password may be wrong: %w", err))
	}
}

// Level implements kgo.Logger.
func (*trouble) Level() kgo.LogLevel { return kgo.LogLevelError }

// Log implements kgo.Logger: a broker that says why it knows nobody of that name and
// password is heard here.
func (t *trouble) Log(_ kgo.LogLevel, _ string, pairs ...any) {
	for n := 0; n+1 < len(pairs); n += 2 {
		err, is := pairs[n+1].(error)
		if is && errors.Is(err, kerr.SaslAuthenticationFailed) {
			t.remember(fmt.Errorf("couldn't authenticate by SASL: %w", err))
		}
	}
}

// Close implements Sink.
func (s *kafkaSink) Close() error {
	s.client.Close()
	return nil
}

// partitionKey is how a record says which partition it wants, in its context.
type partitionKey struct{}

// choosing lets a record choose its partition; others go where the client thinks.
type choosing struct{ kgo.Partitioner }

// ForTopic implements kgo.Partitioner.
func (c choosing) ForTopic(topic string) kgo.TopicPartitioner {
	return choosingIn{c.Partitioner.ForTopic(topic)}
}

type choosingIn struct{ kgo.TopicPartitioner }

func chosen(r *kgo.Record) (int32, bool) {
	if r.Context == nil {
		return 0, false
	}
	n, ok := r.Context.Value(partitionKey{}).(int32)
	return n, ok
}

// RequiresConsistency implements kgo.TopicPartitioner.
func (c choosingIn) RequiresConsistency(r *kgo.Record) bool {
	_, ok := chosen(r)
	return ok || c.TopicPartitioner.RequiresConsistency(r)
}

// Partition implements kgo.TopicPartitioner. A partition that the topic doesn't
// have is an error of the record.
func (c choosingIn) Partition(r *kgo.Record, n int) int {
	if partition, ok := chosen(r); ok {
		return int(partition)
	}
	return c.TopicPartitioner.Partition(r, n)
}

// OnNewBatch implements kgo.TopicPartitionerOnNewBatch.
func (c choosingIn) OnNewBatch() {
	if inner, ok := c.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		inner.OnNewBatch()
	}
}

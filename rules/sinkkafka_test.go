//go:build kafka

package rules_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/ownport"
	"github.com/imprint-iot/imprint/rules"
)

// kafka is a fake cluster that keeps its records over a restart. It speaks Kafka's
// protocol, and is no Kafka.
type kafka struct {
	t       *testing.T
	options []kfake.Opt
	cluster *kfake.Cluster
	server  string
	user    []kgo.Opt
}

func startKafka(t *testing.T, more ...kfake.Opt) *kafka {
	t.Helper()
	k := &kafka{t: t, server: ownport.Address(t)}
	port, err := strconv.Atoi(k.server[strings.LastIndexByte(k.server, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	k.options = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(t.TempDir()), kfake.SyncWrites(), kfake.SeedTopics(3, "records")}, more...)
	k.start()
	t.Cleanup(func() { k.cluster.Close() })
	return k
}

func (k *kafka) start() {
	k.t.Helper()
	cluster, err := kfake.NewCluster(k.options...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.cluster = cluster
}

func (k *kafka) stop() { k.cluster.Close() }

// records reads all that there is.
func (k *kafka) records(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.server), kgo.ConsumeTopics(topic)}, k.user...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	want := int64(0)
	for _, p := range k.cluster.PartitionInfos(topic) {
		want += p.HighWatermark
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var list []*kgo.Record
	for int64(len(list)) < want {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			t.Fatalf("got %d of %d records: %v", len(list), want, err)
		}
		list = append(list, fetched.Records()...)
	}
	return list
}

func (k *kafka) times(t *testing.T, mark string) int {
	n := 0
	for _, r := range k.records(t, "records") {
		n += strings.Count(string(r.Value), mark)
	}
	return n
}

// TestKafkaSink ensures that a record counts when it is in its topic.
func TestKafkaSink(t *testing.T) {
	const secret = "a secret of Kafka"
	k := startKafka(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "imprint", secret))
	k.user = []kgo.Opt{kgo.SASL(scram.Auth{User: "imprint", Pass: secret}.AsSha512Mechanism())}
	passwords := filepath.Join(t.TempDir(), "password")
	err := os.WriteFile(passwords, []byte(secret+"\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	checkSink(t, place{
		setting: "kafka://imprint@127.0.0.1:1," + k.server + "/records?password-file=" + passwords, secret: secret,
		stop: k.stop, start: k.start, repeated: 2,
		times: func(mark string) int { return k.times(t, mark) },
	})
	first := k.records(t, "records")
	for _, r := range first {
		if string(r.Value) == "two" {
			if got := headers(r); got["Imprint-Record"] != "id-2" || got["Imprint-Rule"] != "my_rule" || got["Imprint-Account"] != "000000000000" {
				t.Errorf("headers: got %v", got)
			}
		}
	}
}

func headers(r *kgo.Record) map[string]string {
	list := map[string]string{}
	for _, h := range r.Headers {
		list[h.Key] = string(h.Value)
	}
	return list
}

// TestKafkaActionsGoToTheSinkOfTheirBrokers ensures that topic, key, partition and
// headers are what the rule says, and that brokers nobody configured are refused.
func TestKafkaActionsGoToTheSinkOfTheirBrokers(t *testing.T) {
	k := startKafka(t, kfake.SeedTopics(4, "plant-7"))
	h := open(t, func(o *rules.Options) {
		sinks, err := rules.OpenSinks([]string{"bus=kafka://" + k.server + "/records"})
		if err != nil {
			t.Fatal(err)
		}
		o.Sinks = sinks
	})
	action := func(servers string) imprint.RuleAction {
		return imprint.RuleAction{Kafka: &imprint.KafkaRuleAction{
			DestinationARN: "arn:aws:iot:us-east-1:000000000000:ruledestination/vpc/x", Topic: "plant-${topic(2)}", Key: "${key}", Partition: "${partition}",
			Properties: map[string]string{"bootstrap.servers": servers, "acks": "1"}, Headers: []imprint.RuleField{{Key: "line", Value: "${line}"}},
		}}
	}
	_, err := rules.Check(imprint.TopicRule{SQL: "SELECT * FROM 'a'", SQLVersion: "2016-03-23", Actions: []imprint.RuleAction{action("elsewhere:9092")}}, h.Offered())
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "no kafka sink") {
		t.Errorf("brokers that no sink has: got %v", err)
	}
	onError := republishTo("errors")
	h.put(home, "produce", "SELECT n FROM 'in/+'", &onError, action(k.server))
	for n := range 4 {
		h.offer(home, "in/7", fmt.Sprintf(`{"n":%d,"key":"k","partition":%d,"line":"north"}`, n, n))
	}
	h.offer(home, "in/7", `{"n":4,"key":"k","partition":"none","line":"north"}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for h.Counters().Actions[rules.ActionKafka].Done < 4 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("got %+v", h.Counters().Actions[rules.ActionKafka])
		}
	}
	list := k.records(t, "plant-7")
	if len(list) != 4 {
		t.Errorf("got %d records, want 4", len(list))
	}
	for _, r := range list {
		if want := `{"n":` + strconv.Itoa(int(r.Partition)) + `}`; string(r.Value) != want || string(r.Key) != "k" || headers(r)["line"] != "north" {
			t.Errorf("got %s with key %s and headers %v in partition %d, want %s", r.Value, r.Key, headers(r), r.Partition, want)
		}
	}
}

// TestKafkaSettingsAreChecked ensures that a URL that can't work is refused.
func TestKafkaSettingsAreChecked(t *testing.T) {
	for _, c := range []struct{ setting, text string }{
		{"kafka://h:9092", "no topic"}, {"kafka:///t", "no host"}, {"kafka://h/a/b", "no topic"},
		{"kafka://u@h/t", "belong together"}, {"kafka://h/t?ca=" + os.Args[0], "tls=true"}, {"kafka://h/t?acks=1", "parameter acks"},
		{"kafka://h/t?tls=true&ca=" + os.Args[0], "no PEM certificate"},
		{"kafka://u@h/t?mechanism=PLAIN&password-file=" + os.Args[0], "tls=true"},
		{"kafka://u@h/t?mechanism=NONE&password-file=" + os.Args[0], "no such mechanism"},
	} {
		_, err := rules.OpenSinks([]string{"x=" + c.setting})
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v, want %s with %q", c.setting, err, imprint.CodeInvalidRequest, c.text)
		}
	}
}

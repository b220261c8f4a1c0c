package attempts

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
)

// TopicRoot is where attempts are told of, as messages.
const TopicRoot = "$imprint/attempts/"

// maxTold bounds the attempts that wait to be told of.
const maxTold = 4096

// Publisher is what tells subscribers.
type Publisher interface {
	// Heard says whether anybody would get a message.
	Heard(tenant imprint.Tenant, topic string) bool
	PublishEvent(ctx context.Context, event imprint.Event, done func(error))
}

// Announcer publishes attempts on $imprint/attempts/OUTCOME/WHO as they are written:
// refused, provisioned, connected or closed; WHO is the client id, else the
// certificate's id, else the address. The payload is the attempt as ListAttempts has
// it. Nobody waits for it: what subscribers don't keep up with is dropped and
// counted, and a server that ends forgets what it hasn't told.
type Announcer struct {
	publisher Publisher
	home      imprint.Tenant
	logger    *slog.Logger

	queue   chan imprint.Event
	end     context.CancelFunc
	ended   sync.WaitGroup
	told    atomic.Uint64
	dropped atomic.Uint64
}

// NewAnnouncer starts telling. Attempts that died before a tenant was known go to
// the home tenant. Close ends it.
func NewAnnouncer(publisher Publisher, home imprint.Tenant, logger *slog.Logger) *Announcer {
	ctx, end := context.WithCancel(context.Background())
	a := &Announcer{publisher: publisher, home: home, logger: logger, queue: make(chan imprint.Event, maxTold), end: end}
	a.ended.Go(func() { a.run(ctx) })
	return a
}

// Close stops telling.
func (a *Announcer) Close() {
	a.end()
	a.ended.Wait()
}

// Counts gives how many attempts were told of, and how many weren't because too many
// waited.
func (a *Announcer) Counts() (told, dropped uint64) { return a.told.Load(), a.dropped.Load() }

// Tell queues attempts for those who listen.
func (a *Announcer) Tell(list []imprint.Attempt) {
	for i := range list {
		event := imprint.Event{Tenant: list[i].Tenant, Topic: topicOf(&list[i])}
		if event.Tenant == (imprint.Tenant{}) {
			event.Tenant = a.home
		}
		if !a.publisher.Heard(event.Tenant, event.Topic) {
			continue
		}
		payload, err := codec.Encode(present(list[i]))
		if err != nil {
			a.logger.Error("couldn't encode an attempt for its subscribers", "attempt", list[i].ID, "error", err)
			continue
		}
		event.Payload = payload
		select {
		case a.queue <- event:
		default:
			a.dropped.Add(1)
		}
	}
}

func (a *Announcer) run(ctx context.Context) {
	for {
		select {
		case event := <-a.queue:
			// Whose rules are slow holds up nobody else's messages.
			a.publisher.PublishEvent(ctx, event, func(err error) {
				switch {
				case err == nil:
					a.told.Add(1)
				case imprint.CodeOf(err) == imprint.CodeRulesBusy:
					a.dropped.Add(1) // as often as there are attempts
				case ctx.Err() == nil:
					a.dropped.Add(1)
					a.logger.Warn("couldn't tell of an attempt", "topic", event.Topic, "error", err)
				}
			})
		case <-ctx.Done():
			return
		}
	}
}

// topicOf gives an attempt's topic. A name that can't be one level of a topic is
// made one.
func topicOf(a *imprint.Attempt) string {
	who := string(a.ClientID)
	if who == "" {
		who = string(a.CertificateID)
	}
	if who == "" {
		who = a.Host()
	}
	return TopicRoot + string(a.Outcome) + "/" + level.Replace(who)
}

var level = strings.NewReplacer("/", "_", "+", "_", "#", "_", "\x00", "_")

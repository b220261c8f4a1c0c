package test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/mqtt"
)

// The oracle: random plays are performed on Imprint and on mosquitto, and every
// client must see the same. What may differ, and how it is levelled out; the
// first two only where Imprint isn't told to match as the standard says
// (--standard-matching):
//
//	subject                    Imprint, as AWS IoT Core     levelled by
//	`a/#`                      doesn't match `a`            mosquitto gets `a/+/#`, which means the same
//	retained, wildcard filter  nothing                      mosquitto gets Retain Handling 2; what it sends to MQTT 3.1.1 is acknowledged and left out
//	overlapping subscriptions  one copy, the highest QoS    mosquitto sends a copy each (both are allowed); copies in one step count as one
//	order between topics       not promised                 compared per topic
//	will at a takeover         published                    left out: mosquitto keeps it back when the session goes on
//	QoS 2, `$` topics, subscription ids, another MQTT version for an old session
//	                           refused                      not played
type play struct {
	Actors []actor `json:"actors"`
	Steps  []step  `json:"steps"`
}

// actor is a client of a play; its ways are the same all through.
type actor struct {
	Version           mqtt.Version `json:"version"`
	NoLocal           bool         `json:"noLocal,omitempty"` // MQTT 5
	RetainAsPublished bool         `json:"retainAsPublished,omitempty"`
}

// step is what one client does.
type step struct {
	Do     string `json:"do"` // connect, subscribe, unsubscribe, publish, acknowledge, disconnect, cut
	Client int    `json:"client"`
	// connect
	Clean  bool   `json:"clean,omitempty"`
	Expiry uint32 `json:"expiry,omitempty"` // MQTT 5
	// Withhold keeps PUBACKs back from this connection.
	Withhold bool `json:"withhold,omitempty"`
	// subscribe, unsubscribe, publish
	Topic          string   `json:"topic,omitempty"`
	QoS            mqtt.QoS `json:"qos,omitempty"`
	Retain         bool     `json:"retain,omitempty"`
	RetainHandling byte     `json:"retainHandling,omitempty"`
	Empty          bool     `json:"empty,omitempty"` // no payload
}

// seen is what the clients saw of one step.
type seen struct {
	SessionPresent bool
	Code           mqtt.ReasonCode
	// Messages are those of each client, by topic and in order.
	Messages map[int][]heard
}

// heard is one message as a client got it.
type heard struct {
	Topic, Payload string
	QoS            mqtt.QoS
	Retain, Dup    bool
}

// theatre is a broker to play on.
type theatre struct {
	name string
	dial func() (net.Conn, *net.TCPConn, error)
	// levelled: its matching is made to look like AWS's.
	levelled bool
}

// cast are the clients of a play that is being performed.
type cast struct {
	theatre *theatre
	play    play
	prefix  string
	on      []*wire
	watch   *wire // sees the wills: a cut that the broker has noticed
	// ignoring is the client that mosquitto sends what it retained for a
	// wildcard; -1: none.
	ignoring int
}

var plays atomic.Int64

func (th *theatre) cast(t testing.TB, p play) (*cast, error) {
	c := &cast{theatre: th, play: p, prefix: fmt.Sprintf("o%d", plays.Add(1)), on: make([]*wire, len(p.Actors)), ignoring: -1}
	watch, err := c.enter(t, mqtt.Connect{ClientID: c.prefix + "-watch", CleanStart: true}, mqtt.V311)
	if err != nil {
		return nil, err
	}
	c.watch = watch
	_, err = watch.trySubscribe(at1("gone-" + c.prefix + "/+"))
	return c, err
}

func (c *cast) enter(t testing.TB, connect mqtt.Connect, version mqtt.Version) (*wire, error) {
	conn, tcp, err := c.theatre.dial()
	if err != nil {
		return nil, err
	}
	w := &wire{t: t, conn: conn, tcp: tcp}
	err = w.tryConnect(connect, version)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return w, nil
}

func (c *cast) clientID(n int) string    { return fmt.Sprintf("%s-c%d", c.prefix, n) }
func (c *cast) topic(name string) string { return c.prefix + "/" + name }

// perform plays a play. Want, when not nil, is what the clients should see: a
// step isn't over before as much has come, or time is up.
func (th *theatre) perform(t testing.TB, p play, want []seen) ([]seen, error) {
	c, err := th.cast(t, p)
	if err != nil {
		return nil, err
	}
	defer c.clear(t)
	var all []seen
	for n, s := range p.Steps {
		one, err := c.do(t, n, s)
		if err != nil {
			return nil, fmt.Errorf("%s, step %d, %+v: %w", th.name, n, s, err)
		}
		var expected map[int][]heard
		if want != nil {
			expected = want[n].Messages
		}
		one.Messages, err = c.listen(expected)
		if err != nil {
			return nil, fmt.Errorf("%s, after step %d, %+v: %w", th.name, n, s, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// do lets a client do one step.
func (c *cast) do(t testing.TB, n int, s step) (seen, error) {
	var out seen
	who, w := c.play.Actors[s.Client], c.on[s.Client]
	c.ignoring = -1
	switch s.Do {
	case "connect":
		connect := mqtt.Connect{ClientID: c.clientID(s.Client), CleanStart: s.Clean}
		connect.Will = &mqtt.Will{Topic: fmt.Sprintf("gone-%s/%d", c.prefix, s.Client), Payload: fmt.Appendf(nil, "%d", n), QoS: 1}
		if who.Version == mqtt.V5 {
			connect.Properties.SessionExpiry = s.Expiry
			connect.Properties.Mark(mqtt.PropSessionExpiry)
		}
		next, err := c.enter(t, connect, who.Version)
		if err != nil {
			return out, err
		}
		if w != nil {
			_ = w.conn.Close() // the broker has taken over
		}
		next.withhold = s.Withhold
		c.on[s.Client] = next
		out.SessionPresent = next.connack.SessionPresent
		return out, nil
	case "subscribe":
		f := mqtt.Subscription{Filter: c.filter(s.Topic), QoS: s.QoS}
		if who.Version == mqtt.V5 {
			f.NoLocal, f.RetainAsPublished, f.RetainHandling = who.NoLocal, who.RetainAsPublished, s.RetainHandling
		}
		if c.theatre.levelled && strings.ContainsAny(s.Topic, "+#") {
			f.RetainHandling = 2
			if who.Version == mqtt.V311 {
				c.ignoring = s.Client
				// What is left out must not come again.
				w.letGo = func(m *mqtt.Publish) bool { return m.Retain }
			}
		}
		codes, err := w.trySubscribe(f)
		if err == nil {
			out.Code = codes[0]
		}
		return out, err
	case "unsubscribe":
		return out, w.tryUnsubscribe(c.filter(s.Topic))
	case "publish":
		m := mqtt.Publish{Topic: []byte(c.topic(s.Topic)), QoS: s.QoS, Retain: s.Retain}
		if !s.Empty {
			m.Payload = fmt.Appendf(nil, "m%d", n)
		}
		reason, err := w.tryPublish(m)
		if reason < mqtt.UnspecifiedError {
			reason = 0 // No matching subscribers is a success too.
		}
		out.Code = reason
		return out, err
	case "acknowledge":
		return out, w.tryAcknowledge()
	case "disconnect":
		c.on[s.Client] = nil
		w.close()
		return out, nil
	case "cut":
		c.on[s.Client] = nil
		w.cut()
		return out, c.noticed(s.Client)
	}
	return out, fmt.Errorf("no such step")
}

// filter is a client's filter on this broker.
func (c *cast) filter(name string) string {
	filter := c.topic(name)
	if rest, found := strings.CutSuffix(filter, "/#"); found && c.theatre.levelled {
		return rest + "/+/#"
	}
	return filter
}

// noticed waits until a client's will says that the broker knows of its cut.
func (c *cast) noticed(client int) error {
	topic := fmt.Sprintf("gone-%s/%d", c.prefix, client)
	for {
		for n, m := range c.watch.inbox {
			if string(m.Topic) == topic {
				c.watch.inbox = slices.Delete(c.watch.inbox, n, n+1)
				return nil
			}
		}
		_, err := c.watch.tryNext(patience)
		if err != nil {
			return fmt.Errorf("no will came after the cut: %w", err)
		}
	}
}

// listen gives what every client that is on has got.
func (c *cast) listen(want map[int][]heard) (map[int][]heard, error) {
	got := map[int][]heard{}
	for n, w := range c.on {
		if w == nil {
			continue
		}
		err := w.tryPing()
		for err == nil && len(gather(w.inbox, c.prefix)) < len(want[n]) {
			_, err = w.tryNext(patience)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", n, err)
		}
		list := w.inbox
		w.inbox, w.letGo = nil, nil
		if n == c.ignoring {
			list = slices.DeleteFunc(list, func(m *mqtt.Publish) bool { return m.Retain })
		}
		if messages := gather(list, c.prefix); len(messages) > 0 {
			got[n] = messages
		}
	}
	// Wills of takeovers.
	err := c.watch.tryPing()
	c.watch.inbox = nil
	return got, err
}

// gather brings messages into the form in which they are compared: by topic,
// copies as one.
func gather(list []*mqtt.Publish, prefix string) []heard {
	var all []heard
	for _, m := range list {
		h := heard{
			Topic: strings.TrimPrefix(string(m.Topic), prefix+"/"), Payload: string(m.Payload),
			QoS: m.QoS, Retain: m.Retain, Dup: m.Dup,
		}
		same := slices.IndexFunc(all, func(o heard) bool { return o.Topic == h.Topic && o.Payload == h.Payload })
		if same >= 0 {
			all[same].QoS = max(all[same].QoS, h.QoS)
			continue
		}
		all = append(all, h)
	}
	slices.SortStableFunc(all, func(a, b heard) int { return cmp.Compare(a.Topic, b.Topic) })
	return all
}

// clear leaves nothing of the play behind.
func (c *cast) clear(t testing.TB) {
	for n, w := range c.on {
		if w != nil {
			w.close()
		}
		again, err := c.enter(t, mqtt.Connect{ClientID: c.clientID(n), CleanStart: true}, c.play.Actors[n].Version)
		if err == nil {
			again.close()
		}
	}
	if c.watch == nil {
		return
	}
	for _, topic := range playTopics {
		_, _ = c.watch.tryPublish(mqtt.Publish{Topic: []byte(c.topic(topic)), QoS: 1, Retain: true})
	}
	c.watch.close()
}

// compare performs a play on both brokers.
func compare(t testing.TB, imprint, mosquitto *theatre, p play) error {
	want, err := mosquitto.perform(t, p, nil)
	if err != nil {
		return err
	}
	got, err := imprint.perform(t, p, want)
	if err != nil {
		return err
	}
	for n := range p.Steps {
		if diff := gocmp.Diff(want[n], got[n]); diff != "" {
			text, _ := json.Marshal(p)
			return fmt.Errorf("step %d, %+v (-mosquitto +imprint):\n%s\nplay: %s", n, p.Steps[n], diff, text)
		}
	}
	return nil
}

// Topics and filters of plays; few, so that they meet.
var (
	playTopics  = []string{"a", "a/b", "a/c", "b", "b/c/d"}
	playFilters = []string{"a", "a/b", "b", "a/+", "a/#", "+/b", "+/c/+", "b/#", "#"}
)

// drawPlay makes a play in which every step can be taken.
func drawPlay(t *rapid.T) play {
	var p play
	for range 3 {
		who := actor{Version: rapid.SampledFrom([]mqtt.Version{mqtt.V311, mqtt.V5}).Draw(t, "version")}
		if who.Version == mqtt.V5 {
			who.NoLocal = rapid.IntRange(0, 3).Draw(t, "no local") == 3
			who.RetainAsPublished = rapid.IntRange(0, 3).Draw(t, "retain as published") == 3
		}
		p.Actors = append(p.Actors, who)
	}
	on := make([]bool, len(p.Actors))
	withholding := make([]bool, len(p.Actors))
	for range rapid.IntRange(4, 28).Draw(t, "steps") {
		s := step{Client: rapid.IntRange(0, len(p.Actors)-1).Draw(t, "client")}
		choices := []string{"connect"}
		if on[s.Client] {
			choices = []string{"publish", "publish", "publish", "publish", "subscribe", "subscribe", "unsubscribe", "cut", "disconnect", "connect"}
			if withholding[s.Client] {
				choices = append(choices, "acknowledge", "cut")
			}
		}
		s.Do = rapid.SampledFrom(choices).Draw(t, "do")
		switch s.Do {
		case "connect":
			s.Clean = rapid.IntRange(0, 4).Draw(t, "clean") == 4
			if p.Actors[s.Client].Version == mqtt.V5 && rapid.IntRange(0, 4).Draw(t, "expiry") < 4 {
				s.Expiry = 3600
			}
			s.Withhold = rapid.Bool().Draw(t, "withhold")
			on[s.Client], withholding[s.Client] = true, s.Withhold
		case "subscribe", "unsubscribe":
			s.Topic = rapid.SampledFrom(playFilters).Draw(t, "filter")
			if s.Do == "subscribe" {
				s.QoS = mqtt.QoS(rapid.IntRange(0, 3).Draw(t, "qos") & 1)
				s.RetainHandling = byte(rapid.IntRange(0, 2).Draw(t, "retain handling"))
			}
		case "publish":
			s.Topic = rapid.SampledFrom(playTopics).Draw(t, "topic")
			s.QoS = mqtt.QoS(min(1, rapid.IntRange(0, 3).Draw(t, "qos")))
			s.Retain = rapid.IntRange(0, 3).Draw(t, "retain") == 3
			s.Empty = s.Retain && rapid.IntRange(0, 3).Draw(t, "empty") == 3
		case "cut", "disconnect":
			on[s.Client], withholding[s.Client] = false, false
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

// startMosquitto starts Debian's broker on a socket of its own in the file
// system: no port, no service.
func startMosquitto(t *testing.T, levelled bool) *theatre {
	t.Helper()
	path := toolPath(t, "mosquitto")
	// Socket names are short.
	dir, err := os.MkdirTemp("", "oracle")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, config := filepath.Join(dir, "socket"), filepath.Join(dir, "mosquitto.conf")
	writeFile(t, config, "user root\nlistener 0 "+socket+"\nallow_anonymous true\npersistence false\nallow_duplicate_messages true\nmax_inflight_messages 100\nmax_queued_messages 1000\n")
	said, ended := newSaid(), make(chan struct{})
	cmd := exec.Command(path, "-c", config)
	cmd.Env, cmd.Stdout, cmd.Stderr = cleanEnv(), said, said
	err = cmd.Start()
	if err != nil {
		t.Fatalf("couldn't start mosquitto: %v", err)
	}
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	said.wait(t, "mosquitto to run", func(text string) bool { return strings.Contains(text, " running") })
	return &theatre{name: "mosquitto", levelled: levelled, dial: func() (net.Conn, *net.TCPConn, error) {
		conn, err := net.Dial("unix", socket)
		return conn, nil, err
	}}
}

func (s *stage) theatre(t *testing.T) *theatre {
	return &theatre{name: "imprint", dial: func() (net.Conn, *net.TCPConn, error) { return s.dialSide(t, s.one, "", "") }}
}

// oracleTime bounds the search for differences in each way of matching.
const oracleTime = 25 * time.Second

// matchings are Imprint's two ways to match filters.
var matchings = map[string]struct {
	setting  string
	levelled bool
}{
	"as AWS IoT Core":      {"IMPRINT_STANDARD_MATCHING=false", true},
	"as the standard says": {"IMPRINT_STANDARD_MATCHING=true", false},
}

func TestRandomPlaysLookTheSameAsOnMosquitto(t *testing.T) {
	need(t, "openssl", "mosquitto")
	for name, how := range matchings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			imprint, mosquitto := newStage(t, how.setting).theatre(t), startMosquitto(t, how.levelled)
			deadline := time.Now().Add(oracleTime)
			performed, differs := 0, false
			rapid.Check(t, func(rt *rapid.T) {
				p := drawPlay(rt)
				// A difference that was found is made small whatever it takes.
				if time.Now().After(deadline) && !differs {
					return
				}
				performed++
				err := compare(t, imprint, mosquitto, p)
				if err != nil {
					differs = true
					rt.Fatal(err)
				}
			})
			t.Logf("plays performed: %d", performed)
			if performed == 0 {
				t.Errorf("no play was performed in %s", oracleTime)
			}
		})
	}
}

// Plays that once looked different, or show what random ones seldom do.
func TestKnownPlaysLookTheSameAsOnMosquitto(t *testing.T) {
	need(t, "openssl", "mosquitto")
	files, err := filepath.Glob("testdata/plays/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("plays in testdata/plays: got %d, %v; want some", len(files), err)
	}
	for name, how := range matchings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			imprint, mosquitto := newStage(t, how.setting).theatre(t), startMosquitto(t, how.levelled)
			for _, file := range files {
				var p play
				err := json.Unmarshal([]byte(readFile(t, file)), &p)
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				err = compare(t, imprint, mosquitto, p)
				if err != nil {
					t.Errorf("%s: %v", filepath.Base(file), err)
				}
			}
		})
	}
}

package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestTheCLIReadsRetainedMessages(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	for n := range 3 {
		s.aws(t, dir, fmt.Sprintf(`iot-data publish --topic kept/%d --qos 1 --retain --cli-binary-format raw-in-base64-out --payload payload-%d --user-properties '[{"n":"%d"}]'`, n, n, n))
	}
	var got struct {
		Topic, Payload   string
		QoS              int
		LastModifiedTime int64
	}
	err := json.Unmarshal([]byte(s.aws(t, dir, "iot-data get-retained-message --topic kept/1 --output json")), &got)
	if err != nil {
		t.Fatal(err)
	}
	if got.Topic != "kept/1" || got.Payload != "cGF5bG9hZC0x" || got.QoS != 1 || got.LastModifiedTime < 1e12 {
		t.Errorf("got %+v", got)
	}
	// The CLI of Debian doesn't know the user properties of an answer.
	whole := s.signedBody(t, "GET", s.at().APIURL+"/retainedMessage/kept%2F1", "iotdata")
	if want := `"userProperties":"W3sibiI6IjEifV0="`; !strings.Contains(whole, want) { // [{"n":"1"}]
		t.Errorf("got %s, want it to have %s", whole, want)
	}
	// The CLI asks for page after page.
	list := s.aws(t, dir, "iot-data list-retained-messages --page-size 2 --query 'retainedTopics[].[topic,payloadSize,qos]' --output text")
	if want := "kept/0\t9\t1\nkept/1\t9\t1\nkept/2\t9\t1"; list != want {
		t.Errorf("got %q, want %q", list, want)
	}
	s.aws(t, dir, "iot-data publish --topic kept/1 --retain")
	run := s.shell(t, dir, "aws iot-data get-retained-message --topic kept/1")
	if run.exit == 0 || !strings.Contains(run.stderr, "(ResourceNotFoundException)") {
		t.Errorf("after an empty payload: got exit code %d\n%s", run.exit, run.all())
	}
}

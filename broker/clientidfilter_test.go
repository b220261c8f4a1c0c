package broker_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestAClientIDThatIsAFilterWidensWhatItMaySubscribeTo ensures what docs/policies.md says
// of client ids such as "+": that they do so, as on AWS IoT Core, and what prevents it.
func TestAClientIDThatIsAFilterWidensWhatItMaySubscribeTo(t *testing.T) {
	const mine = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish"],"Resource":"*"},
		{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/my/${iot:ClientId}/x"},
		{"Effect":"Allow","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/%s"}]}`
	text, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, deny, found := strings.Cut(string(text), "- Deny such client ids:\n\n```json\n")
	if !found {
		t.Fatal("the page has no policy that denies such client ids")
	}
	deny, _, _ = strings.Cut(deny, "```")
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		pub := h.on(first, h.register(first, allowAll), v, connectAs("pub"))
		wide := h.on(first, h.register(first, fmt.Sprintf(mine, "*")), v, connectAs("+"))
		wide.subscribe(0, "my/+/x")
		pub.published("my/other/x", "private")
		wide.gets("my/other/x", "private", 0)
		wide.goodbye()

		narrow := h.on(first, h.register(first, fmt.Sprintf(mine, "my/${iot:ClientId}/x")), v, connectAs("+"))
		narrow.subscribe(0, "my/+/x")
		pub.published("my/other/x", "private")
		narrow.silent()
		narrow.goodbye()

		id := h.register(first, fmt.Sprintf(mine, "*"))
		h.update(func(tx imprint.Tx) error {
			name := imprint.PolicyName("deny" + string(id[:16]))
			err := tx.PutPolicy(imprint.Policy{Tenant: first, Name: name, DefaultVersion: 1, LastVersion: 1, GenerationID: "g"})
			if err != nil {
				return err
			}
			err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: first, Policy: name, Version: 1, Document: deny})
			if err != nil {
				return err
			}
			return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: first, Policy: name, Target: first.CertificateARN(id)})
		})
		for _, name := range []string{"+", "#", "a+", "a/b"} {
			c := h.door(first, id, v)
			c.send(connectAs(name))
			c.connectDenied()
		}
		h.on(first, id, v, connectAs("dev")).goodbye()
	})
}

package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestPoliciesThatLookAtTheTimeDecideAnewForEachMessage ensures that a decision that was
// kept for the last topic doesn't outlive the time that the policy allows.
func TestPoliciesThatLookAtTheTimeDecideAnewForEachMessage(t *testing.T) {
	t.Parallel()
	const others = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":"%s","Resource":"*"},%s]}`
	began := time.Now()
	limit := began.Add(time.Minute)
	byTime := fmt.Sprintf(`{"DateLessThan":{"aws:CurrentTime":%q}}`, limit.UTC().Format(time.RFC3339))
	byEpoch := fmt.Sprintf(`{"NumericLessThan":{"aws:EpochTime":"%d"}}`, limit.Unix())
	since := fmt.Sprintf(`{"DateGreaterThanEquals":{"aws:CurrentTime":%q}}`, limit.UTC().Format(time.RFC3339))
	for _, action := range []string{"iot:Publish", "iot:Receive"} {
		allow := `{"Effect":"Allow","Action":"` + action + `","Resource":"*"`
		for name, statements := range map[string]string{
			"an Allow until a date":          allow + `,"Condition":` + byTime + `}`,
			"an Allow until an epoch's time": allow + `,"Condition":` + byEpoch + `}`,
			"a Deny from a date on":          allow + `},{"Effect":"Deny","Action":"` + action + `","Resource":"*","Condition":` + since + `}`,
		} {
			for _, v := range versions {
				t.Run(fmt.Sprint(action, ", ", name, ", ", v), func(t *testing.T) {
					t.Parallel()
					h := newHouseAt(t, broker.Options{}, registry, began)
					timed, free := h.register(first, fmt.Sprintf(others, action, statements)), h.register(first, allowAll)
					pubID, subID := timed, free
					if action == "iot:Receive" {
						pubID, subID = free, timed
					}
					pub, sub := h.on(first, pubID, v, connectAs("pub")), h.on(first, subID, v, connectAs("sub"))
					sub.subscribe(0, "a")
					for range 3 { // the second time the publisher has everything of the topic
						pub.publish(0, 0, "a", "in time")
						sub.gets("a", "in time", 0)
					}
					h.ahead.Store(int64(2 * time.Minute))
					pub.publish(0, 0, "a", "too late")
					if action == "iot:Publish" {
						pub.told(mqtt.NotAuthorized)
						pub.ended(imprint.CodePublishDenied)
					} else {
						pub.silent()
					}
					sub.silent()
				})
			}
		}
	}
}

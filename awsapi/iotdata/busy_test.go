package iotdata_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iotdata"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// busyRules have no room for any message.
type busyRules struct{}

func (r busyRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (busyRules) Idle() bool                                  { return false }
func (busyRules) Offer(context.Context, *imprint.RuleMessage) error {
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait")
}

var operator = sigv4.AccessKey{ID: "AKIDEXAMPLE", Secret: "secret", Account: "000000000000", PrincipalARN: "arn:aws:iam::000000000000:user/u"}

type oneKey struct{}

func (oneKey) AccessKey(context.Context, string) (sigv4.AccessKey, error) { return operator, nil }

// messages is a broker as this API sees it.
type messages struct{ *broker.Broker }

func (m messages) Publish(ctx context.Context, in iotdata.Message) error {
	return m.Broker.Publish(ctx, broker.Message{Tenant: in.Tenant, Topic: in.Topic, Payload: in.Payload, QoS: in.QoS, Retain: in.Retain})
}

func (m messages) Disconnect(ctx context.Context, tenant imprint.Tenant, id imprint.ClientID, cleanSession, preventWill bool) error {
	return m.Broker.Disconnect(ctx, tenant, id, broker.Ending{CleanSession: cleanSession, PreventWill: preventWill})
}

// TestAPublisherThatTopicRulesHaveNoRoomForMayTryAgain ensures that SDKs see a condition
// that passes (503), which they try again, and no failure of the server.
func TestAPublisherThatTopicRulesHaveNoRoomForMayTryAgain(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	identities := identity.NewResolver(store, func(imprint.Tenant, imprint.CertificateID) {})
	t.Cleanup(identities.Close)
	b := broker.New(broker.Options{Rules: busyRules{}, Logger: slog.New(slog.DiscardHandler)}, store, identities, time.Now)
	t.Cleanup(func() {
		err := b.Shutdown(context.Background())
		if err != nil {
			t.Error(err)
		}
	})
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"iotdata"}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier, Translate: iotdata.Translate}, iotdata.Operations(), iotdata.NewService(messages{b}).Routes())
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]struct {
		status int
		name   string
	}{
		"?qos=1":             {http.StatusServiceUnavailable, "ServiceUnavailableException"},
		"?qos=1&retain=true": {http.StatusServiceUnavailable, "ServiceUnavailableException"},
		"?qos=0":             {http.StatusOK, ""},
	} {
		r := httptest.NewRequest(http.MethodPost, "https://localhost/topics/state"+query, strings.NewReader("on"))
		sigv4.Sign(r, []byte("on"), operator, "us-east-1", "iotdata", time.Now())
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, r)
		if name := answer.Header().Get("X-Amzn-Errortype"); answer.Code != want.status || name != want.name {
			t.Errorf("%s: got %d %s, want %d %s\n%s", query, answer.Code, name, want.status, want.name, answer.Body)
		}
	}
	home := imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	_, err = b.Retained(t.Context(), home, "state")
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("the refused message is retained: %v", err)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iotdata"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/policy"
)

// The names under which clients sign requests of the data plane: DeleteConnection
// and WebSockets are the device gateway's.
const (
	serviceData    = "iotdata"
	serviceGateway = "iotdevicegateway"
)

// maxPresigned is how long a presigned URL of a WebSocket may hold. AWS's first
// SDKs for devices asked for a day.
const maxPresigned = 24 * time.Hour

// newDataAPI makes the data plane API, which has the port of the control plane
// and that of HTTPS.
func (s *server) newDataAPI() error {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{serviceData, serviceGateway}, Regions: s.config.Regions, Now: s.clock,
	})
	if err != nil {
		return err
	}
	s.data, err = awsapi.NewMux(awsapi.Config{
		Verifier: verifier, Translate: iotdata.Translate, Observe: s.observe, Now: s.clock,
		Allow: s.callers.allow, Authorize: s.authorize,
		ThrottlingStatus: http.StatusTooManyRequests, MethodNotAllowed: iotdata.CodeMethodNotAllowed,
	}, iotdata.Operations(), iotdata.NewService(messages{s.broker}).Routes())
	return err
}

// messages is the broker as the data plane API sees it.
type messages struct{ *broker.Broker }

// Publish implements iotdata.Messages.
func (m messages) Publish(ctx context.Context, message iotdata.Message) error {
	return m.Broker.Publish(ctx, broker.Message{
		Tenant: message.Tenant, Topic: message.Topic, Payload: message.Payload, QoS: message.QoS, Retain: message.Retain, Properties: message.Properties,
	})
}

// Disconnect implements iotdata.Messages.
func (m messages) Disconnect(ctx context.Context, tenant imprint.Tenant, client imprint.ClientID, cleanSession, preventWill bool) error {
	return m.Broker.Disconnect(ctx, tenant, client, broker.Ending{CleanSession: cleanSession, PreventWill: preventWill})
}

// everything is the policy of an operator's WebSocket: an access key may do
// everything in its account.
const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`

// newOperators makes what tells who signed the request for a WebSocket.
func (s *server) newOperators() (func(*http.Request) (gateway.Operator, error), error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{serviceGateway, serviceData}, Regions: s.config.Regions,
		MaxExpiry: maxPresigned, Now: s.clock,
	})
	if err != nil {
		return nil, err
	}
	document, err := policy.Parse([]byte(everything))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the policy of operators: %w", err)
	}
	allowed := policy.Compile(policy.Named{Name: "operator", Doc: document})
	return func(r *http.Request) (gateway.Operator, error) {
		signer, err := verifySigner(r, verifier)
		if err != nil {
			return gateway.Operator{}, err
		}
		caller := awsapi.Caller{
			Account: signer.Key.Account, Region: signer.Region, AccessKeyID: signer.Key.ID, PrincipalARN: signer.Key.PrincipalARN,
		}
		if !s.callers.allow(caller, "Connect") {
			return gateway.Operator{}, imprint.Errorf(imprint.CodeThrottled, "access key %s makes more than %d requests a second", caller.AccessKeyID, s.config.APIRate)
		}
		err = s.authorize(r.Context(), caller, "iot:Connect", "*")
		if err != nil {
			return gateway.Operator{}, err
		}
		return gateway.Operator{
			Tenant:    imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)},
			Principal: caller.PrincipalARN, Policies: allowed, Until: signer.Key.Expires,
		}, nil
	}, nil
}

// verifySigner tells who signed a request without a body.
func verifySigner(r *http.Request, verifier *sigv4.Verifier) (sigv4.Identity, error) {
	if r.ContentLength != 0 {
		return sigv4.Identity{}, imprint.Errorf(imprint.CodeHTTPRequest, "the request for a WebSocket has a body")
	}
	claim, err := verifier.Parse(r)
	var signer sigv4.Identity
	if err == nil {
		signer, err = verifier.Verify(r.Context(), claim, r, nil)
	}
	var refused *sigv4.Error
	if errors.As(err, &refused) {
		return signer, imprint.Errorf(imprint.CodeSignature, "%w", refused)
	}
	return signer, err
}

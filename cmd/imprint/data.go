package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iotdata"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/identity"
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
		Allow: s.callers.allow, Authorize: s.authorize, Bodies: s.bodies,
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

// newOperators makes what tells who signed the request for a WebSocket.
func (s *server) newOperators() (func(*http.Request) (gateway.Operator, error), error) {
	verifier, err := sigv4.New(sigv4.Config{
		Keys: storeKeys{s.store}, Services: []string{serviceGateway, serviceData}, Regions: s.config.Regions,
		MaxExpiry: maxPresigned, Now: s.clock,
	})
	if err != nil {
		return nil, err
	}
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
		operator, err := s.operator(r.Context(), caller)
		if err != nil {
			return gateway.Operator{}, err
		}
		return gateway.Operator{Operator: operator, Until: signer.Key.Expires}, nil
	}, nil
}

// operator is who a WebSocket belongs to, with what decides about its packets. A
// user doesn't make a tenant by connecting: its policies speak of client ids,
// which come later.
func (s *server) operator(ctx context.Context, caller awsapi.Caller) (identity.Operator, error) {
	seen := s.guard.Changes().Load()
	may, err := s.guard.Permissions(ctx, caller)
	if err != nil {
		return identity.Operator{}, err
	}
	tenant := imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
	if may.Everything {
		_, err = s.service.EnsureTenant(ctx, tenant)
	} else {
		err = s.store.Glance(ctx, func(tx imprint.ReadTx) error {
			_, err := tx.TenantSettings(tenant)
			return err
		})
	}
	if err != nil {
		return identity.Operator{}, err
	}
	return identity.Operator{
		Tenant: tenant, Principal: caller.PrincipalARN, Policies: may.Policies, Keys: may.Keys,
		Changes: s.guard.Changes(), Seen: seen,
		Renew: func(ctx context.Context) (identity.Operator, error) {
			_, err := storeKeys{s.store}.AccessKey(ctx, caller.AccessKeyID)
			if errors.Is(err, sigv4.ErrUnknownKey) {
				err = imprint.Errorf(imprint.CodeAccessDenied, "access key %s was deleted", caller.AccessKeyID)
			}
			if err != nil {
				return identity.Operator{}, err
			}
			return s.operator(ctx, caller)
		},
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

// Package explain is Imprint's own API beside TestAuthorization: why a device may or
// may not do something, and the least policy for what it did.
//
//	POST /imprint/policy/explain                  ExplainPolicy
//	GET  /imprint/policy/least?match=&since=      LeastPolicy
//
// They are signed like every other request of the control plane; their IAM actions
// are imprint:ExplainPolicy, on the ARN of the certificate or, when none is given, of
// the thing, and imprint:LeastPolicy on "*". Both decide with the very policies and
// values that a connection of the certificate has, by package identity; nothing is
// changed by them. An answer has the members of package policy's Answer.
package explain

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
)

// Where the operations are.
const (
	Path      = "/imprint/policy/explain"
	LeastPath = "/imprint/policy/least"
)

// Input is a question about a device. Certificate or thing must be given; a thing
// stands for its only certificate. Without a client id, that of AWS's rule is taken:
// the name of the certificate's only thing.
type Input struct {
	CertificateID *string `api:"body certificateId CertificateID"`
	ThingName     *string `api:"body thingName Name"`
	ClientID      *string `api:"body clientId Name"`
	Action        string  `api:"body action QuestionAction required"`
	Topic         *string `api:"body topic Topic"`
	WillTopic     *string `api:"body willTopic Topic"`
	Persistent    *bool   `api:"body persistent Flag"`
	SourceIP      *string `api:"body sourceIp Name"`
	ServerName    *string `api:"body serverName Name"`
}

// LeastInput names whose attempts to look at, as ListAttempts' match does.
type LeastInput struct {
	Match string     `api:"query match Match required"`
	Since *time.Time `api:"query since Since"`
	// Denied also takes in what was denied, and would be now.
	Denied *bool `api:"query denied Denied"`
}

// Answer is what ExplainPolicy gives.
type Answer struct {
	CertificateID string `json:"certificateId"`
	ClientID      string `json:"clientId,omitempty"`
	// ThingName is the thing that such a connection belongs to, empty for none.
	ThingName string   `json:"thingName,omitempty"`
	Policies  []string `json:"policies"`
	policy.Answer
}

type none struct{}

var codec = restjson.New(restjson.Shapes{
	"CertificateID":  {Limits: restjson.Between(64, 64), Pattern: `(0x)?[a-fA-F0-9]+`},
	"Name":           {Limits: restjson.Between(1, 256)},
	"Topic":          {Limits: restjson.Between(1, 512)},
	"Match":          {Limits: restjson.Between(1, 512)},
	"QuestionAction": {Enum: policy.QuestionActions()},
}, "InvalidRequestException")

// The operations.
var (
	ExplainPolicy = awsapi.Define[Input, none](codec, awsapi.Operation{
		Name: "ExplainPolicy", Method: "POST", Path: Path, Action: "imprint:ExplainPolicy", Resource: "*",
	})
	LeastPolicy = awsapi.Define[LeastInput, none](codec, awsapi.Operation{
		Name: "LeastPolicy", Method: "GET", Path: LeastPath, Action: "imprint:LeastPolicy", Resource: "*",
	})
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{ExplainPolicy.Operation, LeastPolicy.Operation}
}

// Explainer answers.
type Explainer struct {
	Store      imprint.Store
	Identities *identity.Resolver
	Clock      imprint.Clock
	// Flush waits until everything recorded so far is in the store.
	Flush func(context.Context) error
}

// Routes binds the operations.
func (e Explainer) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleRaw(ExplainPolicy, resourceOf, func(ctx context.Context, caller awsapi.Caller, in *Input) (awsapi.Answer, error) {
			answer, err := e.explain(ctx, tenantOf(caller), in)
			return encoded(answer, err)
		}),
		awsapi.HandleRaw(LeastPolicy, nil, func(ctx context.Context, caller awsapi.Caller, in *LeastInput) (awsapi.Answer, error) {
			answer, err := e.least(ctx, tenantOf(caller), in)
			return encoded(answer, err)
		}),
	}
}

func encoded(answer any, err error) (awsapi.Answer, error) {
	if err != nil {
		return awsapi.Answer{}, err
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return awsapi.Answer{}, fmt.Errorf("couldn't encode an answer: %w", err)
	}
	return awsapi.Answer{Body: body}, nil
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

// resourceOf is what a caller must be allowed ExplainPolicy on.
func resourceOf(caller awsapi.Caller, in *Input) string {
	switch {
	case in.CertificateID != nil:
		id, err := imprint.ParseCertificateID(*in.CertificateID)
		if err == nil {
			return tenantOf(caller).CertificateARN(id)
		}
	case in.ThingName != nil:
		return tenantOf(caller).ThingARN(imprint.ThingName(*in.ThingName))
	}
	return "*"
}

func (e Explainer) explain(ctx context.Context, tenant imprint.Tenant, in *Input) (*Answer, error) {
	address, err := parseAddress(in.SourceIP)
	if err != nil {
		return nil, err
	}
	id, err := e.certificate(ctx, tenant, in)
	if err != nil {
		return nil, err
	}
	who, err := e.Identities.Acquire(ctx, tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, imprint.Errorf(imprint.CodeNotFound, "Certificate %s cannot be found.", id).
			WithHint("It isn't registered in %s. What a policy says to it: imprint policy explain --policy FILE --cert FILE.", tenant)
	}
	if err != nil {
		return nil, err
	}
	defer e.Identities.Release(who)
	client := clientOf(who, in)
	connection := identity.Connection{ClientID: client, Address: address}
	connection.Certificate, err = e.values(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	if in.ServerName != nil {
		connection.ServerName = *in.ServerName
	}
	question := policy.Question{
		Action: in.Action, ARN: tenant.ARN(""), ClientID: string(client), Vars: who.Variables(connection), Now: e.Clock(),
	}
	if in.Topic != nil {
		question.Topic = *in.Topic
	}
	if in.WillTopic != nil {
		question.LastWillTopic = *in.WillTopic
	}
	if in.Persistent != nil && *in.Persistent {
		question.ConnectAttributes = policy.PersistentConnect
	}
	set := who.PoliciesFor(client)
	decided, err := set.Answer(question)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%w.", err)
	}
	answer := &Answer{CertificateID: string(id), ClientID: string(client), Policies: set.Names(), Answer: decided}
	if attached := who.ThingFor(client); attached != nil {
		answer.ThingName = string(attached.Thing.Name)
	}
	answer.Notes = append(notesOn(who, in, answer.ThingName, e.Clock()), answer.Notes...)
	return answer, nil
}

func parseAddress(text *string) (netip.Addr, error) {
	if text == nil {
		return netip.Addr{}, nil
	}
	address, err := netip.ParseAddr(*text)
	if err != nil {
		return netip.Addr{}, imprint.Errorf(imprint.CodeInvalidRequest, "sourceIp %q is no address.", imprint.Excerpt(*text))
	}
	return address, nil
}

// certificate is the one that the question names, or the thing's only one.
func (e Explainer) certificate(ctx context.Context, tenant imprint.Tenant, in *Input) (imprint.CertificateID, error) {
	if in.CertificateID != nil {
		return imprint.ParseCertificateID(*in.CertificateID)
	}
	if in.ThingName == nil {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "certificateId or thingName must be given.")
	}
	thing := imprint.ThingName(*in.ThingName)
	var attached []imprint.ThingAttachment
	err := e.Store.View(ctx, func(tx imprint.ReadTx) error {
		_, err := tx.Thing(tenant, thing)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return imprint.Errorf(imprint.CodeNotFound, "Thing %s cannot be found.", imprint.Excerpt(string(thing)))
		}
		if err != nil {
			return err
		}
		attached, _, err = tx.ThingPrincipals(tenant, thing, imprint.Page{Limit: 2, Ascending: true})
		return err
	})
	if err != nil {
		return "", err
	}
	switch len(attached) {
	case 0:
		return "", imprint.Errorf(imprint.CodeNotFound, "Thing %s has no certificate.", thing).
			WithHint("Attach one: aws iot attach-thing-principal --thing-name %s --principal CERTIFICATE-ARN.", thing)
	case 1:
		return attached[0].Certificate, nil
	}
	return "", imprint.Errorf(imprint.CodeInvalidRequest, "Thing %s has several certificates: certificateId must be given.", thing).
		WithHint("aws iot list-thing-principals --thing-name %s lists them.", thing)
}

// clientOf is the client id of the question. A device of AWS's is called as its thing.
func clientOf(who *identity.Identity, in *Input) imprint.ClientID {
	switch {
	case in.ClientID != nil:
		return imprint.ClientID(*in.ClientID)
	case in.ThingName != nil:
		return imprint.ClientID(*in.ThingName)
	case len(who.Things) == 1:
		return imprint.ClientID(who.Things[0].Thing.Name)
	}
	return ""
}

// values reads the certificate's own; nil when only its id is known, as with a
// trusted user's claim.
func (e Explainer) values(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) (*policy.CertificateVariables, error) {
	var text string
	err := e.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.Certificate(tenant, id)
		text = found.PEM
		return err
	})
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("couldn't read certificate %s: %w", id, err)
	}
	leaf, err := pki.ParseCertificatePEM(text)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read the stored certificate %s: %w", id, err)
	}
	return policy.NewCertificateVariables(leaf), nil
}

// maxNamed bounds the things that a note names.
const maxNamed = 3

func namesOf(who *identity.Identity) string {
	var names []string
	for _, a := range who.Things {
		if len(names) == maxNamed {
			names = append(names, "...")
			break
		}
		names = append(names, fmt.Sprintf("%q", a.Thing.Name))
	}
	return strings.Join(names, ", ")
}

// notesOn tells what stands before any policy.
func notesOn(who *identity.Identity, in *Input, belongs string, now time.Time) []string {
	var notes []string
	refusal := who.Refusal(now)
	if refusal != nil {
		notes = append(notes, fmt.Sprintf("The device is refused before any policy is asked: %s. Fix: %s", refusal.Error(), imprint.HintOf(refusal)))
	}
	if in.ClientID == nil && in.ThingName == nil && len(who.Things) == 1 {
		notes = append(notes, fmt.Sprintf("The client id is taken to be %q, the name of the certificate's thing.", who.Things[0].Thing.Name))
	}
	if in.ThingName == nil && belongs == "" && len(who.Things) > 0 {
		notes = append(notes, fmt.Sprintf("The connection belongs to no thing: the certificate is attached to %s, and the client id must be a thing's name.", namesOf(who)))
	}
	if in.ThingName == nil || belongs == *in.ThingName {
		return notes
	}
	attached := false
	for _, a := range who.Things {
		attached = attached || string(a.Thing.Name) == *in.ThingName
	}
	switch {
	case !attached:
		notes = append(notes, fmt.Sprintf("The certificate isn't attached to thing %q. Fix: aws iot attach-thing-principal --thing-name %s --principal %s",
			*in.ThingName, *in.ThingName, who.Certificate.ARN()))
	case belongs != "":
		notes = append(notes, fmt.Sprintf("The connection belongs to thing %q, which the certificate is attached to exclusively, not to %q.", belongs, *in.ThingName))
	default:
		notes = append(notes, fmt.Sprintf("A connection with another client id than %q doesn't belong to that thing.", *in.ThingName))
	}
	return notes
}

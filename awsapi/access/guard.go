package access

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/policy"
)

// Guard decides what callers may do.
type Guard struct {
	store  imprint.Store
	clock  imprint.Clock
	logger *slog.Logger

	denied  atomic.Uint64
	changes atomic.Uint64
	told    atomic.Pointer[func()] // hears of changes; nil: nobody does
	stop    func()

	// documents holds parsed documents by their text: a text is one policy for
	// ever, so that nothing here becomes stale.
	mu        sync.RWMutex
	documents map[string]*policy.Document
	everyone  *policy.Set // allows everything
}

// maxDocuments bounds the parsed documents that are kept; at the bound any one goes.
const maxDocuments = 1024

// everything is the policy of an account's operator.
const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

// NewGuard makes a guard. Close ends it.
func NewGuard(store imprint.Store, clock imprint.Clock, logger *slog.Logger) (*Guard, error) {
	document, err := policy.Parse([]byte(everything))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the policy of operators: %w", err)
	}
	g := &Guard{
		store: store, clock: clock, logger: logger, documents: map[string]*policy.Document{},
		everyone: policy.Compile(policy.Named{Name: string(imprint.OperatorUser), Doc: document}),
	}
	g.stop = store.Watch(g.committed)
	return g, nil
}

// Close stops listening to the store.
func (g *Guard) Close() { g.stop() }

// Denied counts the requests that were denied.
func (g *Guard) Denied() uint64 { return g.denied.Load() }

func (g *Guard) committed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind == imprint.ChangeUser || c.Kind == imprint.ChangeAccessKey {
			g.changes.Add(1)
			if told := g.told.Load(); told != nil {
				(*told)()
			}
			return
		}
	}
}

// Changes counts the commits that touched users and access keys. What was decided
// or read before a count went up may have to be looked at again.
func (g *Guard) Changes() *atomic.Uint64 { return &g.changes }

// Tell has a function called whenever Changes has gone up, before the change is
// acknowledged. It must not block.
func (g *Guard) Tell(changed func()) { g.told.Store(&changed) }

// Authorize decides whether a caller may do what is asked. It is the Authorize of an
// awsapi.Config. Errors: CodeAccessDenied, the store's.
func (g *Guard) Authorize(ctx context.Context, caller awsapi.Caller, ask awsapi.Ask) error {
	may, err := g.Permissions(ctx, caller)
	if err != nil {
		return err
	}
	if may.Everything {
		return nil
	}
	keys := may.Keys.With(ask.Keys)
	address, _ := netip.ParseAddr(caller.SourceIP) // none: the key is absent
	request := policy.Request{
		Action: policy.Action(ask.Action), ResourceName: ask.Resource, Now: g.clock(), Keys: keys,
		Vars: policy.NewVariables(policy.Binding{SourceIP: address, NoConnection: true, Keys: keys}),
	}
	if ask.Resource == awsapi.Anywhere {
		if may.Policies.Allows(request.Action) {
			return nil
		}
		request.ResourceName = "*"
	}
	decision := may.Policies.Decide(&request)
	if decision == policy.Allowed {
		return nil
	}
	g.denied.Add(1)
	g.logger.LogAttrs(ctx, slog.LevelInfo, "denied", slog.String("principal", caller.PrincipalARN), slog.String("action", ask.Action),
		slog.String("resource", imprint.Excerpt(request.ResourceName)), slog.String("region", caller.Region), slog.String("from", caller.SourceIP),
		slog.String("request", caller.RequestID), slog.String("why", may.Policies.Explain(&request).Sentence))
	return refusal(caller, ask.Action, request.ResourceName, decision)
}

// Permissions are what a caller may do.
type Permissions struct {
	Policies *policy.Set
	// Keys are the condition keys that the caller brings to every decision.
	Keys *policy.Keys
	// Everything says that the caller is the account's operator.
	Everything bool
}

// Permissions reads what a caller may do now. The caller's key was checked:
// PrincipalARN is whom it belongs to. Errors: CodeAccessDenied when the caller is
// no user, the store's.
func (g *Guard) Permissions(ctx context.Context, caller awsapi.Caller) (Permissions, error) {
	account := imprint.AccountID(caller.Account)
	text, found := strings.CutPrefix(caller.PrincipalARN, account.UserARN(""))
	name := imprint.UserName(text)
	if !found || name == "" {
		return Permissions{}, imprint.Errorf(imprint.CodeAccessDenied, "%s is no user of account %s", imprint.Excerpt(caller.PrincipalARN), account)
	}
	may := Permissions{Policies: g.everyone, Everything: name == imprint.OperatorUser, Keys: policy.NewKeys(map[string][]string{
		"aws:RequestedRegion": {caller.Region}, "aws:username": {string(name)},
		"aws:PrincipalArn": {caller.PrincipalARN}, "aws:PrincipalAccount": {caller.Account},
	})}
	if may.Everything {
		return may, nil
	}
	var policies []imprint.UserPolicy
	err := g.store.Glance(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.UserPolicies(account, name)
		policies = found
		return err
	})
	if err != nil {
		return Permissions{}, fmt.Errorf("couldn't read the policies of %s: %w", caller.PrincipalARN, err)
	}
	named := make([]policy.Named, 0, len(policies))
	for _, one := range policies {
		document, err := g.document(one.Document)
		if err != nil {
			return Permissions{}, fmt.Errorf("couldn't read policy %s of %s: %w", one.Name, caller.PrincipalARN, err)
		}
		named = append(named, policy.Named{Name: string(one.Name), Doc: document})
	}
	may.Policies = policy.Compile(named...)
	return may, nil
}

func (g *Guard) document(text string) (*policy.Document, error) {
	g.mu.RLock()
	document := g.documents[text]
	g.mu.RUnlock()
	if document != nil {
		return document, nil
	}
	document, err := parse(text)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.documents) >= maxDocuments {
		for old := range g.documents {
			delete(g.documents, old)
			break
		}
	}
	g.documents[text] = document
	return document, nil
}

// refusal words a denial as AWS does, and names the statement that is missing.
func refusal(caller awsapi.Caller, action, resource string, decision policy.Decision) error {
	resource = imprint.Excerpt(resource)
	what := "User: " + caller.PrincipalARN + " is not authorized to perform: " + action + " on resource: " + resource
	user := caller.PrincipalARN[strings.LastIndexByte(caller.PrincipalARN, '/')+1:]
	if decision == policy.ExplicitDeny {
		return imprint.Errorf(imprint.CodeAccessDenied, "%s with an explicit deny in an identity-based policy", what).
			WithHint("A Deny wins over every Allow: narrow it (imprint user policy list %s).", user)
	}
	statement, err := json.Marshal(map[string]string{"Effect": string(policy.Allow), "Action": action, "Resource": resource})
	if err != nil {
		return fmt.Errorf("couldn't encode a statement: %w", err)
	}
	return imprint.Errorf(imprint.CodeAccessDenied, "%s because no identity-based policy allows the %s action", what, action).
		WithHint("The missing statement: %s (imprint user policy put %s).", statement, user)
}

package users_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/awsapi/users"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

const (
	home  imprint.AccountID = "000000000000"
	other imprint.AccountID = "111111111111"
)

var instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// world is a control plane over the access keys of its store; operators has those
// of two accounts.
type world struct {
	api       *apitest.Server
	store     imprint.Store
	operators map[imprint.AccountID]apitest.Key
	made      atomic.Int64
}

// AccessKey implements sigv4.KeySource.
func (w *world) AccessKey(ctx context.Context, id string) (sigv4.AccessKey, error) {
	var found imprint.AccessKey
	err := w.store.View(ctx, func(tx imprint.ReadTx) error {
		key, err := tx.AccessKey(id)
		found = key
		return err
	})
	if err != nil {
		return sigv4.AccessKey{}, fmt.Errorf("no access key %s: %w", id, sigv4.ErrUnknownKey)
	}
	return sigv4.AccessKey{ID: id, Secret: found.Secret, Account: string(found.Account), PrincipalARN: found.Account.UserARN(imprint.UserName(found.User))}, nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, quiet := registrytest.New(t), slog.New(slog.DiscardHandler)
	w := &world{store: store, operators: map[imprint.AccountID]apitest.Key{}}
	clock := func() time.Time { return instant }
	endpoint := func(s imprint.TenantSettings, _ string) (string, error) {
		return s.EndpointPrefix + ".iot." + string(s.Tenant.Region) + ".example", nil
	}
	service := iot.NewService(iot.Rooms{Store: store, Clock: clock, Endpoint: endpoint})
	directory := &users.Directory{
		Store: store, Clock: clock, Home: home, EnsureTenant: service.EnsureTenant, Endpoint: endpoint,
		NewKey: func() (string, string) {
			n := w.made.Add(1)
			return fmt.Sprintf("AKIATEST%08d", n), fmt.Sprintf("a-secret-of-key-%d", n)
		},
	}
	guard, err := access.NewGuard(store, clock, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	w.api = apitest.Serve(t, w, awsapi.Config{Authorize: guard.Authorize}, users.Operations(), directory.Routes())
	w.operators[home] = apitest.Key{ID: "AKIAHOME", Secret: "the-secret-of-home"}
	err = store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutAccessKey(imprint.AccessKey{ID: "AKIAHOME", Secret: "the-secret-of-home", Account: home, User: string(imprint.OperatorUser), CreatedAt: instant})
	})
	if err != nil {
		t.Fatal(err)
	}
	w.operators[other] = w.createAccount(t, other)
	return w
}

func (w *world) createAccount(t *testing.T, account imprint.AccountID) apitest.Key {
	t.Helper()
	var made struct{ AccessKeyID, SecretAccessKey string }
	w.must(t, w.operators[home], "POST", "/imprint/accounts/"+string(account), nil, &made)
	return apitest.Key{ID: made.AccessKeyID, Secret: made.SecretAccessKey}
}

func (w *world) call(t *testing.T, who apitest.Key, method, path string, body, out any) error {
	t.Helper()
	return w.api.Call(t, who, "us-east-1", method, path, body, out)
}

func (w *world) must(t *testing.T, who apitest.Key, method, path string, body, out any) {
	t.Helper()
	err := w.call(t, who, method, path, body, out)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

// addKey makes an access key of a user.
func (w *world) addKey(t *testing.T, account imprint.AccountID, user string) apitest.Key {
	t.Helper()
	var made struct{ AccessKeyID, SecretAccessKey string }
	w.must(t, w.operators[account], "POST", "/imprint/users/"+user+"/keys", nil, &made)
	return apitest.Key{ID: made.AccessKeyID, Secret: made.SecretAccessKey}
}

type object = map[string]any

const anything = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

// described is a user with all that belongs to it.
type described struct {
	User       struct{ UserName, UserARN, Description string }
	Policies   []struct{ PolicyName, PolicyDocument string }
	AccessKeys []struct{ AccessKeyID, SecretAccessKey string }
}

// TestAUserHasItsPoliciesAndKeysAndTakesThemAlong ensures what an operator makes of
// a user, what comes again, and that a secret is told once.
func TestAUserHasItsPoliciesAndKeysAndTakesThemAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.operators[home]
	w.must(t, operator, "POST", "/imprint/users/anna", object{"description": "of line 3"}, nil)
	apitest.WantRefusal(t, "making it again", w.call(t, operator, "POST", "/imprint/users/anna", nil, nil), 409, "ResourceAlreadyExistsException", "anna exists already")
	const narrow = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:DescribeThing","Resource":"*"}}`
	for _, document := range []string{narrow, narrow, anything} { // again, and another in its place
		w.must(t, operator, "PUT", "/imprint/users/anna/policies/main", object{"policyDocument": document}, nil)
	}
	made := w.addKey(t, home, "anna")
	var got described
	w.must(t, operator, "GET", "/imprint/users/anna", nil, &got)
	want := described{}
	want.User.UserName, want.User.UserARN, want.User.Description = "anna", "arn:aws:iam::000000000000:user/anna", "of line 3"
	want.Policies = []struct{ PolicyName, PolicyDocument string }{{"main", anything}}
	want.AccessKeys = []struct{ AccessKeyID, SecretAccessKey string }{{made.ID, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the user (-want +got):\n%s", diff)
	}
	w.must(t, made, "GET", "/imprint/users", nil, nil)
	w.must(t, operator, "DELETE", "/imprint/users/anna/policies/main", nil, nil)
	apitest.WantRefusal(t, "deleting the policy again", w.call(t, operator, "DELETE", "/imprint/users/anna/policies/main", nil, nil), 404, "ResourceNotFoundException", "no policy main")
	apitest.WantRefusal(t, "without the policy", w.call(t, made, "GET", "/imprint/users", nil, nil), 403, "AccessDeniedException", "imprint:ListUsers")
	w.must(t, operator, "DELETE", "/imprint/users/anna", nil, nil)
	apitest.WantRefusal(t, "deleting it again", w.call(t, operator, "DELETE", "/imprint/users/anna", nil, nil), 404, "ResourceNotFoundException", "anna")
	apitest.WantRefusal(t, "its key", w.call(t, made, "GET", "/imprint/users", nil, nil), 403, "UnrecognizedClientException", "")
	// One of the same name begins with nothing.
	w.must(t, operator, "POST", "/imprint/users/anna", nil, nil)
	got = described{}
	w.must(t, operator, "GET", "/imprint/users/anna", nil, &got)
	if len(got.Policies)+len(got.AccessKeys) > 0 || got.User.Description != "" {
		t.Errorf("a user of a deleted one's name: got %+v, want nothing of that", got)
	}
}

// TestAnAccountManagesItsOwnUsersAlone ensures that users of one name in two accounts
// are two, and that neither operator reaches the other's.
func TestAnAccountManagesItsOwnUsersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, account := range []imprint.AccountID{home, other} {
		w.must(t, w.operators[account], "POST", "/imprint/users/anna", object{"description": "of " + string(account)}, nil)
	}
	w.must(t, w.operators[home], "POST", "/imprint/users/bert", nil, nil)
	w.must(t, w.operators[home], "PUT", "/imprint/users/anna/policies/main", object{"policyDocument": anything}, nil)
	ours, theirs := w.addKey(t, home, "anna"), w.addKey(t, other, "anna")
	w.must(t, ours, "GET", "/imprint/users/bert", nil, nil)
	apitest.WantRefusal(t, "the policy of the other account's user of that name", w.call(t, theirs, "GET", "/imprint/users/anna", nil, nil), 403, "AccessDeniedException", "111111111111:user/anna")
	var got described
	w.must(t, w.operators[other], "GET", "/imprint/users/anna", nil, &got)
	if got.User.Description != "of 111111111111" || len(got.Policies) != 0 || len(got.AccessKeys) != 1 || got.AccessKeys[0].AccessKeyID != theirs.ID {
		t.Errorf("the other account's user: got %+v", got)
	}
	for _, c := range []struct{ method, path string }{
		{"GET", "/imprint/users/bert"}, {"DELETE", "/imprint/users/bert"}, {"POST", "/imprint/users/bert/keys"}, {"GET", "/imprint/users/bert/keys"},
		{"GET", "/imprint/users/bert/policies"}, {"GET", "/imprint/users/anna/policies/main"}, {"DELETE", "/imprint/users/anna/policies/main"},
		{"DELETE", "/imprint/users/anna/keys/" + ours.ID}, {"DELETE", "/imprint/users/operator/keys/AKIAHOME"},
	} {
		apitest.WantRefusal(t, c.method+" "+c.path, w.call(t, w.operators[other], c.method, c.path, nil, nil), 404, "ResourceNotFoundException", "")
	}
	apitest.WantRefusal(t, "a policy of another account's user", w.call(t, w.operators[other], "PUT", "/imprint/users/bert/policies/main", object{"policyDocument": anything}, nil), 404, "ResourceNotFoundException", "bert")
	w.must(t, w.operators[other], "DELETE", "/imprint/users/anna", nil, nil)
	w.must(t, ours, "GET", "/imprint/users/anna", nil, nil)
}

// TestAccountsAreManagedFromTheFirst ensures that another account's operator neither
// makes accounts nor learns of them, and that making one twice gives no second key.
func TestAccountsAreManagedFromTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ method, path string }{{"GET", "/imprint/accounts"}, {"POST", "/imprint/accounts/222222222222"}, {"POST", "/imprint/accounts/000000000000"}} {
		apitest.WantRefusal(t, c.method+" "+c.path, w.call(t, w.operators[other], c.method, c.path, nil, nil), 403, "AccessDeniedException", "first account")
	}
	before := w.made.Load()
	for _, account := range []imprint.AccountID{home, other} {
		apitest.WantRefusal(t, "making it again", w.call(t, w.operators[home], "POST", "/imprint/accounts/"+string(account), nil, nil), 409, "ResourceAlreadyExistsException", string(account))
	}
	for n := before + 1; n <= w.made.Load(); n++ {
		apitest.WantRefusal(t, "a key of a refused account", w.call(t, apitest.Key{ID: fmt.Sprintf("AKIATEST%08d", n), Secret: fmt.Sprintf("a-secret-of-key-%d", n)}, "GET", "/imprint/users", nil, nil), 403, "UnrecognizedClientException", "")
	}
	apitest.WantRefusal(t, "a number that is none", w.call(t, w.operators[home], "POST", "/imprint/accounts/12345", nil, nil), 400, "InvalidRequestException", "")
	var list struct {
		Accounts []struct {
			AccountID string
			Endpoints []struct{ Region, EndpointAddress string }
		}
	}
	w.must(t, w.operators[home], "GET", "/imprint/accounts", nil, &list)
	if len(list.Accounts) != 2 || list.Accounts[1].AccountID != string(other) || len(list.Accounts[1].Endpoints) != 1 || !strings.HasSuffix(list.Accounts[1].Endpoints[0].EndpointAddress, ".iot.us-east-1.example") {
		t.Errorf("accounts: got %+v, want two, the second with its endpoint", list.Accounts)
	}
}

// TestWhatIsNoUserIsRefused ensures that bad input, and more than is allowed, is
// refused and leaves nothing.
func TestWhatIsNoUserIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.operators[home]
	w.must(t, operator, "POST", "/imprint/users/anna", nil, nil)
	for name, c := range map[string]struct {
		method, path string
		body         any
	}{
		"a name with blanks": {"POST", "/imprint/users/a%20b", nil}, "a long name": {"POST", "/imprint/users/" + strings.Repeat("a", 65), nil},
		"the operator's name": {"POST", "/imprint/users/operator", nil}, "deleting the operator": {"DELETE", "/imprint/users/operator", nil},
		"a policy of the operator": {"PUT", "/imprint/users/operator/policies/p", object{"policyDocument": anything}},
		"a line feed":              {"POST", "/imprint/users/bert", object{"description": "a\nb"}},
		"no document":              {"PUT", "/imprint/users/anna/policies/p", object{}},
		"a name of a policy":       {"PUT", "/imprint/users/anna/policies/" + strings.Repeat("p", 129), object{"policyDocument": anything}},
		"a page of nothing":        {"GET", "/imprint/users?maxResults=0", nil}, "a marker of no one": {"GET", "/imprint/users?nextToken=AAAA", nil},
	} {
		apitest.WantRefusal(t, name, w.call(t, operator, c.method, c.path, c.body, nil), 400, "InvalidRequestException", "")
	}
	for name, document := range map[string]string{
		"no JSON": "{", "an action of nobody": strings.Replace(anything, `"Action":"*"`, `"Action":"s3:GetObject"`, 1),
		"a long one": strings.Replace(anything, `"*"}`, `"`+strings.Repeat("x", imprint.MaxUserPolicy)+`"}`, 1),
	} {
		apitest.WantRefusal(t, name, w.call(t, operator, "PUT", "/imprint/users/anna/policies/p", object{"policyDocument": document}, nil), 400, "MalformedPolicyException", "")
	}
	for n := range imprint.MaxPoliciesPerUser {
		w.must(t, operator, "PUT", fmt.Sprintf("/imprint/users/anna/policies/p%d", n), object{"policyDocument": anything}, nil)
	}
	w.must(t, operator, "PUT", "/imprint/users/anna/policies/p0", object{"policyDocument": anything}, nil)
	apitest.WantRefusal(t, "a policy too many", w.call(t, operator, "PUT", "/imprint/users/anna/policies/more", object{"policyDocument": anything}, nil), 410, "LimitExceededException", "10 policies")
	for range imprint.MaxKeysPerUser {
		w.addKey(t, home, "anna")
	}
	apitest.WantRefusal(t, "a key too many", w.call(t, operator, "POST", "/imprint/users/anna/keys", nil, nil), 410, "LimitExceededException", "imprint user key delete anna")
	apitest.WantRefusal(t, "a key of nobody", w.call(t, operator, "POST", "/imprint/users/nobody/keys", nil, nil), 404, "ResourceNotFoundException", "nobody")
	var list struct{ Users []struct{ UserName string } }
	w.must(t, operator, "GET", "/imprint/users", nil, &list)
	if len(list.Users) != 1 || list.Users[0].UserName != "anna" {
		t.Errorf("users: got %+v, want anna alone", list.Users)
	}
}

// TestTheOperatorKeepsAKey ensures that an account can't lock itself out, and that a
// key is deleted once.
func TestTheOperatorKeepsAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.operators[home]
	apitest.WantRefusal(t, "the last key", w.call(t, operator, "DELETE", "/imprint/users/operator/keys/AKIAHOME", nil, nil), 409, "DeleteConflictException", "the last one")
	second := w.addKey(t, home, "operator")
	w.must(t, second, "DELETE", "/imprint/users/operator/keys/AKIAHOME", nil, nil)
	apitest.WantRefusal(t, "deleting it again", w.call(t, second, "DELETE", "/imprint/users/operator/keys/AKIAHOME", nil, nil), 404, "ResourceNotFoundException", "no access key")
	apitest.WantRefusal(t, "the deleted key", w.call(t, operator, "GET", "/imprint/users", nil, nil), 403, "UnrecognizedClientException", "")
}

// TestAUsersPolicyDecidesAboutUsers ensures that each operation is asked for by its
// name and the user's ARN: who may make keys of one user makes none of another, and
// can't widen its own rights.
func TestAUsersPolicyDecidesAboutUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.operators[home]
	for _, name := range []string{"anna", "bert"} {
		w.must(t, operator, "POST", "/imprint/users/"+name, nil, nil)
	}
	w.must(t, operator, "PUT", "/imprint/users/anna/policies/main", object{"policyDocument": `{"Version":"2012-10-17","Statement":{"Effect":"Allow",
 "Action":["imprint:CreateUserKey","imprint:ListUserKeys"],"Resource":"arn:aws:iam::000000000000:user/bert"}}`}, nil)
	anna := w.addKey(t, home, "anna")
	w.must(t, anna, "POST", "/imprint/users/bert/keys", nil, nil)
	w.must(t, anna, "GET", "/imprint/users/bert/keys", nil, nil)
	for _, c := range []struct{ method, path, action string }{
		{"POST", "/imprint/users/anna/keys", "CreateUserKey"}, {"POST", "/imprint/users/operator/keys", "CreateUserKey"},
		{"PUT", "/imprint/users/anna/policies/main", "PutUserPolicy"}, {"DELETE", "/imprint/users/bert", "DeleteUser"},
		{"POST", "/imprint/users/carl", "CreateUser"}, {"GET", "/imprint/users", "ListUsers"}, {"GET", "/imprint/users/anna", "DescribeUser"},
		{"GET", "/imprint/accounts", "ListAccounts"}, {"POST", "/imprint/accounts/222222222222", "CreateAccount"},
	} {
		apitest.WantRefusal(t, c.method+" "+c.path, w.call(t, anna, c.method, c.path, object{"policyDocument": anything}, nil), 403, "AccessDeniedException", "imprint:"+c.action)
	}
	var keys struct {
		AccessKeys []struct{ AccessKeyID string }
	}
	w.must(t, operator, "GET", "/imprint/users/anna/keys", nil, &keys)
	if len(keys.AccessKeys) != 1 {
		t.Errorf("anna's keys: got %+v, want the one that the operator made", keys.AccessKeys)
	}
}

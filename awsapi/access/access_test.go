package access_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

const (
	home  imprint.AccountID = "000000000000"
	other imprint.AccountID = "111111111111"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// world is a guard over a fresh registry.
type world struct {
	store imprint.Store
	guard *access.Guard
	log   *bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store := registrytest.New(t)
	w := &world{store: store, log: &bytes.Buffer{}}
	var err error
	w.guard, err = access.NewGuard(store, func() time.Time { return noon }, slog.New(slog.NewTextHandler(w.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.guard.Close)
	return w
}

// allow gives a user a policy in place of the one that it has.
func (w *world) allow(t interface{ Fatal(...any) }, account imprint.AccountID, user imprint.UserName, document string) {
	err := w.store.Update(context.Background(), func(tx imprint.Tx) error {
		err := tx.PutUser(imprint.User{Account: account, Name: user})
		if err != nil {
			return err
		}
		return tx.PutUserPolicy(imprint.UserPolicy{Account: account, User: user, Name: "p", Document: document})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func caller(account imprint.AccountID, user imprint.UserName, region string) awsapi.Caller {
	return awsapi.Caller{Account: string(account), Region: region, PrincipalARN: account.UserARN(user), SourceIP: "192.0.2.7"}
}

const thing = "arn:aws:iot:us-east-1:000000000000:thing/"

func TestADenialSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.allow(t, home, "anna", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"`+thing+`a*"},
	 {"Effect":"Deny","Action":"iot:DeleteThing","Resource":"*"}]}`)
	for _, row := range []struct {
		name, action, resource, want, hint string
		who                                awsapi.Caller
	}{
		{"allowed", "iot:CreateThing", thing + "a1", "", "", caller(home, "anna", "us-east-1")},
		{"another thing", "iot:CreateThing", thing + "b1",
			"User: arn:aws:iam::000000000000:user/anna is not authorized to perform: iot:CreateThing on resource: " + thing + "b1 because no identity-based policy allows the iot:CreateThing action",
			`{"Action":"iot:CreateThing","Effect":"Allow","Resource":"` + thing + `b1"}`, caller(home, "anna", "us-east-1")},
		{"denied", "iot:DeleteThing", thing + "a1",
			"User: arn:aws:iam::000000000000:user/anna is not authorized to perform: iot:DeleteThing on resource: " + thing + "a1 with an explicit deny in an identity-based policy",
			"imprint user policy list anna", caller(home, "anna", "us-east-1")},
		{"nobody", "iot:CreateThing", thing + "a1", "because no identity-based policy", "", caller(home, "nobody", "us-east-1")},
		{"the same name elsewhere", "iot:CreateThing", thing + "a1", "because no identity-based policy", "", caller(other, "anna", "us-east-1")},
		{"the operator", "iot:DeleteThing", thing + "b1", "", "", caller(home, imprint.OperatorUser, "us-east-1")},
		{"a principal of another account", "iot:CreateThing", thing + "a1", "is no user of account", "",
			awsapi.Caller{Account: string(home), Region: "us-east-1", PrincipalARN: other.UserARN(imprint.OperatorUser)}},
		{"no principal", "iot:CreateThing", thing + "a1", "is no user of account", "", awsapi.Caller{Account: string(home), Region: "us-east-1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := w.guard.Authorize(t.Context(), row.who, awsapi.Ask{Action: row.action, Resource: row.resource})
			if row.want == "" {
				if err != nil {
					t.Errorf("got %v, want to be allowed", err)
				}
				return
			}
			if imprint.CodeOf(err) != imprint.CodeAccessDenied || !strings.Contains(err.Error(), row.want) || !strings.Contains(imprint.HintOf(err), row.hint) {
				t.Errorf("got %v (hint %q), want %q (hint %q)", err, imprint.HintOf(err), row.want, row.hint)
			}
		})
	}
	if got := w.guard.Denied(); got != 4 {
		t.Errorf("got %d denials counted, want 4", got)
	}
	if log := w.log.String(); !strings.Contains(log, "msg=denied") || !strings.Contains(log, "user/anna") || !strings.Contains(log, "iot:DeleteThing") {
		t.Errorf("got the log\n%s", log)
	}
}

func TestConditionsOfARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, row := range []struct {
		condition, region string
		allowed           bool
	}{
		{`{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}`, "us-east-1", true},
		{`{"IpAddress":{"aws:SourceIp":"198.51.100.0/24"}}`, "us-east-1", false},
		{`{"NotIpAddress":{"aws:SourceIp":"192.0.2.7"}}`, "us-east-1", false},
		{`{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}`, "us-east-1", true},
		{`{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}`, "eu-west-1", false},
		{`{"StringLike":{"AWS:requestedregion":["eu-*","us-*"]}}`, "eu-west-1", true},
		{`{"StringEquals":{"aws:username":"anna"},"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::000000000000:user/anna"}}`, "us-east-1", true},
		{`{"StringEquals":{"aws:PrincipalAccount":"111111111111"}}`, "us-east-1", false},
		{`{"DateLessThan":{"aws:CurrentTime":"2026-03-04T12:00:01Z"}}`, "us-east-1", true},
		{`{"DateLessThan":{"aws:CurrentTime":"2026-03-04T12:00:00Z"}}`, "us-east-1", false},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, "us-east-1", true},
	} {
		document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:CreateThing","Resource":"arn:aws:iot:*:*:thing/${aws:username}-*","Condition":` + row.condition + `}]}`
		_, err := access.ParsePolicy(document)
		if err != nil {
			t.Fatalf("%s: %v", row.condition, err)
		}
		w.allow(t, home, "anna", document)
		err = w.guard.Authorize(t.Context(), caller(home, "anna", row.region), awsapi.Ask{Action: "iot:CreateThing", Resource: thing + "anna-1"})
		if (err == nil) != row.allowed {
			t.Errorf("%s in %s: got %v, want allowed to be %t", row.condition, row.region, err, row.allowed)
		}
		err = w.guard.Authorize(t.Context(), caller(home, "anna", row.region), awsapi.Ask{Action: "iot:CreateThing", Resource: thing + "bert-1"})
		if err == nil {
			t.Errorf("%s lets anna make bert's thing", row.condition)
		}
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	statement := func(s string) string { return `{"Version":"2012-10-17","Statement":[` + s + `]}` }
	for name, row := range map[string][2]string{
		"no JSON":            {`{`, "isn't valid"},
		"unknown key":        {statement(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}`), "iot:Connection.Thing.IsAttached"},
		"unknown variable":   {statement(`{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:thing/${aws:userid}"}`), "${aws:userid}"},
		"variable of values": {statement(`{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"aws:username":"${aws:userid, 'x'}"}}}`), "${aws:userid}"},
		"unknown service":    {statement(`{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}`), "s3:GetObject"},
		"a principal":        {statement(`{"Effect":"Allow","Principal":"*","Action":"iot:*","Resource":"*"}`), "Principal"},
		"too long":           {statement(`{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:` + strings.Repeat("x", imprint.MaxUserPolicy) + `"}`), "6144"},
	} {
		_, err := access.ParsePolicy(row[0])
		if imprint.CodeOf(err) != imprint.CodeMalformedPolicy || !strings.Contains(err.Error(), row[1]) {
			t.Errorf("%s: got %v, want a refusal that has %q", name, err, row[1])
		}
	}
	for _, good := range []string{
		`{"Effect":"Allow","Action":"*","Resource":"*"}`, `{"Effect":"Allow","NotAction":"iot:Delete*","Resource":"*"}`,
		`{"Effect":"Allow","Action":["LAMBDA:Invoke*","imprint:ListAttempts"],"Resource":"arn:aws:lambda:*:*:function:${*}${aws:username}"}`,
	} {
		_, err := access.ParsePolicy(statement(good))
		if err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// rule is a statement that the property draws, in a form that is simple to decide:
// its resource is a prefix.
type rule struct {
	Deny           bool
	Action, Prefix string
	Region         string // empty: any
}

// TestDecisionsAreThoseOfAPlainModel draws users of two accounts with policies and
// requests, and expects what a plain loop over the statements says. Policies change
// between requests.
func TestDecisionsAreThoseOfAPlainModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	actions := []string{"iot:CreateThing", "iot:DeleteThing", "iot:Publish", "lambda:InvokeFunction"}
	resources := []string{thing + "a", thing + "ab", thing + "b", "arn:aws:iot:us-east-1:000000000000:topic/a", "*"}
	regions := []string{"us-east-1", "eu-west-1"}
	rapid.Check(t, func(rt *rapid.T) {
		type who struct {
			account imprint.AccountID
			user    imprint.UserName
		}
		rules := map[who][]rule{}
		people := []who{{home, "anna"}, {home, "bert"}, {other, "anna"}}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			one := rapid.SampledFrom(people).Draw(rt, "who")
			if rapid.Bool().Draw(rt, "change") {
				rules[one] = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) rule {
					return rule{
						Deny:   rapid.IntRange(0, 3).Draw(rt, "deny") == 0,
						Action: rapid.SampledFrom(append(slices.Clone(actions), "iot:*", "*", "iot:?eleteThing")).Draw(rt, "action"),
						Prefix: rapid.SampledFrom([]string{"arn:aws:iot:*", thing, thing + "a", thing + "b", "arn:aws:lambda:"}).Draw(rt, "prefix"),
						Region: rapid.SampledFrom(append(slices.Clone(regions), "")).Draw(rt, "region"),
					}
				}), 1, 4).Draw(rt, "rules")
				w.allow(rt, one.account, one.user, documentOf(rt, rules[one]))
			} else if rules[one] == nil {
				// Users are shared by all draws: this one begins without a policy.
				err := w.store.Update(context.Background(), func(tx imprint.Tx) error { return tx.DeleteUser(one.account, one.user) })
				if err != nil {
					rt.Fatal(err)
				}
			}
			action, resource := rapid.SampledFrom(actions).Draw(rt, "action"), rapid.SampledFrom(resources).Draw(rt, "resource")
			region := rapid.SampledFrom(regions).Draw(rt, "region")
			err := w.guard.Authorize(context.Background(), caller(one.account, one.user, region), awsapi.Ask{Action: action, Resource: resource})
			want := decide(rules[one], action, resource, region)
			if (err == nil) != want {
				rt.Fatalf("%s %s on %s in %s with %+v: got %v, want allowed to be %t", one, action, resource, region, rules[one], err, want)
			}
		}
	})
}

func documentOf(t interface{ Fatal(...any) }, rules []rule) string {
	var statements []map[string]any
	for _, r := range rules {
		s := map[string]any{"Effect": "Allow", "Action": r.Action, "Resource": r.Prefix + "*"}
		if r.Deny {
			s["Effect"] = "Deny"
		}
		if r.Region != "" {
			s["Condition"] = map[string]any{"StringEquals": map[string]string{"aws:RequestedRegion": r.Region}}
		}
		statements = append(statements, s)
	}
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		t.Fatal(fmt.Errorf("couldn't encode a policy: %w", err))
	}
	return string(text)
}

func decide(rules []rule, action, resource, region string) bool {
	allowed := false
	for _, r := range rules {
		sameAction := r.Action == action || r.Action == "*" || r.Action == "iot:*" && strings.HasPrefix(action, "iot:") ||
			r.Action == "iot:?eleteThing" && action == "iot:DeleteThing"
		if !sameAction || !strings.HasPrefix(resource, strings.TrimSuffix(r.Prefix, "*")) || r.Region != "" && r.Region != region {
			continue
		}
		if r.Deny {
			return false
		}
		allowed = true
	}
	return allowed
}

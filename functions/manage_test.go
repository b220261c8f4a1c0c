package functions_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// say is a function in the shell's own language that answers a constant.
func say(t testing.TB, answer string) []byte {
	return zipOf(t, file{"index.py", "def handler(event, context):\n    return " + answer + "\n", 0o644})
}

func python(f *imprint.Function) { f.Runtime, f.Handler = "python3.11", "index.handler" }

func (h *house) answers(name, want string) {
	h.t.Helper()
	if got := string(h.must(name, "{}").Payload); got != want {
		h.t.Errorf("%s: got %s, want %s", name, got, want)
	}
}

func TestVersionsAndAliasesKeepWhatTheyRun(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.Idle = 200 * time.Millisecond })
	ctx := t.Context()
	h.putZip("f", say(t, "1"), python)
	one, err := h.Publish(ctx, home, "f", "", "the first", "")
	if err != nil || one.Version != "1" || one.Description != "the first" || one.ARN() != home.FunctionARN("f")+":1" {
		t.Fatalf("got %+v, %v", one, err)
	}
	sum, err := hex.DecodeString(one.CodeSHA256)
	if err != nil {
		t.Fatal(err)
	}
	shown := base64.StdEncoding.EncodeToString(sum) // as the API has it
	again, err := h.Publish(ctx, home, "f", shown, "", "")
	if err != nil || again.Version != "1" {
		t.Errorf("unchanged, got version %q, %v; want 1", again.Version, err)
	}
	_, err = h.Publish(ctx, home, "f", "nope", "", "")
	if want := "CodeSHA256 (nope) is different from current CodeSHA256 in $LATEST (" + shown + ")."; imprint.CodeOf(err) != imprint.CodeInvalidRequest || imprint.MessageOf(err) != want {
		t.Errorf("for other code: got %v, want %q", err, want)
	}
	alias, err := h.CreateAlias(ctx, imprint.FunctionAlias{Tenant: home, Function: "f", Name: "prod", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	h.answers("f", "1")
	two, err := h.UpdateCode(ctx, home, "f", say(t, "2"), "", true, false)
	if err != nil || two.Version != "2" {
		t.Fatalf("got %+v, %v", two, err)
	}
	h.answers("f", "2")
	for qualifier, want := range map[string]string{"1": "1", "prod": "1", "2": "2", "$LATEST": "2"} {
		c := call("f", "{}")
		c.ARN += ":" + qualifier
		result, err := h.Invoke(ctx, c)
		if err != nil || string(result.Payload) != want {
			t.Errorf("%s: got %s, %v; want %s", qualifier, result.Payload, err, want)
		}
	}
	_, err = h.UpdateAlias(ctx, home, "f", "prod", "another revision", func(*imprint.FunctionAlias) {})
	wantCode(t, err, imprint.CodeVersionConflict)
	_, err = h.UpdateAlias(ctx, home, "f", "prod", alias.RevisionID, func(a *imprint.FunctionAlias) { a.Version = "2" })
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.Delete(ctx, home, "f", "2"), imprint.CodeDeleteConflict)
	err = h.Delete(ctx, home, "f", "1")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(h.opts.CodeDir)
	if err != nil || len(entries) != 1 {
		t.Errorf("code that nothing names: %v, %v", entries, err)
	}
	versions, _, err := h.Versions(ctx, home, "f", imprint.Page{Limit: 10, Ascending: true})
	if err != nil || len(versions) != 2 || versions[0].Version != "$LATEST" || versions[1].Version != "2" {
		t.Errorf("got %+v, %v", versions, err)
	}
	eventually(t, "the end of processes", func() bool { return h.Counters().Processes == 0 })
}

func TestChangedSettingsHoldForTheNextRun(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	made := h.put("f", nil)
	first := h.echo("f")
	changed, err := h.UpdateSettings(t.Context(), home, "f", made.RevisionID, func(f *imprint.Function) {
		f.Environment, f.MemoryMB, f.Timeout = map[string]string{"NEW": "1"}, 256, 30*time.Second
	})
	if err != nil || changed.RevisionID == made.RevisionID {
		t.Fatalf("got %+v, %v", changed, err)
	}
	got := decode[about](t, h.must("f", do("about", "")).Payload)
	env := strings.Join(got.Env, "\n")
	if !strings.Contains(env, "NEW=1") || !strings.Contains(env, "MEMORY_SIZE=256") || got.Left > 30 {
		t.Errorf("got %+v", got)
	}
	if second := h.echo("f"); second.PID == first.PID {
		t.Error("the former process runs on")
	}
	_, err = h.UpdateSettings(t.Context(), home, "f", made.RevisionID, func(*imprint.Function) {})
	wantCode(t, err, imprint.CodeVersionConflict)
	// Of the new ones there may be two: one that has just answered isn't ready at once.
	eventually(t, "the end of the former process", func() bool { return errors.Is(syscall.Kill(first.PID, 0), syscall.ESRCH) })
}

func TestFunctionsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	code := say(t, "1")
	hook := func(change func(*imprint.Function)) func(*imprint.Function) {
		return func(f *imprint.Function) {
			f.Runtime, f.Handler = functions.RuntimeWebhook, "https://hooks.example.com/x"
			f.Environment = map[string]string{functions.WebhookSecret: "0123456789abcdef"}
			change(f)
		}
	}
	for _, test := range []struct {
		name   string
		code   []byte
		change func(*imprint.Function)
		says   string
	}{
		{"an unknown runtime", code, func(f *imprint.Function) { f.Runtime = "java21" }, "provided.al2023"},
		{"no handler", code, func(f *imprint.Function) { f.Runtime, f.Handler = "nodejs20.x", "" }, "handler"},
		{"no code", nil, python, "ZipFile"},
		{"no zip", []byte("not a zip"), python, "Could not unzip"},
		{"a zip that leads out", zipOf(t, file{"../outside", "x", 0o644}), python, "leads out"},
		{"a zip with a file as directory", zipOf(t, file{"a/b/x", "x", 0o644}, file{"a.c", "x", 0o644}, file{"a/b", "x", 0o644}), python, `"a/b" is both`},
		{"a zip with a file and a directory of one name", zipOf(t, file{"a/b/", "", os.ModeDir | 0o755}, file{"a/b", "x", 0o644}), python, `"a/b" is both`},
		{"a zip with a device", zipOf(t, file{"dev", "", os.ModeDevice | 0o644}), python, "neither file"},
		{"a reserved variable", code, func(f *imprint.Function) { python(f); f.Environment = map[string]string{"AWS_REGION": "x"} }, "AWS_REGION"},
		{"a variable that is none", code, func(f *imprint.Function) { python(f); f.Environment = map[string]string{"a=b": "x"} }, "doesn't match"},
		{"a variable with NUL", code, func(f *imprint.Function) { python(f); f.Environment = map[string]string{"AB": "\x00"} }, "NUL"},
		{"too large an environment", code, func(f *imprint.Function) {
			python(f)
			f.Environment = map[string]string{"AB": strings.Repeat("x", 4096)}
		}, "4096"},
		{"too long a timeout", code, func(f *imprint.Function) { python(f); f.Timeout = 901 * time.Second }, "900"},
		{"too little memory", code, func(f *imprint.Function) { python(f); f.MemoryMB = 64 }, "128"},
		{"a webhook with code", code, hook(func(*imprint.Function) {}), "no code"},
		{"a webhook without a secret", nil, hook(func(f *imprint.Function) { f.Environment = nil }), functions.WebhookSecret},
		{"a webhook without TLS", nil, hook(func(f *imprint.Function) { f.Handler = "http://hooks.example.com/x" }), "https"},
		{"a webhook with a password", nil, hook(func(f *imprint.Function) { f.Handler = "https://a:b@hooks.example.com/x" }), "https"},
		{"a remote without credentials", nil, func(f *imprint.Function) {
			f.Runtime, f.Handler = functions.RuntimeRemote, "arn:aws:lambda:eu-west-1:123456789012:function:g"
		}, functions.RemoteAccessKeyID},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := imprint.Function{Tenant: home, Name: "f", Runtime: "provided.al2023", Handler: "bootstrap", Role: role}
			test.change(&f)
			_, err := h.Create(t.Context(), f, test.code, false)
			if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want one that says %q", err, test.says)
			}
		})
	}
	entries, err := os.ReadDir(h.opts.CodeDir)
	if err != nil || len(entries) > 1 {
		t.Errorf("refused code was kept: %v, %v", entries, err)
	}
}

// Two tenants have functions, permissions and calls under one name.
func TestTenantsDoNotMeet(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	away := imprint.Tenant{Account: "111111111111", Region: home.Region}
	h.putZip("f", say(t, "'home'"), python)
	h.putZip("f", say(t, "'away'"), func(f *imprint.Function) { python(f); f.Tenant = away })
	h.answers("f", `"home"`)
	result, err := h.Invoke(t.Context(), imprint.FunctionCall{Tenant: away, ARN: away.FunctionARN("f"), Payload: []byte("{}")})
	if err != nil || string(result.Payload) != `"away"` {
		t.Errorf("got %s, %v", result.Payload, err)
	}
	err = h.AddPermission(t.Context(), imprint.FunctionPermission{Tenant: away, Function: "f", StatementID: "s", Action: "lambda:InvokeFunction", Principal: "iot.amazonaws.com"}, "")
	if err != nil {
		t.Fatal(err)
	}
	c := call("f", "{}")
	c.Principal = "iot.amazonaws.com"
	_, err = h.Invoke(t.Context(), c)
	wantCode(t, err, imprint.CodeFunctionDenied)
	err = h.Delete(t.Context(), away, "f", "")
	if err != nil {
		t.Fatal(err)
	}
	h.answers("f", `"home"`)
}

func TestPermissionsDecide(t *testing.T) {
	t.Parallel()
	const iot, template = "iot.amazonaws.com", "arn:aws:iot:us-east-1:000000000000:provisioningtemplate/sensors"
	statement := imprint.FunctionPermission{Action: "lambda:InvokeFunction", Principal: iot}
	with := func(change func(*imprint.FunctionPermission)) imprint.FunctionPermission {
		p := statement
		change(&p)
		return p
	}
	for _, test := range []struct {
		name string
		p    imprint.FunctionPermission
		want bool
	}{
		{"the principal", statement, true},
		{"any principal", with(func(p *imprint.FunctionPermission) { p.Principal = "*" }), true},
		{"another principal", with(func(p *imprint.FunctionPermission) { p.Principal = "s3.amazonaws.com" }), false},
		{"another action", with(func(p *imprint.FunctionPermission) { p.Action = "lambda:GetFunction" }), false},
		{"every action", with(func(p *imprint.FunctionPermission) { p.Action = "lambda:*" }), true},
		{"the source", with(func(p *imprint.FunctionPermission) { p.SourceARN = template }), true},
		{"sources by wildcard", with(func(p *imprint.FunctionPermission) {
			p.SourceARN = "arn:aws:iot:*:000000000000:provisioningtemplate/s?nsor*"
		}), true},
		{"a wildcard that would cross parts", with(func(p *imprint.FunctionPermission) { p.SourceARN = "arn:aws:iot:*:provisioningtemplate/sensors" }), false},
		{"another source", with(func(p *imprint.FunctionPermission) { p.SourceARN = template + "2" }), false},
		{"the account", with(func(p *imprint.FunctionPermission) { p.SourceAccount = "000000000000" }), true},
		{"another account", with(func(p *imprint.FunctionPermission) { p.SourceAccount = "111111111111" }), false},
	} {
		if got := test.p.Allows(iot, template, home.Account); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

// A permission is about the qualifier that it was given for, as at AWS Lambda.
func TestPermissionsAreOfTheirQualifier(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	ctx := t.Context()
	h.putZip("f", say(t, "1"), python)
	_, err := h.CreateAlias(ctx, imprint.FunctionAlias{Tenant: home, Function: "f", Name: "prod", Version: "$LATEST"})
	if err != nil {
		t.Fatal(err)
	}
	p := imprint.FunctionPermission{Tenant: home, Function: "f", Qualifier: "prod", StatementID: "s", Action: "lambda:InvokeFunction", Principal: "iot.amazonaws.com"}
	err = h.AddPermission(ctx, p, "")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.AddPermission(ctx, p, ""), imprint.CodeAlreadyExists)
	c := call("f", "{}")
	c.Principal = "iot.amazonaws.com"
	_, err = h.Invoke(ctx, c)
	wantCode(t, err, imprint.CodeFunctionDenied)
	if hint := imprint.HintOf(err); !strings.Contains(hint, "aws lambda add-permission --function-name f ") {
		t.Errorf("got the hint %q", hint)
	}
	c.ARN += ":prod"
	_, err = h.Invoke(ctx, c)
	if err != nil {
		t.Errorf("through the alias: %v", err)
	}
	list, err := h.Permissions(ctx, home, "f", "prod")
	if diff := cmp.Diff([]imprint.FunctionPermission{p}, list); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	err = h.RemovePermission(ctx, home, "f", "prod", "s", "")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.RemovePermission(ctx, home, "f", "prod", "s", ""), imprint.CodeNotFound)
	_, err = h.Invoke(ctx, c)
	wantCode(t, err, imprint.CodeFunctionDenied)
	if got := h.Counters().Denied; got != 2 {
		t.Errorf("got %d denied, want 2", got)
	}
}

func TestOwnAccountsMayBeLetIn(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.AllowOwnAccount = true })
	h.putZip("f", say(t, "1"), python)
	c := call("f", "{}")
	c.Principal = "iot.amazonaws.com"
	_, err := h.Invoke(t.Context(), c)
	if err != nil {
		t.Error(err)
	}
}

func TestNamesAreReadInAllForms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text, beside, name, qualifier string
		code                          imprint.Code
	}{
		{"f", "", "f", "", ""},
		{"f:prod", "", "f", "prod", ""},
		{"f", "$LATEST", "f", "$LATEST", ""},
		{"f:1", "1", "f", "1", ""},
		{"f:1", "2", "", "", imprint.CodeInvalidRequest},
		{"000000000000:function:f", "", "f", "", ""},
		{"function:f:1", "", "f", "1", ""},
		{home.FunctionARN("f"), "", "f", "", ""},
		{home.FunctionARN("f") + ":prod", "", "f", "prod", ""},
		{"111111111111:function:f", "", "", "", imprint.CodeNotFound},
		{"arn:aws:lambda:eu-west-1:000000000000:function:f", "", "", "", imprint.CodeNotFound},
		{"a b", "", "", "", imprint.CodeInvalidRequest},
		{"", "", "", "", imprint.CodeInvalidRequest},
		{"a:b:c", "", "", "", imprint.CodeInvalidRequest},
	} {
		name, qualifier, err := functions.ParseName(home, test.text, test.beside)
		wantCode(t, err, test.code)
		if err == nil && (string(name) != test.name || qualifier != test.qualifier) {
			t.Errorf("%q: got %q %q", test.text, name, qualifier)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("arn:aws:lambda:us-east-1:000000000000:function:f:1", "1")
	f.Add("function:f", "")
	f.Fuzz(func(t *testing.T, text, qualifier string) {
		name, _, err := functions.ParseName(home, text, qualifier)
		if err == nil {
			_, err = imprint.ParseFunctionName(string(name))
		}
		if err != nil && imprint.CodeOf(err) == imprint.CodeInternal {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// FuzzCode ensures that no zip, whatever is in it, is unpacked to outside of its
// directory, and that none ends the server.
func FuzzCode(f *testing.F) {
	f.Add(zipOf(f, file{"a/b", "x", 0o644}, file{"link", "../../..", os.ModeSymlink | 0o777}))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, code []byte) {
		h := open(t, nil)
		_, err := h.Create(t.Context(), imprint.Function{Tenant: home, Name: "f", Runtime: "provided.al2023", Role: role, Timeout: time.Second}, code, false)
		if err != nil {
			return
		}
		_, _ = h.Invoke(t.Context(), call("f", "{}"))
		entries, err := os.ReadDir(h.opts.WorkDir)
		if err != nil || len(entries) > 3 {
			t.Errorf("got %v, %v beside code, runtime and processes", entries, err)
		}
	})
}

func TestLinksInCodeDoNotLeadWritesOut(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	dir := outside(t)
	h.putZip("f", zipOf(t, file{"out", dir, os.ModeSymlink | 0o777}, file{"out/written", "x", 0o644}, file{"bootstrap", "#!/bin/sh\n", 0o755}), nil)
	_, err := h.Invoke(t.Context(), call("f", "{}"))
	if err == nil || exists(dir+"/written") {
		t.Errorf("got %v; written outside: %v", err, exists(dir+"/written"))
	}
}

func TestDamagedCodeIsNotRun(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	f := h.putZip("f", say(t, "1"), python)
	err := os.WriteFile(h.opts.CodeDir+"/"+f.CodeSHA256+".zip", say(t, "2"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Invoke(t.Context(), call("f", "{}"))
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v, want one that says that it is damaged", err)
	}
}

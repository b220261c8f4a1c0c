package functions_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

const nodeCode = `
exports.handler = async (event, context) => {
  console.log("node says", event.do);
  if (event.do === "fail") throw new RangeError(event.value);
  if (event.do === "exit") process.exit(4);
  return { value: event.value, name: context.functionName, arn: context.invokedFunctionArn,
    left: context.getRemainingTimeInMillis() > 0, request: context.awsRequestId.length };
};
exports.callback = (event, context, callback) => setImmediate(() => callback(null, [event.value]));
exports.refuses = (event, context, callback) => callback(new Error(event.value));
`

const pythonCode = `
import sys

def handler(event, context):
    print("python says", event["do"])
    if event["do"] == "fail":
        raise ValueError(event["value"])
    if event["do"] == "exit":
        sys.exit(4)
    return {"value": event["value"], "name": context.function_name, "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis() > 0, "request": len(context.aws_request_id)}
`

// seen is what the functions in Node and Python answer.
type seen struct {
	Value, Name, ARN string
	Left             bool
	Request          int
}

func TestNodeAndPythonRun(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	for _, test := range []struct{ runtime, handler, name, code, kind, exit string }{
		{"nodejs20.x", "index.handler", "index.js", nodeCode, "RangeError", "Runtime.ExitError"},
		{"nodejs22.x", "lib/index.handler", "lib/index.mjs", strings.Replace(nodeCode[:strings.Index(nodeCode, "exports.callback")], "exports.handler", "export const handler", 1), "RangeError", "Runtime.ExitError"},
		{"python3.11", "index.handler", "index.py", pythonCode, "ValueError", "Runtime.ExitError"},
		{"python3.13", "lib/index.handler", "lib/index.py", pythonCode, "ValueError", "Runtime.ExitError"},
	} {
		t.Run(test.runtime, func(t *testing.T) {
			name := strings.ReplaceAll(test.runtime, ".", "-")
			h.putZip(name, zipOf(t, file{test.name, test.code, 0o644}), func(f *imprint.Function) { f.Runtime, f.Handler = test.runtime, test.handler })
			for range 2 {
				result := h.must(name, do("echo", "grüße"))
				want := seen{"grüße", name, home.FunctionARN(imprint.FunctionName(name)), true, 36}
				if diff := cmp.Diff(want, decode[seen](t, result.Payload)); diff != "" {
					t.Error(diff)
				}
				if !strings.Contains(result.Log, " says echo\n") {
					t.Errorf("got the log %q", result.Log)
				}
			}
			result, err := h.Invoke(t.Context(), call(name, do("fail", "no such device")))
			wantCode(t, err, imprint.CodeFunctionFailed)
			if !strings.Contains(string(result.Payload), "no such device") || !strings.Contains(string(result.Payload), test.kind) {
				t.Errorf("got %s", result.Payload)
			}
			result, err = h.Invoke(t.Context(), call(name, do("exit", "")))
			wantCode(t, err, imprint.CodeFunctionFailed)
			if !strings.Contains(string(result.Payload), test.exit) {
				t.Errorf("got %s", result.Payload)
			}
			h.must(name, do("echo", ""))
		})
	}
}

func TestNodeHandlersMayCallBack(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	for _, name := range []string{"callback", "refuses"} {
		h.putZip(name, zipOf(t, file{"index.js", nodeCode, 0o644}), func(f *imprint.Function) { f.Runtime, f.Handler = "nodejs20.x", "index."+name })
	}
	if got := string(h.must("callback", do("", "x")).Payload); got != `["x"]` {
		t.Errorf("got %s", got)
	}
	result, err := h.Invoke(t.Context(), call("refuses", do("", "no such device")))
	wantCode(t, err, imprint.CodeFunctionFailed)
	if !strings.Contains(string(result.Payload), "no such device") {
		t.Errorf("got %s", result.Payload)
	}
}

// TestNodeModulesMayAwaitBeforeTheirHandler ensures that an ES module that is a .js file
// runs, also with an await at its top level, which require doesn't take.
func TestNodeModulesMayAwaitBeforeTheirHandler(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	code := zipOf(t, file{"package.json", `{"type":"module"}`, 0o644},
		file{"index.js", "const found = await Promise.resolve(\"found\");\nexport const handler = async () => found;\n", 0o644})
	h.putZip("awaits", code, func(f *imprint.Function) { f.Runtime, f.Handler = "nodejs20.x", "index.handler" })
	if got := string(h.must("awaits", "{}").Payload); got != `"found"` {
		t.Errorf("got %s", got)
	}
}

func TestHandlersThatAreNotThereAreTold(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	for _, test := range []struct{ name, runtime, handler, want string }{
		{"nofile", "nodejs20.x", "other.handler", "Cannot find module"},
		{"noexport", "nodejs20.x", "index.other", "undefined or not exported"},
		{"leadsout", "nodejs20.x", "../x.handler", "Bad handler"},
		{"nomodule", "python3.11", "other.handler", "No module named"},
		{"nofunction", "python3.11", "index.other", "has no attribute"},
		{"nodot", "python3.11", "index", "Bad handler"},
	} {
		code := zipOf(t, file{"index.js", nodeCode, 0o644}, file{"index.py", pythonCode, 0o644})
		h.putZip(test.name, code, func(f *imprint.Function) { f.Runtime, f.Handler = test.runtime, test.handler })
		result, err := h.Invoke(t.Context(), call(test.name, "{}"))
		wantCode(t, err, imprint.CodeFunctionFailed)
		if !strings.Contains(string(result.Payload), test.want) || !strings.Contains(result.Log, test.want) {
			t.Errorf("%s: got %s\n%s", test.name, result.Payload, result.Log)
		}
	}
}

// misuse is a runtime that says everything wrong first and notes the answers.
const misuse = `#!/usr/bin/python3
import http.client, json, os, base64
said = []
def call(method, path, body=None, headers={}, trailers=None):
    address, secret = os.environ["AWS_LAMBDA_RUNTIME_API"].split("/")
    c = http.client.HTTPConnection(address)
    path = "/" + secret + path
    if trailers:
        c.putrequest(method, path)
        c.putheader("Transfer-Encoding", "chunked")
        c.putheader("Trailer", ", ".join(trailers))
        c.endheaders()
        c.send(b"5\r\n{\"a\":\r\n0\r\n" + b"".join(("%s: %s\r\n" % t).encode() for t in trailers.items()) + b"\r\n")
    else:
        c.request(method, path, body, headers)
    r = c.getresponse()
    data = r.read()
    return r.status, r.headers, data
R = "/2018-06-01/runtime/"
def note(what, got): said.append([what, got[0]])
note("register with events", call("POST", "/2020-01-01/extension/register", '{"events":["INVOKE"]}', {"Lambda-Extension-Name": "x"}))
note("register", call("POST", "/2020-01-01/extension/register", '{"events":[]}', {"Lambda-Extension-Name": "x"}))
note("unknown path", call("GET", R + "nothing"))
note("response before next", call("POST", R + "invocation/x/response", "1"))
while True:
    status, headers, event = call("GET", R + "invocation/next")
    id = headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(event)
    if event == "trailers":
        t = {"Lambda-Runtime-Function-Error-Type": "Runtime.Broken", "Lambda-Runtime-Function-Error-Body": base64.b64encode(b'{"errorMessage":"broke","errorType":"Broken"}').decode()}
        call("POST", R + "invocation/" + id + "/response", trailers=t)
        continue
    if event == "empty":
        call("POST", R + "invocation/" + id + "/response", b"")
        continue
    if event == "texterror":
        call("POST", R + "invocation/" + id + "/error", b"just text", {"Lambda-Runtime-Function-Error-Type": "My.Error"})
        continue
    note("next", (status,))
    note("next while running", call("GET", R + "invocation/next"))
    note("another id", call("POST", R + "invocation/12345678-1234-1234-1234-123456789012/response", "1"))
    note("init error past init", call("POST", R + "init/error", "{}"))
    note("deadline", (int(headers["Lambda-Runtime-Deadline-Ms"]) > 0,))
    note("arn", (headers["Lambda-Runtime-Invoked-Function-Arn"],))
    note("trace", (headers["Lambda-Runtime-Trace-Id"][:7],))
    note("response", call("POST", R + "invocation/" + id + "/response", json.dumps(said)))
    note("response again", call("POST", R + "invocation/" + id + "/response", "2"))
    if event == "again":
        said = said[-2:]
`

func TestTheRuntimeAPIRefusesMisuse(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.MaxConcurrency = 1 })
	h.putZip("f", zipOf(t, file{"bootstrap", misuse, 0o755}), nil)
	got := string(h.must("f", `"again"`).Payload)
	want := `[["register with events", 400], ["register", 200], ["unknown path", 404], ["response before next", 400], ` +
		`["next", 200], ["next while running", 403], ["another id", 400], ["init error past init", 403], ["deadline", true], ` +
		`["arn", "` + home.FunctionARN("f") + `"], ["trace", "Root=1-"]]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(h.must("f", `"again"`).Payload); !strings.HasPrefix(got, `[["response", 202], ["response again", 403], ["next", 200]`) {
		t.Errorf("got %s", got)
	}
	result, err := h.Invoke(t.Context(), call("f", `"trailers"`))
	wantCode(t, err, imprint.CodeFunctionFailed)
	if string(result.Payload) != `{"errorMessage":"broke","errorType":"Broken"}` {
		t.Errorf("a stream that broke: got %s", result.Payload)
	}
	if got := string(h.must("f", `"empty"`).Payload); got != "null" {
		t.Errorf("an empty answer: got %s, want null", got)
	}
	result, err = h.Invoke(t.Context(), call("f", `"texterror"`))
	wantCode(t, err, imprint.CodeFunctionFailed)
	if string(result.Payload) != `{"errorMessage":"just text","errorType":"My.Error"}` {
		t.Errorf("an error that is text: got %s", result.Payload)
	}
}

func node(f *imprint.Function) { f.Runtime, f.Handler = "nodejs20.x", "index.handler" }

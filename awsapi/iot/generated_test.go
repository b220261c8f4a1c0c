package iot_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// modelOperations reads method and path of each operation from the model
// itself.
func modelOperations(t *testing.T) map[string]struct{ Method, URI string } {
	t.Helper()
	data, err := os.ReadFile("model/iot-api.json")
	if err != nil {
		t.Fatal(err)
	}
	var model struct {
		Operations map[string]struct{ Method, URI string }
	}
	if err := json.Unmarshal(data, &model); err != nil {
		t.Fatal(err)
	}
	return model.Operations
}

func newWireVerifier(t testing.TB) *sigv4.Verifier {
	t.Helper()
	verifier, err := sigv4.New(sigv4.Config{Keys: wireKeys{}, Services: []string{"iot", "execute-api"}})
	if err != nil {
		t.Fatal(err)
	}
	return verifier
}

func TestEveryOperationOfTheModelRoutesToItself(t *testing.T) {
	t.Parallel()
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: newWireVerifier(t)}, iot.Operations(), nil)
	if err != nil {
		t.Fatal(err)
	}
	operations := modelOperations(t)
	if got, want := len(iot.Operations()), len(operations); got != want || want != 170 {
		t.Errorf("got %d operations, the model has %d, want 170", got, want)
	}
	for name, op := range operations {
		var path strings.Builder
		for i, segment := range strings.Split(op.URI, "/") {
			if i > 0 {
				path.WriteByte('/')
			}
			if strings.HasSuffix(segment, "+}") {
				segment = "arn%3Aaws/a//b"
			}
			if strings.HasPrefix(segment, "{") {
				segment = "a%2Fb%3Ac"
			}
			path.WriteString(segment)
		}
		if got, _ := mux.OperationOf(op.Method, path.String()); got != name {
			t.Errorf("%s %s: got %q, want %q", op.Method, path.String(), got, name)
		}
	}
}

func TestGeneratedFilesMatchTheModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := exec.Command("go", "run", "./internal/gen", "-model", "model/iot-api.json", "-out", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("the generator failed: %v\n%s", err, out)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*_gen.go"))
	if err != nil || len(made) == 0 {
		t.Fatalf("the generator made %d files: %v", len(made), err)
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s isn't what the generator makes: run go generate ./awsapi/iot", filepath.Base(path))
		}
	}
}

func TestResourcesAndActions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		op               awsapi.Operation
		action, resource string
	}{
		{iot.DescribeThing.Operation, "iot:DescribeThing", "arn:{partition}:iot:{region}:{account}:thing/{thingName}"},
		{iot.ListThingPrincipalsV2.Operation, "iot:ListThingPrincipals", "arn:{partition}:iot:{region}:{account}:thing/{thingName}"},
		{iot.ListAttachedPolicies.Operation, "iot:ListAttachedPolicies", "{target}"},
		{iot.GetTopicRuleDestination.Operation, "iot:GetTopicRuleDestination", "{arn}"},
		{iot.DescribeCACertificate.Operation, "iot:DescribeCACertificate", "arn:{partition}:iot:{region}:{account}:cacert/{caCertificateId}"},
		{iot.ListThings.Operation, "iot:ListThings", "*"},
	} {
		if tt.op.Action != tt.action || tt.op.Resource != tt.resource {
			t.Errorf("%s: got %s on %s, want %s on %s", tt.op.Name, tt.op.Action, tt.op.Resource, tt.action, tt.resource)
		}
	}
}

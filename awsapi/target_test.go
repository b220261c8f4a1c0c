package awsapi_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

type sealInput struct {
	Data []byte `api:"body Data Blob required"`
}

type sealOutput struct {
	Text string `api:"body Text Any"`
}

// TestTargetsNameOperationsOfJSON11: the header finds the operation, blobs are base64, and
// errors have their type in the body.
func TestTargetsNameOperationsOfJSON11(t *testing.T) {
	t.Parallel()
	shapes := restjson.New(restjson.Shapes{"Blob": {Limits: restjson.Between(1, 4)}}, "ValidationException")
	seal := awsapi.Define[sealInput, sealOutput](shapes, awsapi.Operation{Name: "Seal", Method: "POST", Path: "/", Resource: "*"})
	other := awsapi.Define[sealInput, sealOutput](shapes, awsapi.Operation{Name: "Other", Method: "POST", Path: "/", Resource: "*"})
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"seal"}})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier, Target: "Sealer"}, []awsapi.Operation{seal.Operation, other.Operation},
		[]awsapi.Route{awsapi.Handle(seal, func(_ context.Context, _ awsapi.Caller, in *sealInput) (*sealOutput, error) {
			return &sealOutput{Text: string(in.Data)}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, target, body, want, code string }{
		{"POST", "/", "Sealer.Seal", `{"Data":"YWJj"}`, "abc", ""},
		{"POST", "/", "Sealer.Seal", `{"Data":"%%"}`, "", "SerializationException"},
		{"POST", "/", "Sealer.Seal", `{"Data":7}`, "", "SerializationException"},
		{"POST", "/", "Sealer.Seal", `{"Data":""}`, "", "ValidationException"},
		{"POST", "/", "Sealer.Seal", `{"Data":"YWJjZGU="}`, "", "ValidationException"},
		{"POST", "/", "Sealer.Seal", `{}`, "", "ValidationException"},
		{"POST", "/", "Sealer.Other", `{}`, "", "NotImplementedException"},
		{"POST", "/", "Sealer.Nothing", `{}`, "", "UnknownOperationException"},
		{"POST", "/", "Other.Seal", `{}`, "", "UnknownOperationException"},
		{"POST", "/", "Seal", `{}`, "", "UnknownOperationException"},
		{"GET", "/", "Sealer.Seal", `{}`, "", "UnknownOperationException"},
		{"POST", "/x", "Sealer.Seal", `{}`, "", "UnknownOperationException"},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		r.Header.Set("X-Amz-Target", c.target)
		hash := sha256.Sum256([]byte(c.body))
		signErr := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, r, hex.EncodeToString(hash[:]), "seal", "us-east-1", time.Now())
		if signErr != nil {
			t.Fatal(signErr)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var body struct {
			Text string
			Type string `json:"__type"`
		}
		err := json.Unmarshal(w.Body.Bytes(), &body)
		if err != nil || body.Text != c.want || body.Type != c.code || w.Header().Get("Content-Type") != "application/x-amz-json-1.1" || w.Header().Get("X-Amzn-ErrorType") != c.code {
			t.Errorf("%s %s %s %s: got %d %s (%v)", c.method, c.path, c.target, c.body, w.Code, w.Body, w.Header())
		}
	}
}

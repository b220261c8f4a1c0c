package iot_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/internal/foreign"
)

const (
	wireAccount = "123456789012"
	wireCertARN = "arn:aws:iot:eu-central-1:123456789012:cert/0123456789abcdef"
)

type wireKeys struct{}

func (wireKeys) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id != "AKIDEXAMPLE" {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return sigv4.AccessKey{ID: id, Secret: "secret/of+example", Account: wireAccount}, nil
}

var wireTime = time.Date(2024, 5, 6, 7, 8, 9, 250e6, time.UTC)

// wireRecord is what functions saw of the last request.
type wireRecord struct {
	mu     sync.Mutex // guards the others
	caller awsapi.Caller
	input  any
}

// take gives what was seen and forgets it.
func (r *wireRecord) take() (awsapi.Caller, any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	caller, input := r.caller, r.input
	r.caller, r.input = awsapi.Caller{}, nil
	return caller, input
}

// record makes a Route that keeps its input and gives an output or an error.
func recordWire[In, Out any](to *wireRecord, op awsapi.Op[In, Out], out *Out, err error) awsapi.Route {
	return awsapi.Handle(op, func(_ context.Context, caller awsapi.Caller, in *In) (*Out, error) {
		to.mu.Lock()
		defer to.mu.Unlock()
		to.caller, to.input = caller, in
		return out, err
	})
}

// newWireServer serves a few operations over TLS.
func newWireServer(t *testing.T, seen *wireRecord) *httptest.Server {
	t.Helper()
	routes := []awsapi.Route{
		recordWire(seen, iot.DescribeThing, &iot.DescribeThingOutput{ThingName: "a:b", Version: new(int64(0)), Attributes: map[string]string{}}, nil),
		recordWire(seen, iot.CreateThing, nil, &awsapi.APIError{Code: "ResourceAlreadyExistsException", Status: 409, Message: "there already",
			Extra: map[string]string{"resourceId": "id-1", "resourceArn": "arn:thing"}}),
		recordWire(seen, iot.ListAttachedPolicies, &iot.ListAttachedPoliciesOutput{
			Policies: []iot.Policy{{PolicyName: "p", PolicyArn: "arn:p"}}, NextMarker: "YWJj"}, nil),
		recordWire(seen, iot.AttachThingPrincipal, nil, nil),
		recordWire(seen, iot.ListThings, &iot.ListThingsOutput{Things: []iot.ThingAttribute{}}, nil),
		recordWire(seen, iot.ListAuditTasks, &iot.ListAuditTasksOutput{}, nil),
		recordWire(seen, iot.DescribeCertificate, &iot.DescribeCertificateOutput{CertificateDescription: &iot.CertificateDescription{
			CertificateArn: wireCertARN, Status: iot.CertificateStatusPendingTransfer, CreationDate: wireTime,
			Validity: &iot.CertificateValidity{NotBefore: wireTime, NotAfter: wireTime.AddDate(20, 0, 0)}}}, nil),
		recordWire(seen, iot.CreateTopicRule, nil, nil),
		recordWire(seen, iot.GetTopicRuleDestination, &iot.GetTopicRuleDestinationOutput{}, nil),
		recordWire(seen, iot.ListCertificateProviders, &iot.ListCertificateProvidersOutput{}, nil),
		recordWire(seen, iot.UpdateEventConfigurations, nil, nil),
		recordWire(seen, iot.CreateThingGroup, &iot.CreateThingGroupOutput{ThingGroupName: "g"}, nil),
		recordWire(seen, iot.DeleteCertificate, nil, &awsapi.APIError{Code: "DeleteConflictException", Status: 409, Message: "attached"}),
	}
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: newWireVerifier(t)}, iot.Operations(), routes)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func newWireClient(server *httptest.Server, secret string) *sdk.Client {
	return sdk.New(sdk.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(server.URL), HTTPClient: server.Client(),
		Credentials:      credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", secret, ""),
		RetryMaxAttempts: 1,
	})
}

func wantWireInput(t *testing.T, seen *wireRecord, want any) awsapi.Caller {
	t.Helper()
	caller, input := seen.take()
	if diff := cmp.Diff(want, input); diff != "" {
		t.Errorf("the function's input (-want +got):\n%s", diff)
	}
	return caller
}

func TestTheGoSDKsInputsArrive(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var seen wireRecord
	client := newWireClient(newWireServer(t, &seen), "secret/of+example")
	tests := []struct {
		name string
		call func() error
		want any
	}{
		{"name with a colon in the path", func() error {
			_, err := client.DescribeThing(ctx, &sdk.DescribeThingInput{ThingName: aws.String("a:b")})
			return err
		}, &iot.DescribeThingInput{ThingName: "a:b"}},
		{"ARN in the path, members in the query", func() error {
			_, err := client.ListAttachedPolicies(ctx, &sdk.ListAttachedPoliciesInput{Target: aws.String(wireCertARN),
				Recursive: true, Marker: aws.String("YW+/=="), PageSize: aws.Int32(7)})
			return err
		}, &iot.ListAttachedPoliciesInput{Target: wireCertARN, Recursive: new(true), Marker: new("YW+/=="), PageSize: new(7)}},
		{"principal in a header", func() error {
			_, err := client.AttachThingPrincipal(ctx, &sdk.AttachThingPrincipalInput{ThingName: aws.String("t"),
				Principal: aws.String(wireCertARN), ThingPrincipalType: types.ThingPrincipalTypeExclusiveThing})
			return err
		}, &iot.AttachThingPrincipalInput{ThingName: "t", Principal: wireCertARN, ThingPrincipalType: new(iot.ThingPrincipalTypeExclusiveThing)}},
		{"filters with spaces and signs", func() error {
			_, err := client.ListThings(ctx, &sdk.ListThingsInput{AttributeName: aws.String("a"), AttributeValue: aws.String("x=1,y[2]#/@"), MaxResults: aws.Int32(250)})
			return err
		}, &iot.ListThingsInput{AttributeName: new("a"), AttributeValue: new("x=1,y[2]#/@"), MaxResults: new(250)}},
		{"times in the query", func() error {
			_, err := client.ListAuditTasks(ctx, &sdk.ListAuditTasksInput{StartTime: aws.Time(wireTime), EndTime: aws.Time(wireTime.Add(time.Hour))})
			return err
		}, &iot.ListAuditTasksInput{StartTime: wireTime, EndTime: wireTime.Add(time.Hour)}},
		{"whole-body payload and tags in a header", func() error {
			_, err := client.CreateTopicRule(ctx, &sdk.CreateTopicRuleInput{RuleName: aws.String("r"), Tags: aws.String("k=v&k2=v 2"),
				TopicRulePayload: &types.TopicRulePayload{Sql: aws.String("SELECT * FROM 'a/<b>'"),
					Actions: []types.Action{{Republish: &types.RepublishAction{RoleArn: aws.String("arn:r"), Topic: aws.String("t/ü"), Qos: aws.Int32(1)}}}}})
			return err
		}, &iot.CreateTopicRuleInput{RuleName: "r", Tags: new("k=v&k2=v 2"), TopicRulePayload: &iot.TopicRulePayload{Sql: "SELECT * FROM 'a/<b>'",
			Actions: []iot.Action{{Republish: &iot.RepublishAction{RoleArn: "arn:r", Topic: "t/ü", Qos: new(1)}}}}}},
		{"greedy label", func() error {
			_, err := client.GetTopicRuleDestination(ctx, &sdk.GetTopicRuleDestinationInput{Arn: aws.String("arn:aws:iot:x:1:ruledestination/http/a")})
			return err
		}, &iot.GetTopicRuleDestinationInput{Arn: "arn:aws:iot:x:1:ruledestination/http/a"}},
		{"path that the model ends with a slash", func() error {
			_, err := client.ListCertificateProviders(ctx, &sdk.ListCertificateProvidersInput{})
			return err
		}, &iot.ListCertificateProvidersInput{}},
		{"map with enumerated keys", func() error {
			_, err := client.UpdateEventConfigurations(ctx, &sdk.UpdateEventConfigurationsInput{
				EventConfigurations: map[string]types.Configuration{"CA_CERTIFICATE": {Enabled: true}}})
			return err
		}, &iot.UpdateEventConfigurationsInput{EventConfigurations: map[iot.EventType]iot.Configuration{iot.EventTypeCaCertificate: {Enabled: new(true)}}}},
		{"tags with capitalised members, empty values", func() error {
			_, err := client.CreateThingGroup(ctx, &sdk.CreateThingGroupInput{ThingGroupName: aws.String("g"),
				Tags:                 []types.Tag{{Key: aws.String("k"), Value: aws.String("")}},
				ThingGroupProperties: &types.ThingGroupProperties{AttributePayload: &types.AttributePayload{Attributes: map[string]string{"a": ""}}}})
			return err
		}, &iot.CreateThingGroupInput{ThingGroupName: "g", Tags: []iot.Tag{{Key: "k", Value: new("")}},
			ThingGroupProperties: &iot.ThingGroupProperties{AttributePayload: &iot.AttributePayload{Attributes: map[string]string{"a": ""}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(); err != nil {
				t.Fatal(err)
			}
			caller := wantWireInput(t, &seen, tt.want)
			if caller.Account != wireAccount || caller.Region != "eu-central-1" || caller.SourceIP != "127.0.0.1" {
				t.Errorf("got the caller %+v", caller)
			}
		})
	}
}

func TestTheGoSDKReadsTheOutputs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var seen wireRecord
	client := newWireClient(newWireServer(t, &seen), "secret/of+example")

	policies, err := client.ListAttachedPolicies(ctx, &sdk.ListAttachedPoliciesInput{Target: aws.String(wireCertARN)})
	if err != nil {
		t.Fatal(err)
	}
	if len(policies.Policies) != 1 || aws.ToString(policies.Policies[0].PolicyArn) != "arn:p" || aws.ToString(policies.NextMarker) != "YWJj" {
		t.Errorf("got %+v", policies)
	}
	things, err := client.ListThings(ctx, &sdk.ListThingsInput{})
	if err != nil {
		t.Fatal(err)
	}
	if things.Things == nil || things.NextToken != nil {
		t.Errorf("got %v and next token %v, want an empty list and none", things.Things, things.NextToken)
	}
	certificate, err := client.DescribeCertificate(ctx, &sdk.DescribeCertificateInput{CertificateId: aws.String(strings.Repeat("a", 64))})
	if err != nil {
		t.Fatal(err)
	}
	got := certificate.CertificateDescription
	if !got.CreationDate.Equal(wireTime) || !got.Validity.NotAfter.Equal(wireTime.AddDate(20, 0, 0)) || got.LastModifiedDate != nil || got.Status != types.CertificateStatusPendingTransfer {
		t.Errorf("got %v, %v, %v, %v", got.CreationDate, got.Validity, got.LastModifiedDate, got.Status)
	}
}

func TestTheGoSDKReadsTheErrors(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var seen wireRecord
	server := newWireServer(t, &seen)
	client := newWireClient(server, "secret/of+example")

	_, err := client.CreateThing(ctx, &sdk.CreateThingInput{ThingName: aws.String("t")})
	var exists *types.ResourceAlreadyExistsException
	if !errors.As(err, &exists) {
		t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
	}
	if aws.ToString(exists.ResourceArn) != "arn:thing" || aws.ToString(exists.ResourceId) != "id-1" || exists.ErrorMessage() != "there already" {
		t.Errorf("got %+v", exists)
	}
	_, err = client.DeleteCertificate(ctx, &sdk.DeleteCertificateInput{CertificateId: aws.String(strings.Repeat("a", 64)), ForceDelete: true})
	var conflict *types.DeleteConflictException
	if !errors.As(err, &conflict) {
		t.Errorf("got %v, want DeleteConflictException", err)
	}
	_, err = client.DescribeThing(ctx, &sdk.DescribeThingInput{ThingName: aws.String("a b/c")})
	var invalid *types.InvalidRequestException
	if !errors.As(err, &invalid) || !strings.Contains(invalid.ErrorMessage(), "1 validation error detected: Value 'a b/c' at 'thingName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+") {
		t.Errorf("got %v, want InvalidRequestException", err)
	}
	_, err = client.DescribeEndpoint(ctx, &sdk.DescribeEndpointInput{})
	wantWireCode(t, err, "NotImplementedException")
	_, err = newWireClient(server, "wrong").DescribeThing(ctx, &sdk.DescribeThingInput{ThingName: aws.String("t")})
	wantWireCode(t, err, "InvalidSignatureException")
}

func wantWireCode(t *testing.T, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
	var response interface{ ServiceRequestID() string }
	if !errors.As(err, &response) || len(response.ServiceRequestID()) != 36 {
		t.Errorf("the error %v has no request id", err)
	}
}

func TestTheDebianAWSCLI(t *testing.T) {
	t.Parallel()
	program := foreign.Program(t, "/usr/bin/aws")
	var seen wireRecord
	server := newWireServer(t, &seen)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		fail string // a part of stderr, or empty for success
		out  string // a part of stdout
		want any
	}{
		{"name with a colon", []string{"describe-thing", "--thing-name", "a:b"}, "", `"version": 0`, &iot.DescribeThingInput{ThingName: "a:b"}},
		{"ARN in the path", []string{"list-attached-policies", "--target", wireCertARN, "--recursive", "--no-paginate"}, "", `"nextMarker": "YWJj"`,
			&iot.ListAttachedPoliciesInput{Target: wireCertARN, Recursive: new(true)}},
		{"principal in a header", []string{"attach-thing-principal", "--thing-name", "t", "--principal", wireCertARN}, "", "",
			&iot.AttachThingPrincipalInput{ThingName: "t", Principal: wireCertARN}},
		{"times in the query", []string{"list-audit-tasks", "--start-time", "2024-05-06T07:08:09Z", "--end-time", "2024-05-07", "--no-paginate"}, "", "",
			&iot.ListAuditTasksInput{StartTime: wireTime.Truncate(time.Second), EndTime: time.Date(2024, 5, 7, 0, 0, 0, 0, time.UTC)}},
		{"greedy label", []string{"get-topic-rule-destination", "--arn", "arn:aws:iot:x:1:ruledestination/http/a"}, "", "",
			&iot.GetTopicRuleDestinationInput{Arn: "arn:aws:iot:x:1:ruledestination/http/a"}},
		{"body", []string{"create-thing-group", "--thing-group-name", "g", "--tags", "Key=k,Value=ü"}, "", `"thingGroupName": "g"`,
			&iot.CreateThingGroupInput{ThingGroupName: "g", Tags: []iot.Tag{{Key: "k", Value: new("ü")}}}},
		{"time in the output", []string{"describe-certificate", "--certificate-id", strings.Repeat("A", 64)}, "", `"creationDate": "2024-05-06T07:08:09.250000+00:00"`,
			&iot.DescribeCertificateInput{CertificateId: strings.Repeat("A", 64)}},
		{"error", []string{"create-thing", "--thing-name", "t"}, "(ResourceAlreadyExistsException) when calling the CreateThing operation", "",
			&iot.CreateThingInput{ThingName: "t"}},
		{"broken constraint", []string{"describe-thing", "--thing-name", "a b"}, "(InvalidRequestException)", "", nil},
		{"operation that isn't offered", []string{"describe-endpoint"}, "(NotImplementedException)", "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--endpoint-url", server.URL, "--ca-bundle", bundle, "--output", "json", "iot"}, tt.args...)
			command := exec.Command(program, args...)
			command.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "TZ=UTC", "LANG=C.UTF-8", "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
				"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret/of+example", "AWS_DEFAULT_REGION=eu-central-1"}
			var stdout, stderr strings.Builder
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			if (err != nil) != (tt.fail != "") || !strings.Contains(stderr.String(), tt.fail) {
				t.Fatalf("got %v and %q, want %q", err, stderr.String(), tt.fail)
			}
			if !strings.Contains(stdout.String(), tt.out) {
				t.Errorf("got the output %q, want %q in it", stdout.String(), tt.out)
			}
			wantWireInput(t, &seen, tt.want)
		})
	}
}

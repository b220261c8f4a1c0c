package iot_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// anyKey answers with a key of one account.
type anyKey struct{}

func (anyKey) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	return sigv4.AccessKey{ID: id, Secret: "secret", Account: "222222222222", PrincipalARN: "arn:aws:iam::222222222222:user/u"}, nil
}

// TestIdentityPoliciesSeeActionsAndResources ensures what each operation asks
// about, whatever spelling the request has.
func TestIdentityPoliciesSeeActionsAndResources(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	verifier, err := sigv4.New(sigv4.Config{Keys: anyKey{}, Services: []string{"iot"}})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier, Translate: iot.Translate, Authorize: func(_ context.Context, _ awsapi.Caller, ask awsapi.Ask) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, ask.Action+" "+strings.ReplaceAll(ask.Resource, "arn:aws:iot:eu-west-1:222222222222:", ""))
		return nil
	}}, iot.Operations(), server.Service.Routes())
	if err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:iot:eu-west-1:222222222222:"
	id := strings.Repeat("ab", 32)
	certificate := arn + "cert/" + id
	loud := arn + "cert/" + strings.ToUpper(id)
	escaped := strings.NewReplacer(":", "%3A", "/", "%2F").Replace
	for _, row := range []struct {
		method, path, header, body string
		want                       []string
	}{
		{"POST", "/things/t", "", `{}`, []string{"iot:CreateThing thing/t"}},
		{"POST", "/things/t", "", `{"billingGroupName":"g"}`, []string{"iot:CreateThing thing/t", "iot:CreateThing billinggroup/g"}},
		{"GET", "/things", "", "", []string{"iot:ListThings *"}},
		{"GET", "/endpoint", "", "", []string{"iot:DescribeEndpoint *"}},
		{"GET", "/certificates/" + strings.ToUpper(id), "", "", []string{"iot:DescribeCertificate cert/" + id}},
		{"PUT", "/certificates/" + strings.ToUpper(id) + "?newStatus=ACTIVE", "", "", []string{"iot:UpdateCertificate cert/" + id}},
		{"DELETE", "/cacertificate/" + strings.ToUpper(id), "", "", []string{"iot:DeleteCACertificate cacert/" + id}},
		{"PUT", "/target-policies/p", "", `{"target":"` + loud + `"}`, []string{"iot:AttachPolicy policy/p", "iot:AttachPolicy cert/" + id}},
		{"POST", "/target-policies/p", "", `{"target":"` + arn + `thinggroup/g"}`, []string{"iot:DetachPolicy policy/p", "iot:DetachPolicy thinggroup/g"}},
		{"POST", "/attached-policies/" + escaped(loud), "", "", []string{"iot:ListAttachedPolicies cert/" + id}},
		{"PUT", "/principal-policies/p", "X-Amzn-Iot-Principal: " + loud, "", []string{"iot:AttachPrincipalPolicy policy/p", "iot:AttachPrincipalPolicy cert/" + id}},
		{"GET", "/policy-principals", "X-Amzn-Iot-Policy: p", "", []string{"iot:ListPolicyPrincipals policy/p"}},
		{"PUT", "/things/t/principals", "X-Amzn-Principal: " + loud, "", []string{"iot:AttachThingPrincipal thing/t", "iot:AttachThingPrincipal cert/" + id}},
		{"DELETE", "/things/t/principals", "X-Amzn-Principal: " + certificate, "", []string{"iot:DetachThingPrincipal thing/t", "iot:DetachThingPrincipal cert/" + id}},
		{"GET", "/principals/things", "X-Amzn-Principal: " + loud, "", []string{"iot:ListPrincipalThings cert/" + id}},
		{"PUT", "/thing-groups/addThingToThingGroup", "", `{"thingGroupName":"g","thingArn":"` + arn + `thing/t"}`,
			[]string{"iot:AddThingToThingGroup thinggroup/g", "iot:AddThingToThingGroup thing/t"}},
		{"PUT", "/billing-groups/addThingToBillingGroup", "", `{"billingGroupName":"g","thingArn":"` + arn + `thing/t"}`,
			[]string{"iot:AddThingToBillingGroup billinggroup/g", "iot:AddThingToBillingGroup thing/t"}},
		{"PUT", "/billing-groups/removeThingFromBillingGroup", "", `{"billingGroupName":"g","thingName":"t"}`,
			[]string{"iot:RemoveThingFromBillingGroup billinggroup/g", "iot:RemoveThingFromBillingGroup thing/t"}},
		{"PUT", "/thing-groups/updateThingGroupsForThing", "", `{"thingName":"t","thingGroupsToAdd":["a"],"thingGroupsToRemove":["b"]}`,
			[]string{"iot:UpdateThingGroupsForThing thing/t", "iot:UpdateThingGroupsForThing thinggroup/a", "iot:UpdateThingGroupsForThing thinggroup/b"}},
		{"POST", "/test-authorization", "", `{"principal":"` + loud + `","authInfos":[{"resources":["*"]}]}`, []string{"iot:TestAuthorization cert/" + id}},
		{"GET", "/destinations/" + arn + "ruledestination/http/d", "", "", []string{"iot:GetTopicRuleDestination ruledestination/http/d"}},
		{"DELETE", "/destinations/" + strings.Replace(arn, "aws", "other", 1) + "ruledestination/http/d", "", "", []string{"iot:DeleteTopicRuleDestination ruledestination/http/d"}},
		{"PATCH", "/destinations", "", `{"arn":"` + arn + `ruledestination/http/d","status":"DISABLED"}`, []string{"iot:UpdateTopicRuleDestination ruledestination/http/d"}},
		{"GET", "/provisioning-templates/line", "", "", []string{"iot:DescribeProvisioningTemplate provisioningtemplate/line"}},
		{"PUT", "/target-policies/p", "", `{"target":"arn:aws:iot:eu-west-1:000000000000:cert/` + id + `"}`,
			[]string{"iot:AttachPolicy policy/p", "iot:AttachPolicy arn:aws:iot:eu-west-1:000000000000:cert/" + id}},
	} {
		request := httptest.NewRequest(row.method, "https://iot.example.com"+row.path, strings.NewReader(row.body))
		if name, value, found := strings.Cut(row.header, ": "); found {
			request.Header.Set(name, value)
		}
		if row.body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		sum := sha256.Sum256([]byte(row.body))
		err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "secret"}, request,
			hex.EncodeToString(sum[:]), "iot", "eu-west-1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		recorder := httptest.NewRecorder()
		mux.ServeHTTP(recorder, request)
		mu.Lock()
		got := slices.Clone(asked)
		asked = nil
		mu.Unlock()
		if diff := cmp.Diff(row.want, got); diff != "" || recorder.Code == http.StatusForbidden {
			t.Errorf("%s %s: status %d %s\n%s", row.method, row.path, recorder.Code, recorder.Body, diff)
		}
	}
}

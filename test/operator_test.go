package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// arn is the start of all ARNs of the first tenant.
const arn = "arn:aws:iot:us-east-1:000000000000:"

// role is a role's ARN; Imprint stores it and assumes no role.
const role = "arn:aws:iam::000000000000:role/provisioning"

// devicePolicy lets a device use topics of its own. What it may publish but
// not receive, and receive but not publish, differs.
const devicePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"` + arn + `client/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"` + arn + `topic/d/${iot:ClientId}/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + arn + `topicfilter/d/${iot:ClientId}/*"},
 {"Effect":"Allow","Action":"iot:Publish","Resource":"` + arn + `topic/mute/${iot:ClientId}"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + arn + `topicfilter/mute/*"}]}`

// watcherPolicy lets a client watch everything under any client id.
const watcherPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`

// jitpTemplate provisions a thing named by the common name. Further members go
// into the thing resource.
func jitpTemplate(policy, thingMembers string) string {
	return `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::SerialNumber":{"Type":"String"},
 "AWS::IoT::Certificate::Id":{"Type":"String"}},
"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"},
   "AttributePayload":{"serial":{"Ref":"AWS::IoT::Certificate::SerialNumber"},"origin":"template"}}` + thingMembers + `},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"` + policy + `"}}}}`
}

// roots are the server's roots, as a device is given them.
func (s *server) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(readFile(t, s.at().CABundle))) {
		t.Fatalf("no certificate in %s", s.at().CABundle)
	}
	return pool
}

func (s *server) httpClient(t *testing.T) *http.Client {
	t.Helper()
	client := &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots(t), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true},
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// sdk is AWS's Go SDK with the operator's key.
func (s *server) sdk(t *testing.T, change ...func(*iot.Options)) *iot.Client {
	t.Helper()
	options := iot.Options{
		Region: s.at().Region, BaseEndpoint: aws.String(s.at().APIURL), HTTPClient: s.httpClient(t),
		Credentials: credentials.NewStaticCredentialsProvider(s.env["AWS_ACCESS_KEY_ID"], s.env["AWS_SECRET_ACCESS_KEY"], ""),
	}
	return iot.New(options, change...)
}

// must gives the result of an SDK call that must succeed.
func must[T any](result T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}

func (s *server) createPolicy(t *testing.T, name, document string) {
	t.Helper()
	must(s.sdk(t).CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String(name), PolicyDocument: aws.String(document)}))(t)
}

// registerCA registers a factory's CA through the SDK and gives its id. Change
// may alter the request, which is for auto-registration without a template.
func (s *server) registerCA(t *testing.T, f *factory, change func(*iot.RegisterCACertificateInput)) string {
	t.Helper()
	return must(s.tryRegisterCA(t, f, change))(t)
}

func (s *server) tryRegisterCA(t *testing.T, f *factory, change func(*iot.RegisterCACertificateInput)) (string, error) {
	t.Helper()
	api := s.sdk(t)
	code := must(api.GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeInput{}))(t)
	in := &iot.RegisterCACertificateInput{
		CaCertificate:           aws.String(readFile(t, f.cert)),
		VerificationCertificate: aws.String(readFile(t, f.verification(t, aws.ToString(code.RegistrationCode)))),
		SetAsActive:             true, AllowAutoRegistration: true,
	}
	if change != nil {
		change(in)
	}
	out, err := api.RegisterCACertificate(t.Context(), in)
	if err != nil {
		return "", err
	}
	if got, want := aws.ToString(out.CertificateId), certificateID(t, readFile(t, f.cert)); got != want {
		t.Fatalf("id of the CA: got %s, want %s", got, want)
	}
	return aws.ToString(out.CertificateId), nil
}

// shortLivedCA registers a CA that expires soon, and gives when: one that has expired can't
// be registered.
func (s *server) shortLivedCA(t *testing.T) (*factory, time.Time) {
	t.Helper()
	for life := 5 * time.Second; ; life *= 2 {
		expires := time.Now().Add(life).Truncate(time.Second)
		f := newFactoryUntil(t, "Short-lived", expires)
		_, err := s.tryRegisterCA(t, f, nil)
		if err == nil {
			return f, expires
		}
		// A slow machine takes as long as the CA lives.
		if time.Now().Before(expires) || life > patience {
			t.Fatal(err)
		}
	}
}

func withTemplate(body string) func(*iot.RegisterCACertificateInput) {
	return func(in *iot.RegisterCACertificateInput) {
		in.RegistrationConfig = &types.RegistrationConfig{TemplateBody: aws.String(body), RoleArn: aws.String(role)}
	}
}

// line is a server with a registered CA whose devices get devicePolicy.
func (s *server) line(t *testing.T, name string) *factory {
	t.Helper()
	f := newFactory(t, name, "P-256")
	_, err := s.sdk(t).GetPolicy(t.Context(), &iot.GetPolicyInput{PolicyName: aws.String("devices")})
	if err != nil {
		s.createPolicy(t, "devices", devicePolicy)
	}
	s.registerCA(t, f, withTemplate(jitpTemplate("devices", "")))
	return f
}

// watcher registers a device that may do everything under any client id.
func (s *server) watcher(t *testing.T) *device {
	t.Helper()
	d := selfSigned(t, "watcher")
	api := s.sdk(t)
	s.createPolicy(t, "watcher", watcherPolicy)
	out := must(api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("watcher"), Target: out.CertificateArn}))(t)
	return d
}

// registry lists everything that devices could change, a line each.
func (s *server) registry(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	api := s.sdk(t)
	var lines []string
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	things := iot.NewListThingsPaginator(api, &iot.ListThingsInput{})
	for things.HasMorePages() {
		page := must(things.NextPage(ctx))(t)
		for _, thing := range page.Things {
			attributes, err := json.Marshal(thing.Attributes)
			if err != nil {
				t.Fatal(err)
			}
			note("thing %s version %d %s", aws.ToString(thing.ThingName), thing.Version, attributes)
			attached := must(api.ListThingPrincipals(ctx, &iot.ListThingPrincipalsInput{ThingName: thing.ThingName}))(t)
			for _, principal := range attached.Principals {
				note("thing %s has %s", aws.ToString(thing.ThingName), strings.TrimPrefix(principal, arn))
			}
		}
	}
	certificates := iot.NewListCertificatesPaginator(api, &iot.ListCertificatesInput{})
	for certificates.HasMorePages() {
		page := must(certificates.NextPage(ctx))(t)
		for _, c := range page.Certificates {
			note("cert/%s %s", aws.ToString(c.CertificateId), c.Status)
			attached := must(api.ListAttachedPolicies(ctx, &iot.ListAttachedPoliciesInput{Target: c.CertificateArn}))(t)
			for _, p := range attached.Policies {
				note("cert/%s policy %s", aws.ToString(c.CertificateId), aws.ToString(p.PolicyName))
			}
		}
	}
	policies := iot.NewListPoliciesPaginator(api, &iot.ListPoliciesInput{})
	for policies.HasMorePages() {
		for _, p := range must(policies.NextPage(ctx))(t).Policies {
			note("policy %s", aws.ToString(p.PolicyName))
		}
	}
	cas := iot.NewListCACertificatesPaginator(api, &iot.ListCACertificatesInput{})
	for cas.HasMorePages() {
		for _, ca := range must(cas.NextPage(ctx))(t).Certificates {
			note("ca %s %s", aws.ToString(ca.CertificateId), ca.Status)
		}
	}
	slices.Sort(lines)
	return lines
}

// changes are the lines that came (+) and went (-) between two registries.
func changes(before, after []string) []string {
	var list []string
	for _, line := range after {
		if !slices.Contains(before, line) {
			list = append(list, "+ "+line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			list = append(list, "- "+line)
		}
	}
	slices.Sort(list)
	return list
}

// soon bounds one exchange with a server.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until asks ok again and again, as fast as answers come but no faster than
// every 10 ms.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s for %s", patience, what)
		case <-ticker.C:
		}
	}
}

// awaitSeconds waits for what only time brings about.
func awaitSeconds(t *testing.T, n int) {
	t.Helper()
	end := time.Now().Add(time.Duration(n) * time.Second)
	until(t, fmt.Sprintf("%d s to pass", n), func() bool { return time.Now().After(end) })
}

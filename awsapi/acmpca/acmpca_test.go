package acmpca

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
)

// modelFile is AWS's model of the API, of Debian's AWS CLI.
const modelFile = "/usr/lib/python3/dist-packages/awscli/botocore/data/acm-pca/2017-08-22/service-2.json"

// TestOperationsAreTheModels: each is offered or refused by name, and each exception that
// Translate gives exists.
func TestOperationsAreTheModels(t *testing.T) {
	t.Parallel()
	foreign.Program(t, "/usr/bin/aws")
	data, err := os.ReadFile(modelFile)
	if err != nil {
		foreign.Missing(t, modelFile, "install Debian's awscli")
	}
	var model struct {
		Operations map[string]struct{}
		Shapes     map[string]struct {
			Exception bool
			Enum      []string
		}
	}
	err = json.Unmarshal(data, &model)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, op := range Operations() {
		known[op.Name] = true
		if _, found := model.Operations[op.Name]; !found {
			t.Errorf("the model has no operation %s", op.Name)
		}
		if op.Action != "acm-pca:"+op.Name {
			t.Errorf("%s has the action %s", op.Name, op.Action)
		}
	}
	for name := range model.Operations {
		if !known[name] {
			t.Errorf("the operation %s isn't known", name)
		}
	}
	for _, code := range []imprint.Code{
		imprint.CodeInvalidRequest, imprint.CodeCertificateValidation, imprint.CodeNotFound, imprint.CodeAuthorityState, imprint.CodeCAExpired, imprint.CodeCertificateWeak,
		imprint.CodeKeyReused, imprint.CodeLimitExceeded, imprint.CodeConflictingUpdate, imprint.CodeUnavailable,
	} {
		exception := Translate(imprint.Errorf(code, "x")).Code
		if !model.Shapes[exception].Exception {
			t.Errorf("%s becomes %s, which the model doesn't have", code, exception)
		}
	}
	if enum := model.Shapes["RevocationReason"].Enum; len(enum) == 0 {
		t.Error("the model has no reasons")
	} else {
		for _, reason := range enum {
			if _, known := imprint.RevocationReason(reason).Code(); !known {
				t.Errorf("reason %s isn't known", reason)
			}
		}
	}
}

// TestEveryTemplateHasItsProfile.
func TestEveryTemplateHasItsProfile(t *testing.T) {
	t.Parallel()
	profiles, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	for template, profile := range templates {
		if !slices.Contains(profiles.Names(), profile) {
			t.Errorf("template %s has the profile %s, which doesn't exist", template, profile)
		}
	}
}

// TestAnAuthorityIsAskedForByItsOwnARN: each spelling that a request may have is that one
// or names nothing, so that a Deny of it holds.
func TestAnAuthorityIsAskedForByItsOwnARN(t *testing.T) {
	t.Parallel()
	const id = "01234567-89ab-cdef-0123-456789abcdef"
	caller := awsapi.Caller{Account: "000000000000", Region: "us-east-1"}
	own := "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/" + id
	for arn, want := range map[string]string{
		own: own, "arn:aws-cn" + own[7:]: "", "arn:aws-x" + own[7:]: "", "arn:aws-" + own[7:]: "", "arn:AWS" + own[7:]: "", "arn:" + own[7:]: "",
		strings.ToUpper(own): "", own + "/": "", own + "/certificate/12": "", own + "\n": "",
		"arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/" + strings.ToUpper(id): "", "arn:aws:acm-pca:US-EAST-1:000000000000:certificate-authority/" + id: "",
		"arn:aws:acm-pca:eu-west-1:000000000000:certificate-authority/" + id: "", "arn:aws:acm-pca:us-east-1:111111111111:certificate-authority/" + id: "",
	} {
		asks, err := about(theARN)(t.Context(), caller, &arnInput{ARN: arn})
		issue, issueErr := issues(t.Context(), caller, &issueInput{ARN: arn})
		if want == "" {
			if err == nil || issueErr == nil {
				t.Errorf("%q asks for %+v and %+v, want refusals", arn, asks, issue)
			}
			continue
		}
		if err != nil || issueErr != nil || len(asks) != 1 || asks[0].Resource != want || len(issue) != 1 || issue[0].Resource != want {
			t.Errorf("%q asks for %+v, %v and %+v, %v, want %s", arn, asks, err, issue, issueErr, want)
		}
	}
}

// TestAProfileHasOneTemplate, whichever name the request has for it.
func TestAProfileHasOneTemplate(t *testing.T) {
	t.Parallel()
	for _, region := range []string{"us-east-1", "cn-north-1"} {
		caller := awsapi.Caller{Account: "000000000000", Region: region}
		prefix := "arn:" + awsapi.Partition(region) + ":acm-pca:::template/"
		for asked, want := range map[string]string{
			"": "EndEntityCertificate", "EndEntityCertificate": "EndEntityCertificate", "imprint-aws-end-entity": "EndEntityCertificate",
			"imprint-aws-subordinate-ca-0": "SubordinateCACertificate_PathLen0", "SubordinateCACertificate_PathLen0": "SubordinateCACertificate_PathLen0",
			"imprint-aws-ocsp-signing": "OCSPSigningCertificate", "imprint-operational": "imprint-operational",
		} {
			in := issueInput{ARN: tenantOf(caller).AuthorityARN("01234567-89ab-cdef-0123-456789abcdef")}
			if asked != "" {
				in.Template = new(prefix + asked + "/V1")
			}
			asks, err := issues(t.Context(), caller, &in)
			if err != nil || len(asks) != 1 || !slices.Equal(asks[0].Keys[TemplateKey], []string{prefix + want + "/V1"}) {
				t.Errorf("%s %q: got %+v, %v, want %s", region, asked, asks, err, want)
			}
		}
	}
}

// TestSubjectsComeBackAsTheyWere, also those with attributes that have no member.
func TestSubjectsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	for _, want := range []subject{
		{CommonName: "root"},
		{Country: "DE", Organization: "Acmé", OrganizationalUnit: "Line", Qualifier: "7", State: "Bavaria", CommonName: "root", SerialNumber: "1", Locality: "Nuremberg",
			Title: "t", Surname: "s", GivenName: "g", Initials: "i", Pseudonym: "p", GenerationQualifier: "q"},
		{Custom: []customAttribute{{ID: "1.3.6.1.4.1.32473.1", Value: "x"}, {ID: "2.5.4.3", Value: "root"}}},
		{Custom: []customAttribute{{ID: "2.5.4.3", Value: "one"}, {ID: "2.5.4.3", Value: "two"}}},
	} {
		der, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := subjectOf(der)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("got %v, difference %s", err, cmp.Diff(want, got))
		}
	}
	for _, bad := range []subject{{}, {CommonName: "x", Custom: []customAttribute{{ID: "2.5.4.3", Value: "x"}}}, {Custom: []customAttribute{{ID: "0.39.99999999999", Value: "x"}}}} {
		_, err := bad.encode()
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

// TestANameThatCantBeReadHidesNoOther: a CA that was made elsewhere may have one.
func TestANameThatCantBeReadHidesNoOther(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	readable, err := (&subject{CommonName: "line"}).encode()
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range [][]byte{readable, []byte("nonsense"), nil} {
		err = store.Update(t.Context(), func(tx imprint.Tx) error {
			return tx.PutAuthority(imprint.CertificateAuthority{Tenant: imprint.Tenant{Account: "000000000000", Region: "us-east-1"}, Subject: name, Status: imprint.AuthorityActive,
				ID: imprint.AuthorityID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	engine := ca.New(ca.Options{Store: store, Clock: time.Now})
	t.Cleanup(engine.Close)
	s := &Service{Engine: engine, Clock: time.Now}
	caller := awsapi.Caller{Account: "000000000000", Region: "us-east-1"}
	out, err := s.list(t.Context(), caller, &listInput{})
	if err != nil || len(out.Authorities) != 3 || out.Authorities[0].Configuration.Subject.CommonName != "line" {
		t.Fatalf("got %+v, %v, want three authorities", out, err)
	}
	for _, one := range out.Authorities {
		described, err := s.describe(t.Context(), caller, &arnInput{ARN: one.ARN})
		if err != nil || described.Authority.ARN != one.ARN {
			t.Errorf("%s: %+v, %v", one.ARN, described, err)
		}
	}
}

// TestValiditiesOfEveryType.
func TestValiditiesOfEveryType(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		v    validity
		want string // empty: refused
	}{
		{validity{7, "DAYS"}, "2026-01-22T12:00:00Z"}, {validity{13, "MONTHS"}, "2027-02-15T12:00:00Z"}, {validity{10, "YEARS"}, "2036-01-15T12:00:00Z"},
		{validity{1893456000, "ABSOLUTE"}, "2030-01-01T00:00:00Z"}, {validity{300101000000, "END_DATE"}, "2030-01-01T00:00:00Z"},
		{validity{491231235959, "END_DATE"}, "2049-12-31T23:59:59Z"}, {validity{500101000000, "END_DATE"}, "1950-01-01T00:00:00Z"},
		{validity{20500101000000, "END_DATE"}, "2050-01-01T00:00:00Z"}, {validity{99991231235959, "END_DATE"}, "9999-12-31T23:59:59Z"},
		{validity{1 << 62, "DAYS"}, ""}, {validity{1 << 62, "MONTHS"}, ""}, {validity{1 << 62, "YEARS"}, ""}, {validity{1 << 62, "ABSOLUTE"}, ""}, {validity{1 << 62, "END_DATE"}, ""},
		{validity{301301000000, "END_DATE"}, ""}, {validity{1, "END_DATE"}, ""},
	} {
		got, err := c.v.end(now)
		if c.want == "" && err == nil || c.want != "" && (err != nil || got.Format(time.RFC3339) != c.want) {
			t.Errorf("%+v: got %s, %v, want %q", c.v, got.Format(time.RFC3339), err, c.want)
		}
	}
}

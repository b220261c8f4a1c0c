package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// parametersIn are what the steps say of parameters.
func parametersIn(steps []imprint.Step) []string {
	var all []string
	for _, s := range steps {
		if s.Name == "template.parameter" {
			all = append(all, s.Detail)
		}
	}
	return all
}

// TestTheTraceSaysWhereEachParameterOfARequestCameFrom ensures that the device's
// request, the hook, the template and the service are told apart, also where the
// template can't be evaluated.
func TestTheTraceSaysWhereEachParameterOfARequestCameFrom(t *testing.T) {
	t.Parallel()
	o := newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
		return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true,"parameterOverrides":{"Site":"plant"}}`)}, nil
	}), provisioning.ClaimOptions{})
	o.template(home, fleetBody(ownPolicy), hookARN)
	made := o.create(home)
	_, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
	want := []string{`SerialNumber = "1" (the device's request)`, `Site = "plant" (the hook's parameterOverrides)`, `AWS::IoT::Certificate::Id = "` + made.ID + `" (the service)`}
	if diff := cmp.Diff(want, parametersIn(o.steps())); !ok || diff != "" {
		t.Errorf("registered %t; the parameters differ (-want +got):\n%s", ok, diff)
	}
	o.template(home, fleetBody(ownPolicy), "")
	made = o.create(home)
	_, ok = o.register(home, made.Token, map[string]string{"Other": "1"})
	want = []string{
		`SerialNumber has no value: it isn't in the device's request, and the template has no Default`, `Site = "lab" (the template's Default)`,
		`AWS::IoT::Certificate::Id = "` + made.ID + `" (the service)`,
	}
	if diff := cmp.Diff(want, parametersIn(o.steps())); ok || diff != "" {
		t.Errorf("registered %t; the parameters differ (-want +got):\n%s", ok, diff)
	}
}

// TestTheTraceSaysWhichFieldOfTheSubjectAParameterIs ensures it for just-in-time
// provisioning, also where a field is missing.
func TestTheTraceSaysWhichFieldOfTheSubjectAParameterIs(t *testing.T) {
	t.Parallel()
	const body = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Country":{"Type":"String"},
	 "AWS::IoT::Certificate::StateName":{"Type":"String","Default":"none"}},
	 "Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"},
	 "AttributePayload":{"country":{"Ref":"AWS::IoT::Certificate::Country"},"state":{"Ref":"AWS::IoT::Certificate::StateName"}}}},
	 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	w := newWorld(t, body, provisioning.Options{})
	const name = `AWS::IoT::Certificate::CommonName = "unit" (the certificate's subject, common name (CN, 2.5.4.3))`
	const state = `AWS::IoT::Certificate::StateName = "none" (the template's Default)`
	for _, row := range []struct {
		country []string
		want    []string
	}{
		{[]string{"DE"}, []string{name, `AWS::IoT::Certificate::Country = "DE" (the certificate's subject, country (C, 2.5.4.6))`, state}},
		{nil, []string{name, `AWS::IoT::Certificate::Country has no value: it isn't in the certificate's subject, country (C, 2.5.4.6), and the template has no Default`, state}},
	} {
		leaf := w.ca.device(t, pkix.Name{CommonName: "unit", Country: row.country}, nil)
		_, steps := w.connect(t, leaf)
		want := append(row.want, `AWS::IoT::Certificate::Id = "`+string(idOf(leaf))+`" (the service)`)
		if diff := cmp.Diff(want, parametersIn(steps)); diff != "" {
			t.Errorf("country %q: the parameters differ (-want +got):\n%s", row.country, diff)
		}
	}
}

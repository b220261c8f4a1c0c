package policy_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

func TestValuesByName(t *testing.T) {
	t.Parallel()
	const cn, ou = "iot:Certificate.Subject.CommonName", "iot:certificate.subject.OrganizationalUnit"
	base := policy.Binding{ClientID: "c", Thing: &policy.Thing{Name: "t", Attributes: map[string]string{"a": "1"}}}
	b, err := policy.BindingFrom(base, map[string][]string{
		"iot:clientid": {"d"}, "iot:Connection.Thing.Attributes[site]": {"lab"}, "iot:Connection.Thing.ThingTypeName": {"lamp"}, cn: {"x,y"}, ou: {"u1", "u2"},
		"iot:Certificate.SerialNumber": {"77"}, "aws:SourceIp": {"192.0.2.1"}, "aws:SecureTransport": {"false"}, "iot:DomainName": {"d.example"},
		"iot:Certificate.Issuer.AlternativeName.DNSName": {"a,b"}, "x:y": {"z"}, "iot:CertificateId": {"abc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	vars := policy.NewVariables(b)
	for name, want := range map[string]string{
		"iot:ClientId": "d", "iot:Connection.Thing.ThingName": "t", "iot:Connection.Thing.Attributes[site]": "lab", "iot:Connection.Thing.Attributes[a]": "1",
		"iot:Connection.Thing.ThingTypeName": "lamp", cn: `x\,y`, ou + ".1": "u2", "iot:Certificate.SerialNumber": "77", "aws:SourceIp": "192.0.2.1",
		"aws:SecureTransport": "false", "iot:DomainName": "d.example", "iot:Certificate.Issuer.AlternativeName.DNSName": "a,b", "x:y": "z", "iot:CertificateId": "abc",
	} {
		resolves(t, vars, name, want)
	}
	if base.ClientID != "c" || len(base.Thing.Attributes) != 1 {
		t.Errorf("the base was changed: %+v", base)
	}
	b, err = policy.BindingFrom(base, map[string][]string{"iot:Connection.Thing.IsAttached": {"false"}})
	if err != nil || b.Thing != nil {
		t.Errorf("got %+v, %v; want no thing", b, err)
	}
	for part, values := range map[string]map[string][]string{
		"did you mean iot:ClientId?": {"iot:ClientID2": {"x"}}, "no connection has": {"client": {"x"}}, "one value": {"iot:ClientId": {"x", "y"}},
		"no address": {"aws:SourceIp": {"x"}}, "can't be given": {"aws:CurrentTime": {"x"}}, "once for each": {ou + ".List": {"x"}},
	} {
		_, err := policy.BindingFrom(base, values)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v: got %v, want %q in it", values, err, part)
		}
	}
}

package gateway_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/gateway"
)

// tenants is a store that knows two tenants.
type tenants struct{ imprint.Store }

func newEndpoints(t *testing.T, domain string, aliases ...string) *gateway.Endpoints {
	t.Helper()
	w := newWorld(t, settings{})
	e, err := gateway.NewEndpoints(t.Context(), tenants{w.store}, domain, home, aliases)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestServerNamesSelectTenants(t *testing.T) {
	t.Parallel()
	withDomain := newEndpoints(t, "IoT.Example.com.", "Broker.Example.org", "second.example.org.")
	without := newEndpoints(t, "")
	for _, row := range []struct {
		name, server string
		endpoints    *gateway.Endpoints
		want         imprint.Tenant // zero: refused
	}{
		{"none", "", withDomain, home},
		{"localhost", "localhost", withDomain, home},
		{"data, ATS", "aaaaaaaaaaaaaa-ats.iot.us-east-1.iot.example.com", withDomain, home},
		{"data, legacy", "aaaaaaaaaaaaaa.iot.us-east-1.iot.example.com", withDomain, home},
		{"credentials", "aaaaaaaaaaaaaa.credentials.iot.us-east-1.iot.example.com", withDomain, home},
		{"jobs", "aaaaaaaaaaaaaa.jobs.iot.us-east-1.iot.example.com", withDomain, home},
		{"the second tenant", "bbbbbbbbbbbbbb-ats.iot.eu-west-1.iot.example.com", withDomain, other},
		{"upper case", "BBBBBBBBBBBBBB-ATS.IOT.EU-WEST-1.iot.example.COM", withDomain, other},
		{"a trailing dot", "bbbbbbbbbbbbbb-ats.iot.eu-west-1.iot.example.com.", withDomain, other},
		{"an alias in another case", "broker.EXAMPLE.org", withDomain, home},
		{"an alias that was given with a dot", "second.example.org", withDomain, home},
		{"without a domain", "bbbbbbbbbbbbbb-ats.iot.eu-west-1.localhost", without, other},
		{"the prefix of one and the region of the other", "bbbbbbbbbbbbbb-ats.iot.us-east-1.iot.example.com", withDomain, imprint.Tenant{}},
		{"an unknown prefix", "cccccccccccccc-ats.iot.us-east-1.iot.example.com", withDomain, imprint.Tenant{}},
		{"another domain", "aaaaaaaaaaaaaa-ats.iot.us-east-1.example.org", withDomain, imprint.Tenant{}},
		{"the domain alone", "iot.example.com", withDomain, imprint.Tenant{}},
		{"more labels in front", "x.aaaaaaaaaaaaaa-ats.iot.us-east-1.iot.example.com", withDomain, imprint.Tenant{}},
		{"an alias without being one", "broker.example.org", without, imprint.Tenant{}},
		{"AWS itself", "aaaaaaaaaaaaaa-ats.iot.us-east-1.amazonaws.com", withDomain, imprint.Tenant{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := row.endpoints.Tenant(row.server)
			if got != row.want || (err == nil) != (row.want != imprint.Tenant{}) {
				t.Errorf("got %s, %v, want %s", got, err, row.want)
			}
			if err != nil && (imprint.CodeOf(err) != imprint.CodeSNIUnknown || imprint.HintOf(err) == "") {
				t.Errorf("got code %s and hint %q, want %s and a hint", imprint.CodeOf(err), imprint.HintOf(err), imprint.CodeSNIUnknown)
			}
		})
	}
}

// A device elsewhere can't connect to localhost: who wants it to come by this name is told
// how, and what a stranger sent is nothing that a person types.
func TestAnUnknownServerNameIsGivenItsFlag(t *testing.T) {
	t.Parallel()
	e := newEndpoints(t, "")
	for name, want := range map[string]string{"Broker.lan.": "--host broker.lan", "a;reboot": "--host NAME", "-x": "--host NAME"} {
		_, err := e.Tenant(name)
		if hint := imprint.HintOf(err); !strings.HasSuffix(hint, want) || !strings.Contains(hint, "describe-endpoint") {
			t.Errorf("%q: the hint is %q, want %q at its end", name, hint, want)
		}
	}
}

// What DescribeEndpoint answers leads back to the tenant.
func TestAddressesLeadBackToTheirTenant(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", "iot.example.com"} {
		e := newEndpoints(t, domain)
		for tenant, prefix := range map[imprint.Tenant]string{home: "aaaaaaaaaaaaaa", other: "bbbbbbbbbbbbbb"} {
			for _, kind := range []string{"", "iot:Data-ATS", "iot:Data", "iot:CredentialProvider", "iot:Jobs"} {
				address, err := e.Address(imprint.TenantSettings{Tenant: tenant, EndpointPrefix: prefix}, kind)
				if err != nil {
					t.Fatal(err)
				}
				got, err := e.Tenant(address)
				if err != nil || got != tenant {
					t.Errorf("%q of %s is %s, which selects %s, %v", kind, tenant, address, got, err)
				}
			}
		}
		_, err := e.Address(imprint.TenantSettings{Tenant: home}, "iot:Fax")
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("an unknown kind gives %v, want %s", err, imprint.CodeInvalidRequest)
		}
	}
}

package iot_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

func TestDescribeEndpoint(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	client := server.Client(imprint.Tenant{Account: "123456789012", Region: "eu-central-1"})
	host := regexp.MustCompile(`^(a[a-z0-9]{13})-ats\.iot\.eu-central-1\.example\.com$`)
	first, err := client.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{EndpointType: new("iot:Data-ATS")})
	if err != nil {
		t.Fatalf("DescribeEndpoint: %v", err)
	}
	found := host.FindStringSubmatch(*first.EndpointAddress)
	if found == nil {
		t.Fatalf("got address %q, want one like %s", *first.EndpointAddress, host)
	}
	for _, row := range []struct {
		name string
		kind *string
		want string // empty: refused
	}{
		{"the ATS address is stable", new("iot:Data-ATS"), *first.EndpointAddress},
		{"no type gives the ATS address", nil, *first.EndpointAddress},
		{"the legacy address has the same prefix", new("iot:Data"), found[1] + ".iot.eu-central-1.example.com"},
		{"the credential provider's address has the same prefix", new("iot:CredentialProvider"), found[1] + ".credentials.iot.eu-central-1.example.com"},
		{"the jobs address has the same prefix", new("iot:Jobs"), found[1] + ".jobs.iot.eu-central-1.example.com"},
		{"an unknown type is refused", new("iot:Nothing"), ""},
		{"a type in another case is refused", new("iot:data-ats"), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, err := client.DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{EndpointType: row.kind})
			if row.want == "" {
				iottest.WantRefusal(t, err, "InvalidRequestException", 400, "Endpoint type "+*row.kind+" not recognized.")
				return
			}
			if err != nil || *out.EndpointAddress != row.want {
				t.Errorf("got %v, %v, want %q", out, err, row.want)
			}
		})
	}
}

func TestEveryRegionOfAnAccountIsATenantMadeOnce(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenants := []imprint.Tenant{
		{Account: "123456789012", Region: "us-east-1"}, {Account: "123456789012", Region: "eu-west-1"}, {Account: "210987654321", Region: "us-east-1"},
	}
	var group sync.WaitGroup
	for _, tenant := range tenants {
		for range 8 {
			group.Go(func() {
				_, err := server.Client(tenant).DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{})
				if err != nil {
					t.Errorf("DescribeEndpoint of %s: %v", tenant, err)
				}
			})
		}
	}
	group.Wait()
	prefixes := make(map[string]bool)
	made := server.Made()
	for _, settings := range made {
		prefixes[settings.EndpointPrefix] = true
	}
	if len(made) != len(tenants) || len(prefixes) != len(tenants) {
		t.Errorf("got %d tenants told of with %d prefixes, want %d: %+v", len(made), len(prefixes), len(tenants), made)
	}
	server.View(t, func(tx imprint.ReadTx) error {
		for _, settings := range made {
			stored, err := tx.TenantSettings(settings.Tenant)
			if err != nil || stored.EndpointPrefix != settings.EndpointPrefix {
				t.Errorf("got stored %+v, %v, want the settings told of, %+v", stored, err, settings)
			}
		}
		return nil
	})
}

func TestEnsureTenantRefusesWhatIsNoTenant(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	for _, tenant := range []imprint.Tenant{
		{}, {Account: "123456789012", Region: "x"}, {Account: "12345", Region: "us-east-1"},
		{Account: "123456789012", Region: imprint.Region(strings.Repeat("a-", 40))},
	} {
		_, err := server.Service.EnsureTenant(t.Context(), tenant)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("tenant %q: got %v, want %s", tenant, err, imprint.CodeInvalidRequest)
		}
	}
	if made := server.Made(); len(made) != 0 {
		t.Errorf("got tenants %+v, want none", made)
	}
	_, err := server.Client(imprint.Tenant{Account: "123456789012", Region: "x"}).DescribeEndpoint(t.Context(), &sdk.DescribeEndpointInput{})
	iottest.WantRefusal(t, err, "InvalidRequestException", 400, "region")
}

// One region too many is refused before anything of it is stored.
func TestRegionsAreBounded(t *testing.T) {
	t.Parallel()
	s := iottest.Start(t)
	made := 0
	for n := range iot.MaxRegions + 5 {
		_, err := s.Service.EnsureTenant(t.Context(), imprint.Tenant{Account: "123456789012", Region: imprint.Region(fmt.Sprintf("eu-north-%d", n))})
		if err == nil {
			made++
			continue
		}
		if got := imprint.CodeOf(err); got != imprint.CodeLimitExceeded {
			t.Fatalf("tenant %d: %v, want %s", n, err, imprint.CodeLimitExceeded)
		}
	}
	if made > iot.MaxRegions || made < iot.MaxRegions-2 {
		t.Errorf("made %d tenants, want about %d", made, iot.MaxRegions)
	}
	var all []imprint.TenantSettings
	s.View(t, func(tx imprint.ReadTx) error {
		list, err := imprint.AllTenants(tx)
		all = list
		return err
	})
	if len(all) != iot.MaxRegions {
		t.Errorf("%d tenants are stored, want %d", len(all), iot.MaxRegions)
	}
}

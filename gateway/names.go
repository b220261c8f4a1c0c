package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/imprint-iot/imprint"
)

// Endpoints knows which host names belong to which tenant: what
// DescribeEndpoint answers and what the server name of a TLS hello selects.
// It is safe for use by many goroutines.
type Endpoints struct {
	domain  string // empty: localhost
	home    imprint.Tenant
	aliases []string // further host names of the home tenant

	mu       sync.RWMutex
	byPrefix map[string]imprint.Tenant
	prefixes map[imprint.Tenant]string
}

// endpointKinds are the label suffixes of the endpoint names that AWS IoT Core
// gives one tenant, all of which lead to the same door here.
var endpointKinds = []string{"-ats.iot.", ".iot.", ".credentials.iot.", ".jobs.iot."}

// NewEndpoints reads the tenants' names from the store; Add tells it of new
// ones. Home is the tenant of clients that send no server name or a plain
// localhost; aliases are further host names of home, in either case.
func NewEndpoints(ctx context.Context, store imprint.Store, domain string, home imprint.Tenant, aliases []string) (*Endpoints, error) {
	e := &Endpoints{domain: plain(domain), home: home,
		byPrefix: map[string]imprint.Tenant{}, prefixes: map[imprint.Tenant]string{}}
	for _, alias := range aliases {
		if name := plain(alias); name != "" {
			e.aliases = append(e.aliases, name)
		}
	}
	err := e.reload(ctx, store)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// plain brings a host name to the form in which names are compared.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (e *Endpoints) reload(ctx context.Context, store imprint.Store) error {
	var list []imprint.TenantSettings
	err := store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := imprint.AllTenants(tx)
		list = found
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't read the tenants' endpoint names: %w", err)
	}
	for _, s := range list {
		e.Add(s)
	}
	return nil
}

// Add makes a tenant's names known.
func (e *Endpoints) Add(s imprint.TenantSettings) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byPrefix[s.EndpointPrefix] = s.Tenant
	e.prefixes[s.Tenant] = s.EndpointPrefix
}

// Home is the tenant of clients that send no server name.
func (e *Endpoints) Home() imprint.Tenant { return e.home }

func (e *Endpoints) suffix() string {
	if e.domain == "" {
		return "localhost"
	}
	return e.domain
}

// Address is the host name for a tenant and an endpoint kind of
// DescribeEndpoint (iot:Data-ATS, iot:Data, iot:CredentialProvider, iot:Jobs).
// Without a domain, the home tenant's address is localhost.
func (e *Endpoints) Address(s imprint.TenantSettings, kind string) (string, error) {
	var middle string
	switch kind {
	case "", "iot:Data-ATS":
		middle = "-ats.iot."
	case "iot:Data":
		middle = ".iot."
	case "iot:CredentialProvider":
		middle = ".credentials.iot."
	case "iot:Jobs":
		middle = ".jobs.iot."
	default:
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "Endpoint type %s not recognized.", kind).
			WithHint("Use iot:Data-ATS.")
	}
	if e.domain == "" && s.Tenant == e.home {
		return "localhost", nil
	}
	return s.EndpointPrefix + middle + string(s.Tenant.Region) + "." + e.suffix(), nil
}

// errUnknownName says that a server name selects no tenant.
var errUnknownName = errors.New("unknown server name")

// Tenant is the tenant that a server name selects; the home tenant for an empty
// one. Errors: CodeSNIUnknown.
func (e *Endpoints) Tenant(serverName string) (imprint.Tenant, error) {
	name := plain(serverName)
	if name == "" || name == "localhost" || slices.Contains(e.aliases, name) {
		return e.home, nil
	}
	rest, found := strings.CutSuffix(name, "."+e.suffix())
	if found {
		for _, kind := range endpointKinds {
			prefix, region, ok := strings.Cut(rest, kind)
			if !ok {
				continue
			}
			e.mu.RLock()
			tenant, known := e.byPrefix[prefix]
			e.mu.RUnlock()
			if known && string(tenant.Region) == region {
				return tenant, nil
			}
		}
	}
	return imprint.Tenant{}, imprint.Errorf(imprint.CodeSNIUnknown, "%w %q", errUnknownName, serverName).
		WithHint("Connect to %s, which aws iot describe-endpoint --endpoint-type iot:Data-ATS gives; or, if %s is this server, start it with that name, too: imprint serve --host %s", e.homeAddress(), asHost(serverName), asHost(serverName))
}

// asHost gives a server name as it can be typed in a command, and NAME for one that isn't
// plain: anybody can send it.
func asHost(serverName string) string {
	const legal = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	name := plain(serverName)
	if len(name) > 253 || strings.HasPrefix(name, "-") || strings.Trim(name, legal) != "" {
		return "NAME"
	}
	return name
}

func (e *Endpoints) homeAddress() string {
	e.mu.RLock()
	prefix := e.prefixes[e.home]
	e.mu.RUnlock()
	address, err := e.Address(imprint.TenantSettings{Tenant: e.home, EndpointPrefix: prefix}, "iot:Data-ATS")
	if err != nil {
		return "the device endpoint"
	}
	return address
}

// AddressNames lists the host names that DescribeEndpoint gives devices of the
// known tenants, and the aliases.
func (e *Endpoints) AddressNames() []string {
	names := slices.Clone(e.aliases)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for tenant, prefix := range e.prefixes {
		name, err := e.Address(imprint.TenantSettings{Tenant: tenant, EndpointPrefix: prefix}, "iot:Data-ATS")
		if err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// maxNamedRegions bounds the regions in the server's certificates, so that they
// never have more names than a certificate may have. The home tenant's region
// comes first.
const maxNamedRegions = 20

// regions lists the regions of the known tenants. The caller holds mu.
func (e *Endpoints) regions() []string {
	var others []string
	for tenant := range e.prefixes {
		if tenant.Region != e.home.Region {
			others = append(others, string(tenant.Region))
		}
	}
	slices.Sort(others)
	all := append([]string{string(e.home.Region)}, slices.Compact(others)...)
	return all[:min(len(all), maxNamedRegions)]
}

// CertificateNames lists the DNS names that the server's certificates must
// carry so that the known tenants' endpoints are covered.
func (e *Endpoints) CertificateNames() []string {
	names := append([]string{"localhost"}, e.aliases...)
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, region := range e.regions() {
		base := "iot." + region + "." + e.suffix()
		names = append(names, "*."+base, "*.credentials."+base, "*.jobs."+base, base)
	}
	if e.domain != "" {
		names = append(names, e.domain)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

package authorities

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
)

// ProfilesOutput lists the profiles, the built-in ones first.
type ProfilesOutput struct {
	Profiles []Profile `api:"body profiles Profiles"`
}

// Profile is a profile with the rules that hold for it.
type Profile struct {
	Name  string `api:"body name String"`
	Kind  string `api:"body kind String"`
	Rules []Rule `api:"body rules Rules"`
}

// Rule is one of a profile, by the name that it has in a file of profiles.
type Rule struct {
	Name  string `api:"body name String"`
	Value string `api:"body value String"`
}

func (o Office) profiles(context.Context, awsapi.Caller, *ProfilesInput) (*ProfilesOutput, error) {
	out := &ProfilesOutput{Profiles: []Profile{}}
	for _, name := range o.Engine.Profiles().Names() {
		p, err := o.Engine.Profiles().Profile(name)
		if err != nil {
			return nil, err
		}
		out.Profiles = append(out.Profiles, Profile{Name: name, Kind: string(p.Kind()), Rules: rules(p)})
	}
	return out, nil
}

// rules says all that a profile demands, defaults included.
func rules(p *pki.Profile) []Rule {
	c := p.Config()
	var all []Rule
	add := func(name, value string) { all = append(all, Rule{name, value}) }
	flag := func(name string, set bool) {
		if set {
			add(name, "true")
		}
	}
	list := func(name string, values []string) {
		for _, value := range values {
			add(name, value)
		}
	}
	pairs := func(name string, values map[string]string) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			add(name+"."+key, values[key])
		}
	}
	switch {
	case c.Lifetime > 0:
		add("lifetime", c.Lifetime.String())
	case c.NotAfter.Equal(pki.NoExpiry()):
		add("unlimited", "true")
	default:
		add("notAfter", c.NotAfter.UTC().Format(time.RFC3339))
	}
	add("backdate", c.Backdate.String())
	flag("shortenToCA", c.ShortenToCA)
	if c.MaxCertificates > 0 {
		add("maxCertificates", strconv.Itoa(c.MaxCertificates))
	}
	if c.CommonName != "" {
		add("commonName", c.CommonName)
	}
	for _, kind := range c.Keys {
		add("keys", string(kind))
	}
	flag("refuseEd25519", c.RefuseEd25519)
	flag("allowSmallExponent", c.AllowSmallExponent)
	flag("allowKeyReuse", c.AllowKeyReuse)
	list("subject.required", c.Subject.Required)
	list("subject.allowed", c.Subject.Allowed)
	pairs("subject.patterns", c.Subject.Patterns)
	pairs("subject.fixed", c.Subject.Fixed)
	flag("names.dns", c.Names.DNS)
	flag("names.ip", c.Names.IP)
	flag("names.uri", c.Names.URI)
	flag("names.email", c.Names.Email)
	flag("names.required", c.Names.Required)
	pairs("names.patterns", c.Names.Patterns)
	if c.Names.HardwareType != "" {
		add("names.hardwareType", c.Names.HardwareType)
	}
	list("extraKeyUsages", c.ExtraKeyUsages)
	if c.Kind != pki.KindIntermediate && c.Kind != pki.KindRoot {
		return all
	}
	if c.NoPathLength {
		add("noPathLength", "true")
	} else {
		add("pathLength", strconv.Itoa(c.PathLength))
	}
	flag("clientsOnly", c.ClientsOnly)
	list("constraints.permittedDirectories", c.Constraints.PermittedDirectories)
	list("constraints.excludedDirectories", c.Constraints.ExcludedDirectories)
	list("constraints.permittedDNS", c.Constraints.PermittedDNS)
	list("constraints.excludedDNS", c.Constraints.ExcludedDNS)
	list("constraints.permittedIPs", c.Constraints.PermittedIPs)
	list("constraints.excludedIPs", c.Constraints.ExcludedIPs)
	list("constraints.permittedEmails", c.Constraints.PermittedEmails)
	list("constraints.excludedEmails", c.Constraints.ExcludedEmails)
	list("constraints.permittedURIs", c.Constraints.PermittedURIs)
	list("constraints.excludedURIs", c.Constraints.ExcludedURIs)
	return all
}

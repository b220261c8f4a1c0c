package pki

import (
	"time"

	"github.com/imprint-iot/imprint"
)

// BuiltinProfiles are the profiles that every installation has, by name. A file of
// profiles may replace all but device and claim.
func BuiltinProfiles() []ProfileConfig {
	const year = 365 * 24 * time.Hour
	return []ProfileConfig{
		{Name: "device"},
		{Name: "operational", Kind: KindOperational, Lifetime: 2 * year, ShortenToCA: true, Names: NameRules{DNS: true, URI: true}},
		{Name: "idevid", Kind: KindIDevID, Backdate: time.Hour},
		{Name: "server", Kind: KindServer, Lifetime: 396 * 24 * time.Hour},
		{Name: "claim-certificate", Kind: KindClaim, Lifetime: year, ShortenToCA: true},
		{Name: "intermediate", Kind: KindIntermediate, Lifetime: 25 * year, ShortenToCA: true, ClientsOnly: true,
			Keys: []KeyKind{KeyP256, KeyP384, KeyRSA2048, KeyRSA3072, KeyRSA4096}},
		{Name: "policy-ca", Kind: KindIntermediate, Lifetime: 25 * year, ShortenToCA: true, PathLength: 1,
			Keys: []KeyKind{KeyP256, KeyP384, KeyRSA2048, KeyRSA3072, KeyRSA4096}},
		{Name: "root", Kind: KindRoot, Lifetime: 30 * year, PathLength: 2, Keys: []KeyKind{KeyP256, KeyP384, KeyRSA2048, KeyRSA3072, KeyRSA4096}},
		{Name: "ocsp", Kind: KindOCSP, Lifetime: 14 * 24 * time.Hour, CommonName: "OCSP responder", ShortenToCA: true},
	}
}

// Profiles is a set of profiles by name.
type Profiles struct {
	byName map[string]*Profile
	names  []string
}

// NewProfiles makes the built-in profiles and the given ones, which take the place of
// built-in ones of their name. Errors: CodeInvalidRequest.
func NewProfiles(configs ...ProfileConfig) (*Profiles, error) {
	all := &Profiles{byName: map[string]*Profile{}}
	given := map[string]bool{}
	for n, config := range append(BuiltinProfiles(), configs...) {
		p, err := NewProfile(config)
		if err != nil {
			return nil, err
		}
		own := n >= len(BuiltinProfiles())
		switch {
		case own && p.name == "device":
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile device is AWS IoT Core's and can't be replaced").WithHint("Give yours another name.")
		case own && given[p.name]:
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s is there twice", p.name)
		}
		given[p.name] = own
		if all.byName[p.name] == nil {
			all.names = append(all.names, p.name)
		}
		all.byName[p.name] = p
	}
	return all, nil
}

// Profile gives one. Errors: CodeNotFound.
func (p *Profiles) Profile(name string) (*Profile, error) {
	found := p.byName[name]
	if found == nil {
		return nil, imprint.Errorf(imprint.CodeNotFound, "profile %q doesn't exist", imprint.Excerpt(name)).WithHint("imprint ca profiles shows them.")
	}
	return found, nil
}

// Names lists them, the built-in ones first.
func (p *Profiles) Names() []string { return p.names }

package pki

import (
	"slices"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
)

// BuiltinProfiles are the profiles that every installation has, by name. A file of
// profiles may replace all but device.
func BuiltinProfiles() []ProfileConfig {
	const year = 365 * 24 * time.Hour
	caKeys := authorityKinds
	// The profiles aws-... are AWS Private CA's templates: the request says the subject,
	// the names and the validity. A CA's key may have several certificates, because that
	// is how AWS renews one.
	names := NameRules{DNS: true, IP: true, URI: true, Email: true}
	template := func(name string, kind ProfileKind) ProfileConfig {
		return ProfileConfig{Name: name, Kind: kind, Backdate: time.Hour, Unlimited: true}
	}
	root, subordinate := template("aws-root-ca", KindRoot), template("aws-subordinate-ca-0", KindIntermediate)
	root.Keys, root.AllowKeyReuse, root.NoPathLength = caKeys, true, true
	subordinate.Keys, subordinate.AllowKeyReuse = caKeys, true
	both, client, server, ocsp := template("aws-end-entity", KindOperational), template("aws-end-entity-client", KindOperational),
		template("aws-end-entity-server", KindServer), template("aws-ocsp-signing", KindOCSP)
	ocsp.Unlimited, ocsp.Lifetime = false, maxResponder
	both.ExtraKeyUsages = []string{usageServer.String()}
	both.Names, client.Names, server.Names = names, names, names
	all := []ProfileConfig{
		{Name: "device"},
		{Name: "operational", Kind: KindOperational, Lifetime: 2 * year, ShortenToCA: true, Names: NameRules{DNS: true, URI: true}},
		{Name: "idevid", Kind: KindIDevID, Backdate: time.Hour},
		{Name: "server", Kind: KindServer, Lifetime: 396 * 24 * time.Hour},
		{Name: "claim-certificate", Kind: KindClaim, Lifetime: year, ShortenToCA: true},
		{Name: "intermediate", Kind: KindIntermediate, Lifetime: 25 * year, ShortenToCA: true, ClientsOnly: true,
			Keys: caKeys},
		{Name: "policy-ca", Kind: KindIntermediate, Lifetime: 25 * year, ShortenToCA: true, PathLength: 1,
			Keys: caKeys},
		{Name: "root", Kind: KindRoot, Lifetime: 30 * year, PathLength: 2, Keys: caKeys},
		// IEEE 802.1AR wants certificates of devices without an end, and so their CAs must
		// have none.
		{Name: "idevid-root", Kind: KindRoot, Unlimited: true, PathLength: 1, Keys: caKeys},
		{Name: "idevid-intermediate", Kind: KindIntermediate, Unlimited: true, Keys: caKeys},
		{Name: "ocsp", Kind: KindOCSP, Lifetime: 14 * 24 * time.Hour, Backdate: time.Hour, CommonName: "OCSP responder", ShortenToCA: true},
		root, both, client, server, ocsp,
	}
	for n := range 4 {
		subordinate.Name, subordinate.PathLength = "aws-subordinate-ca-"+strconv.Itoa(n), n
		all = append(all, subordinate)
	}
	return all
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
		case own && p.name == "all":
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a profile can't be called all: that stands for all of them").WithHint("Give yours another name.")
		case own && given[p.name]:
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s is there twice", p.name)
		case own && p.name == "ocsp" && !p.makesResponders():
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile ocsp doesn't fit the server's OCSP responders, which are made by it").
				WithHint("It must be of the kind %s, take P-256 keys, and have a commonName and no required names.", KindOCSP)
		}
		given[p.name] = own
		if all.byName[p.name] == nil {
			all.names = append(all.names, p.name)
		}
		all.byName[p.name] = p
	}
	return all, nil
}

// makesResponders says whether the profile takes what the server asks for each responder: a
// P-256 key, no subject and no names.
func (p *Profile) makesResponders() bool {
	_, err := p.subjectOf(Request{})
	return p.kind == KindOCSP && err == nil && !p.names.required && (len(p.kinds) == 0 || slices.Contains(p.kinds, KeyP256))
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

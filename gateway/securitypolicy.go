package gateway

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
)

// SecurityPolicy is a choice of TLS versions and cipher suites under the name
// that AWS IoT Core gives it (developer guide, "Transport security in AWS IoT
// Core"). The zero value is the default policy.
//
// crypto/tls can't do these suites of the policies, so they aren't offered:
// ECDHE-RSA-AES256-SHA384, ECDHE-ECDSA-AES256-SHA384, AES256-SHA256 (CBC with
// SHA-384 or with a 256-bit key and SHA-256) and DHE-RSA-AES256-SHA. A device
// that offers one of them has always been able to offer its 128-bit or SHA
// sibling.
type SecurityPolicy struct {
	name    string
	no12    bool     // TLS 1.2 is refused
	no13    bool     // TLS 1.3 is refused
	only443 []uint16 // suites that AWS offers on port 443 alone
}

// DefaultSecurityPolicy is what AWS IoT Core gives new endpoints.
const DefaultSecurityPolicy = "IoTSecurityPolicy_TLS13_1_2_2022_10"

// securityPolicies are all, as AWS's table has them. Those called TLS12_1_0 have
// nothing to do with TLS 1.0 any more.
func securityPolicies() []SecurityPolicy {
	return []SecurityPolicy{
		{name: "IoTSecurityPolicy_TLS13_1_3_2022_10", no12: true},
		{name: DefaultSecurityPolicy},
		{name: "IoTSecurityPolicy_TLS12_1_2_2022_10", no13: true},
		{name: "IoTSecurityPolicy_TLS12_1_0_2016_01", no13: true, only443: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA256}},
		{name: "IoTSecurityPolicy_TLS12_1_0_2015_01", no13: true},
	}
}

// SecurityPolicyNames lists the policies.
func SecurityPolicyNames() []string {
	var names []string
	for _, p := range securityPolicies() {
		names = append(names, p.name)
	}
	return names
}

// ParseSecurityPolicy finds a policy by its name; empty is the default one.
func ParseSecurityPolicy(name string) (SecurityPolicy, error) {
	if name == "" {
		name = DefaultSecurityPolicy
	}
	for _, p := range securityPolicies() {
		if p.name == name {
			return p, nil
		}
	}
	return SecurityPolicy{}, imprint.Errorf(imprint.CodeInvalidRequest, "there is no security policy %q", name).
		WithHint("Choose one of %s.", strings.Join(SecurityPolicyNames(), ", "))
}

// String is the policy's name.
func (p SecurityPolicy) String() string {
	if p.name == "" {
		return DefaultSecurityPolicy
	}
	return p.name
}

func (p SecurityPolicy) minVersion() uint16 {
	if p.no12 {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

func (p SecurityPolicy) maxVersion() uint16 {
	if p.no13 {
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}

// suites12 are the suites of TLS 1.2 that the policies have in common.
func suites12() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	}
}

// suites are those of TLS 1.2; crypto/tls offers all three suites of TLS 1.3
// that the policies name, and lets nobody choose.
func (p SecurityPolicy) suites(port443 bool) []uint16 {
	if port443 {
		return suites12()
	}
	return slices.DeleteFunc(suites12(), func(id uint16) bool { return slices.Contains(p.only443, id) })
}

// versions names what is spoken.
func (p SecurityPolicy) versions() string {
	switch {
	case p.no12:
		return "TLS 1.3"
	case p.no13:
		return "TLS 1.2"
	}
	return "TLS 1.2 and 1.3"
}

// hint says what a device has to offer.
func (p SecurityPolicy) hint() string {
	switch {
	case p.no12:
		return fmt.Sprintf("The server's security policy %s takes TLS 1.3 alone: --security-policy chooses another.", p)
	case p.no13:
		return fmt.Sprintf("Let the device speak TLS 1.2 with a suite of the server's security policy %s, such as ECDHE-ECDSA-AES128-GCM-SHA256.", p)
	default:
		return fmt.Sprintf("Let the device speak TLS 1.3, or TLS 1.2 with a suite of the server's security policy %s, such as ECDHE-ECDSA-AES128-GCM-SHA256.", p)
	}
}

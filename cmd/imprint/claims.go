package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/renewal"
)

// ClaimConfig are the settings of `imprint serve` for fleet provisioning.
type ClaimConfig struct {
	// ClaimRate is how often a second one tenant's devices, and those of one claim
	// certificate of it, may call each operation of the fleet provisioning API.
	// Default 10, as on AWS IoT Core; 0: no bound.
	ClaimRate int `koanf:"claim-rate"`
	// ClaimTokenLifetime is how long a certificate that was given out may wait for
	// its registration. Default 1h.
	ClaimTokenLifetime time.Duration `koanf:"claim-token-lifetime"`
	// ClaimTokenAnyClaim lets an ownership token be used with another claim
	// certificate of the tenant than the one that asked for it.
	ClaimTokenAnyClaim bool `koanf:"claim-token-any-claim"`
	// ProvisioningClaimLifetime is how long a trusted user's claim certificate is
	// good for. Default 5m.
	ProvisioningClaimLifetime time.Duration `koanf:"provisioning-claim-lifetime"`
	// ClaimSweep is how often certificates that nobody registered in time are
	// looked for. Default 30s.
	ClaimSweep time.Duration `koanf:"claim-sweep"`
	// DeviceCAKey is the kind of the key that signs devices' certificates, when it
	// is made at the first start: rsa-2048, as AWS IoT Core's, or p-256. Default
	// rsa-2048.
	DeviceCAKey string `koanf:"device-ca-key"`
	// HookTimeout bounds pre-provisioning hooks and certificate providers. Default
	// 5s.
	HookTimeout time.Duration `koanf:"hook-timeout"`
}

func addClaimFlags(f *pflag.FlagSet) {
	f.Int("claim-rate", 10, "calls a second of each fleet provisioning operation in one tenant, and of one claim (0: no bound)")
	f.Duration("claim-token-lifetime", time.Hour, "how long a certificate may wait for its registration")
	f.Bool("claim-token-any-claim", false, "take ownership tokens from another claim certificate, too")
	f.Duration("provisioning-claim-lifetime", 5*time.Minute, "how long a trusted user's claim certificate is good for")
	f.Duration("claim-sweep", 30*time.Second, "how often certificates that nobody registered are looked for")
	f.String("device-ca-key", "rsa-2048", "key that signs devices' certificates, when it is made: rsa-2048 or p-256")
	f.Duration("hook-timeout", 5*time.Second, "bound of pre-provisioning hooks and certificate providers")
}

// deviceCAKeys are the kinds by the names of the setting.
var deviceCAKeys = map[string]pki.KeyKind{"rsa-2048": pki.KeyRSA2048, "p-256": pki.KeyP256}

func (c ClaimConfig) check() error {
	if deviceCAKeys[c.DeviceCAKey] == "" {
		return usageError{fmt.Errorf("device-ca-key is %q, not rsa-2048 or p-256", c.DeviceCAKey)}
	}
	if c.ClaimRate < 0 || c.ClaimRate > 1_000_000 {
		return usageError{fmt.Errorf("claim-rate is %d, and must be 0 to 1000000", c.ClaimRate)}
	}
	for _, d := range []struct {
		name               string
		value, least, most time.Duration
	}{
		{"claim-token-lifetime", c.ClaimTokenLifetime, time.Second, 30 * 24 * time.Hour},
		{"provisioning-claim-lifetime", c.ProvisioningClaimLifetime, time.Second, 24 * time.Hour},
		{"claim-sweep", c.ClaimSweep, time.Second, 24 * time.Hour},
		{"hook-timeout", c.HookTimeout, time.Millisecond, 25 * time.Second},
	} {
		if d.value < d.least || d.value > d.most {
			return usageError{fmt.Errorf("%s is %s, and must be %s to %s", d.name, d.value, d.least, d.most)}
		}
	}
	return nil
}

// openClaims makes what devices are provisioned by.
func (s *server) openClaims(context.Context) error {
	s.provisioning = provisioning.NewEngine(s.store, s.clock, provisioning.Options{
		Hold: s.config.Hold, Identities: foresight{s}, Known: s.known, Logger: s.logger,
	})
	s.closeLater(s.provisioning.Close)
	var err error
	s.claims, err = provisioning.NewClaims(provisioning.ClaimRooms{
		Engine: s.provisioning, Authority: s.authority, Profile: s.profile, Keys: s.keys, Functions: s.functions, Along: renewal.Along,
	}, provisioning.ClaimOptions{
		TokenLifetime: s.config.ClaimTokenLifetime, AnyClaim: s.config.ClaimTokenAnyClaim, ClaimLifetime: s.config.ProvisioningClaimLifetime,
		HookTimeout: s.config.HookTimeout, SweepEvery: s.config.ClaimSweep, CreateRate: orNoBound(s.config.ClaimRate), RegisterRate: orNoBound(s.config.ClaimRate), Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.closeLater(s.claims.Close)
	return nil
}

// foresight is the connection path's cache for flows. It is made after them, and no
// device comes before it.
type foresight struct{ server *server }

func (f foresight) Foresee(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, known *imprint.Principal) func(committed bool) {
	return f.server.identities.Foresee(tx, tenant, id, known)
}

// claimDoor hands the broker's requests to the fleet provisioning API.
type claimDoor struct{ claims *provisioning.Claims }

func (d claimDoor) Answers(topic string) bool { return provisioning.ClaimTopic(topic) }

func (d claimDoor) Answer(ctx context.Context, r broker.Request) broker.Answer {
	return broker.Answer(d.claims.Answer(ctx, claimRequest(r)))
}

func (d claimDoor) Refuse(r broker.Request, why error) broker.Answer {
	return broker.Answer(d.claims.Refuse(claimRequest(r), why))
}

func claimRequest(r broker.Request) provisioning.ClaimRequest {
	return provisioning.ClaimRequest{
		Tenant: r.Tenant, Topic: r.Topic, Payload: r.Payload, Claim: r.Certificate, ClientID: r.ClientID, Address: r.Address, Rec: r.Rec,
	}
}

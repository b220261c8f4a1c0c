package provisioning

import (
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
)

// freeClaims remembers the claims for whose requests the registry holds nothing: no
// guard, no trusted user behind them and, for signing requests, no certificate
// provider in their tenant. Those are most, and each request of a device would look
// for all three. What it says is what the registry holds: the store tells every
// change of a guard or a provider before who made it hears that it is durable, and a
// trusted user's claim is in the registry before anybody has its certificate.
type freeClaims struct {
	mu sync.RWMutex
	// generation counts the changes, so that nothing is remembered that was read
	// before one.
	generation uint64
	known      *fair.Memory[freeClaim, struct{}]
}

// freeClaim is a claim in the requests that need no provider, or in those that do.
type freeClaim struct {
	guardKey
	signing bool
}

// maxFreeClaims bounds the memory of claims.
const maxFreeClaims = 10_000

// free says whether a claim is known to be free, and in which generation.
func (f *freeClaims) free(claim freeClaim) (bool, uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, known := f.known.Known(claim.tenant.Account, claim)
	return known, f.generation
}

// remember keeps that a claim was free when it was read in a generation.
func (f *freeClaims) remember(claim freeClaim, generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.generation != generation {
		return
	}
	f.known.Keep(claim.tenant.Account, claim, struct{}{})
}

// committed forgets the claim whose guard was changed, and all of an account when a
// certificate provider of it was, which is rare.
func (f *freeClaims) committed(changes []imprint.Change) {
	for _, c := range changes {
		switch c.Kind {
		case imprint.ChangeClaimGuard:
			key := guardKey{c.Tenant, imprint.CertificateID(c.Key)}
			f.forget(c.Tenant.Account, freeClaim{key, false}, freeClaim{key, true})
		case imprint.ChangeProvider:
			f.forget(c.Tenant.Account)
		}
	}
}

// forget forgets claims of an account, or all of them when none is named.
func (f *freeClaims) forget(account imprint.AccountID, claims ...freeClaim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation++
	if len(claims) == 0 {
		f.known.ForgetAll(account)
	}
	for _, claim := range claims {
		f.known.Forget(account, claim)
	}
}

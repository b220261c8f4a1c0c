package identity_test

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// benchAcquire looks up devices that are hardly ever in the cache: all are of one
// shard, which keeps an eighth of them.
func benchAcquire(b *testing.B, more func(imprint.Tx, imprint.ThingName) error) {
	const devices = 4096
	store := registrytest.New(b)
	update(b, store, func(tx imprint.Tx) error {
		err := putPolicy(tx, "p", 1, allow)
		if err != nil {
			return err
		}
		for n := range devices {
			name := imprint.ThingName(fmt.Sprintf("t%d", n))
			err := putDevice(tx, n*256, name, "p")
			if err != nil {
				return err
			}
			err = more(tx, name)
			if err != nil {
				return err
			}
		}
		return nil
	})
	r := identity.NewResolver(store, nil)
	defer r.Close()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n = (n + 1) % devices
		who, err := r.Acquire(b.Context(), home, certID(n*256))
		if err != nil {
			b.Fatal(err)
		}
		r.Release(who)
	}
}

func BenchmarkAcquire(b *testing.B) {
	benchAcquire(b, func(imprint.Tx, imprint.ThingName) error { return nil })
}

// BenchmarkAcquireInGroup is BenchmarkAcquire for things in one group below two
// others, each with a policy.
func BenchmarkAcquireInGroup(b *testing.B) {
	benchAcquire(b, func(tx imprint.Tx, thing imprint.ThingName) error {
		err := putGroup(tx, "top")
		if err != nil {
			return err
		}
		err = putGroup(tx, "middle", "top")
		if err != nil {
			return err
		}
		for _, group := range []imprint.ThingGroupName{"top", "middle"} {
			err = attach(tx, home.ThingGroupARN(group), "p")
			if err != nil {
				return err
			}
		}
		return joinGroup(tx, thing, "leaf", "top", "middle")
	})
}

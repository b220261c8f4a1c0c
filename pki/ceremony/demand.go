package ceremony

import (
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys"
)

// held is what a record says of the time before the first key.
type held struct {
	machine, confirmed bool
	people             []person
	shares, unlocked   *line
	store              string
}

// before takes a line of that time.
func (v *verifier) before(l *line) error {
	switch l.Step {
	case stepMachine:
		v.held.machine, v.report.Networks = true, l.Networks
	case stepPerson:
		v.held.people = append(v.held.people, person{l.Name, l.Role})
		v.report.People = append(v.report.People, l.Name+", "+l.Role)
	case stepConfirmed:
		if l.ScriptID != v.report.ScriptID {
			return v.fault("another script was confirmed than the one of the record")
		}
		v.held.confirmed = true
	case stepShares:
		v.held.shares = l
		v.report.Set, v.report.Threshold, v.report.Total = l.Set, l.Threshold, l.Total
	case stepUnlocked:
		v.held.unlocked = l
		v.report.Set, v.report.Threshold = l.Set, l.Threshold
	case stepStore:
		v.held.store, v.report.Store = l.Store, l.Store
	}
	return nil
}

// demand wants all that the script asks for to have been done before the first key is there:
// whoever has the key of the first CA can write a record by himself, but not one from which
// the others are missing.
func (v *verifier) demand() error {
	missing := func(what string) error { return v.fault("before this line is missing %s", what) }
	switch {
	case !v.held.machine:
		return missing("the machine with its networks")
	case !slices.Equal(v.held.people, v.script.Person):
		return missing("a person of the script, or there is another one")
	case !v.held.confirmed:
		return missing("that the script was confirmed")
	}
	k := v.script.Keys
	if k.Store != "" {
		store, err := keys.ParseURI(k.Store)
		if err != nil || v.held.store != store.String() || v.held.shares != nil || v.held.unlocked != nil {
			return missing("the store of the script, or there is another one")
		}
		return nil
	}
	handed, given := v.held.shares, v.held.unlocked
	switch {
	case v.held.store != "":
		return v.fault("the keys were in %s, and the script has them sealed by shares", imprint.Excerpt(v.held.store))
	case given == nil:
		return missing("that shares were given")
	case k.Existing != (handed == nil):
		return missing("that shares were handed out, or the script says that they were before")
	case handed != nil && (handed.Threshold != k.Threshold || handed.Total != k.Shares || !slices.Equal(handed.Holders, k.Holders)):
		return v.fault("the shares weren't handed out as the script says")
	case handed != nil && (given.Set != handed.Set || given.Threshold != handed.Threshold):
		return v.fault("other shares were given than those that were handed out")
	}
	numbers := slices.Compact(slices.Sorted(slices.Values(given.Given)))
	if given.Threshold < 2 || len(numbers) < given.Threshold || numbers[0] < 1 || handed != nil && numbers[len(numbers)-1] > handed.Total {
		return v.fault("%d shares were given, and %d are needed", len(numbers), given.Threshold)
	}
	return nil
}

// Package rollover answers who would fail if a CA ended today, plans how its devices move
// to another one, and shows how far they are. docs/rollover.md is its manual.
//
//	planner := rollover.New(rollover.Options{Store: store, Clock: time.Now, Connected: connected})
//	answer, err := planner.Rehearse(ctx, rollover.Question{Tenant: tenant, From: "line7", To: "line8", Limit: 100})
//
// A CA is any certificate of an authority or of a registered CA. What ends with it is every
// certificate whose chains all go through it: one that a second certificate of the same name
// and key carries, such as a cross-certificate, goes on. A device that is registered goes on
// connecting to Imprint, as to AWS IoT Core, whatever becomes of its CA: it is known by the
// bytes of its certificate. "Fails" means: it is refused where chains are looked at, can't
// be registered any more, and can't get its next certificate.
//
// What it promises: the registry is read page by page, so memory doesn't grow with the
// fleet; each device counts once, at the oldest of its certificates that fail; what was
// seen while a plan is there is on disk within a second or two of the connection.
//
// What it does not do: it changes nothing but its own plans. A kill may lose the sightings
// of the last second: they come again with the device.
package rollover

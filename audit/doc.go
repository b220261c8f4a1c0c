// Package audit looks through a tenant's registry for what endangers its fleet, as
// AWS IoT Device Defender's audits do, by their names of the checks, and by some of
// our own, whose names begin with IMPRINT_.
//
//	auditor, err := audit.New(ctx, store, clock, audit.Options{})
//	task, err := auditor.Start(ctx, imprint.AuditTask{Tenant: tenant, Type: imprint.AuditOnDemand}, checks)
//	...
//	auditor.Close()
//
// What it promises: an audit reads the registry page by page, each page in a
// transaction of its own that lasts milliseconds, rests as long as it reads, and has
// a page and the findings of it in memory, whatever the number of things. Findings
// and progress are in the store: an audit that a stop of the server interrupts goes
// on at the next start with the checks that weren't over, from their beginning, and
// says so; one that is interrupted again and again fails. Canceling ends it at the
// next page. Findings are bounded: of one check in one audit, of a tenant, and in
// time.
//
// What is found can be mitigated: StartMitigation applies actions to findings. What they
// change is in one transaction with what came of them, so that each is done at most
// once, whatever is killed.
//
// What it does not do: an audit changes nothing but its own rows. A finding names what a
// person can type. It fetches nothing: revocation lists are those that were imported, and
// files that the operator puts into a directory. A registry that changes during an audit is
// seen as each page finds it.
//
// Sources: AWS IoT Device Defender developer guide, "Audit checks" and "Audit
// commands"; AWS IoT API reference, StartOnDemandAuditTask and
// StartAuditMitigationActionsTask with their neighbours.
package audit

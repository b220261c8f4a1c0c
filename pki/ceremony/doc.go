// Package ceremony makes roots and intermediates on a machine without a network, by a
// script that was written and reviewed before, and leaves a record that anybody can check.
//
//	script, err := ceremony.ReadScript("root.toml", profiles)
//	result, err := ceremony.Run(ctx, ceremony.Config{Script: script, Out: "out", Clock: time.Now, People: people})
//	...
//	report, err := ceremony.Verify(record, nil)
//
// The keys are in an HSM, or in files that are sealed by a key of which each holder has a
// share: any so many of them open the files, fewer learn nothing (Shamir's secret sharing).
// That key is in memory during a ceremony alone.
//
// What it promises: a script with a fault makes nothing; a ceremony that ends early leaves
// no file, and its keys in memory are overwritten where Go lets us; nothing that is there is
// overwritten; what a profile forbids isn't signed (package pki's two steps, with the record
// as their journal); whoever changes, takes out, adds or moves a line of the record is
// found, and Verify names the first such line. It opens no network connection.
//
// What it does not do: it can't tell whether the machine is honest, nor what becomes of
// shares that were handed out.
package ceremony

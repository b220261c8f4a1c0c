// Package advise says by which flow devices should come to their identity. It asks
// what the device can hold, what its manufacturer can do, who runs the PKI, who owns
// the accounts and whether an installer is there, and answers with flows, reasons,
// what was ruled out, and commands:
//
//	answers := advise.Answers{DeviceKey: advise.UniqueKey, Manufacturer: advise.SignsCSRs,
//		PKI: advise.OwnCA, Accounts: advise.OneAccount, Installer: advise.NoInstaller}
//	advice, err := advise.For(answers)
//	fmt.Println(advice.Flows[0].Title) // just-in-time provisioning (JITP)
//
// What it promises: the same answers give the same advice; every combination has at
// least one flow; no flow is given whose needs the answers exclude; the commands of a
// flow run as they are written, one after the other in a POSIX shell, against a server of
// this build, where the files stand that the flow names. docs/choosing.md is rendered from
// the same tables.
//
// What it does not do: I/O of any kind, and asking: that is the caller's.
//
// Sources: "Device manufacturing and provisioning with X.509 certificates in AWS IoT
// Core" (AWS whitepaper) and the provisioning chapter of its developer guide, as far as
// the flows go; docs/ of this project for what differs.
package advise

//go:generate go run ../internal/choosingdoc -out ../docs/choosing.md

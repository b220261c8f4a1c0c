// Package imprint is the domain of Imprint: a self-hosted service that gives
// every device of a fleet its own X.509 identity and takes it to a running,
// mutually authenticated MQTT connection, wire-compatible with AWS IoT Core.
//
// The package holds the nouns (Tenant, Certificate, CACertificate, Thing,
// Policy, ProvisioningTemplate, Attempt, Event), their typed names and legal
// state changes, the one Error type with the one table that maps its codes to
// AWS exceptions, HTTP statuses, MQTT reason codes and hints, and the
// interfaces (Store, Tx) that flows need from keepers. It imports the standard
// library only and nothing of the project; every other package may import it.
//
// What it promises: a value of a name type that came out of a Parse function is
// legal; a status reached through a method of Certificate or CACertificate is
// reachable on AWS IoT Core; every Error code stands in the table.
//
// What it does not do: no I/O, no clock, no randomness.
package imprint

//go:generate go run ./internal/errordoc -out docs/errors.md

// Package test holds the whole-system tests of Imprint. They start the built
// program as a server process of their own and drive it with clients that know
// nothing of it: the AWS CLI, AWS's Go SDK, openssl, mosquitto_pub,
// mosquitto_sub, and Eclipse Paho for MQTT 5.
//
//	go test ./test/                       # skips what needs a missing program
//	CI=true CGO_ENABLED=1 go test ./test/ # fails instead, server with -race
//
// The program is built once a run, with the race detector where cgo is on;
// IMPRINT_TEST_PROGRAM names one that is built already, such as a release.
// Every test has a server in a temporary directory, on ports of its own of the
// loopback interface; the servers' logs must hold no race, no panic and no
// secret. Tests wait for events, not for time.
//
// What they don't prove: speed, and anything that needs more than one machine.
// Refusal rows bind clients to addresses such as 127.0.1.7, as Linux allows;
// elsewhere those addresses must be added to the loopback interface.
package test

// Package test holds the whole-system tests of Imprint. They start the built
// program as a server process of their own and drive it with clients that know
// nothing of it: the AWS CLI, AWS's Go SDK, AWS's device SDK for Node (js/),
// openssl, mosquitto_pub, mosquitto_sub, and Eclipse Paho for MQTT 3.1.1 and 5.
//
//	go test ./test/                       # skips what needs a missing program
//	CI=true CGO_ENABLED=1 go test ./test/ # fails instead, server with -race
//
// The program is built once a run, with the race detector where cgo is on;
// IMPRINT_TEST_PROGRAM names one that is built already, such as a release.
// Every test has a server in a temporary directory, on ports of its own of the
// loopback interface; subtests share it, and those of the broker have two tenants
// with the same client ids and topics. The servers' logs must hold no race, no
// panic and no secret. Tests wait for events, not for time.
//
// What the broker does with sessions, retained messages and subscriptions is
// compared with Debian's mosquitto: random plays of several clients are performed
// on both (oracle_test.go, with the table of what may differ). A play that once
// looked different is kept in testdata/plays:
//
//	go test ./test/ -run RandomPlays -rapid.checks=2000 # as many as fit into the time
//	go test ./test/ -run RandomPlays -rapid.seed=N      # one again
//
// A client of their own (wire_test.go) only does what no library can be made to
// do: keep acknowledgements back, break rules, be cut at a byte. The proxy of
// proxy_test.go is the bad network between devices and the server.
//
// What they don't prove: speed, and anything that needs more than one machine.
// Refusal rows bind clients to addresses such as 127.0.1.7, as Linux allows;
// elsewhere those addresses must be added to the loopback interface.
package test

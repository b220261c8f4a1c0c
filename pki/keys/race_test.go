//go:build race

package keys_test

// withRace says that the race detector looks on; the helper is then built with it too.
const withRace = true

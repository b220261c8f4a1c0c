//go:build !race

package keys_test

const withRace = false

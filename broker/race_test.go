//go:build race

package broker_test

// raced is what the race detector adds to a message: sync.Pool then drops some of
// what is put into it.
const raced = 1

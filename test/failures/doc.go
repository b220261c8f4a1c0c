// Package failures is the table of the ways in which a device fails to get in, or
// to get on, and of what the trace says about each. The tests of the whole system
// make every one real and compare (test TestTheTraceNamesEveryFailureAndItsFix), and
// docs/failures.md is made of it, so that page, table and program can't disagree.
//
// A row that no test makes real, or that a test makes and the table lacks, fails the
// test.
package failures

//go:generate go run ../../internal/failuresdoc -out ../../docs/failures.md

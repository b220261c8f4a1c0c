//go:build pkcs11 && cgo && !windows && !linux

package main

import "golang.org/x/sys/unix"

// redirect makes descriptor to another name of descriptor from.
func redirect(from, to int) error { return unix.Dup2(from, to) }

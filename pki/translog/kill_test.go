//go:build unix

package translog_test

func killChild() {}

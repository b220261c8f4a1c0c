//go:build !awskms

package keys_test

// withKMS says that this build has AWS KMS.
const withKMS = false

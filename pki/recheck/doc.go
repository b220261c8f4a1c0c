// Package recheck looks at a certificate that was issued as a stranger would, who has its
// bytes, the certificate of its CA, the record of its signature and the rules of its
// profile, as they were recorded when it was made:
//
//	rules, err := recheck.ParseRules(recorded)
//	problems := recheck.Certificate(der, signer, issuance, rules)
//
// It shares no code with what issues: it doesn't import package pki, reads the DER by itself,
// and has each rule a second time. What both use is the standard library, cryptobyte and
// zlint, whose lints it runs anew, by a choice of its own. So a mistake in the path that
// signs, or rules that it didn't keep, don't hide themselves.
//
// What it checks: the encoding (RFC 5280 section 4.1), the serial number, the algorithms, the
// issuer, the validity within the CA's, the profile's and the record's, the subject and the names
// by the profile's rules, the key's kind and known weaknesses, each extension's presence,
// criticality and value by the profile's kind, what the CA permits (path length, usages, names:
// crypto/x509's verification, and directories, which that doesn't know), and the lints.
//
// What it doesn't do: it doesn't look at revocation, nor at the list of known keys, nor whether a
// key has other certificates.
package recheck

package attempts

import (
	"encoding/hex"
	"math/big"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// maxSerialDigits bounds what is taken for a serial number: RFC 5280 allows 20
// octets, some CAs use more.
const maxSerialDigits = 128

// formsOf gives the texts that what a person pasted may be recorded under, the
// most literal first; at least one.
func formsOf(match string) []string {
	match = strings.TrimSpace(match)
	forms := []string{match}
	add := func(form string) {
		if form != "" && !slices.Contains(forms, form) {
			forms = append(forms, form)
		}
	}
	if _, resource, err := imprint.ParseARN(match); err == nil {
		if _, name, found := strings.Cut(resource, "/"); found {
			match = name
			add(name)
		}
	}
	if id, err := imprint.ParseCertificateID(fingerprint(match)); err == nil {
		add(string(id))
		return forms
	}
	if id, err := uuid.Parse(match); err == nil && strings.Contains(match, "-") {
		// What an HTTP answer calls its trace id.
		add(hex.EncodeToString(id[:]))
		return forms
	}
	for _, serial := range serialForms(match) {
		add(serial)
	}
	return forms
}

// fingerprint reads a SHA-256 as `openssl x509 -fingerprint -sha256` prints it (sha256
// Fingerprint=AA:BB:...), and leaves other words alone but for their colons.
func fingerprint(text string) string {
	const label = "sha256 fingerprint="
	if len(text) > len(label) && strings.EqualFold(text[:len(label)], label) {
		text = text[len(label):]
	}
	return strings.ReplaceAll(text, ":", "")
}

// serialForms reads a serial number as `openssl x509 -serial` (serial=0A1B),
// `openssl x509 -text` (0a:1b, or 4096 (0x1000)) and Go (2587) print it. The
// stored form is lowercase hex without leading zeros.
func serialForms(text string) []string {
	text = strings.ToLower(text)
	text = strings.TrimPrefix(text, "serial=")
	if before, inside, found := strings.Cut(text, " (0x"); found && isHex(before) {
		text = "0x" + strings.TrimSuffix(inside, ")")
	}
	hex, prefixed := strings.CutPrefix(strings.ReplaceAll(text, ":", ""), "0x")
	if len(hex) > maxSerialDigits || !isHex(hex) {
		return nil
	}
	forms := []string{canonical(hex)}
	decimal, ok := new(big.Int).SetString(text, 10)
	if ok && !prefixed {
		forms = append(forms, decimal.Text(16))
	}
	return forms
}

func canonical(hex string) string {
	hex = strings.TrimLeft(hex, "0")
	if hex == "" {
		return "0"
	}
	return hex
}

func isHex(s string) bool {
	for i := range len(s) {
		if !strings.Contains("0123456789abcdef", s[i:i+1]) {
			return false
		}
	}
	return s != ""
}

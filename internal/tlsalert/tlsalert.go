// Package tlsalert finds the alerts by which TLS handshakes die (RFC 8446 section 6), which
// crypto/tls tells of in words alone, or not at all.
package tlsalert

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// Received finds the number of the alert that the other side sent, which crypto/tls has in
// words alone; 0: it sent none.
func Received(err error) uint8 {
	var network *net.OpError
	if !errors.As(err, &network) || network.Op != "remote error" {
		return 0
	}
	words := network.Err.Error()
	for number := range 256 {
		if tls.AlertError(number).Error() == words {
			return uint8(number)
		}
	}
	return 0
}

// Plain finds an alert in the clear at the end of what one side sent in the
// handshake, and gives its number; 0: there is none. A TLS 1.3 client that won't go on
// after the server's certificate has no keys of its own in use yet: OpenSSL sends its
// alert without encryption, which crypto/tls takes for a broken record. What is said
// about a certificate is never close_notify, which is 0.
func Plain(sent []byte) uint8 {
	const size = 7 // type 21, a version of two bytes, a length of 2, level, number
	if len(sent) < size {
		return 0
	}
	record := sent[len(sent)-size:]
	if record[0] != 21 || record[1] != 3 || record[3] != 0 || record[4] != 2 || record[5] != 1 && record[5] != 2 {
		return 0
	}
	return record[6]
}

// names are those of RFC 8446 section 6, and of TLS 1.2 where that has more.
var names = map[uint8]string{
	10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow", 30: "decompression_failure",
	40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired",
	46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
	60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback",
	90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension", 111: "certificate_unobtainable",
	112: "unrecognized_name", 113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
	116: "certificate_required", 120: "no_application_protocol", 121: "ech_required",
}

// Text names an alert.
func Text(number uint8) string {
	name := names[number]
	if name == "" {
		name = "unknown"
	}
	return fmt.Sprintf("TLS alert %d (%s)", number, name)
}

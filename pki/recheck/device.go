package recheck

import (
	"crypto/x509"
	"slices"
	"strings"
)

// maxDevice is how long a device's certificate may be: devices read it into small buffers.
const maxDevice = 4096

// devices checks what makes a certificate good for devices: the rules of docs/ca.md that no
// RFC has.
func (i *inspection) devices(der []byte) {
	kind := i.rules.Kind
	if kind == kindClaim && i.c.notAfter.Year() == 9999 {
		i.wrong("it is a claim certificate without an end")
	}
	if !slices.Contains([]string{kindOperational, kindIDevID, kindClaim}, kind) {
		return
	}
	if len(der) > maxDevice {
		i.wrong("it has %d bytes, more than the %d of a device's", len(der), maxDevice)
	}
	names, _ := readName(i.c.subject) // subject tells of one that can't be read
	for _, a := range names {
		if (a.id == attributes["CN"] || a.id == attributes["SERIALNUMBER"]) && strings.ContainsAny(a.value, "#+${}") {
			i.wrong("its subject's %s has a character that is a wildcard or a variable in policies", a.id)
		}
	}
}

// places checks that what a verifier asks for is found without another certificate (RFC 5280
// section 8), and that no usage lifts all limits.
func (i *inspection) places(leaf *x509.Certificate) {
	for _, place := range slices.Concat(leaf.CRLDistributionPoints, leaf.OCSPServer, leaf.IssuingCertificateURL) {
		if !strings.HasPrefix(strings.ToLower(place), "http://") {
			i.wrong("it names %q, which isn't of plain HTTP", place)
		}
	}
	if slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		i.wrong("its extended key usages have any")
	}
}

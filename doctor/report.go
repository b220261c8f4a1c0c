package doctor

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Verdict is what a check came to.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // it works here, or may; something else may not
	Failed  Verdict = "failed"  // the device can't work like this
	Skipped Verdict = "skipped" // the detail says why
)

// Check is one thing that was looked at.
type Check struct {
	Name    string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	// Code is empty unless something is to be said; Codes lists all.
	Code   Code   `json:"code,omitempty"`
	Detail string `json:"detail"`
	// Fix is what a person can do; never empty when the check failed.
	Fix string `json:"fix,omitempty"`
}

// Report is what an examination found.
type Report struct {
	Endpoint      string `json:"endpoint"`
	CertificateID string `json:"certificateId,omitempty"` // as AWS IoT Core names it
	ClientID      string `json:"clientId,omitempty"`
	// Healthy says that nothing failed.
	Healthy bool    `json:"healthy"`
	Checks  []Check `json:"checks"`
}

// Count gives how many checks have a verdict.
func (r *Report) Count(v Verdict) int {
	n := 0
	for _, c := range r.Checks {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// checkNames are all checks in their order, with what each looks at.
var checkNames = []struct{ name, what string }{
	{"file.certificate", "the certificate's file: readable, PEM, nothing else in it"},
	{"file.key", "the private key's file: readable, a private key, not encrypted"},
	{"file.ca", "the file of the server's root"},
	{"certificate.key", "the key belongs to the certificate"},
	{"certificate.chain", "the certificates that the device sends, the device's own first"},
	{"certificate.algorithm", "kind and size of the key, algorithm of the signature"},
	{"certificate.validity", "the certificate's validity by this machine's clock"},
	{"certificate.usage", "a device's certificate: no CA, good for TLS clients"},
	{"clientid", "the MQTT client id"},
	{"endpoint", "the endpoint's name and port"},
	{"dns", "the name has addresses, of IPv4 or IPv6"},
	{"tcp", "the port can be connected to, over each kind of address"},
	{"tls", "a handshake as the device does it"},
	{"tls.server", "the server's certificate leads to a root of the file, and is valid"},
	{"tls.name", "the server's certificate is for the endpoint's name"},
	{"tls.servername", "the same without the server name (SNI) in the hello"},
	{"tls.versions", "TLS 1.2 and TLS 1.3, each alone"},
	{"tls.client", "the server asks for the device's certificate, and takes it"},
	{"tls.alpn", "the application protocol, which says on port 443 and 8443 what is spoken"},
	{"clock", "this machine's clock against the server's"},
	{"certificate.validity.server", "the certificate's validity by the server's clock"},
	{"mqtt.connect.3", "CONNECT of MQTT 3.1.1, and its answer"},
	{"mqtt.connect.5", "CONNECT of MQTT 5, and its answer"},
	{"mqtt.ping", "PINGREQ, and that the connection stays"},
	{"mqtt.subscribe", "SUBSCRIBE to the filter that was given"},
	{"mqtt.publish", "PUBLISH to the topic that was given"},
	{"mqtt.receive", "the message comes back, where filter and topic match"},
}

// Names lists the checks in their order, with what each looks at.
func Names() [][2]string {
	list := make([][2]string, 0, len(checkNames))
	for _, c := range checkNames {
		list = append(list, [2]string{c.name, c.what})
	}
	return list
}

// tell adds a check and lets the caller see it.
func (x *examination) tell(c Check) {
	if c.Fix == "" && c.Code != "" && (c.Verdict == Failed || c.Verdict == Warning) {
		c.Fix = c.Code.description().Fix
	}
	x.report.Checks = append(x.report.Checks, c)
	if x.opts.Tell != nil {
		x.opts.Tell(c)
	}
}

func (x *examination) ok(name, format string, args ...any) {
	x.tell(Check{Name: name, Verdict: OK, Detail: fmt.Sprintf(format, args...)})
}

func (x *examination) skip(name, format string, args ...any) {
	x.tell(Check{Name: name, Verdict: Skipped, Detail: fmt.Sprintf(format, args...)})
}

// skipRest skips every check up to a name, that one included; all of the rest for
// an empty one.
func (x *examination) skipRest(last, why string) {
	told := map[string]bool{}
	for _, c := range x.report.Checks {
		told[c.Name] = true
	}
	for _, c := range checkNames {
		if !told[c.name] {
			x.skip(c.name, "%s", why)
		}
		if c.name == last {
			return
		}
	}
}

// finding is what is wrong, before it is the verdict of a check.
type finding struct {
	code   Code
	detail string
	fix    string // empty: the code's
}

func found(code Code, format string, args ...any) *finding {
	return &finding{code: code, detail: fmt.Sprintf(format, args...)}
}

func (f *finding) with(format string, args ...any) *finding {
	f.fix = fmt.Sprintf(format, args...)
	return f
}

func (f *finding) as(name string, v Verdict) Check {
	return Check{Name: name, Verdict: v, Code: f.code, Detail: f.detail, Fix: f.fix}
}

// maxShown bounds text of a stranger in a detail, in bytes.
const maxShown = 200

// shown makes text of a stranger fit for a line of a terminal.
func shown(s string) string {
	var b strings.Builder
	for i, r := range s {
		if b.Len() >= maxShown {
			b.WriteString("...")
			break
		}
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			_, size := utf8.DecodeRuneInString(s[i:])
			for _, c := range []byte(s[i : i+size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// word makes a word of a POSIX shell.
func word(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:@%+,=", r))
	}) < 0
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

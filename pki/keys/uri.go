package keys

import (
	"encoding/hex"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// Schemes of URIs.
const (
	schemeFile   = "file"
	schemePKCS11 = "pkcs11"
	schemeTPM    = "tpm"
	schemeAWSKMS = "awskms"
)

// maxURI bounds a URI. A token's four attributes, label, id and three paths take a
// tenth of it.
const maxURI = 4096

// URI names a key, or the place where keys are. Only ParseURI and a Store make one,
// so every URI but the zero one is valid. It holds no secret and may be printed and
// compared.
//
//	file:/var/lib/imprint/pki/device-ca.sealed
//	pkcs11:token=imprint;object=root;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/imprint/pin
//	tpm:handle=0x81008001?device=/dev/tpmrm0
//	tpm:file=/etc/imprint/root.tss?device=unix:/run/swtpm.sock&auth-source=file:/etc/imprint/auth
//	awskms:key-id=alias/imprint-root;region=eu-central-1
//
// A pkcs11: URI is one of RFC 7512 with the path attributes token, manufacturer,
// model, serial, slot-id, object, id and type (private, if at all), and the query
// attributes module-path and pin-source. All others are refused, pin-value above all.
// The other schemes have the same form: what names the key stands in the path, how to
// get at it in the query. A tpm: URI without a device means /dev/tpmrm0. PINs and
// passwords stand in a file, or in an environment variable: pin-source=env:IMPRINT_HSM_PIN.
type URI struct {
	scheme string
	file   string // of file: and tpm:file=
	token  tokenAddress
	object string // label
	id     string // bytes
	// Of tpm:. A handle of 0 means that a file is named.
	handle     uint32
	device     string
	authSource string
	// Of awskms:
	keyID, region, endpoint string
}

// tokenAddress says where a token is and how to log in.
type tokenAddress struct {
	module                             string
	label, manufacturer, model, serial string
	slot                               string // a number, or empty
	pinSource                          string
}

// ParseURI reads a URI. Errors have CodeInvalidRequest and a hint, and never repeat a
// PIN that somebody put into it.
func ParseURI(text string) (URI, error) {
	if len(text) > maxURI {
		return URI{}, badURI("it is longer than %d bytes", maxURI)
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return URI{}, badURI("byte %d isn't printable ASCII", i+1).WithHint("Write other characters and spaces as %%XX, such as %%20 for a space.")
		}
	}
	scheme, rest, found := strings.Cut(text, ":")
	if !found {
		return URI{}, badURI("it has no scheme").WithHint("Begin it with file:, pkcs11:, tpm: or awskms:; docs/keys.md has examples.")
	}
	switch strings.ToLower(scheme) {
	case schemeFile:
		return parseFileURI(rest)
	case schemePKCS11:
		return parsePKCS11URI(rest)
	case schemeTPM:
		return parseTPMURI(rest)
	case schemeAWSKMS:
		return parseKMSURI(rest)
	}
	return URI{}, badURI("its scheme isn't file, pkcs11, tpm or awskms").WithHint("Begin it with file:, pkcs11:, tpm: or awskms:; docs/keys.md has examples.")
}

func badURI(format string, args ...any) *imprint.Error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "the key's URI isn't valid: "+format, args...).
		WithHint("docs/keys.md has the form of each URI and examples.")
}

// parseFileURI reads what follows file:.
func parseFileURI(rest string) (URI, error) {
	if strings.ContainsAny(rest, "?#") {
		return URI{}, badURI("a file: URI has no query")
	}
	name, err := absolutePath("file", rest)
	if err != nil {
		return URI{}, err
	}
	if !strings.HasSuffix(name, "/") && (!strings.HasSuffix(name, sealedSuffix) || path.Base(name) == sealedSuffix) {
		return URI{}, badURI("the file's name doesn't end in %s", sealedSuffix).
			WithHint("Sealed keys are called NAME%s. A URI that ends in a slash names a directory, to list its keys.", sealedSuffix)
	}
	return URI{scheme: schemeFile, file: name}, nil
}

// absolutePath reads the percent-encoded path of a file. It may end in a slash.
func absolutePath(what, text string) (string, error) {
	plain, err := unescape(text)
	if err != nil {
		return "", badURI("%s isn't percent-encoded as it should be", what)
	}
	// file:///path has an empty host.
	if after, ok := strings.CutPrefix(plain, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return "", badURI("%s names a host", what).WithHint("Files of other hosts can't be read: write file:/PATH.")
		}
		plain = after
	}
	if strings.ContainsRune(plain, 0) || !utf8.ValidString(plain) {
		return "", badURI("the path of %s has bytes that can't be in one", what)
	}
	if !path.IsAbs(plain) {
		return "", badURI("the path of %s isn't absolute", what).WithHint("Write the whole path, from the root: file:/etc/imprint/...")
	}
	clean := path.Clean(plain)
	if strings.HasSuffix(plain, "/") && clean != "/" {
		clean += "/"
	}
	return clean, nil
}

// attributes are those of a URI's path or query, by name.
type attributes map[string]string

// splitAttributes reads name=value pairs between separators and refuses names that
// aren't known, so that a typing error never makes a URI name more than was meant.
func splitAttributes(text, separator string, known ...string) (attributes, error) {
	found := attributes{}
	if text == "" {
		return found, nil
	}
	for pair := range strings.SplitSeq(text, separator) {
		name, value, whole := strings.Cut(pair, "=")
		if name == "pin-value" {
			return nil, badURI("it has a pin-value").WithHint("A PIN in a URI ends up in settings, logs and process lists. Put it into a file that only Imprint can read and write pin-source=file:/PATH.")
		}
		recognised := false
		for _, one := range known {
			recognised = recognised || name == one
		}
		if !recognised {
			return nil, badURI("it has an attribute%s that isn't known", printable(name)).WithHint("Here are allowed: %s.", strings.Join(known, ", "))
		}
		if !whole {
			return nil, badURI("its attribute %s has no value", name)
		}
		if _, twice := found[name]; twice {
			return nil, badURI("its attribute %s stands there twice", name)
		}
		plain, err := unescape(value)
		if err != nil {
			return nil, badURI("its attribute %s isn't percent-encoded as it should be", name)
		}
		if plain == "" {
			return nil, badURI("its attribute %s is empty", name)
		}
		if name != "id" && (!utf8.ValidString(plain) || strings.ContainsRune(plain, 0)) {
			return nil, badURI("its attribute %s isn't UTF-8 text", name)
		}
		found[name] = plain
	}
	return found, nil
}

// printable gives a name to be quoted. What isn't the form of one, such as a PIN after a
// forgotten equals sign, isn't repeated.
func printable(name string) string {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return ""
	}
	return " " + name
}

// unescape is url.PathUnescape: a plus sign is one.
func unescape(text string) (string, error) { return url.PathUnescape(text) }

// envPrefix marks a secret that stands in an environment variable.
const envPrefix = "env:"

// secretSource reads where a PIN or password is: file:/PATH or /PATH, or
// env:IMPRINT_NAME. Variables of other names reach the processes that Imprint starts.
func secretSource(name, text string) (string, error) {
	if variable, ok := strings.CutPrefix(text, envPrefix); ok {
		if !strings.HasPrefix(variable, ownVariables) || strings.Trim(variable, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return "", badURI("its %s names a variable that doesn't begin with %s, or has other characters than A-Z, 0-9 and _", name, ownVariables).
				WithHint("Variables of Imprint's own aren't given to the modules and programs that it starts: write %s=env:%sHSM_PIN, for example.", name, ownVariables)
		}
		return text, nil
	}
	if strings.HasPrefix(text, "|") {
		return "", badURI("its %s is a command", name).WithHint("Commands aren't run. Put the secret into a file and write %s=file:/PATH.", name)
	}
	text = strings.TrimPrefix(text, "file:")
	// The value was percent-decoded once with the attribute.
	if after, ok := strings.CutPrefix(text, "//"); ok {
		text = after
	}
	if !path.IsAbs(text) || strings.HasSuffix(text, "/") {
		return "", badURI("its %s names no file by its whole path", name).WithHint("Write %s=file:/PATH.", name)
	}
	return path.Clean(text), nil
}

func parsePKCS11URI(rest string) (URI, error) {
	front, query, _ := strings.Cut(rest, "?")
	named, err := splitAttributes(front, ";", "token", "manufacturer", "model", "serial", "slot-id", "object", "id", "type")
	if err != nil {
		return URI{}, err
	}
	access, err := splitAttributes(query, "&", "module-path", "pin-source")
	if err != nil {
		return URI{}, err
	}
	u := URI{scheme: schemePKCS11, object: named["object"], id: named["id"], token: tokenAddress{
		label: named["token"], manufacturer: named["manufacturer"], model: named["model"], serial: named["serial"], slot: named["slot-id"],
	}}
	if kind, given := named["type"]; given && kind != "private" {
		return URI{}, badURI("its type is %q, and a CA key is private", imprint.Excerpt(kind)).WithHint("Write type=private, or leave it out.")
	}
	if u.token.slot != "" {
		number, err := strconv.ParseUint(u.token.slot, 10, 32)
		if err != nil {
			return URI{}, badURI("its slot-id isn't a number of 32 bits").WithHint("Better name the token by token= or serial=: slots are numbered anew by some modules.")
		}
		u.token.slot = strconv.FormatUint(number, 10)
	}
	if len(u.id) > 255 || len(u.object) > 255 {
		return URI{}, badURI("its object or id is longer than 255 bytes")
	}
	for name, most := range map[string]int{"token": 32, "manufacturer": 32, "model": 16, "serial": 16} {
		if len(named[name]) > most {
			return URI{}, badURI("its %s is longer than %d bytes, which no token's is", name, most)
		}
		if strings.HasSuffix(named[name], " ") {
			return URI{}, badURI("its %s ends in a space, which tokens can't tell from none", name)
		}
	}
	if u.token.label+u.token.manufacturer+u.token.model+u.token.serial+u.token.slot == "" {
		return URI{}, badURI("it names no token").WithHint("Write token=LABEL, as `pkcs11-tool --module PATH --list-slots` shows it.")
	}
	u.token.module = access["module-path"]
	if u.token.module == "" {
		return URI{}, badURI("it has no module-path").WithHint("Write ?module-path=/PATH with the path of the vendor's library, such as /usr/lib/softhsm/libsofthsm2.so.")
	}
	if !path.IsAbs(u.token.module) || strings.HasSuffix(u.token.module, "/") {
		return URI{}, badURI("its module-path isn't the whole path of a file")
	}
	u.token.module = path.Clean(u.token.module)
	if source, given := access["pin-source"]; given {
		u.token.pinSource, err = secretSource("pin-source", source)
		if err != nil {
			return URI{}, err
		}
	}
	return u, nil
}

// sourceText gives a source as secretSource reads it.
func sourceText(source string) string {
	if strings.HasPrefix(source, envPrefix) {
		return source
	}
	return "file:" + source
}

// defaultTPM is the device with the kernel's resource manager.
const defaultTPM = "/dev/tpmrm0"

// unixPrefix marks a device that is a Unix socket.
const unixPrefix = "unix:"

// Persistent objects of a TPM's owner have these handles (TCG Registry of Reserved
// TPM 2.0 Handles and Localities, section 2.3.1).
const (
	minHandle = 0x81000000
	maxHandle = 0x817fffff
)

func parseTPMURI(rest string) (URI, error) {
	front, query, _ := strings.Cut(rest, "?")
	named, err := splitAttributes(front, ";", "handle", "file")
	if err != nil {
		return URI{}, err
	}
	access, err := splitAttributes(query, "&", "device", "auth-source")
	if err != nil {
		return URI{}, err
	}
	u := URI{scheme: schemeTPM, device: defaultTPM}
	handle, byHandle := named["handle"]
	file, byFile := named["file"]
	if byHandle && byFile {
		return URI{}, badURI("it names both a handle and a file")
	}
	if byHandle {
		digits, ok := strings.CutPrefix(strings.ToLower(handle), "0x")
		number, err := strconv.ParseUint(digits, 16, 32)
		if !ok || err != nil || number < minHandle || number > maxHandle {
			return URI{}, badURI("its handle isn't one of a persistent object").WithHint("Write it in hexadecimal, between 0x%x and 0x%x: handle=0x81008001. `tpm2_getcap handles-persistent` lists those that are taken.", minHandle, maxHandle)
		}
		u.handle = uint32(number)
	}
	if byFile {
		if !path.IsAbs(file) {
			return URI{}, badURI("its file isn't the whole path of one")
		}
		u.file = path.Clean(file)
		if strings.HasSuffix(file, "/") && u.file != "/" {
			u.file += "/"
		}
	}
	if device, given := access["device"]; given {
		socket, isSocket := strings.CutPrefix(device, unixPrefix)
		if !path.IsAbs(socket) || strings.HasSuffix(socket, "/") {
			return URI{}, badURI("its device is neither the path of one nor unix: and the path of a socket").WithHint("Write device=/dev/tpmrm0, or device=unix:/PATH for a software TPM.")
		}
		u.device = path.Clean(socket)
		if isSocket {
			u.device = unixPrefix + u.device
		}
	}
	if source, given := access["auth-source"]; given {
		u.authSource, err = secretSource("auth-source", source)
		if err != nil {
			return URI{}, err
		}
	}
	return u, nil
}

func parseKMSURI(rest string) (URI, error) {
	front, query, _ := strings.Cut(rest, "?")
	named, err := splitAttributes(front, ";", "key-id", "region")
	if err != nil {
		return URI{}, err
	}
	access, err := splitAttributes(query, "&", "endpoint")
	if err != nil {
		return URI{}, err
	}
	u := URI{scheme: schemeAWSKMS, keyID: named["key-id"], region: named["region"], endpoint: access["endpoint"]}
	for _, one := range []string{u.keyID, u.region} {
		for _, c := range one {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_/:", c)) {
				return URI{}, badURI("its key-id or region has a character that isn't allowed there")
			}
		}
	}
	if u.endpoint != "" {
		at, err := url.Parse(u.endpoint)
		if err != nil || at.Host == "" || at.User != nil || at.Scheme != "https" && at.Scheme != "http" || at.RawQuery != "" || at.Fragment != "" {
			return URI{}, badURI("its endpoint isn't an https URL without user, query and fragment")
		}
		if at.Scheme == "http" && at.Hostname() != "127.0.0.1" && at.Hostname() != "::1" && at.Hostname() != "localhost" {
			return URI{}, badURI("its endpoint is plain http on another machine").WithHint("Use https; http is for endpoints on this machine.")
		}
	}
	return u, nil
}

// String gives the URI in one canonical form, which ParseURI reads back to the same
// value.
func (u URI) String() string {
	var front, query []string
	add := func(to *[]string, name, value string) {
		if value != "" {
			*to = append(*to, name+"="+escape(value))
		}
	}
	switch u.scheme {
	case schemeFile:
		return schemeFile + ":" + escape(u.file)
	case schemePKCS11:
		add(&front, "token", u.token.label)
		add(&front, "manufacturer", u.token.manufacturer)
		add(&front, "model", u.token.model)
		add(&front, "serial", u.token.serial)
		add(&front, "slot-id", u.token.slot)
		add(&front, "object", u.object)
		if u.id != "" {
			front = append(front, "id="+escapeBytes(u.id))
		}
		add(&query, "module-path", u.token.module)
		if u.token.pinSource != "" {
			add(&query, "pin-source", sourceText(u.token.pinSource))
		}
	case schemeTPM:
		if u.handle != 0 {
			add(&front, "handle", "0x"+strconv.FormatUint(uint64(u.handle), 16))
		}
		add(&front, "file", u.file)
		if u.device != defaultTPM {
			add(&query, "device", u.device)
		}
		if u.authSource != "" {
			add(&query, "auth-source", sourceText(u.authSource))
		}
	case schemeAWSKMS:
		add(&front, "key-id", u.keyID)
		add(&front, "region", u.region)
		add(&query, "endpoint", u.endpoint)
	default:
		return ""
	}
	text := u.scheme + ":" + strings.Join(front, ";")
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	return text
}

// Scheme gives the kind of store: file, pkcs11, tpm or awskms.
func (u URI) Scheme() string { return u.scheme }

// escape encodes what isn't allowed in either part of a URI of RFC 7512.
func escape(text string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/:", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// escapeBytes encodes every byte, as RFC 7512 advises for id.
func escapeBytes(id string) string {
	var b strings.Builder
	for i := range len(id) {
		b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{id[i]})))
	}
	return b.String()
}

// sealName is the name of a sealed file's key, which its seal is bound to.
func sealName(file string) string {
	return strings.TrimSuffix(filepath.Base(file), sealedSuffix)
}

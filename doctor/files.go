package doctor

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf16"

	"github.com/imprint-iot/imprint/pki"
)

// maxFile bounds a file that is read.
const maxFile = 1 << 20

// maxCertificates bounds the certificates of one file that are looked at; the
// system's bundle has some 140.
const maxCertificates = 500

// readFile reads a bounded file.
func readFile(path string) ([]byte, *finding) {
	file, err := os.Open(path)
	if err != nil {
		return nil, found(FileUnreadable, "couldn't open %s: %v", path, cause(err)).with("ls -l %s", word(path))
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		return nil, found(FileUnreadable, "%s is a directory", path).with("ls -l %s", word(path))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return nil, found(FileUnreadable, "couldn't read %s: %v", path, cause(err)).with("ls -l %s", word(path))
	case len(data) > maxFile:
		return nil, found(FileTooLarge, "%s has more than %d bytes", path, maxFile)
	case len(bytes.TrimSpace(data)) == 0:
		return nil, found(FileEmpty, "%s is empty", path)
	}
	return data, nil
}

// cause leaves the path out, which the caller names.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// text is a file taken apart.
type text struct {
	path   string
	blocks []*pem.Block
	// remark is what is odd about a file that can be read, nil when nothing is.
	remark *finding
}

const beginMark = "-----BEGIN "

// parse takes a file apart. A finding beside blocks says what is wrong with a
// file whose content is known all the same.
func parse(path string, data []byte, kind string) (text, *finding) {
	t := text{path: path}
	if plain, wide := fromUTF16(data); wide {
		t.blocks, _ = blocks(plain)
		return t, found(FileNotPEM, "%s is UTF-16, as some editors save it", path).
			with("iconv -f UTF-16 -t ASCII %s > %s", word(path), word(path+".pem"))
	}
	bom := bytes.HasPrefix(data, []byte("\xef\xbb\xbf"))
	list, rest := blocks(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	t.blocks = list
	begun := strings.Count(string(data), beginMark)
	switch {
	case bom:
		return t, found(FileNotPEM, "%s begins with a byte order mark", path).with("sed -i '1s/^\\xEF\\xBB\\xBF//' %s", word(path))
	case begun == 0 && data[0] == 0x30:
		return t, t.fromDER(data, kind)
	case begun == 0:
		return t, found(FileNotPEM, "%s has no line that begins with %s", path, strings.TrimSpace(beginMark))
	case len(list) == 0 && bytes.Contains(data, []byte(`\n`)):
		return t, found(PEMEscaped, "the line breaks of %s are the two characters \\n", path).
			with(`printf '%%b' "$(cat %s)" > %s`, word(path), word(path+".pem"))
	case len(list) < begun:
		return t, found(PEMDamaged, "%s has %d BEGIN line(s) and %d block(s) that can be read", path, begun, len(list))
	case rest:
		t.remark = found(PEMExtraText, "there is text around the PEM blocks of %s", path)
		if kind == certificateBlock {
			t.remark.with("openssl x509 -in %s -out %s", word(path), word(path+".clean"))
		}
	case bytes.Contains(data, []byte("\r\n")):
		t.remark = found(PEMCRLF, "the lines of %s end with CR LF", path).with("tr -d '\\r' < %s > %s", word(path), word(path+".unix"))
	}
	return t, nil
}

// fromDER makes blocks of a DER file, so that the examination can go on.
func (t *text) fromDER(data []byte, kind string) *finding {
	_, err := x509.ParseCertificate(data)
	if err == nil {
		t.blocks = []*pem.Block{{Type: certificateBlock, Bytes: data}}
		return found(FileIsDER, "%s is a certificate in DER form", t.path).with("openssl x509 -inform DER -in %s -out %s", word(t.path), word(t.path+".pem"))
	}
	key, _ := parseKey(&pem.Block{Type: "PRIVATE KEY", Bytes: data})
	if key != nil {
		t.blocks = []*pem.Block{{Type: "PRIVATE KEY", Bytes: data}}
		return found(FileIsDER, "%s is a private key in DER form", t.path).with("openssl pkey -inform DER -in %s -out %s", word(t.path), word(t.path+".pem"))
	}
	if kind == certificateBlock {
		return found(FileIsDER, "%s looks like DER, and can't be read as a certificate", t.path).with("openssl x509 -inform DER -in %s -noout -text", word(t.path))
	}
	return found(FileIsDER, "%s looks like DER, and can't be read as a private key", t.path).with("openssl pkey -inform DER -in %s -noout -text_pub", word(t.path))
}

// blocks gives the PEM blocks, and whether there is anything else.
func blocks(data []byte) ([]*pem.Block, bool) {
	var list []*pem.Block
	extra := false
	for {
		start := bytes.Index(data, []byte(beginMark))
		if start < 0 {
			return list, extra || len(bytes.TrimSpace(data)) > 0
		}
		extra = extra || len(bytes.TrimSpace(data[:start])) > 0
		block, rest := pem.Decode(data[start:])
		if block == nil || len(list) > maxCertificates {
			return list, true
		}
		list = append(list, block)
		data = rest
	}
}

// fromUTF16 gives the ASCII text of a UTF-16 file.
func fromUTF16(data []byte) ([]byte, bool) {
	little := bytes.HasPrefix(data, []byte("\xff\xfe"))
	if !little && !bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, false
	}
	units := make([]uint16, 0, len(data)/2)
	for i := 2; i+1 < len(data); i += 2 {
		unit := uint16(data[i])<<8 | uint16(data[i+1])
		if little {
			unit = unit>>8 | unit<<8
		}
		units = append(units, unit)
	}
	return []byte(string(utf16.Decode(units))), true
}

const certificateBlock = "CERTIFICATE"

// isKey says whether a block is a private key.
func isKey(block *pem.Block) bool { return strings.HasSuffix(block.Type, "PRIVATE KEY") }

// certificates reads the certificates among the blocks; others say what else is
// there.
func (t text) certificates() (list []*x509.Certificate, others []string, wrong *finding) {
	for _, block := range t.blocks {
		switch block.Type {
		case certificateBlock, "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return list, others, found(CertificateUnreadable, "couldn't read certificate number %d of %s: %v", len(list)+1, t.path, err).
					with("openssl x509 -in %s -noout -text", word(t.path))
			}
			list = append(list, cert)
		default:
			others = append(others, block.Type)
		}
	}
	return list, others, nil
}

// files reads what the device is given.
func (x *examination) files() {
	key := x.certificateFile()
	x.keyFile(key)
	x.caFile()
}

// certificateFile gives the private key that stands in the certificate's file.
func (x *examination) certificateFile() *pem.Block {
	const name = "file.certificate"
	path := x.opts.Certificate
	data, wrong := readFile(path)
	if wrong != nil {
		x.tell(wrong.as(name, Failed))
		return nil
	}
	t, wrong := parse(path, data, certificateBlock)
	list, others, unreadable := t.certificates()
	x.chain = list[:min(len(list), 20)]
	var key *pem.Block
	for _, block := range t.blocks {
		if isKey(block) {
			key = block
		}
	}
	switch {
	case wrong != nil:
	case unreadable != nil:
		wrong = unreadable
	case len(list) == 0:
		wrong = misplaced(path, others, "certificate", "--cert")
	}
	switch {
	case wrong != nil:
		x.tell(wrong.as(name, Failed))
	case key != nil && x.opts.Key != path:
		x.tell(found(KeyInCertificateFile, "%s holds a private key beside the certificate", path).
			with("openssl x509 -in %s -out %s", word(path), word(path+".cert")).as(name, Warning))
	case t.remark != nil:
		x.tell(t.remark.as(name, Warning))
	default:
		x.ok(name, "%s holds %s", path, plural(len(list), "certificate"))
	}
	return key
}

// misplaced says what a file holds instead.
func misplaced(path string, types []string, want, option string) *finding {
	if len(types) == 0 {
		return found(FileNotPEM, "%s holds no %s", path, want)
	}
	got := shown(types[0])
	what := map[string]string{
		certificateBlock: "a certificate", "PUBLIC KEY": "a public key", "RSA PUBLIC KEY": "a public key",
		"CERTIFICATE REQUEST": "a signing request", "NEW CERTIFICATE REQUEST": "a signing request",
		"EC PARAMETERS": "only the parameters of a key",
	}[got]
	switch {
	case strings.HasSuffix(got, "PRIVATE KEY"):
		what = "a private key"
	case what == "":
		what = fmt.Sprintf("%q", got)
	}
	f := found(WrongFile, "%s holds %s, no %s", path, what, want)
	switch {
	case what == "a signing request":
		return f.with("Let the CA sign it, and give the certificate that comes back with %s.", option)
	case what == "a private key" || what == "a certificate":
		return f.with("--cert takes the certificate and --key the private key: look whether they are exchanged.")
	}
	return f.with("Give the file of the %s with %s.", want, option)
}

func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// parseKey reads a private key that isn't encrypted. Its errors hold nothing of
// the key.
func parseKey(block *pem.Block) (crypto.Signer, error) {
	for _, read := range []func([]byte) (any, error){
		func(der []byte) (any, error) { return x509.ParsePKCS8PrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
	} {
		key, err := read(block.Bytes)
		if err != nil {
			continue
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("it is a key that can't sign")
		}
		return signer, nil
	}
	return nil, errors.New("it is damaged, or of a kind that isn't known here")
}

// keyFile reads the private key and puts it beside the chain. Inside is the key
// that stands in the certificate's file.
func (x *examination) keyFile(inside *pem.Block) {
	const name = "file.key"
	path := x.opts.Key
	data, wrong := readFile(path)
	if wrong != nil {
		x.tell(wrong.as(name, Failed))
		return
	}
	t, wrong := parse(path, data, "PRIVATE KEY")
	var block *pem.Block
	var others []string
	for _, b := range t.blocks {
		if isKey(b) && block == nil {
			block = b
		} else if b.Type != "EC PARAMETERS" {
			others = append(others, b.Type)
		}
	}
	if block == nil {
		switch {
		case wrong != nil:
		case inside != nil && len(x.chain) > 0:
			wrong = found(WrongFile, "%s holds no private key, and %s does", path, x.opts.Certificate).with("--key %s", word(x.opts.Certificate))
		default:
			wrong = misplaced(path, others, "private key", "--key")
		}
		x.tell(wrong.as(name, Failed))
		return
	}
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		x.tell(found(KeyEncrypted, "%s is encrypted with a passphrase", path).with("openssl pkey -in %s -out %s", word(path), word(path+".plain")).as(name, Failed))
		return
	}
	key, err := parseKey(block)
	if err != nil {
		x.tell(found(KeyUnreadable, "couldn't read the key of %s: %v", path, err).with("openssl pkey -in %s -noout -text_pub", word(path)).as(name, Failed))
		return
	}
	x.pair = &tls.Certificate{PrivateKey: key}
	switch {
	case wrong != nil:
		x.tell(wrong.as(name, Failed))
	case t.remark != nil && t.remark.code != PEMExtraText:
		x.tell(t.remark.as(name, Warning))
	default:
		x.ok(name, "%s holds a private key, %s", path, describeKey(key.Public()))
	}
}

// caFile reads the server's roots.
func (x *examination) caFile() {
	const name = "file.ca"
	path := x.opts.CA
	if path == "" {
		x.ok(name, "none was given: the roots of this machine's system are used, which a device has only if they are given to it")
		return
	}
	data, wrong := readFile(path)
	if wrong != nil {
		x.tell(wrong.as(name, Failed))
		return
	}
	t, wrong := parse(path, data, certificateBlock)
	list, others, unreadable := t.certificates()
	x.roots = list
	switch {
	case wrong != nil:
	case unreadable != nil:
		wrong = unreadable
	case len(list) == 0:
		wrong = misplaced(path, others, "certificate", "--ca")
	}
	if wrong != nil {
		x.tell(wrong.as(name, Failed))
		return
	}
	selfSigned := 0
	for _, cert := range list {
		if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			selfSigned++
		}
	}
	switch {
	case selfSigned == 0:
		x.tell(found(RootNotSelfSigned, "%s holds %s, none of them a root; the first is %q, issued by %q", path, plural(len(list), "certificate"),
			pki.SubjectText(list[0].RawSubject), pki.SubjectText(list[0].RawIssuer)).as(name, Warning))
	case t.remark != nil && t.remark.code == PEMCRLF:
		x.tell(t.remark.as(name, Warning))
	default:
		x.ok(name, "%s holds %s: %s", path, plural(len(list), "certificate"), subjects(list, 3))
	}
}

// subjects names the first n certificates.
func subjects(list []*x509.Certificate, n int) string {
	var names []string
	for _, cert := range list[:min(len(list), n)] {
		names = append(names, fmt.Sprintf("%q", pki.SubjectText(cert.RawSubject)))
	}
	if len(list) > n {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// fingerprint is the start of the SHA-256 of a public key.
func fingerprint(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "?"
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8])
}

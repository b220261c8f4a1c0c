package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/acmpca"
	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// authorityShown is a certificate authority as the API gives it. Times are seconds since
// 1970.
type authorityShown struct {
	ID               string   `json:"id"`
	ARN              string   `json:"arn"`
	Name             string   `json:"name,omitempty"`
	Type             string   `json:"type"`
	Status           string   `json:"status"`
	Subject          string   `json:"subject"`
	Parent           string   `json:"parent,omitempty"`
	KeyAlgorithm     string   `json:"keyAlgorithm"`
	SigningAlgorithm string   `json:"signingAlgorithm"`
	Key              string   `json:"key,omitempty"`
	CertificateID    string   `json:"certificateId,omitempty"`
	Serial           string   `json:"serial,omitempty"`
	Certificate      string   `json:"certificate,omitempty"`
	Chain            string   `json:"chain,omitempty"`
	NotBefore        float64  `json:"notBefore,omitempty"`
	NotAfter         float64  `json:"notAfter,omitempty"`
	Profiles         []string `json:"profiles"`
	SigningEnds      float64  `json:"signingEnds,omitempty"`
	Revocation       struct {
		CRL       bool   `json:"crl"`
		CRLDays   int    `json:"crlDays"`
		CRLShards int    `json:"crlShards"`
		CRLHost   string `json:"crlHost,omitempty"`
		OCSP      bool   `json:"ocsp"`
		OCSPHost  string `json:"ocspHost,omitempty"`
	} `json:"revocation"`
	ShortLived       bool              `json:"shortLived"`
	Tags             map[string]string `json:"tags,omitempty"`
	CreatedAt        float64           `json:"createdAt"`
	RestorableUntil  float64           `json:"restorableUntil,omitempty"`
	RevokedAt        float64           `json:"revokedAt,omitempty"`
	RevocationReason string            `json:"revocationReason,omitempty"`
}

func newCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make certificate authorities, sign with them and revoke",
		Long: `Make roots and intermediates, sign certificates with them by profiles, and revoke.
The commands ask the running server; aws acm-pca sees the same authorities. CA is an
authority's name, id or ARN.

  imprint ca create --root --name root --subject "/O=Acme/CN=Acme root"
  imprint ca create --parent root --name line7 --subject "/O=Acme/CN=Acme line 7"
  imprint ca issue line7 --csr device.csr --profile operational --out device.pem`,
	}
	cmd.AddCommand(newCAAudit(), newCALogged(), newCACreate(), newCAAdopt(), newCAList(), newCAShow(), newCACert(), newCACSR(), newCAImport(), newCAIssue(), newCARevoke(), newCAUpdate(),
		newCADelete(), newCAExpiring(), newCARestore(), newCAProfiles(), newCAKeys(), newCARollover(), newCACRL(), newCACeremony(), newCAVerify())
	return cmd
}

// caAction is what a subcommand does with a client.
type caAction func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error

func newCACommand(use, short string, args cobra.PositionalArgs, run caAction) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			return run(cmd.Context(), c, cmd.OutOrStdout(), args, asJSON)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// findAuthority gives the authority of a name, id or ARN.
func findAuthority(ctx context.Context, c *client.Client, text string) (authorityShown, error) {
	if at := strings.LastIndex(text, ":certificate-authority/"); at >= 0 {
		text = text[at+len(":certificate-authority/"):]
	}
	_, err := imprint.ParseAuthorityID(text)
	if err == nil {
		var found authorityShown
		err = c.Call(ctx, "GET", authorities.Path+"/"+text, nil, &found)
		return found, err
	}
	var page struct {
		Authorities []authorityShown `json:"authorities"`
	}
	err = c.Call(ctx, "GET", authorities.Path+"?name="+url.QueryEscape(text), nil, &page)
	if err != nil {
		return authorityShown{}, err
	}
	if len(page.Authorities) != 1 {
		return authorityShown{}, fmt.Errorf("the server gave %d authorities called %q", len(page.Authorities), imprint.Excerpt(text))
	}
	return page.Authorities[0], nil
}

// privateCA calls an operation of AWS Private CA's API.
func privateCA(ctx context.Context, c *client.Client, operation string, in, out any) error {
	return c.For("acm-pca").Invoke(ctx, acmpca.Target+"."+operation, in, out)
}

// revocationFlags are those of commands that make authorities and change them.
type revocationFlags struct {
	crl, ocsp         bool
	days, shards      int
	crlHost, ocspHost string
}

func (r *revocationFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&r.crl, "crl", false, "publish CRLs, and name them in certificates")
	f.IntVar(&r.days, "crl-days", 7, "days that a CRL is valid")
	f.IntVar(&r.shards, "crl-shards", 0, "among how many CRLs the certificates are divided (0: one)")
	f.StringVar(&r.crlHost, "crl-host", "", "host of the CRLs in place of --pki-url's")
	f.BoolVar(&r.ocsp, "ocsp", false, "answer OCSP requests, and name the responder in certificates")
	f.StringVar(&r.ocspHost, "ocsp-host", "", "host of the responder in place of --pki-url's")
}

// body gives the members whose flags were set; nil: none was.
func (r *revocationFlags) body(cmd *cobra.Command) map[string]any {
	body := map[string]any{}
	for name, value := range map[string]any{"crl": r.crl, "crl-days": r.days, "crl-shards": r.shards, "crl-host": r.crlHost, "ocsp": r.ocsp, "ocsp-host": r.ocspHost} {
		if cmd.Flags().Changed(name) {
			body[map[string]string{"crl": "crl", "crl-days": "crlDays", "crl-shards": "crlShards", "crl-host": "crlHost", "ocsp": "ocsp", "ocsp-host": "ocspHost"}[name]] = value
		}
	}
	if len(body) == 0 {
		return nil
	}
	return body
}

// historyFlags say what a CA that was made elsewhere revoked there.
type historyFlags struct {
	lastCRLs      []string
	issuedNothing bool
}

func (h *historyFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&h.lastCRLs, "last-crl", nil, "file of the last CRL that the CA signed elsewhere, PEM or DER: what is on it is revoked here, too, and numbers go on (may be repeated)")
	f.BoolVar(&h.issuedNothing, "issued-nothing", false, "the CA revoked nothing elsewhere")
}

// maxCRLFile bounds the files of CRLs.
const maxCRLFile = 40 << 20

func (h *historyFlags) addTo(body map[string]any) error {
	var lists []string
	for _, path := range h.lastCRLs {
		data, err := readSmallFile(path, maxCRLFile)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
			data = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: data})
		}
		lists = append(lists, string(data))
	}
	if lists != nil {
		body["lastCrls"] = lists
	}
	if h.issuedNothing {
		body["issuedNothing"] = true
	}
	return nil
}

// when reads a time: a date, a date with time, or how long from now.
func when(text string) (int64, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		at, err := time.Parse(layout, text)
		if err == nil {
			return at.Unix(), nil
		}
	}
	d, err := parseDays(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("%q is no time: write 2036-01-31, 2036-01-31T12:00:00Z, or how long from now, 3650d or 12h", text)}
	}
	return time.Now().Add(d).Unix(), nil
}

// addTime puts a time into a request when its flag was given.
func addTime(body map[string]any, name, text string) error {
	if text == "" {
		return nil
	}
	at, err := when(text)
	body[name] = at
	return err
}

// addText puts a text into a request when there is one.
func addText(body map[string]any, name, text string) {
	if text != "" {
		body[name] = text
	}
}

func newCACreate() *cobra.Command {
	var root bool
	var name, parent, subject, kind, profile, notAfter, signingEnds, key string
	var profiles []string
	var pending, existing bool
	var revocation revocationFlags
	var cmd *cobra.Command
	cmd = newCACommand("create", "Make a root, or an intermediate below a CA", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		if root == (parent != "") && !pending || subject == "" || root && parent != "" {
			return usageError{errors.New("say --subject, and one of --root and --parent CA; an intermediate without --parent takes --pending and waits for its certificate")}
		}
		body := map[string]any{"type": "SUBORDINATE", "subject": subject}
		chosen := "intermediate"
		if root {
			body["type"], chosen = "ROOT", "root"
		}
		if profile == "" {
			profile = chosen
		}
		if !pending {
			body["profile"] = profile
		}
		if parent != "" {
			above, err := findAuthority(ctx, c, parent)
			if err != nil {
				return err
			}
			body["parent"] = above.ID
		}
		addText(body, "name", name)
		addText(body, "keyKind", kind)
		addText(body, "keyAt", key)
		if existing {
			body["existingKey"] = true
		}
		if len(profiles) > 0 {
			body["profiles"] = profiles
		}
		if r := revocation.body(cmd); r != nil {
			body["revocation"] = r
		}
		err := errors.Join(addTime(body, "notAfter", notAfter), addTime(body, "signingEnds", signingEnds))
		if err != nil {
			return err
		}
		var made authorityShown
		err = c.Call(ctx, "POST", authorities.Path, body, &made)
		if err != nil {
			return err
		}
		return printAuthority(w, made, asJSON)
	})
	f := cmd.Flags()
	f.BoolVar(&root, "root", false, "make a root")
	f.StringVar(&parent, "parent", "", "CA that signs an intermediate")
	f.BoolVar(&pending, "pending", false, "make key and request alone, for another CA to sign")
	f.StringVar(&name, "name", "", "what it is called here")
	f.StringVar(&subject, "subject", "", `its subject as openssl writes it: "/O=Acme/CN=Acme root"`)
	f.StringVar(&kind, "key-kind", "", "p256, p384, rsa2048, rsa3072 or rsa4096 (default: p256)")
	f.StringVar(&key, "key", "", "STORE:LABEL, the key store in which its key is made, and what it is called there (default: sealed in the registry)")
	f.BoolVar(&existing, "existing-key", false, "take the key that is there already instead of making one")
	f.StringVar(&profile, "profile", "", "profile of its own certificate (default: root, or intermediate)")
	f.StringVar(&notAfter, "not-after", "", "end of its certificate, or how long it holds (default: the profile's)")
	f.StringVar(&signingEnds, "signing-ends", "", "from when on it signs nothing more")
	f.StringSliceVar(&profiles, "profiles", nil, "profiles that it may sign by; all: every one (default: those of devices and servers, and of CAs that are made here below it)")
	revocation.add(cmd)
	return cmd
}

func newCAAdopt() *cobra.Command {
	var name, certificate, chain, key, keyAt, signingEnds string
	var profiles, shares []string
	var revocation revocationFlags
	var history historyFlags
	var cmd *cobra.Command
	cmd = newCACommand("adopt", "Take in a CA that was made elsewhere, with its key or without", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		if certificate == "" {
			return usageError{errors.New("say --cert FILE, and --key-file FILE or --key STORE:LABEL when it is to sign here")}
		}
		body := map[string]any{}
		for _, part := range []struct{ name, path string }{{"certificate", certificate}, {"chain", chain}, {"key", key}} {
			if part.path == "" {
				continue
			}
			text, err := readSmallFile(part.path, maxPEMFile)
			if part.name == "key" && strings.HasSuffix(part.path, ".sealed") {
				text, err = unsealed(cmd, part.path, shares)
			}
			if err != nil {
				return err
			}
			body[part.name] = string(text)
		}
		addText(body, "name", name)
		addText(body, "keyAt", keyAt)
		if len(profiles) > 0 {
			body["profiles"] = profiles
		}
		if r := revocation.body(cmd); r != nil {
			body["revocation"] = r
		}
		err := errors.Join(addTime(body, "signingEnds", signingEnds), history.addTo(body))
		if err != nil {
			return err
		}
		var made authorityShown
		err = c.Call(ctx, "POST", "/imprint/adopted-authorities", body, &made)
		if err != nil {
			return err
		}
		return printAuthority(w, made, asJSON)
	})
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "what it is called here")
	f.StringVar(&certificate, "cert", "", "PEM file of its certificate")
	f.StringVar(&chain, "chain", "", "PEM file of those above it, each signed by the next")
	f.StringVar(&keyAt, "key", "", "STORE:LABEL of its private key, when that is in a key store")
	f.StringVar(&key, "key-file", "", "PEM file of its private key, or NAME.sealed of a ceremony; it is sealed in the registry (default: it stays elsewhere)")
	f.StringArrayVar(&shares, "share", nil, "file with a holder's share that opens NAME.sealed, in place of a question (may be repeated)")
	f.StringVar(&signingEnds, "signing-ends", "", "from when on it signs nothing more")
	f.StringSliceVar(&profiles, "profiles", nil, "profiles that it may sign by; all: every one (default: those of devices and servers, and of CAs that are made here below it)")
	revocation.add(cmd)
	history.add(cmd)
	return cmd
}

// maxPEMFile bounds the files of certificates, chains and keys.
const maxPEMFile = 256 << 10

func newCAList() *cobra.Command {
	return newCACommand("list", "List the CAs", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		all, err := getAll[authorityShown](ctx, c, authorities.Path, nil, "authorities")
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, all)
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, a := range all {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", a.ID, a.Name, a.Type, a.state(), dayTime(a.NotAfter), a.Subject)
		}
		return table.Flush()
	})
}

// state is the status as people should see it.
func (a *authorityShown) state() string {
	if a.RevokedAt > 0 {
		return "REVOKED"
	}
	return a.Status
}

func newCAShow() *cobra.Command {
	return newCACommand("show CA", "Show a CA", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		return showAuthority(ctx, c, w, args[0], asJSON)
	})
}

// showAuthority prints the authority of a name, id or ARN, as it is now.
func showAuthority(ctx context.Context, c *client.Client, w io.Writer, text string, asJSON bool) error {
	found, err := findAuthority(ctx, c, text)
	if err != nil {
		return err
	}
	return printAuthority(w, found, asJSON)
}

func printAuthority(w io.Writer, a authorityShown, asJSON bool) error {
	if asJSON {
		return printJSON(w, a)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("name", a.Name)
	row("id", a.ID)
	row("arn", a.ARN)
	row("type", a.Type)
	row("status", a.state())
	row("subject", a.Subject)
	row("key", strings.TrimSpace(a.KeyAlgorithm+" "+keyPlace(a)))
	row("parent", a.Parent)
	row("serial", a.Serial)
	row("certificate", a.CertificateID)
	row("valid until", dayTime(a.NotAfter))
	row("signs until", dayTime(a.SigningEnds))
	row("profiles", orDefault(a.Profiles))
	if a.Revocation.CRL {
		row("CRL", fmt.Sprintf("valid for %d days, %d list(s)", a.Revocation.CRLDays, max(1, a.Revocation.CRLShards)))
	}
	if a.Revocation.OCSP {
		row("OCSP", "yes")
	}
	row("restorable until", dayTime(a.RestorableUntil))
	if a.RevokedAt > 0 {
		row("revoked", dayTime(a.RevokedAt)+" "+a.RevocationReason)
	}
	return table.Flush()
}

func keyPlace(a authorityShown) string {
	switch a.Key {
	case "":
		return "(elsewhere: it signs nothing here)"
	case "sealed:":
		return "(sealed in the registry)"
	}
	return "(" + a.Key + ")"
}

func orDefault(profiles []string) string {
	if len(profiles) == 0 {
		return "those of devices and servers, and of CAs that are made here below it"
	}
	return strings.Join(profiles, ", ")
}

// dayTime shows seconds since 1970 in UTC, as certificates have them; none as nothing.
func dayTime(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(int64(seconds), 0).UTC().Format("2006-01-02 15:04:05Z")
}

// writeOut writes a text to a file, or to standard output.
func writeOut(w io.Writer, path, text string) error {
	if path == "" || path == "-" {
		_, err := io.WriteString(w, text)
		return err
	}
	err := os.WriteFile(path, []byte(text), 0o644) // certificates are no secret
	if err != nil {
		return fmt.Errorf("couldn't write the file: %w", err)
	}
	return nil
}

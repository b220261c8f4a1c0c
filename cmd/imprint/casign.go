package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/awsapi/client"
)

func newCACSR() *cobra.Command {
	var out string
	cmd := newCACommand("csr CA", "Print a CA's signing request, for the CA above it", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		var answer struct{ Csr string }
		err = privateCA(ctx, c, "GetCertificateAuthorityCsr", map[string]string{"CertificateAuthorityArn": found.ARN}, &answer)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, answer)
		}
		return writeOut(w, out, answer.Csr)
	})
	cmd.Flags().StringVar(&out, "out", "", "file to write it to (default: standard output)")
	return cmd
}

func newCACert() *cobra.Command {
	var out string
	var withChain bool
	cmd := newCACommand("cert CA", "Print a CA's certificate, to register it or to verify with it", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		var answer struct{ Certificate, CertificateChain string }
		err = privateCA(ctx, c, "GetCertificateAuthorityCertificate", map[string]string{"CertificateAuthorityArn": found.ARN}, &answer)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, answer)
		}
		text := answer.Certificate + "\n"
		if withChain && answer.CertificateChain != "" {
			text += answer.CertificateChain + "\n"
		}
		return writeOut(w, out, text)
	})
	cmd.Flags().StringVar(&out, "out", "", "file to write it to (default: standard output)")
	cmd.Flags().BoolVar(&withChain, "chain", false, "write those above it behind it")
	return cmd
}

func newCAImport() *cobra.Command {
	var certificate, chain string
	var recorded bool
	cmd := newCACommand("import CA", "Give a CA the certificate that was made from its request", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		if (certificate == "") != recorded || recorded && chain != "" {
			return usageError{errors.New("say --cert FILE, and --chain FILE with those above it, or --recorded alone")}
		}
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		if recorded {
			err = c.Call(ctx, "POST", authorities.Path+"/"+found.ID+"/recorded-certificate", nil, &found)
			if err != nil {
				return err
			}
			return printAuthority(w, found, asJSON)
		}
		pem, err := readSmallFile(certificate, maxPEMFile)
		if err != nil {
			return err
		}
		body := map[string]any{"CertificateAuthorityArn": found.ARN, "Certificate": pem}
		if chain != "" {
			above, err := readSmallFile(chain, maxPEMFile)
			if err != nil {
				return err
			}
			body["CertificateChain"] = above
		}
		err = privateCA(ctx, c, "ImportCertificateAuthorityCertificate", body, nil)
		if err != nil {
			return err
		}
		return showAuthority(ctx, c, w, found.ID, asJSON)
	})
	cmd.Flags().StringVar(&certificate, "cert", "", "PEM file of the certificate")
	cmd.Flags().StringVar(&chain, "chain", "", "PEM file of those above it, each signed by the next")
	cmd.Flags().BoolVar(&recorded, "recorded", false, "take the newest one that was made here for its key: after a crash")
	return cmd
}

func newCAIssue() *cobra.Command {
	var csr, profile, notBefore, notAfter, renews, out string
	var withChain, force bool
	cmd := newCACommand("issue CA", "Sign a request by a profile", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		if csr == "" || profile == "" {
			return usageError{errors.New("say --csr FILE and --profile NAME (imprint ca profiles lists them)")}
		}
		request, err := readSmallFile(csr, maxPEMFile)
		if err != nil {
			return err
		}
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		body := map[string]any{"csr": string(request), "profile": profile}
		addText(body, "renews", renews)
		if force {
			body["force"] = true
		}
		err = errors.Join(addTime(body, "notBefore", notBefore), addTime(body, "notAfter", notAfter))
		if err != nil {
			return err
		}
		var issued struct {
			CertificateID string  `json:"certificateId"`
			Certificate   string  `json:"certificate"`
			Chain         string  `json:"chain"`
			Serial        string  `json:"serial"`
			NotAfter      float64 `json:"notAfter"`
		}
		err = c.Call(ctx, "POST", authorities.Path+"/"+found.ID+"/certificates", body, &issued)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, issued)
		}
		text := issued.Certificate
		if withChain {
			text += issued.Chain
		}
		return writeOut(w, out, text)
	})
	f := cmd.Flags()
	f.StringVar(&csr, "csr", "", "PEM file of the request (- is standard input)")
	f.StringVar(&profile, "profile", "", "profile to sign by")
	f.StringVar(&notBefore, "not-before", "", "beginning of the certificate (default: the profile's)")
	f.StringVar(&notAfter, "not-after", "", "end of the certificate, or how long it holds, 365d (default: the profile's)")
	f.StringVar(&renews, "renews", "", "id of the certificate whose place it takes, and whose key it may have")
	f.BoolVar(&force, "force", false, "renew before the renewal window opens")
	f.StringVar(&out, "out", "", "file to write it to (default: standard output)")
	f.BoolVar(&withChain, "chain", false, "write those above it behind it")
	return cmd
}

func newCARevoke() *cobra.Command {
	var reason, certificate, serial string
	var below bool
	cmd := newCACommand("revoke [CA]", "Revoke a certificate, or a CA's with all below it", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		reason = strings.ToUpper(strings.ReplaceAll(reason, "-", "_"))
		switch {
		case certificate != "" && serial == "" && len(args) == 0 && !below:
			return revokeByFile(ctx, c, w, certificate, reason, asJSON)
		case certificate != "" || len(args) != 1 || serial != "" && below:
			return usageError{errors.New("say --cert FILE; or CA --serial NUMBER; or CA alone for its own certificate, with --below for what it signed, too")}
		}
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		if serial != "" {
			return privateCA(ctx, c, "RevokeCertificate", map[string]string{"CertificateAuthorityArn": found.ARN, "CertificateSerial": serial, "RevocationReason": orUnspecified(reason)}, nil)
		}
		return revokeAuthority(ctx, c, w, found, reason, below, asJSON)
	})
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "key-compromise, superseded, cessation-of-operation, ... (default: unspecified)")
	f.StringVar(&certificate, "cert", "", "PEM file of the certificate")
	f.StringVar(&serial, "serial", "", "serial number of the certificate, in hexadecimal")
	f.BoolVar(&below, "below", false, "revoke what the CA and those below it signed, too: each device is off within a second of its turn")
	return cmd
}

func orUnspecified(reason string) string {
	if reason == "" {
		return "UNSPECIFIED"
	}
	return reason
}

// revocationShown is a revocation as the API gives it.
type revocationShown struct {
	CertificateID string  `json:"certificateId"`
	Authority     string  `json:"authority"`
	Serial        string  `json:"serial"`
	Subject       string  `json:"subject"`
	Reason        string  `json:"reason"`
	RevokedAt     float64 `json:"revokedAt"`
}

func revokeByFile(ctx context.Context, c *client.Client, w io.Writer, path, reason string, asJSON bool) error {
	pem, err := readSmallFile(path, maxPEMFile)
	if err != nil {
		return err
	}
	done, err := revokePEM(ctx, c, string(pem), reason)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, done)
	}
	_, err = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", done.Serial, done.Subject, done.Reason, dayTime(done.RevokedAt))
	return err
}

func revokePEM(ctx context.Context, c *client.Client, pem, reason string) (revocationShown, error) {
	body := map[string]any{"certificate": pem}
	addText(body, "reason", reason)
	var done revocationShown
	err := c.Call(ctx, "POST", "/imprint/revocations", body, &done)
	return done, err
}

// belowShown is an authority with how many certificates of it were revoked.
type belowShown struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Subject string `json:"subject"`
	Changed int    `json:"changed"`
}

// revokeAuthority revokes a CA, unless that is so already, and what is below.
func revokeAuthority(ctx context.Context, c *client.Client, w io.Writer, a authorityShown, reason string, below, asJSON bool) error {
	if a.RevokedAt == 0 || reason != "" {
		if a.Certificate == "" {
			return usageError{fmt.Errorf("%s has no certificate to revoke", a.ID)}
		}
		body := map[string]any{}
		addText(body, "reason", reason)
		err := c.Call(ctx, "POST", authorities.Path+"/"+a.ID+"/revocation", body, &a)
		if err != nil {
			return err
		}
	}
	var done struct {
		Changed     int          `json:"changed"`
		Authorities []belowShown `json:"authorities"`
	}
	// A fleet takes longer than one request: each goes on where the last one ended.
	body := map[string]any{}
	for more := below; more; {
		var part struct {
			Changed     int
			Cursor      string
			Authorities []belowShown
		}
		err := c.Call(ctx, "POST", authorities.Path+"/"+a.ID+"/below", body, &part)
		if err != nil {
			return fmt.Errorf("%w (%d certificate(s) were revoked before; the same command goes on)", err, done.Changed)
		}
		done.Changed, done.Authorities = done.Changed+part.Changed, addBelow(done.Authorities, part.Authorities)
		body["cursor"], more = part.Cursor, part.Cursor != ""
	}
	if asJSON {
		return printJSON(w, done)
	}
	_, err := fmt.Fprintf(w, "revoked %s (%s)", a.Subject, a.ID)
	if err == nil && below {
		_, err = fmt.Fprintf(w, ", and %d certificate(s) below it", done.Changed)
	}
	if err == nil {
		_, err = fmt.Fprintln(w)
	}
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, one := range done.Authorities {
		_, _ = fmt.Fprintf(table, "  %d\tof %s\t%s\n", one.Changed, one.Subject, one.ID)
	}
	return table.Flush()
}

// addBelow adds up what several answers say of the same authorities.
func addBelow(all, more []belowShown) []belowShown {
	for _, one := range more {
		at := slices.IndexFunc(all, func(b belowShown) bool { return b.ID == one.ID })
		if at < 0 {
			all = append(all, one)
		} else {
			all[at].Changed += one.Changed
		}
	}
	return all
}

func newCAUpdate() *cobra.Command {
	var name, status, signingEnds string
	var profiles []string
	var revocation revocationFlags
	var history historyFlags
	var cmd *cobra.Command
	cmd = newCACommand("update CA", "Change a CA: switch it off and on, its name, profiles and revocation", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		body := map[string]any{}
		if cmd.Flags().Changed("name") {
			body["name"] = name
		}
		addText(body, "status", strings.ToUpper(status))
		if cmd.Flags().Changed("profiles") {
			body["profiles"] = append([]string{}, profiles...)
		}
		if cmd.Flags().Changed("signing-ends") && signingEnds == "" {
			body["signingEnds"] = 0
		}
		err = addTime(body, "signingEnds", signingEnds)
		if err != nil {
			return err
		}
		if r := revocation.body(cmd); r != nil {
			body["revocation"] = r
		}
		err = history.addTo(body)
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return usageError{errors.New("say what to change: --status, --name, --profiles, --signing-ends, --crl, --ocsp, --last-crl")}
		}
		var changed authorityShown
		err = c.Call(ctx, "PATCH", authorities.Path+"/"+found.ID, body, &changed)
		if err != nil {
			return err
		}
		return printAuthority(w, changed, asJSON)
	})
	f := cmd.Flags()
	f.StringVar(&status, "status", "", "ACTIVE or DISABLED")
	f.StringVar(&name, "name", "", "what it is called here")
	f.StringSliceVar(&profiles, "profiles", nil, `profiles that it may sign by; all: every one ("": those of devices and servers, and of CAs that are made here below it)`)
	f.StringVar(&signingEnds, "signing-ends", "", `from when on it signs nothing more ("": with its certificate)`)
	revocation.add(cmd)
	history.add(cmd)
	return cmd
}

func newCADelete() *cobra.Command {
	var days int
	cmd := newCACommand("delete CA", "Delete a CA that is disabled; it can be restored for some days", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		err = privateCA(ctx, c, "DeleteCertificateAuthority", map[string]any{"CertificateAuthorityArn": found.ARN, "PermanentDeletionTimeInDays": days}, nil)
		if err != nil {
			return err
		}
		return showAuthority(ctx, c, w, found.ID, asJSON)
	})
	cmd.Flags().IntVar(&days, "days", 30, "days that it can be restored, 7 to 30")
	return cmd
}

func newCARestore() *cobra.Command {
	return newCACommand("restore CA", "Bring a deleted CA back, by its id or ARN", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		found, err := findAuthority(ctx, c, args[0])
		if err != nil {
			return err
		}
		err = privateCA(ctx, c, "RestoreCertificateAuthority", map[string]string{"CertificateAuthorityArn": found.ARN}, nil)
		if err != nil {
			return err
		}
		return showAuthority(ctx, c, w, found.ID, asJSON)
	})
}

func newCAProfiles() *cobra.Command {
	return newCACommand("profiles [NAME]", "Show the profiles with all their rules", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		var found struct {
			Profiles []struct {
				Name  string `json:"name"`
				Kind  string `json:"kind"`
				Rules []struct {
					Name  string `json:"name"`
					Value string `json:"value"`
				} `json:"rules"`
			} `json:"profiles"`
		}
		err := c.Call(ctx, "GET", "/imprint/certificate-profiles", nil, &found)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, found.Profiles)
		}
		shown := false
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range found.Profiles {
			if len(args) == 1 && p.Name != args[0] {
				continue
			}
			shown = true
			_, _ = fmt.Fprintf(table, "%s\tkind\t%s\n", p.Name, p.Kind)
			for _, rule := range p.Rules {
				_, _ = fmt.Fprintf(table, "\t%s\t%s\n", rule.Name, rule.Value)
			}
		}
		if !shown {
			return usageError{fmt.Errorf("no profile is called %q", args[0])}
		}
		return table.Flush()
	})
}

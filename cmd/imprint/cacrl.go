package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/pki"
)

// importedCRL is a CRL of a CA elsewhere, as the API gives it. Times are seconds since 1970.
type importedCRL struct {
	CA             string  `json:"ca"`
	Scope          string  `json:"scope,omitempty"`
	Number         string  `json:"number"`
	ThisUpdate     float64 `json:"thisUpdate"`
	NextUpdate     float64 `json:"nextUpdate"`
	Entries        int64   `json:"entries"`
	Stale          bool    `json:"stale"`
	Applied        bool    `json:"applied"`
	RefuseStale    bool    `json:"refuseStale"`
	KeepRegistered bool    `json:"keepRegistered"`
	URL            string  `json:"url,omitempty"`
	FetchAt        float64 `json:"fetchAt,omitempty"`
	FetchedAt      float64 `json:"fetchedAt"`
	ImportedAt     float64 `json:"importedAt"`
	LastError      string  `json:"lastError,omitempty"`
}

func newCACRL() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "crl",
		Short: "Import the revocation lists of CAs elsewhere",
		Long: `Import the CRLs that CAs elsewhere sign: nobody on one is registered, at a first connection
or by an operator, and who is registered already becomes REVOKED. CA is an authority's name,
id or ARN, or a registered CA's certificate id, its beginning or its ARN.

  imprint ca crl import --ca 3fa9c1d2 http://pki.example.com/line7.crl
  imprint ca crl set --ca 3fa9c1d2 --stale refuse`,
	}
	cmd.AddCommand(newCRLImport(), newCRLList(), newCRLSet(), newCRLForget())
	return cmd
}

// crlSettings are the flags of how a CA's lists count.
type crlSettings struct {
	stale  string
	revoke bool
}

func (s *crlSettings) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.stale, "stale", "", "what a list past its next update does to newcomers: allow, with a warning, or refuse (default: allow)")
	cmd.Flags().BoolVar(&s.revoke, "revoke", true, "make certificates that are registered already REVOKED when they are on the list")
}

// into puts those that were given into a request.
func (s *crlSettings) into(cmd *cobra.Command, body map[string]any) error {
	switch s.stale {
	case "":
	case "allow", "refuse":
		body["refuseStale"] = s.stale == "refuse"
	default:
		return usageError{fmt.Errorf("--stale is %q, and can be allow or refuse", s.stale)}
	}
	if cmd.Flags().Changed("revoke") {
		body["keepRegistered"] = !s.revoke
	}
	return nil
}

func foreignPath(ca string) string { return authorities.ForeignPath + "/" + url.PathEscape(ca) }

func newCRLImport() *cobra.Command {
	var ca string
	var settings crlSettings
	var cmd *cobra.Command
	cmd = newCACommand("import FILE|URL", "Import a list, or fetch it now and on time", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		if ca == "" {
			return usageError{errors.New("say --ca CA, whose key signed the list")}
		}
		body := map[string]any{}
		err := settings.into(cmd, body)
		if err != nil {
			return err
		}
		if strings.HasPrefix(args[0], "http://") || strings.HasPrefix(args[0], "https://") {
			body["url"] = args[0]
		} else {
			list, err := readSmallFile(args[0], pki.MaxForeignCRL)
			if err != nil {
				return err
			}
			body["list"] = list // bytes: base64 in JSON
		}
		var taken importedCRL
		err = c.Call(ctx, "PUT", foreignPath(ca), body, &taken)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, taken)
		}
		return printCRLs(w, []importedCRL{taken})
	})
	cmd.Flags().StringVar(&ca, "ca", "", "CA whose key signed the list")
	settings.add(cmd)
	return cmd
}

func newCRLList() *cobra.Command {
	return newCACommand("list", "List what was imported", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		all, err := getAll[importedCRL](ctx, c, authorities.ForeignPath, nil, "lists")
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, all)
		}
		return printCRLs(w, all)
	})
}

func printCRLs(w io.Writer, all []importedCRL) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range all {
		state := "current until"
		switch {
		case l.Stale && l.RefuseStale:
			state = "STALE, newcomers are refused, since"
		case l.Stale:
			state = "STALE since"
		}
		source := "imported by hand"
		if l.URL != "" {
			source = "fetched from " + l.URL + ", again " + dayTime(l.FetchAt)
		}
		_, _ = fmt.Fprintf(table, "%s\tnumber %s\t%d entries\t%s %s\t%s\n", shortID(l.CA), l.Number, l.Entries, state, dayTime(l.NextUpdate), source)
		for _, line := range []string{scopeWords(l), l.LastError} {
			if line != "" {
				_, _ = fmt.Fprintf(table, "\t%s\n", line)
			}
		}
	}
	return table.Flush()
}

func scopeWords(l importedCRL) string {
	if l.Scope == "" || l.Scope == l.URL {
		return ""
	}
	return "for certificates that name " + l.Scope
}

func newCRLSet() *cobra.Command {
	var ca string
	var settings crlSettings
	var stop bool
	var cmd *cobra.Command
	cmd = newCACommand("set", "Change how a CA's lists count", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		body := map[string]any{}
		err := settings.into(cmd, body)
		if err != nil {
			return err
		}
		if stop {
			body["stopFetching"] = true
		}
		if ca == "" || len(body) == 0 {
			return usageError{errors.New("say --ca CA, and what to change: --stale, --revoke, --stop-fetching")}
		}
		var answer struct {
			Lists []importedCRL `json:"lists"`
		}
		err = c.Call(ctx, "PATCH", foreignPath(ca), body, &answer)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, answer.Lists)
		}
		return printCRLs(w, answer.Lists)
	})
	cmd.Flags().StringVar(&ca, "ca", "", "CA whose lists they are")
	cmd.Flags().BoolVar(&stop, "stop-fetching", false, "fetch its lists no more: they are brought")
	settings.add(cmd)
	return cmd
}

func newCRLForget() *cobra.Command {
	var ca string
	cmd := newCACommand("forget", "Delete a CA's lists; what they revoked stays so", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ io.Writer, _ []string, _ bool) error {
		if ca == "" {
			return usageError{errors.New("say --ca CA")}
		}
		return c.Call(ctx, "DELETE", foreignPath(ca), nil, nil)
	})
	cmd.Flags().StringVar(&ca, "ca", "", "CA whose lists they are")
	return cmd
}

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// expiringShown is a certificate that ends soon as the API gives it. Times are seconds
// since 1970.
type expiringShown struct {
	CertificateID string   `json:"certificateId"`
	Serial        string   `json:"serial"`
	Subject       string   `json:"subject"`
	Things        []string `json:"things"`
	NotAfter      float64  `json:"notAfter"`
	RenewableFrom float64  `json:"renewableFrom"`
	Renewal       string   `json:"renewal"`
	RenewedBy     string   `json:"renewedBy,omitempty"`
	RetiredAt     float64  `json:"retiredAt,omitempty"`
	Reason        string   `json:"reason,omitempty"`
}

func newCAExpiring() *cobra.Command {
	var within string
	var alone bool
	cmd := newCACommand("expiring", "List devices' certificates that end soon, and whether a renewal is under way", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		span, err := parseDays(within)
		if err != nil || span < time.Second {
			return usageError{fmt.Errorf("--within is %q, not a time such as 30d or 12h", within)}
		}
		all, err := getAll[expiringShown](ctx, c, "/imprint/expiring-certificates",
			url.Values{"maxResults": {"250"}, "within": {strconv.Itoa(int(span / time.Second))}}, "certificates")
		if err != nil {
			return err
		}
		shown := []expiringShown{}
		for _, one := range all {
			if !alone || one.Renewal == "NONE" {
				shown = append(shown, one)
			}
		}
		if asJSON {
			return printJSON(w, shown)
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, one := range shown {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", dayTime(one.NotAfter), one.CertificateID[:min(16, len(one.CertificateID))], one.Subject, strings.Join(one.Things, ","), one.state())
		}
		return table.Flush()
	})
	cmd.Flags().StringVar(&within, "within", "30d", "how soon: 30d, 12h")
	cmd.Flags().BoolVar(&alone, "unrenewed", false, "only those without a renewal under way")
	return cmd
}

// state says what is done about it.
func (e expiringShown) state() string {
	state := "no renewal"
	switch e.Renewal {
	case "PENDING":
		state = "renewed by " + e.RenewedBy[:min(16, len(e.RenewedBy))] + ", which hasn't connected yet"
	case "PROVEN":
		state = "renewed by " + e.RenewedBy[:min(16, len(e.RenewedBy))] + ", retired at " + dayTime(e.RetiredAt)
	case "NONE":
		if e.RenewableFrom > float64(time.Now().Unix()) {
			state += ", possible from " + dayTime(e.RenewableFrom)
		}
	}
	if e.Reason != "" {
		state += " (" + e.Reason + ")"
	}
	return state
}

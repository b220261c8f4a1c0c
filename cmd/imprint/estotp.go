package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// passwordShown is a one-time password as the API gives it.
type passwordShown struct {
	User      string  `json:"user"`
	Password  string  `json:"password,omitempty"`
	Subject   string  `json:"subject,omitempty"`
	CreatedAt float64 `json:"createdAt"`
	ExpiresAt float64 `json:"expiresAt"`
	UsedAt    float64 `json:"usedAt,omitempty"`
	Serial    string  `json:"serial,omitempty"`
}

func newOTP() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "otp",
		Short: "Make one-time passwords, list them and take them back",
	}
	var label string
	remove := newCACommand("delete USER", "Take a password back that wasn't used", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, _ io.Writer, args []string, _ bool) error {
		if label == "" {
			return usageError{errors.New("say --label LABEL")}
		}
		return c.Call(ctx, "DELETE", labelPath(label, "passwords", args[0]), nil, nil)
	})
	remove.Flags().StringVar(&label, "label", "", "the label that it is for")
	cmd.AddCommand(newOTPCreate(), newOTPList(), remove)
	return cmd
}

// otpBatch is how many passwords one request makes.
const otpBatch = 1000

func newOTPCreate() *cobra.Command {
	var label, expires string
	var serials []string
	var count int
	var cmd *cobra.Command
	cmd = newCACommand("create", "Make one-time passwords, and print each as USER:PASSWORD", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		if label == "" {
			return usageError{errors.New("say --label LABEL (imprint est list)")}
		}
		if len(serials) > 0 && cmd.Flags().Changed("count") && count != len(serials) {
			return usageError{fmt.Errorf("--count is %d, and there are %d serial numbers, each of which gets one password", count, len(serials))}
		}
		if len(serials) > 0 {
			count = len(serials)
		}
		lifetime, err := parseDays(expires)
		if err != nil || lifetime < time.Second || count < 1 {
			return usageError{fmt.Errorf("--expires is %q and --count %d: say how long, 24h or 7d, and at least 1", expires, count)}
		}
		all := []passwordShown{}
		for count > 0 {
			n := min(count, otpBatch)
			body := map[string]any{"lifetimeSeconds": int(lifetime / time.Second)}
			if len(serials) > 0 {
				body["subjects"], serials = serials[:n], serials[n:]
			} else {
				body["count"] = n
			}
			var made struct {
				Passwords []passwordShown `json:"passwords"`
			}
			err = c.Call(ctx, "POST", labelPath(label, "passwords"), body, &made)
			if err != nil {
				return err
			}
			count -= n
			if asJSON {
				all = append(all, made.Passwords...)
				continue
			}
			for _, p := range made.Passwords {
				_, err = fmt.Fprintf(w, "%s:%s\t%s\n", p.User, p.Password, p.Subject)
				if err != nil {
					return err
				}
			}
		}
		if asJSON {
			return printJSON(w, all)
		}
		return nil
	})
	f := cmd.Flags()
	f.StringVar(&label, "label", "", "the label that they are for")
	f.IntVar(&count, "count", 1, "how many")
	f.StringSliceVar(&serials, "serial", nil, "serialNumber or commonName of the device that the password is for; may be repeated: one each")
	f.StringVar(&expires, "expires", "24h", "how long they are good for: 24h, 7d")
	return cmd
}

func newOTPList() *cobra.Command {
	var label string
	cmd := newCACommand("list", "List the passwords of a label, without what is secret", cobra.NoArgs, func(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
		if label == "" {
			return usageError{errors.New("say --label LABEL (imprint est list)")}
		}
		all, err := getAll[passwordShown](ctx, c, labelPath(label, "passwords"), url.Values{"maxResults": {"250"}}, "passwords")
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(w, all)
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range all {
			state := "good until " + dayTime(p.ExpiresAt)
			switch {
			case p.UsedAt != 0:
				state = "used at " + dayTime(p.UsedAt) + " for certificate " + p.Serial
			case p.ExpiresAt < float64(time.Now().Unix()):
				state = "ended at " + dayTime(p.ExpiresAt)
			}
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", p.User, p.Subject, state)
		}
		return table.Flush()
	})
	cmd.Flags().StringVar(&label, "label", "", "the label that they are for")
	return cmd
}

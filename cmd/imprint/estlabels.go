package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/enrolment"
)

// labelShown is a label of EST as the API gives it. Times are seconds since 1970.
type labelShown struct {
	Label      string  `json:"label"`
	ARN        string  `json:"arn"`
	Authority  string  `json:"authority"`
	Profile    string  `json:"profile"`
	DeviceCAs  string  `json:"deviceCas,omitempty"`
	StationCAs string  `json:"stationCas,omitempty"`
	Passwords  bool    `json:"passwords"`
	ServerKeys bool    `json:"serverKeys"`
	Binding    bool    `json:"binding"`
	Renew      string  `json:"renew,omitempty"`
	URL        string  `json:"url,omitempty"`
	CreatedAt  float64 `json:"createdAt"`
	ChangedAt  float64 `json:"changedAt"`
}

func newEST() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "est",
		Short: "Say who enrols over EST (RFC 7030), and make one-time passwords",
		Long: `Labels say which CA signs by which profile for whom, at /.well-known/est/LABEL of
the address that imprint serve --est-address names. The label default is that of paths
without one.

  imprint est create line7 --authority line7 --profile operational --passwords
  imprint est otp create --label line7 --count 100 --expires 24h`,
	}
	cmd.AddCommand(newESTCreate(), newESTUpdate(),
		newCACommand("list", "List the labels", cobra.NoArgs, listLabels),
		newCACommand("show LABEL", "Show a label", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
			var found labelShown
			err := c.Call(ctx, "GET", labelPath(args[0]), nil, &found)
			if err != nil {
				return err
			}
			return printLabel(w, found, asJSON)
		}),
		newCACommand("delete LABEL", "Delete a label with its passwords; certificates stay", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, _ io.Writer, args []string, _ bool) error {
			return c.Call(ctx, "DELETE", labelPath(args[0]), nil, nil)
		}), newOTP())
	return cmd
}

func labelPath(label string, parts ...string) string {
	path := enrolment.Path + "/" + url.PathEscape(label)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

// labelFlags are those of create and update.
type labelFlags struct {
	authority, profile, renew       string
	deviceCAs, stationCAs           []string
	passwords, serverKeys, channels bool
}

func (l *labelFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.authority, "authority", "", "the CA that signs")
	f.StringVar(&l.profile, "profile", "", "the profile by which it signs")
	f.StringArrayVar(&l.deviceCAs, "device-ca", nil, `PEM file or name of a CA whose devices may ask, each for itself; may be repeated ("": none)`)
	f.StringArrayVar(&l.stationCAs, "station-ca", nil, `PEM file or name of a CA whose stations may ask for any device; may be repeated ("": none)`)
	f.BoolVar(&l.passwords, "passwords", false, "take one-time passwords")
	f.BoolVar(&l.serverKeys, "server-keys", false, "make keys for devices that ask for them (serverkeygen)")
	f.BoolVar(&l.channels, "binding", false, "demand that requests are tied to their TLS connection")
	f.StringVar(&l.renew, "renew", "", "when certificates may be renewed: always, 1/3 (the last third), 30d (before the end)")
}

// body gives what was said.
func (l *labelFlags) body(ctx context.Context, c *client.Client, cmd *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	if l.authority != "" {
		found, err := findAuthority(ctx, c, l.authority)
		if err != nil {
			return nil, err
		}
		body["authority"] = found.ID
	}
	addText(body, "profile", l.profile)
	f := cmd.Flags()
	for _, one := range []struct {
		flag, name string
		value      any
	}{{"passwords", "passwords", l.passwords}, {"server-keys", "serverKeys", l.serverKeys}, {"binding", "binding", l.channels}, {"renew", "renew", l.renew}} {
		if f.Changed(one.flag) {
			body[one.name] = one.value
		}
	}
	for _, one := range []struct {
		flag, name string
		values     []string
	}{{"device-ca", "deviceCas", l.deviceCAs}, {"station-ca", "stationCas", l.stationCAs}} {
		if !f.Changed(one.flag) {
			continue
		}
		text, err := readCAs(ctx, c, one.values)
		if err != nil {
			return nil, err
		}
		body[one.name] = text
	}
	return body, nil
}

// readCAs gives the certificates of files and of CAs of the server, in PEM.
func readCAs(ctx context.Context, c *client.Client, values []string) (string, error) {
	var all strings.Builder
	for _, value := range values {
		if value == "" {
			continue
		}
		_, err := os.Stat(value)
		if err == nil {
			text, err := readSmallFile(value, maxPEMFile)
			if err != nil {
				return "", err
			}
			all.WriteString(strings.TrimRight(string(text), "\n") + "\n")
			continue
		}
		found, err := findAuthority(ctx, c, value)
		if err != nil {
			return "", fmt.Errorf("%q is no file, and as a CA: %w", value, err)
		}
		if found.Certificate == "" {
			return "", fmt.Errorf("%s has no certificate yet", value)
		}
		all.WriteString(found.Certificate)
	}
	return all.String(), nil
}

func newESTCreate() *cobra.Command {
	var flags labelFlags
	var cmd *cobra.Command
	cmd = newCACommand("create LABEL", "Make a label", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		if flags.authority == "" || flags.profile == "" {
			return usageError{errors.New("say --authority CA and --profile NAME (imprint ca list, imprint ca profiles)")}
		}
		body, err := flags.body(ctx, c, cmd)
		if err != nil {
			return err
		}
		body["label"] = args[0]
		var made labelShown
		err = c.Call(ctx, "POST", enrolment.Path, body, &made)
		if err != nil {
			return err
		}
		return printLabel(w, made, asJSON)
	})
	flags.add(cmd)
	return cmd
}

func newESTUpdate() *cobra.Command {
	var flags labelFlags
	var cmd *cobra.Command
	cmd = newCACommand("update LABEL", "Change a label", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		body, err := flags.body(ctx, c, cmd)
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return usageError{errors.New("say what to change: --authority, --profile, --device-ca, --station-ca, --passwords, --server-keys, --binding, --renew")}
		}
		var changed labelShown
		err = c.Call(ctx, "PATCH", labelPath(args[0]), body, &changed)
		if err != nil {
			return err
		}
		return printLabel(w, changed, asJSON)
	})
	flags.add(cmd)
	return cmd
}

func listLabels(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
	all, err := getAll[labelShown](ctx, c, enrolment.Path, nil, "labels")
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, all)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range all {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", l.Label, l.Authority, l.Profile, strings.Join(l.lets(), ", "))
	}
	return table.Flush()
}

// lets says who may ask.
func (l labelShown) lets() []string {
	all := []string{"renewal"}
	for _, one := range []struct {
		on   bool
		what string
	}{{l.DeviceCAs != "", "devices"}, {l.StationCAs != "", "stations"}, {l.Passwords, "passwords"}, {l.ServerKeys, "server keys"}} {
		if one.on {
			all = append(all, one.what)
		}
	}
	return all
}

func printLabel(w io.Writer, l labelShown, asJSON bool) error {
	if asJSON {
		return printJSON(w, l)
	}
	renew := l.Renew
	if renew == "" {
		renew = "as the server says (--renewal-window)"
	}
	where := l.URL
	if where == "" {
		where = "nowhere: the server serves no EST; start it with --est-address, such as :8085"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"label", l.Label}, {"served at", where}, {"arn", l.ARN}, {"authority", l.Authority}, {"profile", l.Profile}, {"lets in", strings.Join(l.lets(), ", ")},
		{"device CAs", fmt.Sprint(strings.Count(l.DeviceCAs, "BEGIN CERT"))}, {"station CAs", fmt.Sprint(strings.Count(l.StationCAs, "BEGIN CERT"))},
		{"binding", fmt.Sprint(l.Binding)}, {"renew", renew}, {"made", dayTime(l.CreatedAt)}, {"changed", dayTime(l.ChangedAt)},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	return table.Flush()
}

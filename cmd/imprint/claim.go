package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/claims"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// claimGuard is a guard as the command line shows it; times are seconds since
// 1970, as the control plane sends them.
type claimGuard struct {
	CertificateID   string   `json:"certificateId"`
	Quota           int      `json:"quota"`
	NotBefore       float64  `json:"notBefore,omitempty"`
	NotAfter        float64  `json:"notAfter,omitempty"`
	Networks        []string `json:"networks"`
	SerialParameter string   `json:"serialParameter,omitempty"`
	SerialReuse     bool     `json:"serialReuse"`
	MaxRequests     int      `json:"maxRequests"`
	MaxRefusals     int      `json:"maxRefusals"`
	WindowSeconds   int      `json:"windowSeconds"`
	Devices         int      `json:"devices"`
	Serials         int      `json:"serials"`
	StoppedAt       float64  `json:"stoppedAt,omitempty"`
	StopCode        string   `json:"stopCode,omitempty"`
	StopReason      string   `json:"stopReason,omitempty"`
}

func newClaim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "claim",
		Short: "Bound what a claim certificate may bring about in fleet provisioning",
	}
	cmd.AddCommand(newClaimGuard(), newClaimAllow())
	return cmd
}

// guardFlags are what `imprint claim guard` can set.
type guardFlags struct {
	quota, maxRequests, maxRefusals int
	from, until, parameter          string
	networks                        []string
	window                          time.Duration
	reuse, resume, remove, asJSON   bool
}

func newClaimGuard() *cobra.Command {
	var flags guardFlags
	cmd := &cobra.Command{
		Use:   "guard [CERTIFICATE-ID | FILE.pem]",
		Short: "Show the guards of claim certificates, or set one",
		Long: `Show the guards of claim certificates, or set one.

Without a certificate, all guards are listed. With one and no flag, its guard is
shown; flags change what they name and leave the rest. A claim that exceeds its
quota, or is used as MAX-REQUESTS and MAX-REFUSALS forbid, is stopped until
--resume; what the other bounds forbid is refused.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if changed := firstChanged(cmd.Flags(), "data", "json"); changed != "" {
					return usageError{fmt.Errorf("--%s is about one claim: say which, by its certificate's id or PEM file", changed)}
				}
				return listGuards(cmd.Context(), c, cmd.OutOrStdout(), flags.asJSON)
			}
			path, err := guardPath(args[0])
			if err != nil {
				return err
			}
			if flags.remove {
				return c.Call(cmd.Context(), "DELETE", path, nil, nil)
			}
			body, err := flags.body(cmd)
			if err != nil {
				return err
			}
			var guard claimGuard
			if len(body) == 0 {
				err = c.Call(cmd.Context(), "GET", path, nil, &guard)
			} else {
				err = c.Call(cmd.Context(), "PUT", path, body, &guard)
			}
			if err != nil {
				return err
			}
			if flags.asJSON {
				return printJSON(cmd.OutOrStdout(), guard)
			}
			return printGuard(cmd.OutOrStdout(), guard)
		},
	}
	addDataFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&flags.quota, "quota", 0, "devices that may be registered in all (0: any number)")
	f.StringVar(&flags.from, "not-before", "", "when the claim may be used from, as 2026-01-31T08:00:00Z (none: at once)")
	f.StringVar(&flags.until, "not-after", "", "when it may be used until (none: for ever)")
	f.StringSliceVar(&flags.networks, "network", nil, "networks that requests may come from, as 192.0.2.0/24 (any: all)")
	f.StringVar(&flags.parameter, "serial-parameter", "", "template parameter that must stand in the allow list (empty: none)")
	f.BoolVar(&flags.reuse, "serial-reuse", false, "let a serial number be registered again")
	f.IntVar(&flags.maxRequests, "max-requests", 0, "more requests than this in a window stop the claim (0: any number)")
	f.IntVar(&flags.maxRefusals, "max-refusals", 0, "more refused requests than this in a window stop it (0: any number)")
	f.DurationVar(&flags.window, "window", 0, "the window that requests are counted in, such as 1m")
	f.BoolVar(&flags.resume, "resume", false, "let a stopped claim go on")
	f.BoolVar(&flags.remove, "delete", false, "delete the guard with its allow list")
	f.BoolVar(&flags.asJSON, "json", false, "print JSON")
	return cmd
}

// firstChanged is the name of a flag that was given, but for some.
func firstChanged(flags *pflag.FlagSet, but ...string) string {
	name := ""
	flags.Visit(func(f *pflag.Flag) {
		if name == "" && !slices.Contains(but, f.Name) {
			name = f.Name
		}
	})
	return name
}

// guardPath is where the guard of a certificate is.
func guardPath(word string) (string, error) {
	match, err := matchOf(word)
	if err != nil {
		return "", err
	}
	id, err := imprint.ParseCertificateID(match[strings.LastIndexByte(match, '/')+1:])
	if err != nil {
		return "", usageError{fmt.Errorf("that is neither a certificate's id nor its PEM file: %w", err)}
	}
	return claims.Path + "/" + string(id), nil
}

// body has what the flags that were given change.
func (g guardFlags) body(cmd *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	set := func(flag, member string, value any) {
		if cmd.Flags().Changed(flag) {
			body[member] = value
		}
	}
	set("quota", "quota", g.quota)
	set("serial-parameter", "serialParameter", g.parameter)
	set("serial-reuse", "serialReuse", g.reuse)
	set("max-requests", "maxRequests", g.maxRequests)
	set("max-refusals", "maxRefusals", g.maxRefusals)
	set("window", "windowSeconds", int(g.window/time.Second))
	set("resume", "resume", g.resume)
	if networks := g.networks; cmd.Flags().Changed("network") {
		if len(networks) == 1 && networks[0] == "any" {
			networks = []string{}
		}
		body["networks"] = networks
	}
	for _, bound := range []struct{ flag, member, text string }{{"not-before", "notBefore", g.from}, {"not-after", "notAfter", g.until}} {
		if !cmd.Flags().Changed(bound.flag) {
			continue
		}
		body[bound.member] = 0
		if bound.text == "none" {
			continue
		}
		at, err := time.Parse(time.RFC3339, bound.text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--%s is %q, not a time such as 2026-01-31T08:00:00Z, or none", bound.flag, bound.text)}
		}
		body[bound.member] = at.Unix()
	}
	return body, nil
}

func listGuards(ctx context.Context, c *client.Client, w io.Writer, asJSON bool) error {
	all, err := getAll[claimGuard](ctx, c, claims.Path, url.Values{"maxResults": {"250"}}, "guards")
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, all)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range all {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", g.CertificateID, g.devices(), g.state())
	}
	return table.Flush()
}

func (g claimGuard) devices() string {
	if g.Quota == 0 {
		return fmt.Sprintf("%d devices", g.Devices)
	}
	return fmt.Sprintf("%d of %d devices", g.Devices, g.Quota)
}

func (g claimGuard) state() string {
	if g.StoppedAt == 0 {
		return "open"
	}
	return fmt.Sprintf("STOPPED %s: %s", clockTime(g.StoppedAt), g.StopReason)
}

func printGuard(w io.Writer, g claimGuard) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(table, "%s\t%s\n", name, value) }
	row("claim", g.CertificateID)
	row("state", g.state())
	row("registered", g.devices())
	if g.NotBefore > 0 {
		row("not before", clockTime(g.NotBefore))
	}
	if g.NotAfter > 0 {
		row("not after", clockTime(g.NotAfter))
	}
	if len(g.Networks) > 0 {
		row("networks", strings.Join(g.Networks, " "))
	}
	if g.SerialParameter != "" {
		reuse := "each once"
		if g.SerialReuse {
			reuse = "again and again"
		}
		row("allow list", fmt.Sprintf("%d serial numbers for parameter %s, %s", g.Serials, g.SerialParameter, reuse))
	}
	if g.WindowSeconds > 0 {
		row("stops at", fmt.Sprintf("more than %d requests or %d refusals in %s (0: any number)", g.MaxRequests, g.MaxRefusals, time.Duration(g.WindowSeconds)*time.Second))
	}
	return table.Flush()
}

func newClaimAllow() *cobra.Command {
	var file, column string
	var empty bool
	cmd := &cobra.Command{
		Use:   "allow CERTIFICATE-ID | FILE.pem",
		Short: "Add the serial numbers of a CSV file to a claim's allow list",
		Long: `Add the serial numbers of a CSV file to a claim's allow list.

The file may have any length; - is the standard input. It is sent in parts as it is read. The
serial number stands in the first column, or in the one whose name, in the first
line, --column gives. An upload that broke off can be repeated. The guard says
which template parameter is looked up (imprint claim guard --serial-parameter).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			path, err := guardPath(args[0])
			if err != nil {
				return err
			}
			if empty {
				var cleared struct{ Changed int }
				err = c.Call(cmd.Context(), "DELETE", path+"/serials", nil, &cleared)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d deleted\n", cleared.Changed)
				return err
			}
			in := cmd.InOrStdin()
			if file == "" {
				return usageError{errors.New("--file names no file")}
			}
			if file != "-" {
				opened, err := os.Open(file)
				if err != nil {
					return usageError{err}
				}
				defer func() { _ = opened.Close() }()
				in = opened
			}
			return uploadSerials(cmd.Context(), c, path, in, column, cmd.OutOrStdout())
		},
	}
	addDataFlag(cmd)
	cmd.Flags().StringVar(&file, "file", "", "the CSV file, or - for the standard input")
	cmd.Flags().StringVar(&column, "column", "", "name of the column (default: the first column)")
	cmd.Flags().BoolVar(&empty, "empty", false, "empty the allow list instead")
	return cmd
}

// Bounds of one request of an upload: the control plane takes 512 KiB.
const (
	uploadSerialsAt = 5000
	uploadBytesAt   = 256 << 10
)

// sortSerialsAt bounds what is held of an upload, so many bytes of serials and of what each
// costs, until it is sent in order: the registry keeps a list in order, and serials in none
// would cost it five times the work, for which devices wait.
const (
	sortSerialsAt = 32 << 20
	serialCosts   = 32
)

// uploadSerials sends a file in parts.
func uploadSerials(ctx context.Context, c *client.Client, path string, in io.Reader, column string, w io.Writer) error {
	const mark = "\ufeff" // spreadsheets put it before the first line
	text := bufio.NewReader(in)
	start, err := text.Peek(len(mark))
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("couldn't read the file: %w", err)
	}
	if string(start) == mark {
		_, err = text.Discard(len(mark))
		if err != nil {
			return fmt.Errorf("couldn't read the file: %w", err)
		}
	}
	rows := csv.NewReader(text)
	rows.ReuseRecord, rows.FieldsPerRecord, rows.TrimLeadingSpace = true, -1, true
	var held []string
	size, added, total, sent, read := 0, 0, 0, 0, 0
	send := func() error {
		slices.Sort(held)
		for rest := held; len(rest) > 0; {
			part := firstPart(rest)
			rest = rest[len(part):]
			var answer struct{ Changed, Total int }
			err := c.Call(ctx, "POST", path+"/serials", map[string]any{"serials": part}, &answer)
			if err != nil {
				return fmt.Errorf("after %d serial numbers: %w", sent, err)
			}
			added, total, sent = added+answer.Changed, answer.Total, sent+len(part)
		}
		held, size = held[:0], 0
		return nil
	}
	at := 0
	for line := 1; ; line++ {
		record, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return usageError{fmt.Errorf("couldn't read the file: %w", err)}
		}
		if line == 1 && column != "" {
			at, err = columnOf(record, column)
			if err != nil {
				return err
			}
			continue
		}
		if at >= len(record) || strings.TrimSpace(record[at]) == "" {
			continue
		}
		serial := strings.Clone(strings.TrimSpace(record[at]))
		if len(serial) > imprint.MaxClaimSerial {
			return usageError{fmt.Errorf("line %d: a serial number has %d bytes, at most %d are taken", line, len(serial), imprint.MaxClaimSerial)}
		}
		held, size, read = append(held, serial), size+len(serial)+serialCosts, read+1
		if size >= sortSerialsAt {
			err = send()
			if err != nil {
				return err
			}
		}
	}
	err = send()
	if err != nil {
		return err
	}
	if read == 0 {
		_, err = fmt.Fprintln(w, "no serial number was read: the allow list is as it was")
		return err
	}
	_, err = fmt.Fprintf(w, "%d read, %d added, %d in the allow list\n", read, added, total)
	return err
}

// firstPart gives as many of the first serials as one request takes.
func firstPart(serials []string) []string {
	size := 0
	for n, serial := range serials {
		if n == uploadSerialsAt || size >= uploadBytesAt {
			return serials[:n]
		}
		size += len(serial)
	}
	return serials
}

func columnOf(header []string, name string) (int, error) {
	for n, one := range header {
		if strings.TrimSpace(one) == name {
			return n, nil
		}
	}
	return 0, usageError{fmt.Errorf("the first line has no column %q: %s", name, imprint.Excerpt(strings.Join(header, ", ")))}
}

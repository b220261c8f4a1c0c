package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/pki"
)

// attempt is an attempt as the command line shows it; times are seconds since
// 1970, as the control plane sends them.
type attempt struct {
	ID            string  `json:"attemptId"`
	Account       string  `json:"account,omitempty"`
	Region        string  `json:"region,omitempty"`
	Began         float64 `json:"began"`
	Ended         float64 `json:"ended,omitempty"`
	Address       string  `json:"address,omitempty"`
	ServerName    string  `json:"serverName,omitempty"`
	ALPN          string  `json:"alpn,omitempty"`
	TLSVersion    string  `json:"tlsVersion,omitempty"`
	CertificateID string  `json:"certificateId,omitempty"`
	Serial        string  `json:"serialNumber,omitempty"`
	Subject       string  `json:"subject,omitempty"`
	Thing         string  `json:"thingName,omitempty"`
	ClientID      string  `json:"clientId,omitempty"`
	Outcome       string  `json:"outcome"`
	Code          string  `json:"code,omitempty"`
	Steps         []step  `json:"steps"`
	Repeats       int     `json:"repeats,omitempty"`
	LastAt        float64 `json:"lastAt,omitempty"`
	Next          string  `json:"next,omitempty"`
}

// group is attempts that have something in common.
type group struct {
	Key       string  `json:"key"`
	Attempts  int     `json:"attempts"`
	Devices   int     `json:"devices"`
	First     float64 `json:"first"`
	Last      float64 `json:"last"`
	AttemptID string  `json:"attemptId"`
	Code      string  `json:"code,omitempty"`
	Step      string  `json:"step,omitempty"`
	Detail    string  `json:"detail,omitempty"`
	Fix       string  `json:"fix,omitempty"`
}

// groups is the answer of GroupAttempts.
type groups struct {
	Groups   []group `json:"groups"`
	Read     int     `json:"attemptsRead"`
	Complete bool    `json:"complete"`
	Others   int     `json:"others"`
}

type step struct {
	At      float64 `json:"at"`
	Name    string  `json:"step"`
	Verdict string  `json:"verdict"`
	Code    string  `json:"code,omitempty"`
	Detail  string  `json:"detail,omitempty"`
	Fix     string  `json:"fix,omitempty"`

	// What a policy was asked, where the step is its decision.
	Action   string `json:"action,omitempty"`
	Resource string `json:"resource,omitempty"`
}

// query is what to ask ListAttempts for.
type query struct {
	match  string
	failed bool
	since  time.Time
	limit  int
}

// values gives the members of the request that select attempts.
func (q query) values() url.Values {
	values := url.Values{}
	if q.match != "" {
		values.Set("match", q.match)
	}
	if q.failed {
		values.Set("failed", "true")
	}
	if !q.since.IsZero() {
		values.Set("since", q.since.UTC().Format(time.RFC3339))
	}
	return values
}

// fetchAttempts gives up to limit attempts, newest first.
func fetchAttempts(ctx context.Context, c *client.Client, q query) ([]attempt, error) {
	all := []attempt{}
	token := ""
	for len(all) < q.limit {
		values := q.values()
		values.Set("maxResults", strconv.Itoa(min(q.limit-len(all), 250)))
		if token != "" {
			values.Set("nextToken", token)
		}
		var page struct {
			Attempts  []attempt `json:"attempts"`
			NextToken string    `json:"nextToken"`
		}
		err := c.Call(ctx, "GET", attempts.Path+"?"+values.Encode(), nil, &page)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Attempts...)
		token = page.NextToken
		if token == "" {
			break
		}
	}
	return all, nil
}

func newAttempts() *cobra.Command {
	var failed, asJSON, follow bool
	var since time.Duration
	var limit int
	var groupBy string
	cmd := &cobra.Command{
		Use:   "attempts",
		Short: "List devices' connections and first connections, newest first",
		Example: `imprint attempts --failed --since 1h --group-by reason
imprint attempts --failed --follow`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			q := query{failed: failed, limit: limit}
			if since > 0 {
				q.since = time.Now().Add(-since)
			}
			switch {
			case groupBy != "" && follow:
				return usageError{errors.New("groups can't be followed: leave out --follow or --group-by")}
			case groupBy != "":
				return showGroups(cmd, c, groupBy, q, asJSON)
			case follow:
				return followAttempts(cmd.Context(), c, q, printerFor(cmd.OutOrStdout(), asJSON, false))
			}
			list, err := fetchAttempts(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printTable(cmd.OutOrStdout(), list)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&failed, "failed", false, "only attempts that were refused")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on printing attempts as they end")
	cmd.Flags().DurationVar(&since, "since", 0, "only attempts that began in the last such time, such as 1h")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many attempts, or groups, at most")
	cmd.Flags().StringVar(&groupBy, "group-by", "", "count them by reason, address, thing, certificate or client")
	return cmd
}

// showGroups prints how many attempts have something in common.
func showGroups(cmd *cobra.Command, c *client.Client, by string, q query, asJSON bool) error {
	values := q.values()
	values.Set("by", by)
	var found groups
	err := c.Call(cmd.Context(), "GET", attempts.GroupsPath+"?"+values.Encode(), nil, &found)
	if err != nil {
		return err
	}
	for len(found.Groups) > max(q.limit, 0) {
		last := len(found.Groups) - 1
		found.Others += found.Groups[last].Attempts
		found.Groups = found.Groups[:last]
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), found)
	}
	return printGroups(cmd.OutOrStdout(), by, found)
}

func printGroups(w io.Writer, by string, found groups) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "ATTEMPTS\tDEVICES\tLAST\t%s\tEXAMPLE\n", strings.ToUpper(by))
	for _, g := range found.Groups {
		_, _ = fmt.Fprintf(table, "%d\t%d\t%s\t%s\timprint explain %s\n", g.Attempts, g.Devices, clockTime(g.Last), g.Key, g.AttemptID)
		if g.Fix != "" {
			_, _ = fmt.Fprintf(table, "\t\t\t-> %s\t\n", g.Fix)
		}
	}
	err := table.Flush()
	if err == nil && found.Others > 0 {
		_, err = fmt.Fprintf(w, "%d further attempts are in groups that aren't shown: --limit.\n", found.Others)
	}
	if err == nil && !found.Complete {
		_, err = fmt.Fprintf(w, "The newest %d entries of the trace were counted; there are older ones: --since makes it shorter.\n", found.Read)
	}
	return err
}

func newExplain() *cobra.Command {
	var asJSON, follow bool
	var limit int
	cmd := &cobra.Command{
		Use:   "explain CERTIFICATE-ID | SERIAL | THING | CLIENT-ID | ADDRESS | ARN | FILE.pem | ATTEMPT-ID",
		Short: "Show why a device is, or isn't, connected: the timeline of its attempts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, err := matchOf(args[0])
			if err != nil {
				return err
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			q := query{match: match, limit: limit}
			if follow {
				return followAttempts(cmd.Context(), c, q, printerFor(cmd.OutOrStdout(), asJSON, true))
			}
			list, err := fetchAttempts(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			// The timeline reads downwards, in both forms.
			slices.Reverse(list)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				return imprint.Errorf(imprint.CodeNotFound, "no attempt by %s is recorded", args[0]).
					WithHint("It never reached this server's device port, or was forgotten. `imprint attempts --failed` shows who came.")
			}
			for _, a := range list {
				err = printAttempt(cmd.OutOrStdout(), a)
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on printing attempts as they end")
	cmd.Flags().IntVar(&limit, "limit", 10, "how many attempts at most")
	return cmd
}

// matchOf turns a certificate file into its id and leaves other words alone.
func matchOf(word string) (string, error) {
	data, err := os.ReadFile(word)
	if err != nil {
		if strings.ContainsRune(word, filepath.Separator) && !strings.HasPrefix(word, "arn:") || slices.Contains([]string{".pem", ".crt", ".cer"}, filepath.Ext(word)) {
			return "", usageError{fmt.Errorf("couldn't read the certificate: %w", err)}
		}
		return word, nil // no file of that name: the word itself is meant
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", usageError{fmt.Errorf("%s holds no PEM certificate", word)}
	}
	return string(pki.CertificateID(block.Bytes)), nil
}

// followEvery is how often the server is asked for what is new.
const followEvery = 500 * time.Millisecond

// followAttempts prints attempts as they appear or end, until the context ends.
func followAttempts(ctx context.Context, c *client.Client, q query, show func(attempt) error) error {
	shown := map[string]string{} // id to outcome
	if q.since.IsZero() {
		q.since = time.Now().Add(-time.Minute)
	}
	q.limit = 250
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		list, err := fetchAttempts(ctx, c, q)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		for n := len(list) - 1; n >= 0; n-- {
			if shown[list[n].ID] == list[n].Outcome {
				continue
			}
			shown[list[n].ID] = list[n].Outcome
			err = show(list[n])
			if err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func printerFor(w io.Writer, asJSON, whole bool) func(attempt) error {
	switch {
	case asJSON:
		return func(a attempt) error { return json.NewEncoder(w).Encode(a) }
	case whole:
		return func(a attempt) error { return printAttempt(w, a) }
	default:
		return func(a attempt) error { return printTable(w, []attempt{a}) }
	}
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func clockTime(seconds float64) string {
	return time.UnixMilli(int64(seconds * 1000)).Format("2006-01-02 15:04:05.000")
}

func printTable(w io.Writer, list []attempt) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range list {
		who := a.Thing
		if who == "" {
			who = a.ClientID
		}
		if who == "" {
			who = a.Subject
		}
		code := a.Code
		if a.Repeats > 0 {
			code += fmt.Sprintf(" (+%d)", a.Repeats)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.12s\n", clockTime(a.Began), a.Outcome, code, a.Address, who, a.CertificateID)
	}
	return table.Flush()
}

// printAttempt shows one attempt with its steps.
func printAttempt(w io.Writer, a attempt) error {
	paint := painterFor(w)
	outcome := a.Outcome + " " + a.Code
	if a.Outcome == string(imprint.OutcomeRefused) {
		outcome = paint(bad, outcome)
	}
	_, err := fmt.Fprintf(w, "%s  %s", clockTime(a.Began), outcome)
	if err != nil {
		return err
	}
	if a.Address != "" {
		_, _ = fmt.Fprintf(w, "  from %s", a.Address)
	}
	_, _ = fmt.Fprintf(w, "  (attempt %s)\n", a.ID)
	if a.CertificateID != "" {
		_, _ = fmt.Fprintf(w, "  certificate %s, serial %s, subject %q\n", a.CertificateID, a.Serial, a.Subject)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range a.Steps {
		// Every mark is painted, so that all are as long for the table.
		mark := map[string]string{"ok": paint(good, "ok"), "failed": paint(bad, "FAILED"), "info": paint(plain, "")}[s.Verdict]
		detail := s.Detail
		if s.Action != "" && !strings.Contains(detail, s.Action) {
			detail = fmt.Sprintf("%s on %s is %s", s.Action, s.Resource, detail)
		}
		// A log has lines, and tabs, which would end cells of the table.
		lines := strings.Split(strings.ReplaceAll(detail, "\t", "  "), "\n")
		_, _ = fmt.Fprintf(table, "  %+.1f ms\t%s\t%s\t%s\n", (s.At-a.Began)*1000, s.Name, mark, lines[0])
		for _, line := range lines[1:] {
			_, _ = fmt.Fprintf(table, "\t\t%s\t%s\n", paint(plain, ""), line)
		}
		if s.Fix != "" {
			_, _ = fmt.Fprintf(table, "\t\t%s\t%s\n", paint(plain, ""), paint(bold, "-> "+s.Fix))
		}
	}
	err = table.Flush()
	if err == nil && a.Repeats > 0 {
		_, err = fmt.Fprintf(w, "  and in the same way %d times more, the last at %s\n", a.Repeats, clockTime(a.LastAt))
	}
	if err == nil && a.Next != "" {
		_, err = fmt.Fprintf(w, "  next: %s\n", a.Next)
	}
	return err
}

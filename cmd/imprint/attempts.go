package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// attempt is an attempt as the command line shows it; times are seconds since
// 1970, as the control plane sends them.
type attempt struct {
	ID            string   `json:"attemptId"`
	Account       string   `json:"account,omitempty"`
	Region        string   `json:"region,omitempty"`
	Began         float64  `json:"began"`
	Ended         float64  `json:"ended,omitempty"`
	Changed       float64  `json:"changed,omitempty"` // began, failed last or ended
	Address       string   `json:"address,omitempty"`
	ServerName    string   `json:"serverName,omitempty"`
	ALPN          string   `json:"alpn,omitempty"`
	TLSVersion    string   `json:"tlsVersion,omitempty"`
	CertificateID string   `json:"certificateId,omitempty"`
	Serial        string   `json:"serialNumber,omitempty"`
	Subject       string   `json:"subject,omitempty"`
	Thing         string   `json:"thingName,omitempty"`
	ClientID      string   `json:"clientId,omitempty"`
	Outcome       string   `json:"outcome"`
	Code          string   `json:"code,omitempty"`
	Reason        string   `json:"reason,omitempty"`
	Steps         []step   `json:"steps"`
	Repeats       int      `json:"repeats,omitempty"`
	FirstAt       float64  `json:"firstAt,omitempty"`
	Devices       int      `json:"devices,omitempty"`
	Sample        []string `json:"sample,omitempty"`
	Next          string   `json:"next,omitempty"`
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
	// Wire is what the device's own log has of it, and CertificateID what it made.
	Wire          string `json:"wire,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	// Repeats is how often the same happened again, the last time at LastAt; Others: with
	// other words, those of the last time are shown.
	Repeats int     `json:"repeats,omitempty"`
	LastAt  float64 `json:"lastAt,omitempty"`
	Others  bool    `json:"others,omitempty"`
}

// again says how often a step happened again; empty: never.
func (s step) again(began float64) string {
	switch {
	case s.Repeats == 0:
		return ""
	case s.Others:
		return fmt.Sprintf("and %s, until %+.1f ms", numbered(s.Repeats, "another that differs", "%d others that differ"), (s.LastAt-began)*1000)
	}
	return fmt.Sprintf("and %s, until %+.1f ms", numbered(s.Repeats, "once more", "%d times more"), (s.LastAt-began)*1000)
}

// numbered says how many: one of them, or many in a format that takes their number.
func numbered(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(many, n)
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
		values.Set("since", q.since.UTC().Format(time.RFC3339Nano))
	}
	return values
}

// fetchAttempts gives up to limit attempts, newest first.
func fetchAttempts(ctx context.Context, c *client.Client, q query) ([]attempt, error) {
	all, _, _, err := askAttempts(ctx, c, q)
	return all, err
}

// askAttempts is fetchAttempts with what the server says about the match, and whether
// there are older ones.
func askAttempts(ctx context.Context, c *client.Client, q query) (all []attempt, older bool, notes []string, err error) {
	all = []attempt{}
	older, notes, err = eachPage(ctx, c, q, func(page []attempt) { all = append(all, page...) })
	if err != nil {
		return nil, false, nil, err
	}
	return all, older, notes, nil
}

// eachPage tells of up to limit attempts, newest first, page by page, and gives whether
// there are older ones, and what the server says about the match.
func eachPage(ctx context.Context, c *client.Client, q query, tell func([]attempt)) (older bool, notes []string, err error) {
	token := ""
	for left := q.limit; left > 0; {
		values := q.values()
		values.Set("maxResults", strconv.Itoa(min(left, 250)))
		if token != "" {
			values.Set("nextToken", token)
		}
		var page struct {
			Attempts  []attempt `json:"attempts"`
			NextToken string    `json:"nextToken"`
			Notes     []string  `json:"notes"`
		}
		err = c.Call(ctx, "GET", attempts.Path+"?"+values.Encode(), nil, &page)
		if err != nil {
			return false, nil, err
		}
		tell(page.Attempts)
		notes = append(notes, page.Notes...)
		left -= len(page.Attempts)
		token = page.NextToken
		if token == "" {
			break
		}
	}
	return token != "", notes, nil
}

func newAttempts() *cobra.Command {
	var failed, asJSON, follow bool
	var from since
	var limit int
	var groupBy string
	cmd := &cobra.Command{
		Use:   "attempts",
		Short: "List devices' connections and first connections, newest first",
		Example: `  imprint attempts --failed --since 1h --group-by reason
  imprint attempts --failed --follow`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := query{failed: failed, limit: limit, since: from.Time}
			switch {
			case limit < 1:
				return limitError(limit)
			case groupBy != "" && follow:
				return usageError{errors.New("groups can't be followed: leave out --follow or --group-by")}
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			switch {
			case groupBy != "":
				return showGroups(cmd, c, groupBy, q, asJSON)
			case follow:
				return followAttempts(cmd.Context(), c, q, printerFor(cmd.OutOrStdout(), asJSON, false), sayOnce(cmd.OutOrStdout()))
			}
			list, err := fetchAttempts(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), nothingCame(q))
				return err
			}
			return printTable(cmd.OutOrStdout(), true, list...)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&failed, "failed", false, "only attempts that were refused, or in which a step failed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on printing attempts as they end")
	addSinceFlag(cmd, &from)
	cmd.Flags().IntVar(&limit, "limit", 50, "how many attempts, or groups, at most")
	cmd.Flags().StringVar(&groupBy, "group-by", "", "count them by reason, address, thing, certificate or client")
	return cmd
}

// nothingCame says why a list of attempts is empty.
func nothingCame(q query) string {
	if q.failed || !q.since.IsZero() {
		return "no such attempt is kept"
	}
	return "no device has come yet, or its attempts are no longer kept"
}

func limitError(limit int) error {
	return usageError{fmt.Errorf("--limit is %d, and must be at least 1", limit)}
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
	for len(found.Groups) > q.limit {
		last := len(found.Groups) - 1
		found.Others += found.Groups[last].Attempts
		found.Groups = found.Groups[:last]
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), found)
	}
	return printGroups(cmd.OutOrStdout(), by, found)
}

func newExplain() *cobra.Command {
	var asJSON, follow bool
	var limit int
	cmd := &cobra.Command{
		Use:   "explain CERTIFICATE-ID | SERIAL | THING | CLIENT-ID | ADDRESS | ARN | FILE.pem | ATTEMPT-ID | -",
		Short: "Show why a device is, or isn't, connected: the timeline of its attempts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return limitError(limit)
			}
			word := args[0]
			match, about, err := wordOf(cmd.InOrStdin(), word)
			if err != nil {
				return err
			}
			if word == "-" {
				word = match
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			q := query{match: match, limit: limit}
			say := sayOnce(cmd.OutOrStdout())
			if asJSON {
				say = sayOnce(cmd.ErrOrStderr()) // what tools read is JSON alone
			}
			say(about)
			if follow {
				return followAttempts(cmd.Context(), c, q, printerFor(cmd.OutOrStdout(), asJSON, true), say)
			}
			list, older, notes, err := askAttempts(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			if older {
				notes = append(notes, fmt.Sprintf("These are the latest %d: --limit shows older ones, too.", len(list)))
			}
			// The timeline reads downwards, in both forms.
			slices.Reverse(list)
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), list)
			}
			switch {
			case err != nil:
				return err
			case len(list) == 0:
				return nothingFound(word, notes)
			}
			say(notes)
			if asJSON {
				return nil
			}
			for _, a := range list {
				err = printAttempt(cmd.OutOrStdout(), a)
				if err != nil {
					return err
				}
			}
			return printMade(cmd.Context(), cmd.OutOrStdout(), c, list)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on printing attempts as they end")
	cmd.Flags().IntVar(&limit, "limit", 10, "how many attempts at most")
	return cmd
}

const (
	// followEvery is how often the server is asked for what is new.
	followEvery = 500 * time.Millisecond
	// followBack is how far back it is asked for, from the latest that it told of on: it
	// hears of more of the same from a device that is on once a minute.
	followBack = 2 * time.Minute
)

// state is what of an attempt changes: one is shown again when it does.
type state struct {
	outcome         string
	repeats, failed int
}

func stateOf(a attempt) state {
	s := state{outcome: a.Outcome, repeats: a.Repeats}
	for i := range a.Steps {
		if a.Steps[i].Verdict == string(imprint.VerdictFailed) {
			s.failed += 1 + a.Steps[i].Repeats
		}
	}
	return s
}

// followAttempts prints attempts as they appear, are counted with a new one, are refused
// something, or end, however long ago they began, until the context ends, and says what is
// found out about the match. Of a device the latest attempt comes first.
func followAttempts(ctx context.Context, c *client.Client, q query, show func(attempt) error, say func(notes []string)) error {
	shown := map[string]state{}
	if q.match != "" && q.since.IsZero() {
		latest := q
		latest.limit = 1
		list, _, notes, err := askAttempts(ctx, c, latest)
		if err != nil {
			return err
		}
		say(notes)
		for _, a := range list {
			shown[a.ID] = stateOf(a)
			err = show(a)
			if err != nil {
				return err
			}
		}
	}
	if q.since.IsZero() {
		q.since = time.Now().Add(-time.Minute)
	}
	q.limit = math.MaxInt
	for {
		began := time.Now()
		now := make(map[string]state, len(shown))
		var fresh []attempt // newest first
		_, notes, err := eachPage(ctx, c, q, func(page []attempt) {
			for _, a := range page {
				now[a.ID] = stateOf(a)
				if shown[a.ID] != now[a.ID] {
					fresh = append(fresh, a)
				}
			}
		})
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		say(notes)
		for _, a := range slices.Backward(fresh) {
			if from := secondsTime(a.Changed).Add(-followBack); from.After(q.since) {
				q.since = from
			}
			err = show(a)
			if err != nil {
				return err
			}
		}
		shown = now
		select {
		case <-ctx.Done():
			return nil
		// In a storm a round takes long: the server has other things to do then.
		case <-time.After(max(followEvery, 4*time.Since(began))):
		}
	}
}

// sayOnce writes notes, none of them twice.
func sayOnce(w io.Writer) func(notes []string) {
	said := map[string]bool{}
	return func(notes []string) {
		for _, note := range notes {
			if !said[note] {
				said[note] = true
				_, _ = fmt.Fprintln(w, note)
			}
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
		return func(a attempt) error { return printTable(w, false, a) }
	}
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func secondsTime(seconds float64) time.Time { return time.UnixMilli(int64(seconds * 1000)) }

func clockTime(seconds float64) string {
	return secondsTime(seconds).Format("2006-01-02 15:04:05.000")
}

// byMany tells of whom the attempts are that are counted with one.
func byMany(a attempt) string {
	if a.Devices < 2 {
		return ""
	}
	some := a.Sample
	if len(some) > 3 {
		some = some[len(some)-3:]
	}
	return fmt.Sprintf(", by at least %d devices; the latest: %s", a.Devices, strings.Join(some, ", "))
}

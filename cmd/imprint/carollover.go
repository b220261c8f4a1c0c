package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// rolloverItem is one that fails, as the API gives it. Times are seconds since 1970.
type rolloverItem struct {
	Kind          string  `json:"kind"`
	Thing         string  `json:"thing,omitempty"`
	CertificateID string  `json:"certificateId"`
	Subject       string  `json:"subject,omitempty"`
	Serial        string  `json:"serial,omitempty"`
	Signer        string  `json:"signer,omitempty"`
	NotAfter      float64 `json:"notAfter,omitempty"`
	SeenAt        float64 `json:"seenAt,omitempty"`
	Unseen        bool    `json:"unseen"`
	Moved         string  `json:"moved,omitempty"`
	ProvenAt      float64 `json:"provenAt,omitempty"`
}

// rolloverCounts are the sums of a rehearsal.
type rolloverCounts struct {
	Looked         int64   `json:"looked"`
	Certificates   int64   `json:"certificates"`
	Devices        int64   `json:"devices"`
	Loose          int64   `json:"loose"`
	Moved          int64   `json:"moved"`
	Proven         int64   `json:"proven"`
	Unseen         int64   `json:"unseen"`
	Finished       int64   `json:"finished"`
	FinishedProven int64   `json:"finishedProven"`
	Carried        int64   `json:"carried"`
	Claims         int64   `json:"claims"`
	Waiting        int64   `json:"waiting"`
	Inactive       int64   `json:"inactive"`
	Unregistered   int64   `json:"unregistered"`
	LastEnd        float64 `json:"lastEnd,omitempty"`
}

func (c *rolloverCounts) add(more rolloverCounts) {
	c.Looked += more.Looked
	c.Certificates += more.Certificates
	c.Devices += more.Devices
	c.Loose += more.Loose
	c.Moved += more.Moved
	c.Proven += more.Proven
	c.Unseen += more.Unseen
	c.Finished += more.Finished
	c.FinishedProven += more.FinishedProven
	c.Carried += more.Carried
	c.Claims += more.Claims
	c.Waiting += more.Waiting
	c.Inactive += more.Inactive
	c.Unregistered += more.Unregistered
	c.LastEnd = max(c.LastEnd, more.LastEnd)
}

// rolloverCA is a CA that fails.
type rolloverCA struct {
	Name             string  `json:"name"`
	CertificateID    string  `json:"certificateId"`
	ID               string  `json:"id,omitempty"`
	Status           string  `json:"status,omitempty"`
	RegisteredStatus string  `json:"registeredStatus,omitempty"`
	AutoRegistration bool    `json:"autoRegistration"`
	Template         string  `json:"template,omitempty"`
	NotAfter         float64 `json:"notAfter"`
}

// rolloverLabel is a label of EST that fails.
type rolloverLabel struct {
	Name  string `json:"name"`
	Signs bool   `json:"signs"`
	Shown bool   `json:"shown"`
}

type rolloverPart struct {
	Items       []rolloverItem  `json:"items"`
	Counts      rolloverCounts  `json:"counts"`
	Authorities []rolloverCA    `json:"authorities"`
	Labels      []rolloverLabel `json:"labels"`
	Server      bool            `json:"server"`
	NextToken   string          `json:"nextToken"`
}

// rolloverPlan is a plan as the API gives it.
type rolloverPlan struct {
	From         string  `json:"from"`
	FromName     string  `json:"fromName,omitempty"`
	To           string  `json:"to,omitempty"`
	ToName       string  `json:"toName,omitempty"`
	Devices      int64   `json:"devices"`
	Certificates int64   `json:"certificates"`
	LastEnd      float64 `json:"lastEnd,omitempty"`
	RenewFrom    float64 `json:"renewFrom"`
	RenewUntil   float64 `json:"renewUntil"`
	StartedAt    float64 `json:"startedAt"`
	StartedBy    string  `json:"startedBy,omitempty"`
	Steps        []struct {
		Name    string  `json:"name"`
		At      float64 `json:"at,omitempty"`
		Until   float64 `json:"until,omitempty"`
		State   string  `json:"state"`
		Detail  string  `json:"detail,omitempty"`
		Command string  `json:"command,omitempty"`
	} `json:"steps"`
}

// rolloverFlags are what the command was asked.
type rolloverFlags struct {
	rehearse, start, forget string
	progress                bool
	to                      string
	unseen, show            int
	renewFrom, renewUntil   string
}

func newCARollover() *cobra.Command {
	var f rolloverFlags
	cmd := newCACommand("rollover", "Rehearse a CA's end, plan its successor, and see how far it is", cobra.MaximumNArgs(1), func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
		asked := 0
		for _, set := range []bool{f.rehearse != "", f.start != "", f.forget != "", f.progress} {
			if set {
				asked++
			}
		}
		if asked != 1 || len(args) > 0 && !f.progress {
			return usageError{errors.New("say one of --rehearse CA, --start CA, --progress [CA] and --forget CA")}
		}
		switch {
		case f.progress:
			return rolloverProgress(ctx, c, w, args, f, asJSON)
		case f.forget != "":
			return c.Call(ctx, "DELETE", rolloverPath(f.forget), nil, nil)
		}
		return rehearse(ctx, c, w, f, asJSON)
	})
	cmd.Long = `Rehearse answers who would fail if a CA ended today: devices, certificates, claims, CAs
below it, and the server's own certificate; and plans how its devices move to another. Start
keeps the plan, and from then on which certificates are seen; progress shows how far it is.
CA is an authority's name, id or ARN, a certificate's id or its beginning, or device-ca.

  imprint ca rollover --rehearse line7 --to line8
  imprint ca rollover --start line7 --to line8
  imprint ca rollover --progress`
	flags := cmd.Flags()
	flags.StringVar(&f.rehearse, "rehearse", "", "CA whose end is rehearsed")
	flags.StringVar(&f.start, "start", "", "CA whose rollover is rehearsed, and then kept as a plan")
	flags.BoolVar(&f.progress, "progress", false, "show how far the plans are, or that of one CA")
	flags.StringVar(&f.forget, "forget", "", "CA whose plan is deleted")
	flags.StringVar(&f.to, "to", "", "CA that takes its place")
	flags.IntVar(&f.unseen, "unseen", 30, "days after which a device that wasn't seen will come late")
	flags.IntVar(&f.show, "show", 20, "how many devices and certificates are listed (0: all)")
	flags.StringVar(&f.renewFrom, "renew-from", "", "when devices begin to get new certificates (default: chosen)")
	flags.StringVar(&f.renewUntil, "renew-until", "", "when the last of them should have one (default: chosen)")
	return cmd
}

func rolloverPath(ca string) string {
	return authorities.RolloverPath + "/" + url.PathEscape(ca)
}

// eachPart reads a rehearsal part by part: nothing of it is kept.
func eachPart(ctx context.Context, c *client.Client, from, to string, unseen int, fn func(first bool, part rolloverPart) error) error {
	token := ""
	for {
		query := url.Values{"unseenDays": {strconv.Itoa(unseen)}, "maxResults": {"500"}}
		if to != "" {
			query.Set("to", to)
		}
		if token != "" {
			query.Set("nextToken", token)
		}
		var part rolloverPart
		err := c.Call(ctx, "GET", rolloverPath(from)+"/devices?"+query.Encode(), nil, &part)
		if err != nil {
			return err
		}
		err = fn(token == "", part)
		if err != nil {
			return err
		}
		token = part.NextToken
		if token == "" {
			return nil
		}
	}
}

// rehearse shows who would fail, and the plan, which it keeps if that was asked.
func rehearse(ctx context.Context, c *client.Client, w io.Writer, f rolloverFlags, asJSON bool) error {
	from, keep := f.rehearse, false
	if f.start != "" {
		from, keep = f.start, true
	}
	body := map[string]any{"dryRun": !keep}
	err := errors.Join(addTime(body, "renewFrom", f.renewFrom), addTime(body, "renewUntil", f.renewUntil))
	if err != nil {
		return err
	}
	shown := rehearsal{w: w, json: asJSON, limit: f.show}
	err = eachPart(ctx, c, from, f.to, f.unseen, shown.part)
	if err != nil {
		return err
	}
	addText(body, "to", f.to)
	body["devices"], body["certificates"] = shown.counts.Devices+shown.counts.Loose, shown.counts.Certificates
	if shown.counts.LastEnd > 0 {
		body["lastEnd"] = int64(shown.counts.LastEnd)
	}
	var plan rolloverPlan
	err = c.Call(ctx, "PUT", rolloverPath(from), body, &plan)
	if err != nil {
		return err
	}
	return shown.end(plan, f.unseen)
}

// rehearsal writes a rehearsal as it comes.
type rehearsal struct {
	w      io.Writer
	json   bool
	limit  int
	listed int
	counts rolloverCounts
	server bool
	cas    []rolloverCA
	labels []rolloverLabel
}

func (r *rehearsal) part(first bool, part rolloverPart) error {
	r.counts.add(part.Counts)
	if first {
		r.server, r.cas, r.labels = part.Server, part.Authorities, part.Labels
		err := r.begin()
		if err != nil {
			return err
		}
	}
	for _, item := range part.Items {
		if r.limit > 0 && r.listed >= r.limit {
			return nil
		}
		err := r.item(item)
		if err != nil {
			return err
		}
		r.listed++
	}
	return nil
}

func (r *rehearsal) begin() error {
	if r.json {
		cas, err := json.Marshal(r.cas)
		if err != nil {
			return fmt.Errorf("couldn't encode the CAs: %w", err)
		}
		labels, err := json.Marshal(r.labels)
		if err != nil {
			return fmt.Errorf("couldn't encode the labels: %w", err)
		}
		_, err = fmt.Fprintf(r.w, "{\"authorities\":%s,\"labels\":%s,\"server\":%t,\"items\":[", cas, labels, r.server)
		return err
	}
	for n, ca := range r.cas {
		word := "CA"
		if n > 0 {
			word = "and CA"
		}
		_, err := fmt.Fprintf(r.w, "%s %s (%s)%s ends %s\n", word, ca.Name, shortID(ca.CertificateID), joins(ca), dayTime(ca.NotAfter))
		if err != nil {
			return err
		}
	}
	for _, label := range r.labels {
		words := "devices show certificates of it there"
		if label.Signs {
			words = "it signs there"
		}
		_, err := fmt.Fprintf(r.w, "EST label %s: %s\n", label.Name, words)
		if err != nil {
			return err
		}
	}
	if r.server {
		_, err := fmt.Fprintln(r.w, "THE SERVER'S OWN CERTIFICATE is below it: devices wouldn't trust the server (--tls-certificate)")
		return err
	}
	return nil
}

// joins says how devices join by a CA.
func joins(ca rolloverCA) string {
	switch {
	case ca.RegisteredStatus == "":
		return ""
	case ca.Template != "":
		return ", by which devices join with template " + ca.Template + " (" + ca.RegisteredStatus + "),"
	case ca.AutoRegistration:
		return ", by which devices are registered (" + ca.RegisteredStatus + "),"
	}
	return ", registered " + ca.RegisteredStatus + ","
}

func shortID(id string) string {
	const enough = 12
	if len(id) > enough {
		return id[:enough]
	}
	return id
}

func (r *rehearsal) item(item rolloverItem) error {
	if r.json {
		text, err := json.Marshal(item)
		if err != nil {
			return fmt.Errorf("couldn't encode an item: %w", err)
		}
		separator := ","
		if r.listed == 0 {
			separator = ""
		}
		_, err = fmt.Fprintf(r.w, "%s\n%s", separator, text)
		return err
	}
	name := item.Thing
	if name == "" {
		name = item.Subject
	}
	seen := "not seen by the trace"
	if item.SeenAt > 0 {
		seen = "seen " + dayTime(item.SeenAt)
	}
	switch item.Kind {
	case "unregistered", "waiting", "inactive":
		seen = "-"
	}
	_, err := fmt.Fprintf(r.w, "%s\t%s\t%s\tends %s\t%s\t%s\n", item.Kind, name, shortID(item.CertificateID), dayTime(item.NotAfter), seen, movedWords(item))
	return err
}

func movedWords(item rolloverItem) string {
	switch {
	case item.ProvenAt > 0:
		return "has moved, and connected with " + shortID(item.Moved)
	case item.Moved != "":
		return "has " + shortID(item.Moved) + ", not proven by a connection"
	case item.Unseen && (item.Kind == "device" || item.Kind == "certificate"):
		return "fails, and comes late"
	}
	return "fails"
}

func (r *rehearsal) end(plan rolloverPlan, unseen int) error {
	if r.json {
		counts, err := json.Marshal(r.counts)
		if err != nil {
			return fmt.Errorf("couldn't encode the counts: %w", err)
		}
		steps, err := json.Marshal(plan)
		if err != nil {
			return fmt.Errorf("couldn't encode the plan: %w", err)
		}
		_, err = fmt.Fprintf(r.w, "],\n\"counts\":%s,\n\"plan\":%s}\n", counts, steps)
		return err
	}
	c := r.counts
	total := c.Devices + c.Loose + c.Claims + c.Waiting + c.Inactive + c.Unregistered
	if int64(r.listed) < total {
		_, _ = fmt.Fprintf(r.w, "... and %d more (--show 0 lists all)\n", total-int64(r.listed))
	}
	table := tabwriter.NewWriter(r.w, 0, 0, 2, ' ', 0)
	row := func(n int64, words string) {
		if n > 0 {
			_, _ = fmt.Fprintf(table, "%d\t%s\n", n, words)
		}
	}
	_, _ = fmt.Fprintln(table)
	row(c.Devices, fmt.Sprintf("device(s) with %d certificate(s) that fail", c.Certificates-c.Loose))
	row(c.Moved, fmt.Sprintf("of them have moved, %d proven by a connection", c.Proven))
	row(c.Loose, "certificate(s) of no thing")
	row(c.Unseen, fmt.Sprintf("of both not seen for %d days, as far as anybody knows: they come late", unseen))
	row(c.Finished, fmt.Sprintf("device(s) that have certificates of the new CA alone, %d proven by a connection", c.FinishedProven))
	row(c.Carried, "certificate(s) that another chain carries: they go on")
	row(c.Claims, "claim certificate(s)")
	row(c.Waiting, "certificate(s) that wait for activation")
	row(c.Inactive, "certificate(s) that are switched off")
	row(c.Unregistered, "certificate(s) issued and never registered: their first connection would be refused")
	if total+c.Carried == 0 {
		_, _ = fmt.Fprintln(table, "no device depends on it")
	}
	err := table.Flush()
	if err != nil {
		return err
	}
	return printPlan(r.w, plan)
}

var stepTitles = map[string]string{
	"made": "the new CA is made", "trusted": "both are trusted", "registered": "the new one is registered", "signing": "the old one stops signing", "enrolment": "EST gives the new one's",
	"renewal": "devices renew", "last-end": "the last old certificate ends", "inactive": "the old CA is switched off", "deleted": "the old CA is deleted",
}

func printPlan(w io.Writer, plan rolloverPlan) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table)
	for _, s := range plan.Steps {
		at := dayTime(s.At)
		if s.Until > 0 {
			at += " to " + dayTime(s.Until)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.State, stepTitles[s.Name], at, s.Detail)
		if s.Command != "" && s.State != "done" {
			_, _ = fmt.Fprintf(table, "\t\t\t$ %s\n", s.Command)
		}
	}
	return table.Flush()
}

// rolloverDone is how far a plan is.
type rolloverDone struct {
	Plan   rolloverPlan   `json:"plan"`
	Counts rolloverCounts `json:"counts"`
	// Gone: the CA that ends isn't here any more, so nothing is left to be counted.
	Gone bool `json:"gone"`
}

func rolloverProgress(ctx context.Context, c *client.Client, w io.Writer, args []string, f rolloverFlags, asJSON bool) error {
	plans, err := rolloverPlans(ctx, c, args)
	if err != nil {
		return err
	}
	all := []rolloverDone{}
	for _, plan := range plans {
		done := rolloverDone{Plan: plan, Gone: plan.FromName == ""}
		if !done.Gone {
			err = eachPart(ctx, c, plan.From, plan.To, f.unseen, func(_ bool, part rolloverPart) error {
				done.Counts.add(part.Counts)
				return nil
			})
			if err != nil {
				return err
			}
		}
		all = append(all, done)
	}
	if asJSON {
		return printJSON(w, all)
	}
	if len(all) == 0 {
		_, err = fmt.Fprintln(w, "no rollover is planned: imprint ca rollover --start CA --to CA")
		return err
	}
	for _, done := range all {
		err = printProgress(w, done, f.unseen)
		if err != nil {
			return err
		}
	}
	return nil
}

func rolloverPlans(ctx context.Context, c *client.Client, args []string) ([]rolloverPlan, error) {
	if len(args) == 1 {
		var plan rolloverPlan
		err := c.Call(ctx, "GET", rolloverPath(args[0]), nil, &plan)
		return []rolloverPlan{plan}, err
	}
	return getAll[rolloverPlan](ctx, c, authorities.RolloverPath, nil, "rollovers")
}

func printProgress(w io.Writer, done rolloverDone, unseen int) error {
	plan, c := done.Plan, done.Counts
	from, to := plan.FromName, plan.ToName
	if from == "" {
		from = shortID(plan.From) + " (gone)"
	}
	if to == "" {
		to = "nothing yet"
	}
	moved, proven := c.Moved+c.Finished, c.Proven+c.FinishedProven
	left := c.Devices - c.Moved + c.Loose
	_, err := fmt.Fprintf(w, "%s to %s, since %s with %d device(s)\n", from, to, dayTime(plan.StartedAt), plan.Devices)
	if err == nil && !done.Gone {
		_, err = fmt.Fprintf(w, "%d of %d have a certificate of the new CA, %d proven by a connection; %d still depend on the old one alone",
			moved, moved+left, proven, left)
	}
	if err == nil && !done.Gone && c.Unseen > 0 {
		_, err = fmt.Fprintf(w, ", %d of them not seen for %d days", c.Unseen, unseen)
	}
	if err == nil && !done.Gone {
		_, err = fmt.Fprintf(w, "\n%s\n", bar(moved, moved+left))
	}
	if err != nil {
		return err
	}
	return printPlan(w, plan)
}

// bar draws how much of a whole is done.
func bar(done, whole int64) string {
	const width = 40
	filled := int64(width)
	if whole > 0 {
		filled = done * width / whole
	}
	return "[" + strings.Repeat("#", int(filled)) + strings.Repeat(".", int(width-filled)) + "]"
}

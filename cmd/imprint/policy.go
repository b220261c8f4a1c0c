package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/explain"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
)

func newPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Explain, lint and write what devices may do",
		Long: `Explain why a device may or may not do something, look for mistakes in a policy,
and write the least policy for what a device did.

Exit codes: 0 allowed, or nothing found; 3 denied, or mistakes found; 1 the command
failed; 2 bad usage.`,
	}
	cmd.AddCommand(newPolicyExplain(), newPolicyLint(), newPolicyLeast())
	return cmd
}

// policyQuestion are the flags of `imprint policy explain`.
type policyQuestion struct {
	certificate, thing, clientID string
	action, topic, will          string
	persistent                   bool
	address, serverName          string
	files, values                []string
	account, region              string
	asJSON                       bool
}

func newPolicyExplain() *cobra.Command {
	q := &policyQuestion{}
	cmd := &cobra.Command{
		Use:   "explain --action connect|publish|retain|subscribe|receive",
		Short: "Tell whether a device may do something, by which statement, and what is amiss",
		Long: `Tell whether a device may do something, the statement that decides, the values of
its variables, and what came nearest when nothing allows it.

With --cert or --thing the server is asked, which decides with what a connection of
the certificate has. With --policy the files decide, and no server is needed: --cert
is a PEM file then, --thing and --client-id are taken as they are, and --var gives
other values:

  imprint policy explain --thing sensor-17 --action publish --topic d/sensor-17/state
  imprint policy explain --cert device.pem --client-id x --action connect
  imprint policy explain --policy p.json --thing s --var 'iot:Connection.Thing.Attributes[site]=lab' \
      --action subscribe --topic 'd/s/#'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := q.check()
			if err != nil {
				return err
			}
			var answer explain.Answer
			if len(q.files) > 0 {
				answer, err = q.offline(time.Now())
			} else {
				answer, err = q.ask(cmd)
			}
			if err != nil {
				return err
			}
			if q.asJSON {
				err = printJSON(cmd.OutOrStdout(), answer)
			} else {
				err = printAnswer(cmd.OutOrStdout(), answer)
			}
			if err == nil && answer.Decision != policy.Allowed {
				return exitNo
			}
			return err
		},
	}
	addDataFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&q.action, "action", "", "connect, publish, retain (a publish with the retain flag), subscribe or receive")
	f.StringVar(&q.topic, "topic", "", "topic, or topic filter of subscribe")
	f.StringVar(&q.certificate, "cert", "", "certificate: id, ARN or PEM file")
	f.StringVar(&q.thing, "thing", "", "thing; without --cert its only certificate is meant")
	f.StringVar(&q.clientID, "client-id", "", "client id (default: the thing's name)")
	f.StringVar(&q.will, "will-topic", "", "topic of the will, with connect")
	f.BoolVar(&q.persistent, "persistent", false, "connect with a session that is kept")
	f.StringVar(&q.address, "source-ip", "", "address that the device comes from")
	f.StringVar(&q.serverName, "server-name", "", "server name (SNI) that it asks for")
	f.StringArrayVar(&q.files, "policy", nil, "decide by this file, without a server; may be repeated")
	f.StringArrayVar(&q.values, "var", nil, "with --policy: NAME=VALUE of a variable or condition key; may be repeated")
	f.StringVar(&q.account, "account", "000000000000", "with --policy: account of the ARNs")
	f.StringVar(&q.region, "region", "us-east-1", "with --policy: region of the ARNs")
	f.BoolVar(&q.asJSON, "json", false, "print JSON")
	return cmd
}

// check finds what can't be understood, before anything is asked.
func (q *policyQuestion) check() error {
	switch {
	case !slices.Contains(policy.QuestionActions(), q.action):
		return usageError{fmt.Errorf("--action is %q, not one of %s", q.action, strings.Join(policy.QuestionActions(), ", "))}
	case q.action != "connect" && q.topic == "":
		return usageError{fmt.Errorf("%s needs --topic", q.action)}
	case len(q.files) == 0 && q.certificate == "" && q.thing == "":
		return usageError{fmt.Errorf("--cert or --thing must say which device, or --policy which file decides")}
	case len(q.files) == 0 && len(q.values) > 0:
		return usageError{fmt.Errorf("--var is for --policy: the server knows the values")}
	case len(q.files) > 0 && q.action == "connect" && q.clientID == "" && q.thing == "":
		return usageError{fmt.Errorf("connect needs --client-id, or --thing for one of the thing's name")}
	}
	if q.address != "" {
		_, err := netip.ParseAddr(q.address)
		if err != nil {
			return usageError{fmt.Errorf("--source-ip: %w", err)}
		}
	}
	return nil
}

// ask lets the server decide.
func (q *policyQuestion) ask(cmd *cobra.Command) (explain.Answer, error) {
	body := map[string]any{"action": q.action}
	for name, value := range map[string]string{
		"thingName": q.thing, "clientId": q.clientID, "topic": q.topic, "willTopic": q.will, "sourceIp": q.address, "serverName": q.serverName,
	} {
		if value != "" {
			body[name] = value
		}
	}
	if q.persistent {
		body["persistent"] = true
	}
	if q.certificate != "" {
		id, err := certificateIDOf(q.certificate)
		if err != nil {
			return explain.Answer{}, err
		}
		body["certificateId"] = id
	}
	c, err := newOperatorClient(cmd)
	if err != nil {
		return explain.Answer{}, err
	}
	var answer explain.Answer
	err = c.Call(cmd.Context(), "POST", explain.Path, body, &answer)
	return answer, err
}

// certificateIDOf reads an id, an ARN or a PEM file.
func certificateIDOf(word string) (string, error) {
	match, err := matchOf(word)
	if err != nil {
		return "", err
	}
	if _, resource, err := imprint.ParseARN(match); err == nil {
		match = strings.TrimPrefix(resource, "cert/")
	}
	id, err := imprint.ParseCertificateID(match)
	if err != nil {
		return "", usageError{fmt.Errorf("--cert is no certificate's id, ARN or file: %w", err)}
	}
	return string(id), nil
}

// offline decides by files.
func (q *policyQuestion) offline(now time.Time) (explain.Answer, error) {
	account, err := imprint.ParseAccountID(q.account)
	if err != nil {
		return explain.Answer{}, usageError{fmt.Errorf("--account: %w", err)}
	}
	region, err := imprint.ParseRegion(q.region)
	if err != nil {
		return explain.Answer{}, usageError{fmt.Errorf("--region: %w", err)}
	}
	answer := explain.Answer{ThingName: q.thing, ClientID: q.clientID, Policies: q.files}
	if answer.ClientID == "" {
		answer.ClientID = q.thing
	}
	var named []policy.Named
	for _, path := range q.files {
		document, err := readPolicyFile(path)
		if err != nil {
			return explain.Answer{}, err
		}
		named = append(named, policy.Named{Name: path, Doc: document})
	}
	binding, err := q.binding(answer.ClientID)
	if err != nil {
		return explain.Answer{}, err
	}
	question := policy.Question{
		Action: q.action, ARN: imprint.Tenant{Account: account, Region: region}.ARN(""), Topic: q.topic, ClientID: binding.ClientID,
		Vars: policy.NewVariables(binding), Now: now, LastWillTopic: q.will,
	}
	if q.persistent {
		question.ConnectAttributes = policy.PersistentConnect
	}
	answer.Answer, err = policy.Compile(named...).Answer(question)
	if err != nil {
		return explain.Answer{}, usageError{err}
	}
	return answer, nil
}

// binding is what the flags say of the connection.
func (q *policyQuestion) binding(clientID string) (policy.Binding, error) {
	binding := policy.Binding{ClientID: clientID, DomainName: q.serverName}
	if q.address != "" {
		binding.SourceIP, _ = netip.ParseAddr(q.address) // checked already
	}
	if q.thing != "" {
		binding.Thing = &policy.Thing{Name: q.thing}
	}
	if q.certificate != "" {
		text, err := readSmallFile(q.certificate, pki.MaxPEM)
		if err != nil {
			return policy.Binding{}, err
		}
		leaf, err := pki.ParseCertificatePEM(string(text))
		if err != nil {
			return policy.Binding{}, usageError{fmt.Errorf("couldn't read the certificate %s: %w", q.certificate, err)}
		}
		binding.Certificate = policy.NewCertificateVariables(leaf)
	}
	values := map[string][]string{}
	for _, one := range q.values {
		name, value, found := strings.Cut(one, "=")
		if !found {
			return policy.Binding{}, usageError{fmt.Errorf("--var is %q, and must be NAME=VALUE", one)}
		}
		name = strings.TrimSuffix(strings.TrimPrefix(name, "${"), "}")
		values[name] = append(values[name], value)
	}
	binding, err := policy.BindingFrom(binding, values)
	if err != nil {
		return policy.Binding{}, usageError{fmt.Errorf("--var: %w", err)}
	}
	return binding, nil
}

// readPolicyFile reads a policy of any length up to that of CreatePolicy's request:
// the quota on characters is the linter's affair.
func readPolicyFile(path string) (*policy.Document, error) {
	text, err := readSmallFile(path, policy.MaxBytes)
	if err != nil {
		return nil, err
	}
	document, err := policy.ParseWith(text, policy.ParseOptions{MaxCharacters: -1})
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeMalformedPolicy, "%s: %w", path, err).WithHint("`imprint policy lint %s` tells more.", path)
	}
	return document, nil
}

// printAnswer shows an answer in columns.
func printAnswer(w io.Writer, answer explain.Answer) error {
	if answer.CertificateID != "" {
		or := func(s, otherwise string) string {
			if s == "" {
				return otherwise
			}
			return s
		}
		_, err := fmt.Fprintf(w, "certificate %s, client id %s, thing %s, policies: %s\n", answer.CertificateID, or(answer.ClientID, "(none)"),
			or(answer.ThingName, "(none)"), or(strings.Join(answer.Policies, ", "), "(none)"))
		if err != nil {
			return err
		}
	}
	for _, x := range answer.Explanations {
		head := map[policy.Decision]string{policy.Allowed: "ALLOWED"}[x.Decision]
		if head == "" {
			head = "DENIED"
		}
		_, err := fmt.Fprintf(w, "%s  %s on %s\n", head, x.Action, x.Resource)
		if err != nil {
			return err
		}
		err = printExplanation(w, x)
		if err != nil {
			return err
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, note := range answer.Notes {
		_, _ = fmt.Fprintf(table, "  note\t%s\n", note)
	}
	return table.Flush()
}

func printExplanation(w io.Writer, x policy.Explanation) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	if x.Statement != nil {
		name := "by"
		if x.Deciding == nil {
			name = "nearest"
		}
		row(name, "%s, line %d, column %d", x.Statement.StatementRef, x.Statement.Line, x.Statement.Column)
		row("", "%s", oneLine(x.Statement.Text))
	}
	if x.Decision == policy.ExplicitDeny {
		for _, ref := range x.AllowedBy {
			row("overrides", "%s, which allows it", ref)
		}
	}
	for _, c := range x.Met {
		row("condition", "met: %s", c)
	}
	if x.NearMiss != nil {
		row("why", "%s", x.NearMiss.Sentence)
	}
	if x.Hint != "" {
		row("fix", "%s", x.Hint)
	}
	for _, v := range x.Variables {
		if v.Resolved {
			row("variable", "${%s} = %q", v.Name, v.Value)
		} else {
			row("variable", "${%s} has no value: %s", v.Name, v.Reason)
		}
	}
	for _, c := range x.Conditions {
		row("condition", "%s %s wants %q, got %q, in %s", c.Operator, c.Key, c.Want, c.Got, c.StatementRef)
	}
	return table.Flush()
}

// oneLine folds the white space of a statement, outside of its strings.
func oneLine(text string) string {
	var compact strings.Builder
	inside := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inside && c == '\\' && i+1 < len(text):
			compact.WriteByte(c)
			i++
			c = text[i]
		case c == '"':
			inside = !inside
		case !inside && (c == '\n' || c == '\r' || c == '\t' || c == ' '):
			continue
		}
		compact.WriteByte(c)
	}
	return compact.String()
}

func newPolicyLint() *cobra.Command {
	var asJSON, list bool
	var options policy.LintOptions
	cmd := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Look for mistakes in policies, without a server (- is standard input)",
		Args: func(_ *cobra.Command, args []string) error {
			if list != (len(args) == 0) {
				return usageError{fmt.Errorf("lint needs files, or --list alone for what it looks for")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return printRules(cmd.OutOrStdout(), asJSON)
			}
			return lintFiles(cmd.OutOrStdout(), args, options, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&options.Account, "account", "", "account that the policy is for: resources of others are found")
	f.StringVar(&options.Region, "region", "", "region that it is for")
	f.BoolVar(&list, "list", false, "list what is looked for")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// linted is a finding with its file.
type linted struct {
	File string `json:"file"`
	policy.Finding
}

func lintFiles(w io.Writer, paths []string, options policy.LintOptions, asJSON bool) error {
	found, serious := []linted{}, false
	for _, path := range paths {
		text, err := readSmallFile(path, policy.MaxBytes+1)
		if err != nil {
			return err
		}
		for _, f := range policy.Lint(text, options) {
			found = append(found, linted{path, f})
			serious = serious || f.Severity != policy.SeverityNote
		}
	}
	var err error
	if asJSON {
		err = printJSON(w, found)
	} else {
		for _, f := range found {
			_, err = fmt.Fprintf(w, "%s:%d:%d  %s  %s  %s\n    -> %s\n", f.File, f.Line, f.Column, f.Severity, f.Code, f.Message, f.Fix)
		}
	}
	if err == nil && serious {
		return exitNo
	}
	return err
}

func printRules(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, policy.LintRules())
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, rule := range policy.LintRules() {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", rule.Code, rule.Severity, rule.Meaning)
	}
	return table.Flush()
}

func newPolicyLeast() *cobra.Command {
	var asJSON, denied bool
	var from since
	cmd := &cobra.Command{
		Use:   "least CERTIFICATE-ID | SERIAL | THING | CLIENT-ID | ADDRESS | ARN | FILE.pem | ATTEMPT-ID | -",
		Short: "Write the least policy that allows what a device did",
		Long: `Write the least policy that allows what the recorded attempts of a device were
allowed, with --denied also what they tried in vain. Where a level of a topic is the thing's name, a name of the certificate or
the client id, it becomes a variable. The policy is printed as CreatePolicy takes it;
what is to be known of it goes to standard error.

  imprint policy least sensor-17 > policy.json
  aws iot create-policy --policy-name device --policy-document file://policy.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			match, about, err := wordOf(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			sayOnce(cmd.ErrOrStderr())(about)
			values := url.Values{"match": {match}}
			if denied {
				values.Set("denied", "true")
			}
			if !from.IsZero() {
				values.Set("since", from.UTC().Format(time.RFC3339))
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			var found explain.Least
			err = c.Call(cmd.Context(), "GET", explain.LeastPath+"?"+values.Encode(), nil, &found)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), found)
			}
			return printLeast(cmd.OutOrStdout(), cmd.ErrOrStderr(), found)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with what was used")
	cmd.Flags().BoolVar(&denied, "denied", false, "take in what was denied, too")
	addSinceFlag(cmd, &from)
	return cmd
}

func printLeast(w, notes io.Writer, found explain.Least) error {
	for _, document := range found.Policies {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(document)
		if err != nil {
			return err
		}
	}
	denied, left := 0, 0
	for _, use := range found.Uses {
		if !use.Allowed {
			denied++
		}
		if use.LeftOut {
			left++
		}
	}
	_, _ = fmt.Fprintf(notes, "note: from %s with %s, %d of which the present policies deny\n", numbered(found.Attempts, "one attempt", "%d attempts"), numbered(len(found.Uses), "one request", "%d different requests"), denied)
	if left > 0 {
		_, _ = fmt.Fprintf(notes, "note: %d were denied each time and are left out; --denied takes them in, --json shows them\n", left)
	}
	if len(found.Policies) > 1 {
		_, _ = fmt.Fprintf(notes, "note: these are %d policies: one has at most %d characters\n", len(found.Policies), policy.MaxCharacters)
	}
	for _, note := range found.Notes {
		_, _ = fmt.Fprintf(notes, "note: %s\n", note)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi/audits"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/internal/pause"
)

// AuditConfig are the settings of `imprint serve` for audits.
type AuditConfig struct {
	// AuditRevocationLists is the directory of the revocation lists of CAs, as PEM or
	// DER. Default: crl in the data directory.
	AuditRevocationLists string `koanf:"audit-revocation-lists"`
	// AuditConcurrency is how many audits run at once, of all accounts. Default 1.
	AuditConcurrency int `koanf:"audit-concurrency"`
	// AuditRest is how many times as long as it read an audit rests: 1 leaves it half
	// of a processor. Default 1.
	AuditRest float64 `koanf:"audit-rest"`
	// AuditFindings is how many findings are kept of one check of one audit. Default
	// 10000.
	AuditFindings int `koanf:"audit-findings"`
	// AuditRetention is how long audits are kept with their findings. Default 4320h,
	// as on AWS IoT Device Defender.
	AuditRetention time.Duration `koanf:"audit-retention"`
	// AuditPending is how long a certificate may wait for its activation before audits
	// tell of it. Default 4h.
	AuditPending time.Duration `koanf:"audit-pending"`
}

func addAuditFlags(f *pflag.FlagSet) {
	f.String("audit-revocation-lists", "", "directory of the CAs' revocation lists for audits (default: crl in the data directory)")
	f.Int("audit-concurrency", 1, "audits that run at once")
	f.Float64("audit-rest", 1, "how many times as long as it read an audit rests")
	f.Int("audit-findings", 10_000, "findings that are kept of one check of one audit")
	f.Duration("audit-retention", 180*24*time.Hour, "how long audits are kept with their findings")
	f.Duration("audit-pending", 4*time.Hour, "how long a certificate may wait for its activation before audits tell of it")
}

func (c AuditConfig) check() error {
	if c.AuditConcurrency < 1 || c.AuditConcurrency > 100 {
		return usageError{fmt.Errorf("audit-concurrency is %d, and must be 1 to 100", c.AuditConcurrency)}
	}
	if c.AuditFindings < 1 || c.AuditFindings > 1_000_000 {
		return usageError{fmt.Errorf("audit-findings is %d, and must be 1 to 1000000", c.AuditFindings)}
	}
	if c.AuditRest < 0 || c.AuditRest > 1000 {
		return usageError{fmt.Errorf("audit-rest is %g, and must be 0 to 1000", c.AuditRest)}
	}
	if c.AuditRetention < time.Hour {
		return usageError{fmt.Errorf("audit-retention is %s, and must be at least an hour", c.AuditRetention)}
	}
	if c.AuditPending < time.Second {
		return usageError{fmt.Errorf("audit-pending is %s, and must be at least a second", c.AuditPending)}
	}
	return nil
}

// revocationsDir is where revocation lists are looked for without any setting.
const revocationsDir = "crl"

// openAudit makes what runs audits, and goes on with those that the last stop
// interrupted.
func (s *server) openAudit(ctx context.Context) error {
	dir := s.config.AuditRevocationLists
	if dir == "" {
		dir = filepath.Join(s.config.Data, revocationsDir)
	}
	rest := s.config.AuditRest
	if rest == 0 {
		rest = -1
	}
	auditor, err := audit.New(ctx, s.store, s.clock, audit.Options{
		Concurrent: s.config.AuditConcurrency, Rest: rest, MaxFindings: s.config.AuditFindings, Keep: s.config.AuditRetention,
		Pending: s.config.AuditPending, Revocations: dir, Flush: s.trace.Flush, Sharing: s.sharing, Logging: s.config.lacksLogging, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.audit = auditor
	s.closeLater(auditor.Close)
	return nil
}

// sharing asks the broker who is connected. An interrupted audit goes on before there
// is one.
func (s *server) sharing(ctx context.Context, tenant imprint.Tenant, certificates, clients int) []imprint.LiveClient {
	select {
	case <-s.wired:
		return s.broker.Sharing(tenant, certificates, clients)
	case <-ctx.Done():
		return nil
	}
}

// leastTrace is how long, and leastAttempts how many, attempts must be kept for a
// person to find yesterday's failure.
const (
	leastTrace    = 24 * time.Hour
	leastAttempts = 1000
)

// lacksLogging says why attempts aren't recorded as they should be.
func (c Config) lacksLogging() (reason, mitigation string) {
	switch {
	case !c.Trace:
		return "The trace is off: nobody can say why a device isn't connected.", "Start the server without --trace=false."
	case c.TraceRetention < leastTrace:
		return fmt.Sprintf("The trace is kept for %s alone.", c.TraceRetention), "Start the server with --trace-retention 168h, which is the default."
	case c.TraceKeep < leastAttempts:
		return fmt.Sprintf("The trace keeps %d attempts alone.", c.TraceKeep), "Start the server with --trace-keep 1000000, which is the default."
	}
	return "", ""
}

func newAudit() *cobra.Command {
	var checks []string
	var asJSON, list bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Look through the registry for what endangers the fleet, with what to type about it",
		Long: `Look through the registry for what endangers the fleet, with what to type about it.

The audit runs on the server; Ctrl-C cancels it. Checks have the names that AWS IoT
Device Defender gives them; those of our own begin with IMPRINT_. They need not be
enabled for this. docs/audit.md says what each looks at.

Exit status: 0 nothing was found; 1 the audit, or a check of it, failed; 2 the
command line is wrong; 3 something was found.`,
		Example: `  imprint audit
  imprint audit --check DEVICE_CERTIFICATE_EXPIRING_CHECK --check IOT_POLICY_OVERLY_PERMISSIVE_CHECK
  imprint audit --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return listChecks(cmd.OutOrStdout())
			}
			for _, name := range checks {
				_, err := audit.Describe(imprint.AuditCheck(name))
				if err != nil {
					return usageError{fmt.Errorf("%w (imprint audit --list-checks lists them)", err)}
				}
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			report, err := runAudit(cmd.Context(), c, checks)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.print(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return report.verdict()
		},
	}
	addDataFlag(cmd)
	cmd.Flags().StringArrayVar(&checks, "check", nil, "do this check (may be repeated; default: all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&list, "list-checks", false, "list the checks, and do none")
	return cmd
}

func listChecks(w io.Writer) error {
	for _, d := range audit.Descriptions() {
		line := fmt.Sprintf("%-8s  %s", d.Severity, d.Check)
		if d.Impossible != "" {
			line += "  (not here: " + d.Impossible + ")"
		}
		_, err := fmt.Fprintln(w, line)
		if err != nil {
			return err
		}
	}
	return nil
}

// auditReport is an audit that is over.
type auditReport struct {
	TaskID   string               `json:"taskId"`
	Status   string               `json:"taskStatus"`
	Checks   map[string]auditRun  `json:"checks"`
	Findings []auditFindingReport `json:"findings"`
}

// auditRun is one check, as DescribeAuditTask has it.
type auditRun struct {
	Status       string `json:"checkRunStatus"`
	Resources    int64  `json:"totalResourcesCount"`
	NonCompliant int64  `json:"nonCompliantResourcesCount"`
	Suppressed   int64  `json:"suppressedNonCompliantResourcesCount"`
	ErrorCode    string `json:"errorCode,omitempty"`
	Message      string `json:"message,omitempty"`
}

// auditFindingReport is a finding as ListAuditFindings has it.
type auditFindingReport struct {
	FindingID  string          `json:"findingId"`
	CheckName  string          `json:"checkName"`
	Severity   string          `json:"severity"`
	Resource   auditResource   `json:"nonCompliantResource"`
	Related    []auditResource `json:"relatedResources"`
	Reason     string          `json:"reasonForNonCompliance"`
	ReasonCode string          `json:"reasonForNonComplianceCode"`
}

type auditResource struct {
	Type       string            `json:"resourceType"`
	Identifier map[string]any    `json:"resourceIdentifier"`
	Info       map[string]string `json:"additionalInfo,omitempty"`
}

// name is what a person knows a resource by.
func (r auditResource) name() string {
	for _, member := range []string{"deviceCertificateId", "caCertificateId", "clientId"} {
		if id, has := r.Identifier[member].(string); has {
			return visible(id)
		}
	}
	if version, has := r.Identifier["policyVersionIdentifier"].(map[string]any); has {
		return fmt.Sprintf("%v version %v", version["policyName"], version["policyVersionId"])
	}
	for _, member := range []string{"thingArn", "templateArn"} {
		if arn := r.Info[member]; arn != "" {
			return arn[strings.LastIndexByte(arn, '/')+1:]
		}
	}
	return fmt.Sprint(r.Identifier["account"])
}

// visible gives a word that a terminal doesn't act on: devices choose their client ids.
func visible(word string) string {
	if strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(word)
	}
	return word
}

// pollEvery is how often the server is asked whether the audit is over.
const pollEvery = 300 * time.Millisecond

// interruptedPatience is how long a command that was interrupted waits for each of the
// server's answers.
const interruptedPatience = 5 * time.Second

// outlive gives a context that ends so long after another.
func outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		pause.For(late, interruptedPatience)
		cancel()
	})
	return late, func() {
		stop()
		cancel()
	}
}

// runAudit starts an audit and waits for its end; an interruption cancels it.
func runAudit(ctx context.Context, c *client.Client, checks []string) (*auditReport, error) {
	var started struct {
		TaskID string `json:"taskId"`
	}
	// An interruption doesn't break this off: only its answer says what is to be canceled.
	patient, done := outlive(ctx)
	defer done()
	err := c.Call(patient, "POST", audits.Path, map[string]any{"checkNames": append([]string{}, checks...)}, &started)
	if err != nil && patient.Err() != nil {
		return nil, fmt.Errorf("the server may have begun the audit, but didn't say so in time (aws iot list-audit-tasks has it then, and aws iot cancel-audit-task ends it): %w", err)
	}
	if err != nil {
		return nil, err
	}
	report := &auditReport{TaskID: started.TaskID}
	path := "/audit/tasks/" + url.PathEscape(started.TaskID)
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		var task struct {
			Status  string              `json:"taskStatus"`
			Details map[string]auditRun `json:"auditDetails"`
		}
		err = c.Call(ctx, "GET", path, nil, &task)
		if err == nil {
			report.Status, report.Checks = task.Status, task.Details
			if task.Status != string(imprint.AuditInProgress) {
				break
			}
			select {
			case <-ticker.C:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if ctx.Err() != nil {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), interruptedPatience)
			defer cancel()
			return nil, errors.Join(fmt.Errorf("the audit %s was canceled: %w", started.TaskID, ctx.Err()), c.Call(late, "PUT", path+"/cancel", nil, nil))
		}
		return nil, err
	}
	report.Findings, err = fetchFindings(ctx, c, started.TaskID)
	return report, err
}

// fetchFindings gives what an audit found, the gravest first.
func fetchFindings(ctx context.Context, c *client.Client, task string) ([]auditFindingReport, error) {
	all, err := allPages(func(token string) ([]auditFindingReport, string, error) {
		body := map[string]any{"taskId": task, "maxResults": 250, "listSuppressedFindings": false}
		if token != "" {
			body["nextToken"] = token
		}
		var page struct {
			Findings  []auditFindingReport `json:"findings"`
			NextToken string               `json:"nextToken"`
		}
		err := c.Call(ctx, "POST", "/audit/findings", body, &page)
		return page.Findings, page.NextToken, err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b auditFindingReport) int { return gravity(a.Severity) - gravity(b.Severity) })
	return all, nil
}

func gravity(severity string) int {
	return slices.Index([]string{"CRITICAL", "HIGH", "MEDIUM", "LOW"}, severity)
}

func (r *auditReport) print(w io.Writer) error {
	paint := painterFor(w)
	for _, f := range r.Findings {
		look := plain
		if gravity(f.Severity) < 2 {
			look = bad
		}
		_, err := fmt.Fprintf(w, "%s  %s  %s %s\n    %s: %s\n    %s\n", paint(look, fmt.Sprintf("%-8s", f.Severity)), f.CheckName,
			strings.ToLower(strings.ReplaceAll(f.Resource.Type, "_", " ")), f.Resource.name(), f.ReasonCode, f.Reason, paint(bold, "-> "+f.Resource.Info["mitigation"]))
		if err != nil {
			return err
		}
	}
	names := make([]string, 0, len(r.Checks))
	for name := range r.Checks {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		run := r.Checks[name]
		if run.Status == string(imprint.AuditRunFailed) || run.Message != "" {
			_, err := fmt.Fprintf(w, "%s %s: %s\n", name, run.Status, run.Message)
			if err != nil {
				return err
			}
		}
	}
	known, suppressed := "", int64(0)
	for _, run := range r.Checks {
		suppressed += run.Suppressed
	}
	if suppressed > 0 {
		known = fmt.Sprintf(", %d suppressed", suppressed)
	}
	_, err := fmt.Fprintf(w, "audit %s %s: %d check(s), %d finding(s)%s\n", r.TaskID, r.Status, len(r.Checks), len(r.Findings), known)
	return err
}

// verdict is how the command ends.
func (r *auditReport) verdict() error {
	for _, run := range r.Checks {
		if run.Status == string(imprint.AuditRunFailed) || run.Status == string(imprint.AuditRunCanceled) {
			return exitError(1)
		}
	}
	if len(r.Findings) > 0 {
		return exitNo
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

func newTemplate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "template",
		Short: "Try provisioning templates before devices do",
	}
	cmd.AddCommand(newTemplateTest(), newTemplateLint())
	return cmd
}

// templateFlags are what `imprint template` is told.
type templateFlags struct {
	kind, templateName, caID       string
	certs, csrs, cas, assignments  []string
	policies                       []string // NAME=FILE
	parameters, input, at          string
	server, strict, noLint, asJSON bool

	file string // empty: the server has the template
	cmd  *cobra.Command
	now  time.Time
}

func (f *templateFlags) common(cmd *cobra.Command) {
	addDataFlag(cmd)
	cmd.Flags().StringVar(&f.kind, "type", "", "what FILE is for: jitp, fleet or bulk (bulk is RegisterThing's, too)")
	cmd.Flags().StringArrayVar(&f.certs, "cert", nil, "PEM file of a device's certificate, or of several (may be repeated)")
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "NAME=FILE: the document of a policy that the template names (may be repeated)")
	cmd.Flags().BoolVar(&f.server, "server", false, "look on the server for what the template names")
	cmd.Flags().StringVar(&f.templateName, "template-name", "", "take the template of this name from the server")
	cmd.Flags().StringVar(&f.caID, "ca-id", "", "take the CA of this id, and its template unless there is a FILE, from the server")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "let warnings fail, too")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

func newTemplateTest() *cobra.Command {
	var f templateFlags
	cmd := &cobra.Command{
		Use:   "test [FILE]",
		Short: "Show what a provisioning template makes of a device, and write nothing",
		Long: `Show what a provisioning template makes of a device, or why nothing, and write
nothing. The device is a certificate, a signing request, parameters, or each line
of an input of bulk registration.

With FILE alone no server is needed. --server, --template-name and --ca-id read
what the template names, and the template and the CA, from the server. Functions
(pre-provisioning hooks, certificate providers) aren't called.

Exit status: 0 it works; 3 it doesn't, or lint finds an error, or with --strict
a warning; 1 the command failed; 2 the command line is wrong. docs/template-test.md says more.`,
		Example: `  imprint template test template.json --type jitp --cert dev.pem --ca ca.pem
  imprint template test template.json --type fleet -p SerialNumber=SN-17
  imprint template test template.json --type bulk --input devices.jsonl
  imprint template test --template-name fleet -p SerialNumber=SN-17`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.settle(cmd, args)
			if err != nil {
				return err
			}
			return f.test(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f.common(cmd)
	cmd.Flags().StringArrayVar(&f.csrs, "csr", nil, "PEM file of a device's signing request (may be repeated)")
	cmd.Flags().StringArrayVar(&f.cas, "ca", nil, "PEM file of the CA that signs the devices' certificates, or of several (may be repeated)")
	cmd.Flags().StringVar(&f.parameters, "parameters", "", "file of a JSON object with the parameters that the device sends (- is standard input)")
	cmd.Flags().StringArrayVarP(&f.assignments, "parameter", "p", nil, "a parameter, NAME=VALUE (may be repeated)")
	cmd.Flags().StringVar(&f.input, "input", "", "input file of a bulk registration, a JSON object a line (- is standard input)")
	cmd.Flags().StringVar(&f.at, "at", "", "instant that validity is asked for, such as 2027-01-31T00:00:00Z (default: now)")
	cmd.Flags().BoolVar(&f.noLint, "no-lint", false, "don't lint the template")
	return cmd
}

func newTemplateLint() *cobra.Command {
	var f templateFlags
	cmd := &cobra.Command{
		Use:   "lint [FILE]",
		Short: "Look for mistakes in a provisioning template",
		Long: `Look for mistakes in a provisioning template that need no device to be seen.

With certificates of devices, by --cert or as the CA of --ca-id has them on the
server, it tells which fields of the subject the template demands in vain.

Policies are judged as by imprint policy lint: the documents of the template, and
those of policies that it names, from --policy NAME=FILE or from the server.

Exit status: 0 no error is found; 3 one is, or with --strict a warning; 1 the
command failed; 2 the command line is wrong. docs/template-test.md lists the rules.`,
		Example: `  imprint template lint template.json --type jitp --cert batch.pem
  imprint template lint --ca-id CA-ID`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.settle(cmd, args)
			if err != nil {
				return err
			}
			return f.lint(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f.common(cmd)
	return cmd
}

// kinds are the kinds of templates by the words for them, AWS's ones included.
var kinds = map[string]template.Kind{
	"jitp": template.JITP, "fleet": template.Fleet, "fleet_provisioning": template.Fleet, "bulk": template.Bulk, "registerthing": template.Bulk,
}

// kindWords are the words of --type.
var kindWords = map[template.Kind]string{template.JITP: "jitp", template.Fleet: "fleet", template.Bulk: "bulk"}

// settle refuses command lines that don't say what is meant.
func (f *templateFlags) settle(cmd *cobra.Command, args []string) error {
	f.cmd = cmd
	if len(args) > 0 {
		f.file = args[0]
	}
	switch kind := kinds[strings.ToLower(f.kind)]; {
	case f.file == "" && f.templateName == "" && f.caID == "":
		return usageError{errors.New("there is no template: name a FILE, --template-name or --ca-id")}
	case f.file != "" && f.templateName != "":
		return usageError{errors.New("FILE and --template-name are two templates: leave one out, or use --server with FILE")}
	case f.templateName != "" && f.caID != "":
		return usageError{errors.New("--ca-id has its own template: leave --template-name out")}
	case f.kind != "" && kind == 0:
		return usageError{fmt.Errorf("--type is %q, not jitp, fleet or bulk", f.kind)}
	case f.kind != "" && f.file == "":
		return usageError{errors.New("--type goes with FILE: the server knows the type of its templates")}
	case f.file != "" && f.kind == "" && f.caID == "":
		return usageError{errors.New("--type says what FILE is for: jitp, fleet or bulk")}
	case len(f.cas) > 0 && f.caID != "":
		return usageError{errors.New("--ca and --ca-id are two CAs: leave one out")}
	case f.caID != "" && kind == template.Fleet:
		return usageError{errors.New("--ca-id means nothing for fleet provisioning: the server signs its certificates")}
	case f.input != "" && kind != template.Bulk:
		return usageError{errors.New("--input is a bulk registration's: it goes with FILE and --type bulk")}
	case f.input != "" && len(f.certs)+len(f.csrs) > 0:
		return usageError{errors.New("the lines of --input bring their own certificates: leave --cert and --csr out")}
	}
	standard := 0
	for _, path := range []string{f.file, f.parameters, f.input} {
		if path == "-" {
			standard++
		}
	}
	if standard > 1 {
		return usageError{errors.New("- is given twice, and there is one standard input")}
	}
	f.now = time.Now()
	if f.at == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, f.at)
	if err != nil {
		return usageError{fmt.Errorf("--at is %q, not of the form 2027-01-31T00:00:00Z", f.at)}
	}
	f.now = at
	return nil
}

// maxTemplateFile bounds what is read of a template's file: more than a template
// may have.
const maxTemplateFile = 128 << 10

// subject is the template with what the server knows of it.
type templateSubject struct {
	body, source string
	kind         template.Kind
	run          provisioning.DryRun // what all devices have in common
}

// load finds the template and what goes with it.
func (f *templateFlags) load(ctx context.Context) (*templateSubject, error) {
	s := &templateSubject{kind: kinds[strings.ToLower(f.kind)]}
	s.run.Now = f.now
	if f.server || f.templateName != "" || f.caID != "" {
		c, err := newOperatorClient(f.cmd)
		if err != nil {
			return nil, err
		}
		registry := templateRegistry{c}
		s.run.Registry = registry
		err = registry.load(ctx, f, s)
		if err != nil {
			return nil, err
		}
	}
	if f.file != "" {
		text, err := readSmallFile(f.file, maxTemplateFile)
		if err != nil {
			return nil, err
		}
		s.body, s.source = string(text), f.file
		if f.file == "-" {
			s.source = "standard input"
		}
		if s.kind == 0 {
			s.kind = template.JITP // that of --ca-id
		}
	}
	for _, path := range f.cas {
		certs, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		s.run.CAs = append(s.run.CAs, certs...)
	}
	s.run.Source = s.source
	return s, nil
}

// parse gives the template, or the finding that it can't be read.
func (s *templateSubject) parse() (*template.Template, []template.Finding) {
	parsed, err := template.Parse([]byte(s.body), s.kind)
	if err == nil {
		s.run.Template = parsed
		return parsed, nil
	}
	var fault *template.Error
	if !errors.As(err, &fault) {
		fault = &template.Error{Code: template.CodeInvalid, Msg: err.Error()}
	}
	return nil, []template.Finding{{
		Rule: string(fault.Code), Severity: template.Mistake, Line: fault.Line, Column: fault.Column,
		Member: fault.Member, Parameter: fault.Parameter, Msg: fault.Msg, Hint: fault.Hint,
	}}
}

// testReport is what `imprint template test` and `lint` print.
type testReport struct {
	Template string          `json:"template"`
	Type     string          `json:"type"`
	Verdict  imprint.Verdict `json:"verdict"` // ok, warning, failed
	Findings []findingShown  `json:"findings"`
	// Devices are those that were tried; of an input, or a batch, those that don't
	// work without warnings, and there are NotShown more.
	Devices  []deviceShown `json:"devices,omitempty"`
	Tested   int           `json:"tested,omitempty"`
	Failed   int           `json:"failed,omitempty"`
	NotShown int           `json:"notShown,omitempty"`
	// Unchecked is what lint couldn't look at.
	Unchecked []string `json:"unchecked,omitempty"`

	kind  template.Kind
	named namedPolicies // of the devices
}

// batch is how many devices are all shown; of more than that those are that don't
// work without warnings.
const batch = 5

// maxShown bounds the devices of an input that are printed.
const maxShown = 100

func newReport(s *templateSubject) *testReport {
	return &testReport{Template: s.source, Type: kindWords[s.kind], Verdict: imprint.VerdictOK, Findings: []findingShown{}, kind: s.kind}
}

func (r *testReport) unchecked(format string, args ...any) {
	r.Unchecked = append(r.Unchecked, fmt.Sprintf(format, args...))
}

// worsen takes a verdict into the whole.
func (r *testReport) worsen(v imprint.Verdict) {
	if v == imprint.VerdictFailed || v == provisioning.VerdictWarning && r.Verdict == imprint.VerdictOK {
		r.Verdict = v
	}
}

func (r *testReport) addFindings(findings []template.Finding) {
	for _, f := range findings {
		r.Findings = append(r.Findings, findingShown{
			Rule: f.Rule, Severity: f.Severity, Line: f.Line, Column: f.Column, Member: f.Member, Parameter: f.Parameter, Message: f.Msg, Hint: f.Hint,
		})
		switch f.Severity {
		case template.Mistake:
			r.worsen(imprint.VerdictFailed)
		case template.Warning:
			r.worsen(provisioning.VerdictWarning)
		}
	}
}

// end prints the report and gives the exit status.
func (f *templateFlags) end(w io.Writer, r *testReport) error {
	var err error
	if f.asJSON {
		err = printJSON(w, r)
	} else {
		err = r.print(w)
	}
	if err != nil {
		return err
	}
	if r.Verdict == imprint.VerdictFailed || f.strict && r.Verdict == provisioning.VerdictWarning {
		return exitNo
	}
	return nil
}

func (f *templateFlags) lint(ctx context.Context, w io.Writer) error {
	s, err := f.load(ctx)
	if err != nil {
		return err
	}
	r := newReport(s)
	parsed, findings := s.parse()
	if parsed == nil {
		r.addFindings(findings)
		return f.end(w, r)
	}
	certs, err := f.sampleCertificates(ctx, s)
	if err != nil {
		return err
	}
	r.addFindings(provisioning.LintTemplate(parsed, certs...))
	var named namedPolicies
	for _, p := range parsed.NamedPolicies() {
		named.add(p)
	}
	err = f.lintPolicies(ctx, s, parsed, &named, r)
	if err != nil {
		return err
	}
	return f.end(w, r)
}

func (f *templateFlags) test(ctx context.Context, w io.Writer) error {
	s, err := f.load(ctx)
	if err != nil {
		return err
	}
	given, err := f.givenParameters()
	if err != nil {
		return err
	}
	runs, err := f.devices(s, given)
	if err != nil {
		return err
	}
	r := newReport(s)
	parsed, findings := s.parse()
	switch {
	case parsed == nil:
		r.addFindings(findings)
		return f.end(w, r)
	case !f.noLint:
		r.addFindings(provisioning.LintTemplate(parsed))
	}
	owners := map[string]string{}
	for _, one := range runs {
		one.run.Template = parsed
		result, err := one.run.Run(ctx)
		if err != nil {
			return fmt.Errorf("couldn't look on the server for what %s names: %w", s.source, err)
		}
		result.Shares(owners, one.name)
		r.addDevice(one, result, len(runs) > batch)
	}
	if f.input != "" {
		err = f.testInput(ctx, s, given, r)
		if err != nil {
			return err
		}
	}
	if !f.noLint {
		err = f.lintPolicies(ctx, s, parsed, &r.named, r)
		if err != nil {
			return err
		}
	}
	return f.end(w, r)
}

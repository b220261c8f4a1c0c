package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

type findingShown struct {
	Rule      string            `json:"rule"`
	Severity  template.Severity `json:"severity"`
	Line      int               `json:"line,omitempty"`
	Column    int               `json:"column,omitempty"`
	Member    string            `json:"member,omitempty"`
	Parameter string            `json:"parameter,omitempty"`
	Message   string            `json:"message"`
	Hint      string            `json:"hint,omitempty"`
}

// deviceShown is one device's dry run.
type deviceShown struct {
	Device     string                         `json:"device"`
	Subject    string                         `json:"subject,omitempty"`
	Verdict    imprint.Verdict                `json:"verdict"`
	Steps      []provisioning.DryRunStep      `json:"steps"`
	Parameters []provisioning.DryRunParameter `json:"parameters"`
	Resources  *resourcesShown                `json:"resources,omitempty"` // absent: the template can't be evaluated
	Unchecked  []string                       `json:"unchecked,omitempty"`
}

// resourcesShown is a plan, in JSON's names.
type resourcesShown struct {
	Thing               *thingShown       `json:"thing,omitempty"`
	Certificate         *certShown        `json:"certificate,omitempty"`
	Policies            []policyPlanShown `json:"policies,omitempty"`
	DeviceConfiguration map[string]string `json:"deviceConfiguration,omitempty"`
}

type thingShown struct {
	Name         string            `json:"thingName"`
	Type         string            `json:"thingTypeName,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	Groups       []string          `json:"thingGroups,omitempty"`
	BillingGroup string            `json:"billingGroup,omitempty"`
}

type certShown struct {
	ID        string `json:"certificateId,omitempty"`
	Source    string `json:"source"`
	Status    string `json:"status"`
	Exclusive bool   `json:"exclusive,omitempty"`
}

type policyPlanShown struct {
	Name     string `json:"policyName"`
	Document string `json:"policyDocument,omitempty"`
}

func resourcesOf(plan *template.Plan) *resourcesShown {
	if plan == nil {
		return nil
	}
	out := &resourcesShown{DeviceConfiguration: plan.DeviceConfiguration}
	if p := plan.Thing; p != nil {
		out.Thing = &thingShown{p.ThingName, p.ThingTypeName, p.Attributes, p.ThingGroups, p.BillingGroup}
	}
	if p := plan.Certificate; p != nil {
		out.Certificate = &certShown{p.CertificateID, string(p.Source), string(p.Status), p.ThingPrincipalType == template.ExclusiveThing}
	}
	for _, p := range plan.Policies {
		out.Policies = append(out.Policies, policyPlanShown{p.PolicyName + p.GeneratedName, p.PolicyDocument})
	}
	return out
}

// addDevice takes a device's dry run into the report; briefly: one that works is
// only counted.
func (r *testReport) addDevice(one testDevice, result *provisioning.DryRunResult, brief bool) {
	r.named.addPlanned(result.Plan)
	verdict := result.Worst()
	r.worsen(verdict)
	r.Tested++
	if verdict == imprint.VerdictFailed {
		r.Failed++
	}
	switch {
	case brief && verdict == imprint.VerdictOK:
		return
	case brief && len(r.Devices) >= maxShown:
		r.NotShown++
		return
	}
	r.Devices = append(r.Devices, deviceShown{
		Device: one.name, Subject: one.subject, Verdict: verdict, Steps: result.Steps, Parameters: result.Parameters,
		Resources: resourcesOf(result.Plan), Unchecked: result.Unchecked,
	})
}

func (r *testReport) print(w io.Writer) error {
	var b strings.Builder
	for _, f := range r.Findings {
		f.print(&b, r.Template)
	}
	if len(r.Unchecked) > 0 {
		b.WriteString("not checked\n")
	}
	for _, text := range r.Unchecked {
		fmt.Fprintf(&b, "  %s\n", text)
	}
	for n := range r.Devices {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		r.Devices[n].print(&b, r.Template, r.kind)
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	var counts []string
	severities := map[template.Severity]int{}
	for _, f := range r.Findings {
		severities[f.Severity]++
	}
	for _, s := range []template.Severity{template.Mistake, template.Warning, template.Note} {
		if severities[s] > 0 {
			counts = append(counts, fmt.Sprintf("%d %s(s)", severities[s], s))
		}
	}
	if len(counts) == 0 {
		counts = append(counts, "no findings")
	}
	fmt.Fprintf(&b, "%s (%s): ", r.Template, r.kind)
	if r.Tested > 0 {
		fmt.Fprintf(&b, "%d of %d device(s) pass, ", r.Tested-r.Failed, r.Tested)
	}
	fmt.Fprintf(&b, "%s\n", strings.Join(counts, ", "))
	if r.NotShown > 0 {
		fmt.Fprintf(&b, "%d more fail or have warnings\n", r.NotShown)
	}
	_, err := io.WriteString(w, strings.Map(printable, b.String()))
	return err
}

// printable keeps a stranger's template from writing to the terminal's controls.
func printable(r rune) rune {
	if r != '\n' && unicode.IsControl(r) {
		return unicode.ReplacementChar
	}
	return r
}

// print writes FILE:LINE:COLUMN: as compilers do, which editors and CI services
// find again.
func (f findingShown) print(b *strings.Builder, file string) {
	b.WriteString(file)
	if f.Line > 0 {
		fmt.Fprintf(b, ":%d:%d", f.Line, f.Column)
	}
	fmt.Fprintf(b, ": %s: ", f.Severity)
	if f.Member != "" {
		fmt.Fprintf(b, "%s: ", f.Member)
	}
	fmt.Fprintf(b, "%s [%s]\n", f.Message, f.Rule)
	if f.Hint != "" {
		fmt.Fprintf(b, "  -> %s\n", f.Hint)
	}
}

// shortened shows a value in a column: certificates and signing requests are long.
func shortened(value string) string {
	const most = 64
	if len(value) > most {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(value[:most], ""))
	}
	return fmt.Sprintf("%q", value)
}

var verdictWords = map[imprint.Verdict]string{
	imprint.VerdictOK: "works", provisioning.VerdictWarning: "works, with warnings", imprint.VerdictFailed: "FAILS",
}

var stepWords = map[imprint.Verdict]string{
	imprint.VerdictOK: "ok", provisioning.VerdictWarning: "warning", imprint.VerdictFailed: "FAILED", imprint.VerdictInfo: "",
}

func (d *deviceShown) print(b *strings.Builder, file string, kind template.Kind) {
	fmt.Fprintf(b, "%s with %s (%s): %s\n", d.Device, file, kind, verdictWords[d.Verdict])
	if d.Subject != "" {
		fmt.Fprintf(b, "  subject %q\n", d.Subject)
	}
	if len(d.Parameters) > 0 {
		b.WriteString("  parameters\n")
	}
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, p := range d.Parameters {
		value := shortened(p.Value)
		if p.Source == provisioning.ParameterMissing {
			value = "-"
		}
		if p.Source == provisioning.ParameterMissing && !p.Used && kind != template.JITP {
			p.Source = "not needed"
		}
		place := ""
		if p.Line > 0 {
			place = fmt.Sprintf("declared in line %d, column %d", p.Line, p.Column)
		}
		_, _ = fmt.Fprintf(table, "    %s\t%s\t%s\t%s\n", p.Name, value, p.Source, place)
	}
	_ = table.Flush()
	if d.Resources != nil {
		b.WriteString("  resources\n")
		d.Resources.print(b)
	}
	b.WriteString("  steps\n")
	for _, s := range d.Steps {
		fmt.Fprintf(b, "    %-8s%s", stepWords[s.Verdict], s.Name)
		if s.Code != "" {
			fmt.Fprintf(b, " %s", s.Code)
		}
		b.WriteString(": ")
		if s.Line > 0 {
			fmt.Fprintf(b, "line %d, column %d, ", s.Line, s.Column)
		}
		if s.Member != "" {
			fmt.Fprintf(b, "%s: ", s.Member)
		}
		fmt.Fprintf(b, "%s\n", s.Detail)
		if s.Fix != "" {
			fmt.Fprintf(b, "            -> %s\n", s.Fix)
		}
	}
	if len(d.Unchecked) > 0 {
		b.WriteString("  not checked\n")
	}
	for _, text := range d.Unchecked {
		fmt.Fprintf(b, "    %s\n", text)
	}
}

func (r *resourcesShown) print(b *strings.Builder) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	row := func(what, value string) { _, _ = fmt.Fprintf(table, "    %s\t%s\n", what, value) }
	values := func(what string, m map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			row(what, fmt.Sprintf("%s = %q", name, imprint.Excerpt(m[name])))
		}
	}
	if t := r.Thing; t != nil {
		row("thing", t.Name)
		if t.Type != "" {
			row("  type", t.Type)
		}
		values("  attribute", t.Attributes)
		if len(t.Groups) > 0 {
			row("  groups", strings.Join(t.Groups, ", "))
		}
		if t.BillingGroup != "" {
			row("  billing group", t.BillingGroup)
		}
	}
	if c := r.Certificate; c != nil {
		text := c.Status
		switch c.ID {
		case "":
			text += ", of " + c.Source
		case string(provisioning.StandInID):
			text += ", its id isn't known yet"
		default:
			text += ", " + c.ID
		}
		if c.Exclusive {
			text += ", exclusive to the thing"
		}
		row("certificate", text)
	}
	for _, p := range r.Policies {
		row("policy", p.Name)
		if p.Document != "" {
			row("  document", imprint.Excerpt(strings.Join(strings.Fields(p.Document), " ")))
		}
	}
	values("device gets", r.DeviceConfiguration)
	_ = table.Flush()
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// Lists fit into narrowest columns; a terminal that is narrower breaks them itself.
const narrowest = 120

// widthOf gives how wide a person's terminal is; 0 where nobody reads: lines aren't
// broken for tools.
func widthOf(w io.Writer) int {
	if !onTerminal(w) {
		return 0
	}
	columns, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err == nil && columns >= 40 {
		return columns
	}
	return narrowest
}

// broken breaks text at its line ends, and at spaces so that no line is longer than
// width; 0: as long as they are.
func broken(text string, width int) []string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if width <= 0 || utf8.RuneCountInString(line) <= width {
			lines = append(lines, line)
			continue
		}
		now := ""
		for word := range strings.SplitSeq(line, " ") {
			switch {
			case now == "":
				now = word
			case utf8.RuneCountInString(now)+1+utf8.RuneCountInString(word) > width:
				lines = append(lines, now)
				now = word
			default:
				now += " " + word
			}
		}
		lines = append(lines, now)
	}
	return lines
}

// cell cuts or fills text to a width.
func cell(text string, width int) string {
	runes := []rune(text)
	if len(runes) > width {
		return string(runes[:width-3]) + "..."
	}
	return text + strings.Repeat(" ", width-len(runes))
}

// The columns of a list of attempts, narrowest in all.
const (
	reasonWidth  = 40
	addressWidth = 15
	whoWidth     = 20
)

func printTable(w io.Writer, heading bool, list ...attempt) error {
	row := func(began, reason, address, who, id string) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %s  %s\n", cell(began, 19), cell(reason, reasonWidth), cell(address, addressWidth), cell(who, whoWidth), id)
		return err
	}
	if heading && len(list) > 0 {
		err := row("BEGAN", "OUTCOME", "FROM", "WHO", "ATTEMPT")
		if err != nil {
			return err
		}
	}
	for _, a := range list {
		who := a.Thing
		for _, other := range []string{a.ClientID, a.Subject, a.CertificateID} {
			if who == "" {
				who = other
			}
		}
		what := a.Reason
		if what == "" {
			what = a.Code
		}
		what = a.Outcome + " " + what
		if a.Repeats > 0 {
			what = fmt.Sprintf("(+%d) %s", a.Repeats, what)
		}
		err := row(clockTime(a.Began)[:19], what, imprint.HostOf(a.Address), who, a.ID[:min(len(a.ID), attempts.IDDigits)])
		if err != nil {
			return err
		}
	}
	return nil
}

func printGroups(w io.Writer, by string, found groups) error {
	paint := painterFor(w)
	const counts = "%8s  %7s  %-19s  "
	indent := strings.Repeat(" ", 8+2+7+2+19+2)
	_, err := fmt.Fprintf(w, counts+"%s\n", "ATTEMPTS", "DEVICES", "LAST", strings.ToUpper(by))
	for _, g := range found.Groups {
		_, _ = fmt.Fprintf(w, counts, strconv.Itoa(g.Attempts), strconv.Itoa(g.Devices), clockTime(g.Last)[:19])
		_, _ = fmt.Fprintf(w, "%s  imprint explain %s\n", g.Key, g.AttemptID[:min(len(g.AttemptID), attempts.IDDigits)])
		if g.Fix == "" {
			continue
		}
		for i, line := range broken("-> "+g.Fix, widthOf(w)-len(indent)) {
			if i > 0 {
				line = "   " + line
			}
			_, err = fmt.Fprintf(w, "%s%s\n", indent, paint(bold, line))
		}
	}
	if err == nil && found.Others > 0 {
		_, err = fmt.Fprintf(w, "%s: --limit.\n", numbered(found.Others, "One further attempt is in a group that isn't shown", "%d further attempts are in groups that aren't shown"))
	}
	if err == nil && !found.Complete {
		_, err = fmt.Fprintf(w, "The newest %d entries of the trace were counted; there are older ones: --since makes it shorter.\n", found.Read)
	}
	return err
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
	err = printSteps(w, a)
	if err == nil && a.Repeats > 0 {
		_, err = fmt.Fprintf(w, "  and in the same way %s before, since %s%s\n", numbered(a.Repeats, "once", "%d times"), clockTime(a.FirstAt), byMany(a))
	}
	if err == nil && a.Next != "" {
		_, err = fmt.Fprintf(w, "  next: %s\n", a.Next)
	}
	return err
}

// printSteps shows steps in columns; the last one is broken into lines.
func printSteps(w io.Writer, a attempt) error {
	paint := painterFor(w)
	offsets := make([]string, len(a.Steps))
	offset, name := 0, 0
	for i, s := range a.Steps {
		offsets[i] = fmt.Sprintf("%+.1f ms", (s.At-a.Began)*1000)
		offset, name = max(offset, len(offsets[i])), max(name, utf8.RuneCountInString(s.Name))
	}
	const mark = len("FAILED")
	before := 2 + offset + 2 + name + 2 + mark + 2
	width := widthOf(w) - before
	if widthOf(w) > 0 {
		width = max(width, 40)
	}
	indent := strings.Repeat(" ", before)
	var err error
	for i, s := range a.Steps {
		verdict := map[string]string{"ok": paint(good, "ok    "), "failed": paint(bad, "FAILED"), "info": paint(plain, "      ")}[s.Verdict]
		detail := s.Detail
		if s.Action != "" && !strings.Contains(detail, s.Action) {
			detail = fmt.Sprintf("%s on %s is %s", s.Action, s.Resource, detail)
		}
		lead := fmt.Sprintf("  %-*s  %-*s  %s  ", offset, offsets[i], name, s.Name, verdict)
		for _, line := range broken(detail, width) {
			_, err = fmt.Fprintf(w, "%s%s\n", lead, line)
			lead = indent
		}
		if s.Wire != "" {
			_, err = fmt.Fprintf(w, "%s[%s]\n", indent, s.Wire)
		}
		if again := s.again(a.Began); again != "" {
			_, err = fmt.Fprintf(w, "%s%s\n", indent, again)
		}
		if s.Fix == "" {
			continue
		}
		for n, line := range broken("-> "+s.Fix, width) {
			if n > 0 {
				line = "   " + line
			}
			_, err = fmt.Fprintf(w, "%s%s\n", indent, paint(bold, line))
		}
	}
	return err
}

// maxMade bounds the devices of a claim that are shown.
const maxMade = 10

// printMade shows what became of the devices that a claim's connections made.
func printMade(ctx context.Context, w io.Writer, c *client.Client, list []attempt) error {
	var made []string
	known, own := map[string]bool{}, map[string]bool{}
	for _, a := range list {
		own[a.CertificateID] = true
	}
	for _, a := range list {
		for _, s := range a.Steps {
			if s.CertificateID == "" || known[s.CertificateID] || own[s.CertificateID] {
				continue
			}
			known[s.CertificateID] = true
			made = append(made, s.CertificateID)
		}
	}
	if len(made) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "%d certificate(s) were made here; the latest attempt of each:\n", len(made))
	if len(made) > maxMade {
		made = made[len(made)-maxMade:]
	}
	for _, id := range made {
		latest, fault := fetchAttempts(ctx, c, query{match: id, limit: 1})
		if fault != nil {
			return fault
		}
		if len(latest) == 0 || latest[0].CertificateID != id {
			_, err = fmt.Fprintf(w, "  %s  hasn't connected yet\n", id)
			continue
		}
		a := latest[0]
		what := a.Reason
		if what == "" {
			what = a.Code
		}
		_, err = fmt.Fprintf(w, "  %s  %s  %s %s %s\n", id, clockTime(a.Began)[:19], a.Outcome, what, a.Thing)
	}
	return err
}

// nothingFound says why nothing is shown, with what the server knows.
func nothingFound(word string, notes []string) error {
	hint := strings.Join(notes, "\n      ")
	if hint == "" {
		hint = "Nothing of it reached this server's device port while the attempts of that time were kept (--trace-retention, --trace-keep). `imprint attempts --failed` shows who came; `imprint doctor` tries from the device's side."
	}
	if _, err := os.Stat(word); err != nil && strings.ContainsRune(word, filepath.Separator) {
		hint += "\n      There is no file of that name either."
	}
	return imprint.Errorf(imprint.CodeNotFound, "no attempt is known under %s", word).WithHint("%s", hint)
}

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/advise"
)

func newAdvise() *cobra.Command {
	asJSON := false
	words := make([]string, len(advise.Questions()))
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Find the flow by which your devices should get their identity",
		Long: `Find the flow by which your devices should get their identity.

On a terminal it asks what the flags don't answer. It needs no server. The page
docs/choosing.md has the same questions and answers as tables.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var answers advise.Answers
			for n, q := range advise.Questions() {
				if words[n] == "" && !cmd.Flags().Changed(q.Name) {
					continue
				}
				err := q.Answer(&answers, words[n])
				if err != nil {
					return usageError{err}
				}
			}
			err := ask(&answers, cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			advice, err := advise.For(answers)
			if err != nil {
				return usageError{err}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), advice)
			}
			return printAdvice(cmd.OutOrStdout(), advice)
		},
	}
	for n, q := range advise.Questions() {
		cmd.Flags().StringVar(&words[n], q.Name, "", q.Text+" "+q.Names())
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// tries is how often a question is asked before the person is left alone.
const tries = 3

// ask asks on a terminal what isn't answered. Elsewhere it names the flags.
func ask(answers *advise.Answers, in io.Reader, out io.Writer) error {
	missing := answers.Missing()
	if len(missing) == 0 {
		return nil
	}
	if !isTerminal(in) {
		return lacking(missing)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4096)
	for _, q := range missing {
		err := askOne(q, answers, lines, out)
		if errors.Is(err, io.EOF) {
			return lacking(answers.Missing())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lacking says by which flags questions are answered.
func lacking(missing []advise.Question) error {
	flags := make([]string, 0, len(missing))
	for _, q := range missing {
		flags = append(flags, "--"+q.Name+" "+q.Names())
	}
	return usageError{fmt.Errorf("there is no terminal to ask on; answer with: %s", strings.Join(flags, ", "))}
}

// isTerminal says whether a person may be at the other end.
func isTerminal(in io.Reader) bool {
	file, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device, too
	return err != nil || !os.SameFile(info, null)
}

// askOne asks one question; io.EOF: nobody answers.
func askOne(q advise.Question, answers *advise.Answers, lines *bufio.Scanner, out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "\n%s\n", q.Text)
	for n, option := range q.Options {
		fmt.Fprintf(&text, "  %d  %-15s  %s\n", n+1, option.Answer, option.Text)
	}
	_, _ = io.WriteString(out, text.String())
	for range tries {
		_, _ = fmt.Fprintf(out, "%s [1-%d]: ", q.Name, len(q.Options))
		if !lines.Scan() {
			_, _ = fmt.Fprintln(out)
			return io.EOF
		}
		word := strings.TrimSpace(lines.Text())
		n, err := strconv.Atoi(word)
		if err == nil && n >= 1 && n <= len(q.Options) {
			word = string(q.Options[n-1].Answer)
		}
		if q.Answer(answers, word) == nil {
			return nil
		}
	}
	return usageError{fmt.Errorf("couldn't understand the answer to %s: give a number, or one of %s", q.Name, q.Names())}
}

func printAdvice(w io.Writer, advice advise.Advice) error {
	var b strings.Builder
	first := advice.Flows[0]
	fmt.Fprintf(&b, "Take: %s (%s)\n\n", first.Title, first.Page)
	for _, text := range first.Reasons {
		fmt.Fprintf(&b, "  - %s\n", text)
	}
	if len(first.Files) > 0 {
		b.WriteString("\nYou bring:\n\n")
		for _, file := range first.Files {
			fmt.Fprintf(&b, "  %-16s %s\n", file.Name, file.Text)
		}
	}
	b.WriteString("\nThen, in a shell beside these files:\n\n")
	for _, command := range first.Commands {
		fmt.Fprintf(&b, "# %s\n%s\n", command.For, command.Line)
	}
	if len(advice.Flows) > 1 {
		b.WriteString("\nAlso possible:\n\n")
	}
	for _, flow := range advice.Flows[1:] {
		fmt.Fprintf(&b, "  %s (%s)\n    %s\n", flow.Title, flow.Page, flow.Take)
	}
	if len(advice.RuledOut) > 0 {
		b.WriteString("\nRuled out:\n\n")
	}
	for _, flow := range advice.RuledOut {
		fmt.Fprintf(&b, "  %s\n    %s\n", flow.Title, strings.Join(flow.Why, "\n    "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

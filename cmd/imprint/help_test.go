package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// pages are README.md and those of docs, by name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d pages: %v", len(files), err)
	}
	found := map[string]string{}
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(file)] = string(text)
	}
	return found
}

// shownCommands are the commands that help lists, but for cobra's own.
func shownCommands(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, child := range cmd.Commands() {
		if !child.Hidden && child.Name() != "help" && child.Name() != "completion" {
			all = append(append(all, child), shownCommands(child)...)
		}
	}
	return all
}

var (
	programCall  = regexp.MustCompile(`(?:^\s*(?:\$ )?|\$\(|bin/|&& |[A-Z_]+=\S+ )imprint (.*)`)
	substitution = regexp.MustCompile(`\$\([^()]*\)`)
	shellWord    = regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`)
	quotes       = strings.NewReplacer("'", "", `"`, "")
)

// calls are the command lines of this program in a text, each as its arguments.
func calls(text string) [][]string {
	var found [][]string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		call := programCall.FindStringSubmatch(line)
		if call == nil {
			continue
		}
		var args []string
		for _, word := range shellWord.FindAllString(substitution.ReplaceAllString(call[1], "x"), -1) {
			if strings.ContainsAny(word[:1], ">|#;&") || strings.HasPrefix(word, "2>") {
				break
			}
			word, rest, ended := strings.Cut(word, ")")
			if word != "" {
				args = append(args, quotes.Replace(word))
			}
			if ended && strings.Trim(rest, `"`) == "" {
				break
			}
		}
		found = append(found, args)
	}
	return found
}

// mistake is what the program says of the form of a command line.
func mistake(args []string) error {
	root := newRoot()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	err = cmd.ParseFlags(rest)
	if err != nil || cmd.Flags().Changed("help") {
		return err
	}
	err = cmd.ValidateArgs(cmd.Flags().Args())
	if err != nil || !cmd.HasSubCommands() || cmd.Flags().NArg() == 0 {
		return err
	}
	return subcommandMissing(cmd, cmd.Flags().Args())
}

func TestEachCommandHasAnExampleThatIsACommandLine(t *testing.T) {
	t.Parallel()
	paths := map[string]bool{}
	for _, cmd := range shownCommands(newRoot()) {
		paths[cmd.CommandPath()] = true
		shown := calls(cmd.Long + "\n" + cmd.Example)
		if len(shown) == 0 && !cmd.HasSubCommands() {
			t.Errorf("%s --help has no example", cmd.CommandPath())
		}
		for _, args := range shown {
			err := mistake(args)
			if err != nil {
				t.Errorf("%s --help shows imprint %q: %v", cmd.CommandPath(), args, err)
			}
		}
	}
	for path := range examples {
		if !paths[path] {
			t.Errorf("there is an example of %s, and no such command", path)
		}
	}
}

// A synopsis, with what may be left out in brackets, isn't a command line to type.
func TestTheCommandLinesOfThePagesAreOnes(t *testing.T) {
	t.Parallel()
	seen := 0
	for page, text := range pages(t) {
		for n, block := range strings.Split(text, "\n```") {
			if n%2 == 0 {
				continue
			}
			for _, args := range calls(block) {
				if strings.Contains(strings.Join(args, " "), "[--") {
					continue
				}
				seen++
				err := mistake(args)
				if err != nil {
					t.Errorf("%s: imprint %q: %v", page, args, err)
				}
			}
		}
	}
	if seen < 100 {
		t.Errorf("found %d command lines, want at least 100", seen)
	}
}

// A page has a command by its whole name, or by its last word on the line that names its
// parent: `imprint est list`, `show LABEL`.
func TestThePagesHaveEachCommandAndEachFlag(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, text := range pages(t) {
		all.WriteString(text + "\n")
	}
	root := newRoot()
	for _, cmd := range shownCommands(root) {
		path, parent := regexp.QuoteMeta(cmd.CommandPath()), regexp.QuoteMeta(cmd.Parent().CommandPath())
		told := regexp.MustCompile(`(?m)` + path + `\b|` + parent + ` .*` + "`" + cmd.Name() + `\b`)
		if !told.MatchString(all.String()) {
			t.Errorf("no page has the command %s", cmd.CommandPath())
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			told := regexp.MustCompile("--" + f.Name + `($|[^a-z-])`)
			if f.Shorthand != "" {
				told = regexp.MustCompile("-" + f.Shorthand + ` `)
			}
			if !told.MatchString(all.String()) {
				t.Errorf("no page has the flag --%s of %s", f.Name, cmd.CommandPath())
			}
		})
	}
}

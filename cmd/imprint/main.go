// Command imprint is the whole of Imprint in one program: the server, and the
// tools of the people who run it. One file is one subcommand; the work is done
// in the packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// exitError ends the program with a status of its own; what there was to say
// has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitNo is the status of a command whose answer is no: denied, or mistakes found.
// What kept a command from answering is 1, and bad usage 2, as everywhere.
const exitNo = exitError(3)

// run executes one command line. Exit codes: 0 done, 1 failed, 2 bad usage, 3 the
// answer is no.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	said := tame(os.Stderr)
	root.SetOut(tame(os.Stdout))
	root.SetErr(said)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	_, _ = fmt.Fprintln(said, "imprint:", err)
	var told *imprint.Error
	if errors.As(err, &told) && told.Hint != "" {
		_, _ = fmt.Fprintln(said, "hint:", told.Hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that can't be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "imprint",
		Short:         "Device identity and provisioning, compatible with AWS IoT Core",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (try: %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newServe(), newEnv(), newExplain(), newAttempts(), newDoctor(), newUser(), newAccount(), newClaim(), newBulk(), newAudit(), newCA(), newEST(), newPolicy(), newBench(), newTemplate(), newAdvise(), newVersion())
	strictUsage(root)
	strictHelp(root)
	addExamples(root)
	// Commands with subcommands run to refuse others; that isn't a use of theirs.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	return root
}

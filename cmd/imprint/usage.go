package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// strictUsage makes wrong arguments of a command, and of those below it, bad usage that
// says what to type instead. cobra alone ends with 1, as if the command had failed, and
// answers a subcommand that doesn't exist with its parent's help and 0.
func strictUsage(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = subcommandMissing
	}
	check := cmd.Args
	if check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil {
				return usageError{fmt.Errorf("%w; usage: %s (try: %s --help)", err, cmd.UseLine(), cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, child := range cmd.Commands() {
		strictUsage(child)
	}
}

// subcommandMissing is what a command does that only has subcommands.
func subcommandMissing(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 1
	meant := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		meant = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{fmt.Errorf("there is no command %q of %s%s (try: %s --help)", args[0], cmd.CommandPath(), meant, cmd.CommandPath())}
}

// strictHelp makes help about a command that doesn't exist bad usage, too.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, help := range root.Commands() {
		if help.Name() != "help" {
			continue
		}
		help.Args = func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) == 0 {
				return err
			}
			return subcommandMissing(cmd, rest)
		}
	}
}

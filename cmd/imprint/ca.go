package main

import "github.com/spf13/cobra"

func newCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Certificate authorities, and the log of what they issued",
	}
	cmd.AddCommand(newCAAudit(), newCALogged())
	return cmd
}

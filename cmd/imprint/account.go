package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
)

func newAccount() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "Manage the accounts of the server",
		Long: `Manage the accounts of the server. An account has things, certificates, topics and
users of its own, and an endpoint in each region: the server name that a device
connects to chooses the account.`,
	}
	cmd.AddCommand(
		newUserCommand("add ACCOUNT", "Add an account of twelve digits; its first secret is shown this once", cobra.ExactArgs(1), addAccount),
		newUserCommand("list", "List accounts with their endpoints", cobra.NoArgs, listAccounts))
	return cmd
}

type accountMade struct {
	AccountID       string  `json:"accountId"`
	Region          string  `json:"region"`
	Endpoint        string  `json:"endpointAddress"`
	EndpointPrefix  string  `json:"endpointPrefix"`
	AccessKeyID     string  `json:"accessKeyId"`
	SecretAccessKey string  `json:"secretAccessKey"`
	CreationDate    float64 `json:"creationDate"`
}

func addAccount(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var made accountMade
	err := c.Call(ctx, "POST", "/imprint/accounts/"+url.PathEscape(args[0]), nil, &made)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, made)
	}
	_, err = fmt.Fprintf(w, "# Account %s in %s; its devices connect to %s.\n", made.AccountID, made.Region, made.Endpoint)
	if err == nil && strings.HasSuffix(made.Endpoint, ".localhost") {
		_, err = fmt.Fprintf(w, "# Where nothing knows that name, a line of /etc/hosts may: 127.0.0.1 %s\n", made.Endpoint)
	}
	if err == nil {
		err = printKey(w, made.AccessKeyID, made.SecretAccessKey)
	}
	// What `imprint env` set names the first account's endpoint: its port is this one's, too.
	for _, name := range []string{"IMPRINT_MQTT", "IMPRINT_HTTPS"} {
		if err == nil {
			_, err = fmt.Fprintf(w, "export %s=${%s:+%s:${%s##*:}}\n", name, name, quote(made.Endpoint), name)
		}
	}
	return err
}

func listAccounts(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
	type endpoint struct {
		Region  string `json:"region"`
		Address string `json:"endpointAddress"`
	}
	var found struct {
		Accounts []struct {
			AccountID string     `json:"accountId"`
			Endpoints []endpoint `json:"endpoints"`
		} `json:"accounts"`
	}
	err := c.Call(ctx, "GET", "/imprint/accounts", nil, &found)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, found.Accounts)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range found.Accounts {
		if len(a.Endpoints) == 0 {
			_, _ = fmt.Fprintf(table, "%s\n", a.AccountID)
		}
		for _, e := range a.Endpoints {
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", a.AccountID, e.Region, e.Address)
		}
	}
	return table.Flush()
}

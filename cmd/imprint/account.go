package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
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
		newUserCommand("list", "List accounts with their endpoints", cobra.NoArgs, listAccounts),
		newAccountKey())
	return cmd
}

// newAccountKey makes a key for an account that nobody has one of any more: the answer to
// its making was lost, or the key was. No operation of the server does that, so that the
// first account's users can't enter the others; who may open the registry can anyway.
func newAccountKey() *cobra.Command {
	var replace string
	cmd := &cobra.Command{
		Use: "key ACCOUNT", Short: "Make another access key for an account whose keys are lost; the server must be stopped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			account, err := imprint.ParseAccountID(args[0])
			if err != nil {
				return err
			}
			dir, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			store, shut, err := openStopped(cmd.Context(), dir)
			if imprint.CodeOf(err) == imprint.CodeUnavailable {
				return imprint.Errorf(imprint.CodeUnavailable, "couldn't open the registry: %w", err).
					WithHint("Stop the server first. While it runs, only who has a key of the account makes another one: imprint user key add %s.", imprint.OperatorUser)
			}
			if err != nil {
				return err
			}
			defer shut()
			id, secret := newAccessKey()
			err = store.Update(cmd.Context(), func(tx imprint.Tx) error {
				keys, err := tx.UserKeys(account, imprint.OperatorUser)
				if err != nil {
					return err
				}
				err = makeRoom(tx, account, keys, replace)
				if err != nil {
					return err
				}
				return tx.PutAccessKey(imprint.AccessKey{ID: id, Secret: secret, Account: account, User: string(imprint.OperatorUser), CreatedAt: time.Now()})
			})
			if err != nil {
				return err
			}
			return printKey(cmd.OutOrStdout(), id, secret)
		},
	}
	cmd.Flags().StringVar(&replace, "replace", "", "the id of a key of the account that ends with this: one must where it has as many as it may have")
	addDataFlag(cmd)
	return cmd
}

// makeRoom deletes the key that another one of an account is to replace, if one is named.
func makeRoom(tx imprint.Tx, account imprint.AccountID, keys []imprint.AccessKey, replace string) error {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = key.ID
	}
	switch {
	case len(keys) == 0:
		return imprint.Errorf(imprint.CodeNotFound, "there is no account %s", account).WithHint("imprint account add %s", account)
	case replace == "" && len(keys) >= imprint.MaxKeysPerUser:
		return imprint.Errorf(imprint.CodeLimitExceeded, "account %s has %d keys, as many as allowed: %s", account, len(keys), strings.Join(ids, ", ")).
			WithHint("Name the one that nobody uses any more: --replace ID.")
	case replace == "":
		return nil
	case !slices.Contains(ids, replace):
		return imprint.Errorf(imprint.CodeNotFound, "account %s has no key %s: its keys are %s", account, imprint.Excerpt(replace), strings.Join(ids, ", "))
	}
	return tx.DeleteAccessKey(replace)
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

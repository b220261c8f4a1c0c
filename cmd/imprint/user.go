package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// The answers of the users' API, as the command line shows them. Times are
// seconds since 1970.
type (
	userShown struct {
		UserName     string  `json:"userName"`
		ARN          string  `json:"userArn"`
		Description  string  `json:"description,omitempty"`
		CreationDate float64 `json:"creationDate"`
	}
	keyShown struct {
		AccessKeyID     string  `json:"accessKeyId"`
		SecretAccessKey string  `json:"secretAccessKey,omitempty"`
		UserName        string  `json:"userName"`
		CreationDate    float64 `json:"creationDate"`
	}
	policyShown struct {
		PolicyName       string  `json:"policyName"`
		PolicyDocument   string  `json:"policyDocument"`
		CreationDate     float64 `json:"creationDate"`
		LastModifiedDate float64 `json:"lastModifiedDate"`
	}
	userDescribed struct {
		User       userShown     `json:"user"`
		Policies   []policyShown `json:"policies"`
		AccessKeys []keyShown    `json:"accessKeys"`
	}
)

// userAction is what a subcommand does with a client.
type userAction func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error

// newUserCommand makes a subcommand that talks to the users' API.
func newUserCommand(use, short string, args cobra.PositionalArgs, run userAction) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done, err := newDirectoryClient(cmd)
			if err != nil {
				return err
			}
			defer done()
			return run(cmd.Context(), c, cmd.OutOrStdout(), args, asJSON)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func userPath(name string, parts ...string) string {
	path := "/imprint/users/" + url.PathEscape(name)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Manage users, their access keys and identity policies",
		Long: `Manage the users of an account: who may sign requests, and what for. A user may
do what its policies allow, and nothing without one. The commands ask the running
server, or open the data directory when it is stopped.`,
	}
	cmd.AddCommand(newUserAdd(),
		newUserCommand("list", "List users", cobra.NoArgs, listUsers),
		newUserCommand("show NAME", "Show a user with its policies and access keys", cobra.ExactArgs(1), showUser),
		newUserCommand("delete NAME", "Delete a user with its policies and access keys", cobra.ExactArgs(1), deleteAt(func(args []string) string {
			return userPath(args[0])
		})),
		newUserKey(), newUserPolicy())
	return cmd
}

func newUserAdd() *cobra.Command {
	var description string
	var key bool
	cmd := newUserCommand("add NAME", "Add a user, who may do nothing until a policy says so", cobra.ExactArgs(1),
		func(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
			body := map[string]any{}
			if description != "" {
				body["description"] = description
			}
			var added struct {
				User userShown `json:"user"`
			}
			err := c.Call(ctx, "POST", userPath(args[0]), body, &added)
			if err != nil {
				return err
			}
			if key {
				return addKey(ctx, c, w, args, asJSON)
			}
			if asJSON {
				return printJSON(w, added.User)
			}
			_, err = fmt.Fprintln(w, added.User.ARN)
			return err
		})
	cmd.Flags().StringVar(&description, "description", "", "what the user is for")
	cmd.Flags().BoolVar(&key, "key", false, "make an access key for it, too, and print that")
	return cmd
}

func listUsers(ctx context.Context, c *client.Client, w io.Writer, _ []string, asJSON bool) error {
	all, err := getAll[userShown](ctx, c, "/imprint/users", nil, "users")
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, all)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, u := range all {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", u.UserName, clockTime(u.CreationDate), u.Description)
	}
	return table.Flush()
}

func showUser(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var found userDescribed
	err := c.Call(ctx, "GET", userPath(args[0]), nil, &found)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, found)
	}
	_, _ = fmt.Fprintf(w, "%s\n  added %s  %s\n", found.User.ARN, clockTime(found.User.CreationDate), found.User.Description)
	for _, k := range found.AccessKeys {
		_, _ = fmt.Fprintf(w, "  key %s  %s\n", k.AccessKeyID, clockTime(k.CreationDate))
	}
	for _, p := range found.Policies {
		_, _ = fmt.Fprintf(w, "  policy %s  %s\n%s\n", p.PolicyName, clockTime(p.LastModifiedDate), indent(p.PolicyDocument))
	}
	return nil
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

// deleteAt deletes what a path names.
func deleteAt(path func(args []string) string) userAction {
	return func(ctx context.Context, c *client.Client, _ io.Writer, args []string, _ bool) error {
		return c.Call(ctx, "DELETE", path(args), nil, nil)
	}
}

func newUserKey() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Manage a user's access keys"}
	cmd.AddCommand(
		newUserCommand("add NAME", "Make an access key; its secret is shown this once", cobra.ExactArgs(1), addKey),
		newUserCommand("list NAME", "List a user's access keys", cobra.ExactArgs(1), listKeys),
		newUserCommand("delete NAME KEY-ID", "Delete an access key", cobra.ExactArgs(2), deleteAt(func(args []string) string {
			return userPath(args[0], "keys", args[1])
		})))
	return cmd
}

func addKey(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var made keyShown
	err := c.Call(ctx, "POST", userPath(args[0], "keys"), nil, &made)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, made)
	}
	return printKey(w, made.AccessKeyID, made.SecretAccessKey)
}

// printKey prints a key as a shell takes it.
func printKey(w io.Writer, id, secret string) error {
	_, err := fmt.Fprintf(w, "export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\n", quote(id), quote(secret))
	return err
}

func listKeys(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var found struct {
		AccessKeys []keyShown `json:"accessKeys"`
	}
	err := c.Call(ctx, "GET", userPath(args[0], "keys"), nil, &found)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, found.AccessKeys)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, k := range found.AccessKeys {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", k.AccessKeyID, clockTime(k.CreationDate))
	}
	return table.Flush()
}

func newUserPolicy() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Manage what a user may do"}
	cmd.AddCommand(
		newUserCommand("put NAME POLICY FILE", "Store an identity policy from a file (- is standard input)", cobra.ExactArgs(3), putPolicy),
		newUserCommand("get NAME POLICY", "Print an identity policy", cobra.ExactArgs(2), getPolicy),
		newUserCommand("list NAME", "List a user's identity policies", cobra.ExactArgs(1), listPolicies),
		newUserCommand("delete NAME POLICY", "Delete an identity policy", cobra.ExactArgs(2), deleteAt(func(args []string) string {
			return userPath(args[0], "policies", args[1])
		})))
	return cmd
}

// maxPolicyFile bounds what is read of a policy's file.
const maxPolicyFile = 128 << 10

func putPolicy(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	document, err := readSmallFile(args[2], maxPolicyFile)
	if err != nil {
		return err
	}
	var stored struct {
		Policy policyShown `json:"policy"`
	}
	err = c.Call(ctx, "PUT", userPath(args[0], "policies", args[1]), map[string]string{"policyDocument": string(document)}, &stored)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, stored.Policy)
	}
	return nil
}

// readSmallFile reads a file of a bounded size; - is standard input.
func readSmallFile(path string, most int64) ([]byte, error) {
	source := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError{fmt.Errorf("couldn't read the file: %w", err)}
		}
		defer func() { _ = file.Close() }()
		source = file
	}
	data, err := io.ReadAll(io.LimitReader(source, most+1))
	if err != nil {
		return nil, fmt.Errorf("couldn't read %s: %w", path, err)
	}
	if int64(len(data)) > most {
		return nil, usageError{fmt.Errorf("%s has more than %d bytes", path, most)}
	}
	return data, nil
}

func getPolicy(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var found struct {
		Policy policyShown `json:"policy"`
	}
	err := c.Call(ctx, "GET", userPath(args[0], "policies", args[1]), nil, &found)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, found.Policy)
	}
	_, err = fmt.Fprintln(w, strings.TrimSpace(found.Policy.PolicyDocument))
	return err
}

func listPolicies(ctx context.Context, c *client.Client, w io.Writer, args []string, asJSON bool) error {
	var found struct {
		Policies []policyShown `json:"policies"`
	}
	err := c.Call(ctx, "GET", userPath(args[0], "policies"), nil, &found)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, found.Policies)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range found.Policies {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", p.PolicyName, clockTime(p.LastModifiedDate))
	}
	return table.Flush()
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
)

// task is a bulk registration as the command line shows it.
type task struct {
	TaskID             string  `json:"taskId"`
	CreationDate       float64 `json:"creationDate"`
	LastModifiedDate   float64 `json:"lastModifiedDate"`
	InputFileBucket    string  `json:"inputFileBucket"`
	InputFileKey       string  `json:"inputFileKey"`
	Status             string  `json:"status"`
	Message            string  `json:"message,omitempty"`
	SuccessCount       int     `json:"successCount"`
	FailureCount       int     `json:"failureCount"`
	PercentageProgress int     `json:"percentageProgress"`
}

const tasksPath = "/thing-registration-tasks"

func taskPath(id string) string { return tasksPath + "/" + url.PathEscape(id) }

func newBulk() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bulk",
		Short: "Register many devices from a file: a JSON object with a template's parameters a line",
	}
	cmd.AddCommand(newBulkStart(), newBulkStatus(), newBulkStop(), newBulkReports())
	return cmd
}

func newBulkStart() *cobra.Command {
	var body, role string
	cmd := &cobra.Command{
		Use:   "start --template FILE BUCKET KEY",
		Short: "Start to register the devices of an input file, and print the task's id",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if body == "" {
				return usageError{errors.New("--template names no file")}
			}
			text, err := readSmallFile(body, maxPolicyFile)
			if err != nil {
				return err
			}
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			var started struct {
				TaskID string `json:"taskId"`
			}
			err = c.Call(cmd.Context(), "POST", tasksPath, map[string]string{
				"templateBody": string(text), "inputFileBucket": args[0], "inputFileKey": args[1], "roleArn": role,
			}, &started)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), started.TaskID)
			return err
		},
	}
	addDataFlag(cmd)
	cmd.Flags().StringVar(&body, "template", "", "file of the template's body (- is standard input)")
	cmd.Flags().StringVar(&role, "role", "arn:aws:iam::000000000000:role/bulk", "role of the task, which AWS IoT Core asks for and this server doesn't use")
	return cmd
}

func newBulkStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [TASK]",
		Short: "Show a task, or the newest ones",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			ids := args
			if len(ids) == 0 {
				var list struct {
					TaskIDs []string `json:"taskIds"`
				}
				err = c.Call(cmd.Context(), "GET", tasksPath, nil, &list)
				if err != nil {
					return err
				}
				ids = list.TaskIDs
			}
			tasks := make([]task, len(ids))
			for n, id := range ids {
				err = c.Call(cmd.Context(), "GET", taskPath(id), nil, &tasks[n])
				if err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), tasks)
			}
			return printTasks(cmd.OutOrStdout(), tasks)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTasks(w io.Writer, tasks []task) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, t := range tasks {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d%%\t%d registered\t%d failed\t%s/%s\t%s\n", t.TaskID, clockTime(t.CreationDate), t.Status,
			t.PercentageProgress, t.SuccessCount, t.FailureCount, t.InputFileBucket, t.InputFileKey, t.Message)
	}
	return table.Flush()
}

func newBulkStop() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop TASK",
		Short: "Stop a task; what is registered stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), "PUT", taskPath(args[0])+"/cancel", nil, nil)
		},
	}
	addDataFlag(cmd)
	return cmd
}

func newBulkReports() *cobra.Command {
	var failures bool
	cmd := &cobra.Command{
		Use:   "reports TASK",
		Short: "Print a task's report: a JSON object for each line that was registered, or that failed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := newOperatorClient(cmd)
			if err != nil {
				return err
			}
			kind := imprint.ReportResults
			if failures {
				kind = imprint.ReportErrors
			}
			roots, err := rootsOf(cmd)
			if err != nil {
				return err
			}
			return printReport(cmd.Context(), c, roots, cmd.OutOrStdout(), args[0], kind)
		},
	}
	addDataFlag(cmd)
	cmd.Flags().BoolVar(&failures, "errors", false, "the lines that failed")
	return cmd
}

func printReport(ctx context.Context, c *client.Client, roots *x509.CertPool, w io.Writer, id, kind string) error {
	var found struct {
		ResourceLinks []string `json:"resourceLinks"`
	}
	err := c.Call(ctx, "GET", taskPath(id)+"/reports?reportType="+kind, nil, &found)
	if err != nil {
		return err
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, Proxy: http.ProxyFromEnvironment}}
	for _, link := range found.ResourceLinks {
		link, err = linkAt(c.Endpoint(), link)
		if err != nil {
			return err
		}
		err = download(ctx, web, link, w)
		if err != nil {
			return err
		}
	}
	return nil
}

// linkAt gives a link at the address under which the server was just asked: the one
// that links have is for others, and needn't be known on this machine.
func linkAt(endpoint, link string) (string, error) {
	found, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("couldn't read the report's link: %w", err)
	}
	at, err := url.Parse(endpoint)
	if err != nil {
		return "", fmt.Errorf("couldn't read the server's address: %w", err)
	}
	found.Scheme, found.Host = at.Scheme, at.Host
	return found.String(), nil
}

func download(ctx context.Context, web *http.Client, link string, w io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return fmt.Errorf("couldn't read the report: %w", err)
	}
	response, err := web.Do(request)
	if err != nil {
		return fmt.Errorf("couldn't read the report: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("couldn't read the report: the server answers %s", response.Status)
	}
	_, err = io.Copy(w, response.Body)
	if err != nil {
		return fmt.Errorf("couldn't read all of the report: %w", err)
	}
	return nil
}

// rootsOf gives what verifies the server that newOperatorClient finds; nil: the
// system's roots do.
func rootsOf(cmd *cobra.Command) (*x509.CertPool, error) {
	path := os.Getenv("AWS_CA_BUNDLE")
	if cmd.Flags().Changed("data") || os.Getenv("AWS_ENDPOINT_URL_IOT") == "" || os.Getenv("AWS_ACCESS_KEY_ID") == "" {
		dir, err := cmd.Flags().GetString("data")
		if err != nil {
			return nil, err
		}
		facts, err := readServerFacts(dir)
		if err != nil {
			return nil, err
		}
		path = facts.CABundle
	}
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the server's root: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("couldn't read the server's root: %s holds no certificate", path)
	}
	return roots, nil
}

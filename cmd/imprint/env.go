package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// addDataFlag declares --data for subcommands that look for a server.
func addDataFlag(cmd *cobra.Command) {
	fallback := os.Getenv("IMPRINT_DATA")
	if fallback == "" {
		fallback = defaultData
	}
	cmd.Flags().String("data", fallback, "data directory of the server (env IMPRINT_DATA)")
}

func newEnv() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print what makes the AWS CLI and SDKs use this server, for eval",
		Long: `Print shell commands that make the AWS CLI and SDKs talk to this server:

  eval "$(imprint env)"

They hold the secret of the first access key: treat the output as one.

AWS_CA_BUNDLE and IMPRINT_CA name the server's roots, the file to give to
devices; IMPRINT_MQTT is the address that they connect to, and IMPRINT_HTTPS the
one where they publish over HTTPS.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			facts, err := readServerFacts(dir)
			if err != nil {
				return err
			}
			sealer, err := openSealer(dir, "", false)
			if err != nil {
				return err
			}
			key, err := readOperatorKey(dir, sealer)
			if err != nil {
				return err
			}
			return printEnv(cmd.OutOrStdout(), facts, key)
		},
	}
	addDataFlag(cmd)
	return cmd
}

// awsFunction serves AWS CLIs before 2.13, which don't read
// AWS_ENDPOINT_URL_IOT and its like.
const awsFunction = `# AWS CLIs before 2.13 don't read AWS_ENDPOINT_URL_IOT; this tells them.
aws() {
  case " $* " in
    *" iot-data "*) command aws --endpoint-url "$AWS_ENDPOINT_URL_IOT_DATA_PLANE" "$@" ;;
    *" lambda "*) command aws --endpoint-url "$AWS_ENDPOINT_URL_LAMBDA" "$@" ;;
    *" acm-pca "*) command aws --endpoint-url "$AWS_ENDPOINT_URL_ACM_PCA" "$@" ;;
    *" sts "*) command aws --endpoint-url "$AWS_ENDPOINT_URL_STS" "$@" ;;
    *" iot "*) command aws --endpoint-url "$AWS_ENDPOINT_URL_IOT" "$@" ;;
    *) command aws "$@" ;;
  esac
}
if [ -n "${BASH_VERSION:-}" ]; then export -f aws; fi
`

func printEnv(w io.Writer, facts serverFacts, key operatorKey) error {
	var b strings.Builder
	for _, pair := range [][2]string{
		{"AWS_ACCESS_KEY_ID", key.ID},
		{"AWS_SECRET_ACCESS_KEY", key.Secret},
		{"AWS_REGION", facts.Region},
		{"AWS_DEFAULT_REGION", facts.Region},
		{"AWS_ENDPOINT_URL_IOT", facts.APIURL},
		{"AWS_ENDPOINT_URL_IOT_DATA_PLANE", facts.APIURL},
		{"AWS_ENDPOINT_URL_LAMBDA", facts.APIURL},
		{"AWS_ENDPOINT_URL_ACM_PCA", facts.APIURL},
		{"AWS_ENDPOINT_URL_STS", facts.APIURL},
		{"AWS_CA_BUNDLE", facts.CABundle},
		{"IMPRINT_MQTT", facts.MQTTAddress},
		{"IMPRINT_HTTPS", facts.HTTPSAddress},
		{"IMPRINT_EST", facts.ESTURL},
		{"IMPRINT_CA", facts.CABundle},
	} {
		if pair[1] == "" {
			// The server's certificate is one that the system's roots vouch for, or
			// nothing listens there.
			fmt.Fprintf(&b, "unset %s\n", pair[0])
			continue
		}
		fmt.Fprintf(&b, "export %s=%s\n", pair[0], quote(pair[1]))
	}
	// Credentials of another account must not be mixed with these.
	b.WriteString("unset AWS_SESSION_TOKEN AWS_PROFILE\n")
	b.WriteString(awsFunction)
	_, err := io.WriteString(w, b.String())
	return err
}

// quote makes a word of a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server; makes everything it needs at the first start",
		Long: `Run the server. At the first start it makes everything that it needs, keys,
certificates, registry, tenant and access key, in its data directory; at each it says
where it is and what to type next. SIGTERM or Ctrl-C stops it.

A setting is a flag, an environment variable (--max-handshakes is IMPRINT_MAX_HANDSHAKES)
or a line of the YAML file of --config, in that order. docs/operations.md says more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := loadConfig(cmd.Flags())
			if err != nil {
				return err
			}
			logger, err := newLogger(config, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			s, err := newServer(cmd.Context(), config, logger)
			if err != nil {
				return err
			}
			s.greet(cmd.OutOrStdout())
			return s.run(cmd.Context())
		},
	}
	addServeFlags(cmd.Flags())
	return cmd
}

func newLogger(config Config, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	err := level.UnmarshalText([]byte(config.LogLevel))
	if err != nil {
		return nil, usageError{fmt.Errorf("log-level is %q, not debug, info, warn or error", config.LogLevel)}
	}
	options := &slog.HandlerOptions{Level: level}
	if config.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// greet prints where the server is and what to type next.
func (s *server) greet(w io.Writer) {
	program := programName()
	data := ""
	if dir := shortest(s.config.Data); dir != defaultData {
		data = " --data " + dir
	}
	_, _ = fmt.Fprintf(w, `Imprint %s is ready.

  devices (MQTT over mutual TLS)  %s
  devices (HTTPS, MQTT by ALPN)   %s
  control plane (AWS IoT API)     %s
  health, metrics                 %s/readyz  /metrics
  data directory                  %s
  server roots for devices        %s
  account, region                 %s, %s

Next, in another terminal:

  eval "$(%s env%s)"
  aws iot get-registration-code
  %s attempts%s --follow
`, version(), s.facts.MQTTAddress, orNowhere(s.facts.HTTPSAddress), s.facts.APIURL, s.facts.APIURL, shortest(s.config.Data), s.rootsText(),
		s.facts.Account, s.facts.Region, program, data, program, data)
}

// rootsText says what devices verify the server with.
func (s *server) rootsText() string {
	if s.facts.CABundle == "" {
		return "those of the device's system"
	}
	return shortest(s.facts.CABundle)
}

// orNowhere stands for a listener that is switched off.
func orNowhere(address string) string {
	if address == "" {
		return "nowhere (--https-address is empty)"
	}
	return address
}

// programName is how the person called this program.
func programName() string {
	if strings.ContainsRune(os.Args[0], filepath.Separator) {
		return os.Args[0]
	}
	return "imprint"
}

// shortest gives a path relative to the working directory where that is
// shorter.
func shortest(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(relative, "..") {
		return path
	}
	return "./" + relative
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/bench"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this program on this machine against a bare reference",
		Long: `Measure this program on this machine against a bare reference.

Each bench starts a server of its own, with a temporary data directory and on
free loopback ports, and a plain Go server beside it; figures per CPU-second
compare the CPU time of the two. Nothing else is touched.`,
	}
	opts := bench.Options{}
	handshake := newBenchRun("handshake", "Measure reconnects of known devices", 2500, &opts, bench.Handshake)
	handshake.Flags().BoolVar(&opts.FullOnly, "full-only", false, "measure no reconnects that resume their TLS session")
	cmd.AddCommand(
		handshake,
		newBenchRun("jitp", "Measure first connections with just-in-time provisioning", 2500, &bench.Options{}, bench.JITP),
		newBenchRun("trace", "Measure what the trace of attempts costs", 3000, &bench.Options{}, bench.Tracing),
		newBenchClaim(), newBenchBulk(), newBenchFunction(), newBenchIssue(),
		newBenchBroker(), newBenchServer(), newBenchBare(),
		newBenchChild(bench.EchoCommand, "Run the process that echoes for a bench", bench.Echo),
		newBenchChild(bench.FunctionCommand, "Run the function of a bench", bench.ServeFunction),
	)
	return cmd
}

// measure runs a bench of this program and prints its figures.
func measure(cmd *cobra.Command, asJSON bool, run func(bench.Target) ([]bench.Figure, error)) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("couldn't find this program's file: %w", err)
	}
	figures, err := run(benchTarget(program))
	if err != nil {
		return err
	}
	return printFigures(cmd.OutOrStdout(), figures, asJSON)
}

type benchRun func(context.Context, bench.Target, bench.Options) ([]bench.Figure, error)

func newBenchRun(name, short string, devices int, opts *bench.Options, run benchRun) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Messages = cmd.ErrOrStderr()
			return measure(cmd, asJSON, func(target bench.Target) ([]bench.Figure, error) { return run(cmd.Context(), target, *opts) })
		},
	}
	cmd.Flags().IntVar(&opts.Devices, "devices", devices, "how many devices")
	cmd.Flags().IntVar(&opts.Concurrency, "concurrency", 128, "how many connect at a time")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&opts.KeepData, "keep-data", false, "keep the server's data directory")
	cmd.Flags().StringVar(&opts.CPUProfile, "cpuprofile", "", "write a CPU profile of the server in the measured part to this file")
	return cmd
}

func newBenchClaim() *cobra.Command {
	opts := &bench.Options{}
	kind := "rsa-2048"
	cmd := newBenchRun("claim", "Measure fleet provisioning by claim", 2500, opts, func(ctx context.Context, target bench.Target, o bench.Options) ([]bench.Figure, error) {
		o.ServerFlags = []string{"--device-ca-key", kind}
		return bench.Claim(ctx, target, o)
	})
	cmd.Flags().StringVar(&kind, "device-ca-key", kind, "key that signs the devices' certificates: rsa-2048 or p-256")
	return cmd
}

func printFigures(w io.Writer, figures []bench.Figure, asJSON bool) error {
	if asJSON {
		return bench.PrintJSON(w, figures)
	}
	return bench.PrintTable(w, figures)
}

func newBenchBulk() *cobra.Command {
	opts := bench.BulkOptions{}
	cmd := newBenchRun("bulk", "Measure bulk registration", 20_000, &opts.Options, func(ctx context.Context, target bench.Target, chosen bench.Options) ([]bench.Figure, error) {
		opts.Options = chosen
		return bench.Bulk(ctx, target, opts)
	})
	cmd.Flags().BoolVar(&opts.CSR, "csr", false, "lines with signing requests, which the server signs, instead of certificates that are registered")
	cmd.Flags().IntVar(&opts.Long, "long", 0, "lines of a long input, whose memory is measured against a short one's (0: not measured)")
	return cmd
}

func newBenchBroker() *cobra.Command {
	opts := bench.BrokerOptions{}
	asJSON, seconds := false, 0.0
	cmd := &cobra.Command{
		Use:   "broker",
		Short: "Measure idle connections, reconnects and messages beside mosquitto",
		Long: `Measure idle connections, reconnects and messages, over TLS with policies
enforced, beside Debian's mosquitto with TLS and an ACL file in the same run.

The parts are ` + strings.Join(bench.BrokerParts(), ", ") + `.
A message that is lost, comes twice or overtakes another fails the run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Messages = cmd.ErrOrStderr()
			opts.Lasting = time.Duration(seconds * float64(time.Second))
			return measure(cmd, asJSON, func(target bench.Target) ([]bench.Figure, error) { return bench.Broker(cmd.Context(), target, opts) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&opts.Connections, "connections", 10_000, "how many idle connections")
	f.IntVar(&opts.Count, "messages", 0, "most messages of one round (0: no bound)")
	f.IntVar(&opts.Payload, "payload", 64, "bytes of a message")
	f.Float64Var(&seconds, "seconds", 1.5, "how long one round sends")
	f.IntVar(&opts.Concurrency, "concurrency", 128, "how many connect at a time")
	f.StringSliceVar(&opts.Only, "only", nil, "parts to measure (default: all)")
	f.StringVar(&opts.Mosquitto, "mosquitto", "", "mosquitto's program (default: where its package puts it)")
	f.BoolVar(&opts.NoMosquitto, "no-mosquitto", false, "measure without mosquitto")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&opts.KeepData, "keep-data", false, "keep the servers' data directory")
	f.StringVar(&opts.CPUProfile, "cpuprofile", "", "write a CPU profile of the server in each part: FILE.prof makes FILE-PART.prof")
	return cmd
}

// benchTarget says how a bench starts its children and finds its server.
func benchTarget(program string) bench.Target {
	return bench.Target{
		Program: program,
		ServerArgs: func(dir string) []string {
			return []string{
				"bench", "serve", "--data", dir, "--mqtt-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0", "--https-address", "",
				// A server of this machine may have the default.
				"--function-uid-base", strconv.Itoa(1_500_000_000 + os.Getpid()%10_000*30_000),
				"--api-rate", "0", "--publish-rate", "0", "--throughput-rate", "0", "--rsa-key-pool", "1", "--claim-rate", "0", "--log-level", "warn",
			}
		},
		BareArgs: []string{"bench", "bare"},
		Facts: func(dir string) (bench.Facts, error) {
			facts, err := readServerFacts(dir)
			if err != nil {
				return bench.Facts{}, err
			}
			sealer, err := openSealer(dir, "", false)
			if err != nil {
				return bench.Facts{}, err
			}
			key, err := readOperatorKey(dir, sealer)
			return bench.Facts{
				APIURL: facts.APIURL, MQTTAddress: facts.MQTTAddress, RootPath: facts.CABundle,
				Account: facts.Account, Region: facts.Region, KeyID: key.ID, Secret: key.Secret,
			}, err
		},
	}
}

// newBenchServer is serve as a bench's child: it obeys its parent and ends with
// it.
func newBenchServer() *cobra.Command {
	cmd := newServe()
	serve := cmd.RunE
	cmd.Short = "Run the server of a bench"
	cmd.Hidden = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := context.WithCancel(cmd.Context())
		defer stop()
		go bench.Obey(cmd.InOrStdin(), cmd.OutOrStdout(), stop)
		cmd.SetContext(ctx)
		return serve(cmd, args)
	}
	return cmd
}

func newBenchBare() *cobra.Command {
	return &cobra.Command{
		Use:    "bare",
		Short:  "Run the reference server of a bench",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			go bench.Obey(cmd.InOrStdin(), cmd.OutOrStdout(), stop)
			return bench.ServeBare(ctx, cmd.OutOrStdout())
		},
	}
}

func newBenchFunction() *cobra.Command {
	opts, asJSON := bench.FunctionOptions{}, false
	cmd := &cobra.Command{
		Use:   "function",
		Short: "Measure warm invocations of a Go function",
		Long: `Measure warm invocations of a Go function, through the API of functions, against the
same request without a run (a dry run) and a round trip to a process over its
pipes, in turns.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Messages = cmd.ErrOrStderr()
			return measure(cmd, asJSON, func(target bench.Target) ([]bench.Figure, error) { return bench.Function(cmd.Context(), target, opts) })
		},
	}
	cmd.Flags().IntVar(&opts.Invocations, "invocations", 3000, "how many invocations")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// newBenchChild is a process that a bench starts beside its server.
func newBenchChild(use, short string, serve func(context.Context, io.Reader, io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

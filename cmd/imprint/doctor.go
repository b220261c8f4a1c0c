package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/doctor"
	"github.com/imprint-iot/imprint/mqtt"
)

func newDoctor() *cobra.Command {
	var opts doctor.Options
	var asJSON bool
	var version string
	cmd := &cobra.Command{
		Use:   "doctor --cert FILE --key FILE",
		Short: "Stand where a device stands: say why it can't connect, before firmware is blamed",
		Long: `Stand where a device stands: with its certificate and key look at the files,
resolve the endpoint, connect, speak TLS and MQTT step by step, and say what is
wrong and what to type. Any endpoint will do, Imprint's or AWS IoT Core's:

  imprint doctor --cert device.pem --key device.key
  imprint doctor --cert device.pem --key device.key --ca AmazonRootCA1.pem \
    --endpoint a3qjEXAMPLEffp-ats.iot.eu-west-1.amazonaws.com

Without --endpoint, the server of the data directory is meant. Switch the device
off meanwhile: a connection with its client id ends its own. A device that has a
stored session speaks one version of MQTT; name it with --mqtt. --no-mqtt ends
before CONNECT, so that nothing is registered and nobody is disturbed.

Exit codes: 0 nothing failed, 3 something failed, 2 bad usage, 1 it couldn't be
looked at.
docs/doctor.md lists checks and codes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			opts.MQTT, err = mqttVersions(version)
			if err != nil {
				return usageError{err}
			}
			return runDoctor(cmd, opts, asJSON)
		},
	}
	addDataFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&opts.Certificate, "cert", "", "the device's certificate, or its chain, in PEM")
	f.StringVar(&opts.Key, "key", "", "the device's private key, in PEM")
	f.StringVar(&opts.CA, "ca", "", "the server's roots that the device has, in PEM (the data directory's server: its own; else the system's)")
	f.StringVar(&opts.Endpoint, "endpoint", "", "host:port to connect to (the data directory's server)")
	f.StringVar(&opts.ClientID, "client-id", "", "MQTT client id (the thing's name, where the data directory's server knows it; else the certificate's common name)")
	f.StringVar(&opts.ServerName, "server-name", "", "server name (SNI) instead of the endpoint's host, or none")
	f.StringVar(&opts.ALPN, "alpn", "", "application protocol, or none (x-amzn-mqtt-ca on port 443 and 8443, else none)")
	f.StringVar(&version, "mqtt", "both", "versions of MQTT to connect with: 3.1.1, 5 or both")
	f.BoolVar(&opts.NoMQTT, "no-mqtt", false, "end before CONNECT")
	f.StringVar(&opts.Subscribe, "subscribe", "", "topic filter to subscribe to")
	f.StringVar(&opts.Publish, "publish", "", "topic to publish a message on, at QoS 1")
	f.StringVar(&opts.Payload, "message", "imprint doctor", "the message")
	f.StringVar(&opts.HTTPS, "https", "", "host:port of the endpoint's HTTPS, from which its clock is read (usual ports)")
	f.DurationVar(&opts.Timeout, "timeout", 10*time.Second, "time for each step of the network")
	f.DurationVar(&opts.Pace, "pace", 1100*time.Millisecond, "time between two CONNECTs of one client id; AWS IoT Core takes one a second")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func runDoctor(cmd *cobra.Command, opts doctor.Options, asJSON bool) error {
	if opts.Certificate == "" || opts.Key == "" {
		return usageError{fmt.Errorf("couldn't stand in for a device without --cert and --key (try: %s --help)", cmd.CommandPath())}
	}
	if opts.ServerName == doctor.NoALPN {
		opts.ServerName, opts.NoServerName = "", true
	}
	dir, err := cmd.Flags().GetString("data")
	if err != nil {
		return err
	}
	facts, own, err := ownEndpoint(&opts, dir)
	if err != nil {
		return err
	}
	if own {
		opts.ThingOf = func(ctx context.Context, certificate string) string { return thingOf(ctx, cmd, facts, certificate) }
	}
	opts.Getenv = os.Getenv
	out := cmd.OutOrStdout()
	sheet := &sheet{out: out, paint: painterFor(out)}
	if !asJSON {
		opts.Tell = sheet.line
	}
	report, err := doctor.Examine(cmd.Context(), opts)
	switch {
	case err != nil && cmd.Context().Err() == nil:
		return usageError{err}
	case err != nil:
		return err
	}
	if asJSON {
		err = printJSON(out, report)
	} else {
		sheet.end(report)
		err = sheet.err
	}
	if err == nil && !report.Healthy {
		return exitNo
	}
	return err
}

func mqttVersions(word string) ([]mqtt.Version, error) {
	switch word {
	case "both":
		return []mqtt.Version{mqtt.V311, mqtt.V5}, nil
	case "3.1.1", "3":
		return []mqtt.Version{mqtt.V311}, nil
	case "5":
		return []mqtt.Version{mqtt.V5}, nil
	}
	return nil, fmt.Errorf("--mqtt is %q, and must be 3.1.1, 5 or both", word)
}

// ownEndpoint fills in what the data directory knows: its server, when no
// endpoint is named, or when its server is named.
func ownEndpoint(opts *doctor.Options, dir string) (facts serverFacts, own bool, err error) {
	facts, err = readServerFacts(dir)
	if opts.Endpoint == "" && err != nil {
		return facts, false, imprint.Errorf(imprint.CodeNotFound, "there is no --endpoint, and %w", err).
			WithHint("Name the endpoint: --endpoint HOST:8883; or the data directory of a server with --data or IMPRINT_DATA.")
	}
	if err != nil {
		// Nothing is known of the endpoint, and nothing has to be.
		return facts, false, nil
	}
	if opts.Endpoint != "" && !facts.serves(opts.Endpoint) {
		return facts, false, nil
	}
	if opts.Endpoint == "" {
		opts.Endpoint = facts.MQTTAddress
	}
	if opts.CA == "" {
		opts.CA = facts.CABundle
	}
	if opts.HTTPS == "" {
		// The operators' door tells the time, too, and records no attempt of a device.
		opts.HTTPS, opts.ClockAt = facts.HTTPSAddress, facts.apiAddress()
	}
	opts.Explain = "imprint explain"
	if dir != defaultData && dir != os.Getenv("IMPRINT_DATA") {
		opts.Explain += " --data " + quote(dir)
	}
	return facts, true, nil
}

// thingOf asks the control plane which thing a certificate is attached to; empty
// when it is none, or several, or the control plane can't be asked: the doctor does
// without.
func thingOf(ctx context.Context, cmd *cobra.Command, facts serverFacts, certificate string) string {
	c, err := newOperatorClient(cmd)
	if err != nil {
		return ""
	}
	var out struct {
		Things []string `json:"things"`
	}
	principal := fmt.Sprintf("arn:aws:iot:%s:%s:cert/%s", facts.Region, facts.Account, certificate)
	err = c.With("X-Amzn-Principal", principal).Call(ctx, "GET", "/principals/things", nil, &out)
	if err != nil || len(out.Things) != 1 {
		return ""
	}
	return out.Things[0]
}

// apiAddress is host:port of the operators' door.
func (f serverFacts) apiAddress() string {
	at, err := url.Parse(f.APIURL)
	if err != nil || at.Port() == "" {
		return ""
	}
	return at.Host
}

// serves says whether host:port is a device endpoint of the server: of its first
// tenant or of another.
func (f serverFacts) serves(endpoint string) bool {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return false
	}
	domain := f.Domain
	if domain == "" {
		domain = "localhost"
	}
	for _, own := range []string{f.MQTTAddress, f.HTTPSAddress} {
		ownHost, ownPort, err := net.SplitHostPort(own)
		if err == nil && port == ownPort && (host == ownHost || strings.HasSuffix(host, "."+domain)) {
			return true
		}
	}
	return false
}

// sheet writes a report for people, each check when it is made.
type sheet struct {
	out   io.Writer
	paint func(paint, string) string
	err   error
}

// marks are how verdicts look, as wide as their column.
var marks = map[doctor.Verdict]struct {
	word  string
	paint paint
}{
	doctor.OK: {"ok     ", good}, doctor.Warning: {"warning", bold}, doctor.Failed: {"FAILED ", bad}, doctor.Skipped: {"-      ", plain},
}

func (s *sheet) print(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, format, args...)
	}
}

// checkWidth is the width of the column of names.
const checkWidth = 27

func (s *sheet) line(c doctor.Check) {
	mark := marks[c.Verdict]
	detail := c.Detail
	if c.Code != "" {
		detail = string(c.Code) + ": " + detail
	}
	s.print("%s  %-*s  %s\n", s.paint(mark.paint, mark.word), checkWidth, c.Name, detail)
	if c.Fix != "" {
		s.print("%*s  %s\n", len(mark.word)+2+checkWidth, "", s.paint(bold, "-> "+c.Fix))
	}
}

// end says what it all comes to.
func (s *sheet) end(r *doctor.Report) {
	failed, doubtful := r.Count(doctor.Failed), r.Count(doctor.Warning)
	s.print("\n")
	if r.CertificateID != "" {
		s.print("certificate %s\n", r.CertificateID)
	}
	if failed > 0 {
		s.print("%s\n", s.paint(bad, fmt.Sprintf("%d of %d checks failed, with %d warning(s); the first one that failed is the one to mend first", failed, len(r.Checks), doubtful)))
		return
	}
	s.print("%s\n", s.paint(good, fmt.Sprintf("nothing failed, %d warning(s), %d check(s) skipped", doubtful, r.Count(doctor.Skipped))))
}

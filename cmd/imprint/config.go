package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
	"github.com/imprint-iot/imprint/pki"
)

// Config is every setting of `imprint serve`. A flag --some-setting wins over
// the environment variable IMPRINT_SOME_SETTING, which wins over the line
// "some-setting: value" of the YAML file named by --config.
type Config struct {
	// Data is the directory that holds everything: keys, certificates, the
	// registry. Made with mode 0700. Default ./imprint-data.
	Data string `koanf:"data"`
	// Account is the account of the first tenant, twelve digits. Default
	// 000000000000.
	Account string `koanf:"account"`
	// Region is the region of the first tenant, the one of devices that send no
	// server name. Default us-east-1.
	Region string `koanf:"region"`
	// Regions are the regions that callers may sign for; each is a tenant of its
	// own. Empty: any.
	Regions []string `koanf:"regions"`
	// PrivateAddresses lets the http actions, webhooks and remote functions of all accounts
	// reach this machine and private networks, which else only the first account's may.
	PrivateAddresses bool `koanf:"private-addresses"`
	// Domain makes device endpoints {prefix}-ats.iot.{region}.{domain}. Empty:
	// localhost.
	Domain string `koanf:"domain"`
	// Hosts are further names and addresses by which devices and operators reach
	// the first tenant. The server's certificates carry them.
	Hosts []string `koanf:"host"`
	// MQTTAddress is where devices connect with MQTT over mutual TLS. Default
	// :8883.
	MQTTAddress string `koanf:"mqtt-address"`
	// HTTPSAddress is where devices publish over HTTPS with their certificate, or
	// connect with MQTT where the TLS hello asks for it (ALPN x-amzn-mqtt-ca or
	// mqtt), and where operators find the data plane API and MQTT over WebSocket.
	// Empty: nothing listens. Default :8443.
	HTTPSAddress string `koanf:"https-address"`
	// APIAddress is where the control plane, metrics and health are served over
	// TLS. Default :9443.
	APIAddress string `koanf:"api-address"`
	// Hold keeps the first connection of a device that could be provisioned and
	// lets it in, instead of closing it as AWS IoT Core does. A CA's tag
	// imprint:first-connection (hold or close) wins over it.
	Hold bool `koanf:"hold"`
	// RefusalReasons answers MQTT 3.1.1 devices with CONNACK 5 and SUBACK 0x80
	// where AWS IoT Core closes the connection without a word.
	RefusalReasons bool `koanf:"refusal-reasons"`
	// SecurityPolicy chooses TLS versions and cipher suites for devices by the name
	// of AWS IoT Core's security policies. Default
	// IoTSecurityPolicy_TLS13_1_2_2022_10.
	SecurityPolicy string `koanf:"security-policy"`
	// SessionTickets lets devices resume TLS sessions. False as AWS IoT Core does
	// it. Default true.
	SessionTickets bool `koanf:"session-tickets"`
	// TicketKeyRotation is how long one key seals new tickets. Default 1h.
	TicketKeyRotation time.Duration `koanf:"ticket-key-rotation"`
	// TicketKeyLifetime is how long a key opens tickets, and how long a device
	// may resume until it proves anew that it holds its key. Default 24h.
	TicketKeyLifetime time.Duration `koanf:"ticket-key-lifetime"`
	// TLSCertificates and TLSKeys are PEM files with the server's certificate
	// chains and keys, in pairs: one, or an ECDSA and an RSA one. They are read
	// again on SIGHUP and when they change. Empty: the server makes its own.
	TLSCertificates []string `koanf:"tls-certificate"`
	TLSKeys         []string `koanf:"tls-key"`
	// TLSRoots is the PEM file that clients verify TLSCertificates with, for
	// `imprint env` to name. Empty: those of the client's system.
	TLSRoots string `koanf:"tls-roots"`
	// HandshakeTimeout bounds the TLS handshake. Default 10s.
	HandshakeTimeout time.Duration `koanf:"handshake-timeout"`
	// ConnectTimeout bounds the wait for CONNECT after it. Default 10s.
	ConnectTimeout time.Duration `koanf:"connect-timeout"`
	// MaxHandshakes bounds connections that aren't admitted yet. Default 2048.
	MaxHandshakes int `koanf:"max-handshakes"`
	// MaxPendingPerAddress bounds those from one address. Default 512.
	MaxPendingPerAddress int `koanf:"max-pending-per-address"`
	// MaxConnections bounds all device connections. Default 1000000.
	MaxConnections int `koanf:"max-connections"`
	// MQTTConfig bounds what MQTT clients may do.
	MQTTConfig `koanf:",squash"`
	// FunctionConfig says how functions run.
	FunctionConfig `koanf:",squash"`
	// RuleConfig says how topic rules run.
	RuleConfig `koanf:",squash"`
	// ClaimConfig are those of fleet provisioning.
	ClaimConfig `koanf:",squash"`
	// BulkConfig are those of bulk registration.
	BulkConfig `koanf:",squash"`
	// AuditConfig are those of audits.
	AuditConfig `koanf:",squash"`
	// AuthorityConfig are those of certificate authorities.
	AuthorityConfig `koanf:",squash"`
	// ESTConfig are those of enrolment over EST and of renewal.
	ESTConfig `koanf:",squash"`
	// KeyStoreConfig says where the keys of some of them are.
	KeyStoreConfig `koanf:",squash"`
	// IssuanceLogConfig are those of the log of issuances.
	IssuanceLogConfig `koanf:",squash"`
	// MaxConnectionsPerAddress bounds those from one address, or one /64 network
	// of IPv6. Default 0: no bound of its own.
	MaxConnectionsPerAddress int `koanf:"max-connections-per-address"`
	// ConnectionRatePerAddress bounds the connections that one address begins in
	// a second; twice as many may come at once. Default 0: no bound.
	ConnectionRatePerAddress int `koanf:"connection-rate-per-address"`
	// ConcurrentHandshakes is how many TLS handshakes compute at once; others
	// wait in order. Default 0: one less than there are processors, at least 1.
	ConcurrentHandshakes int `koanf:"concurrent-handshakes"`
	// APIRate bounds the requests per second of one access key, and, ten times
	// that, of one address. Default 500; 0: no bound.
	APIRate int `koanf:"api-rate"`
	// HTTPSPublishRate bounds the messages per second that one certificate may
	// publish over HTTPS. Default 100; 0: no bound.
	HTTPSPublishRate int `koanf:"https-publish-rate"`
	// ThingTypeDeletionDelay is how long a thing type stays after it was
	// deprecated, until it can be deleted. Default 5m; 0: no time.
	ThingTypeDeletionDelay time.Duration `koanf:"thing-type-deletion-delay"`
	// StoredEvents bounds the events on $aws/events/ of one account that wait for its
	// subscribers and rules; the oldest are dropped. Each 8 KiB of an event counts as one
	// more. Default 100000.
	StoredEvents int `koanf:"stored-events"`
	// Trace is whether attempts are recorded. Default true. Without it nobody is told
	// why a device isn't connected: it is for measuring what the trace costs.
	Trace bool `koanf:"trace"`
	// TraceRetention is how long attempts are kept. Default 168h.
	TraceRetention time.Duration `koanf:"trace-retention"`
	// TraceKeep is how many attempts are kept at most. Default 1000000.
	TraceKeep int `koanf:"trace-keep"`
	// TraceFoldAfter is how many attempts of a device that fail in the same way are
	// kept whole in five minutes; further ones take the place of the last, which
	// counts them. Default 3; 0: all are kept.
	TraceFoldAfter int `koanf:"trace-fold-after"`
	// TraceSuccessRate is how many attempts per second of devices that were let in
	// are kept; of others only the number, unless a step fails later. Default 50; 0:
	// all are kept.
	TraceSuccessRate int `koanf:"trace-success-rate"`
	// RSAKeyPool is how many RSA keys are kept ready for
	// CreateKeysAndCertificate. Default 16.
	RSAKeyPool int `koanf:"rsa-key-pool"`
	// MasterKey is the base64 of the 32 bytes that seal secrets at rest. Only
	// from the environment (IMPRINT_MASTER_KEY) or the file; without it, the
	// file master.key in the data directory holds one.
	MasterKey string `koanf:"master-key"`
	// LogFormat is text or json. Default text.
	LogFormat string `koanf:"log-format"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `koanf:"log-level"`
}

const defaultData = "./imprint-data"

// addServeFlags declares the flags of Config.
func addServeFlags(f *pflag.FlagSet) {
	f.String("config", "", "YAML file with settings (env IMPRINT_CONFIG)")
	f.String("data", defaultData, "directory that holds everything")
	f.String("account", "000000000000", "account of the first tenant")
	f.String("region", "us-east-1", "region of the first tenant")
	f.StringSlice("regions", nil, "regions that callers may sign for (default: any)")
	f.Bool("private-addresses", false, "let rules, functions and revocation lists of all accounts call addresses of this machine and of private networks")
	f.String("domain", "", "domain of the device endpoints (default: localhost)")
	f.StringSlice("host", nil, "further names or addresses of this server")
	f.String("mqtt-address", ":8883", "where devices connect (MQTT over mutual TLS)")
	f.String("https-address", ":8443", "where devices publish over HTTPS (empty: nowhere)")
	f.String("api-address", ":9443", "where the control plane, metrics and health are served")
	f.Bool("hold", false, "keep a first connection open once its device is provisioned")
	f.Bool("refusal-reasons", false, "tell MQTT 3.1.1 devices why they are refused instead of closing")
	f.String("security-policy", gateway.DefaultSecurityPolicy, "TLS versions and cipher suites for devices, by AWS IoT Core's name")
	f.Bool("session-tickets", true, "let devices resume TLS sessions")
	f.Duration("ticket-key-rotation", time.Hour, "how long one key seals session tickets")
	f.Duration("ticket-key-lifetime", 24*time.Hour, "how long a key opens session tickets")
	f.StringSlice("tls-certificate", nil, "PEM file of a server certificate of your own (twice for ECDSA and RSA)")
	f.StringSlice("tls-key", nil, "PEM file of its key, in the same order")
	f.String("tls-roots", "", "PEM file of the roots that clients verify it with (default: their system's)")
	f.Duration("handshake-timeout", 10*time.Second, "bound of the TLS handshake")
	f.Duration("connect-timeout", broker.DefaultOptions().ConnectTimeout, "bound of the wait for CONNECT")
	f.Int("max-handshakes", 2048, "bound of connections that aren't admitted yet")
	f.Int("max-pending-per-address", 512, "bound of the connections of one address that aren't admitted yet")
	f.Int("max-connections", 1_000_000, "bound of all device connections")
	addMQTTFlags(f)
	addFunctionFlags(f)
	addRuleFlags(f)
	addClaimFlags(f)
	addBulkFlags(f)
	addAuditFlags(f)
	addAuthorityFlags(f)
	addESTFlags(f)
	addKeyStoreFlags(f)
	addIssuanceLogFlags(f)
	f.Int("max-connections-per-address", 0, "bound of the device connections of one address (0: none)")
	f.Int("connection-rate-per-address", 0, "connections that one address begins in a second (0: no bound)")
	f.Int("concurrent-handshakes", 0, "TLS handshakes that compute at once (0: processors less one)")
	f.Int("api-rate", 500, "control-plane requests per second of one access key (0: no bound)")
	f.Int("https-publish-rate", 100, "messages per second of one certificate over HTTPS (0: no bound)")
	f.Duration("thing-type-deletion-delay", imprint.ThingTypeDeletionDelay, "how long a deprecated thing type stays (0: no time)")
	f.Bool("trace", true, "record devices' attempts; off only to measure what that costs")
	f.Duration("trace-retention", 168*time.Hour, "how long attempts are kept")
	f.Int("stored-events", 100_000, "bound of the events of one account that wait for its subscribers and rules")
	f.Int("trace-keep", 1_000_000, "how many attempts are kept")
	f.Int("trace-success-rate", 50, "attempts per second of devices that are let in, and lines of bulk registrations, that are kept (0: all)")
	f.Int("trace-fold-after", 3, "attempts of a device that fail alike kept whole in five minutes, before they are only counted (0: all)")
	f.Int("rsa-key-pool", 16, "RSA keys kept ready for CreateKeysAndCertificate")
	f.String("log-format", "text", "text or json")
	f.String("log-level", "info", "debug, info, warn or error")
}

// loadConfig merges file, environment and flags and checks the result.
func loadConfig(flags *pflag.FlagSet) (Config, error) {
	k := koanf.New(".")
	path := os.Getenv("IMPRINT_CONFIG")
	if f := flags.Lookup("config"); f != nil && f.Changed {
		path = f.Value.String()
	}
	if path != "" {
		err := k.Load(file.Provider(path), yaml.Parser())
		if err != nil {
			return Config{}, usageError{fmt.Errorf("couldn't read the configuration file %s: %w", path, err)}
		}
	}
	fromFile := k.Keys()
	err := k.Load(env.Provider(".", env.Opt{Prefix: "IMPRINT_", TransformFunc: settingOf}), nil)
	if err != nil {
		return Config{}, fmt.Errorf("couldn't read the environment: %w", err)
	}
	err = k.Load(posflag.Provider(flags, ".", k), nil)
	if err != nil {
		return Config{}, fmt.Errorf("couldn't read the flags: %w", err)
	}
	var c Config
	err = k.Unmarshal("", &c)
	if err != nil {
		return Config{}, usageError{fmt.Errorf("couldn't read the configuration: %w", err)}
	}
	return c, c.check(fromFile)
}

// settingOf turns IMPRINT_MAX_HANDSHAKES into max-handshakes. An empty variable
// counts as unset, and so does one that is no setting: orchestrators put
// variables of their own beside ours (Kubernetes names IMPRINT_PORT and
// IMPRINT_SERVICE_HOST after a service called imprint).
func settingOf(name, value string) (string, any) {
	name = strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "IMPRINT_")), "_", "-")
	if value == "" || !isSetting(name) {
		return "", nil
	}
	switch name {
	case "regions", "host", "tls-certificate", "tls-key", "ca-key-store":
		return name, strings.Split(value, ",")
	}
	return name, value
}

// isSetting tells whether Config has a setting of a name.
func isSetting(name string) bool {
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	addServeFlags(known)
	return name == "master-key" || name == "bulk-s3-access-key" || name == "bulk-s3-secret-key" || name != "config" && known.Lookup(name) != nil
}

// check refuses what can't work. Names are the settings of the file.
func (c Config) check(names []string) error {
	for _, name := range names {
		if !isSetting(name) {
			return usageError{fmt.Errorf("there is no setting %q (imprint serve --help lists them)", name)}
		}
	}
	_, err := imprint.ParseAccountID(c.Account)
	if err != nil {
		return usageError{err}
	}
	for _, region := range append([]string{c.Region}, c.Regions...) {
		_, err = imprint.ParseRegion(region)
		if err != nil {
			return usageError{err}
		}
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return usageError{fmt.Errorf("log-format is %q, not text or json", c.LogFormat)}
	}
	if c.Data == "" {
		return usageError{errors.New("data names no directory")}
	}
	err = errors.Join(c.checkAddresses(), c.checkTLS())
	if err != nil {
		return err
	}
	return c.checkNumbers()
}

// checkAddresses refuses what can't be listened on, and names that no certificate can hold.
func (c Config) checkAddresses() error {
	for _, a := range []struct{ name, address string }{
		{"mqtt-address", c.MQTTAddress}, {"https-address", c.HTTPSAddress}, {"api-address", c.APIAddress}, {"pki-address", c.PKIAddress}, {"est-address", c.ESTAddress},
	} {
		if a.address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(a.address)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil {
			return usageError{fmt.Errorf("%s is %q, not HOST:PORT or :PORT, such as :8883: %w", a.name, a.address, err)}
		}
	}
	for _, name := range append([]string{c.Domain}, c.Hosts...) {
		if name == "" {
			continue
		}
		_, err := pki.NewNames(name)
		if err != nil {
			return usageError{fmt.Errorf("host and domain: %w", err)}
		}
	}
	return nil
}

// checkTLS refuses settings of TLS that contradict each other.
func (c Config) checkTLS() error {
	_, err := gateway.ParseSecurityPolicy(c.SecurityPolicy)
	if err != nil {
		return usageError{err}
	}
	if len(c.TLSCertificates) != len(c.TLSKeys) || len(c.TLSCertificates) > 2 {
		return usageError{fmt.Errorf("tls-certificate names %d file(s) and tls-key %d: give one pair, or an ECDSA and an RSA pair", len(c.TLSCertificates), len(c.TLSKeys))}
	}
	if c.TLSRoots != "" && len(c.TLSCertificates) == 0 {
		return usageError{errors.New("tls-roots means nothing without tls-certificate")}
	}
	if c.TicketKeyRotation > c.TicketKeyLifetime || c.TicketKeyRotation > 0 && c.TicketKeyLifetime/c.TicketKeyRotation > gateway.MaxTicketKeys {
		return usageError{fmt.Errorf("ticket-key-lifetime is %s, and must be between one and %d times ticket-key-rotation, which is %s",
			c.TicketKeyLifetime, gateway.MaxTicketKeys, c.TicketKeyRotation)}
	}
	return nil
}

// checkNumbers refuses sizes and times that would switch a limit off or stop
// the server's work.
func (c Config) checkNumbers() error {
	for _, n := range []struct {
		name         string
		value, least int
	}{
		{"max-handshakes", c.MaxHandshakes, 1},
		{"max-pending-per-address", c.MaxPendingPerAddress, 1},
		{"max-connections", c.MaxConnections, 1},
		{"max-connections-per-address", c.MaxConnectionsPerAddress, 0},
		{"connection-rate-per-address", c.ConnectionRatePerAddress, 0},
		{"concurrent-handshakes", c.ConcurrentHandshakes, 0},
		{"api-rate", c.APIRate, 0},
		{"https-publish-rate", c.HTTPSPublishRate, 0},
		{"pki-connections-per-address", c.PKIConnectionsPerAddress, 0},
		{"pki-rate-per-address", c.PKIRatePerAddress, 0},
		{"stored-events", c.StoredEvents, 1},
		{"trace-keep", c.TraceKeep, 1},
		{"trace-success-rate", c.TraceSuccessRate, 0},
		{"trace-fold-after", c.TraceFoldAfter, 0},
		{"rsa-key-pool", c.RSAKeyPool, 1},
	} {
		if n.value < n.least {
			return usageError{fmt.Errorf("%s is %d, and must be at least %d", n.name, n.value, n.least)}
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"handshake-timeout", c.HandshakeTimeout}, {"connect-timeout", c.ConnectTimeout}, {"trace-retention", c.TraceRetention},
		{"ticket-key-rotation", c.TicketKeyRotation}, {"ticket-key-lifetime", c.TicketKeyLifetime},
	} {
		if d.value <= 0 {
			return usageError{fmt.Errorf("%s is %s, and must be more than nothing", d.name, d.value)}
		}
	}
	if c.ThingTypeDeletionDelay < 0 {
		return usageError{fmt.Errorf("thing-type-deletion-delay is %s, and must be at least nothing", c.ThingTypeDeletionDelay)}
	}
	err := c.FunctionConfig.check()
	if err == nil {
		err = c.RuleConfig.check()
	}
	if err != nil {
		return err
	}
	err = c.ClaimConfig.check()
	if err != nil {
		return err
	}
	err = c.BulkConfig.check()
	if err != nil {
		return err
	}
	err = c.AuditConfig.check()
	if err != nil {
		return err
	}
	err = errors.Join(c.AuthorityConfig.check(), c.KeyStoreConfig.check(), c.ESTConfig.check())
	if err != nil {
		return err
	}
	err = c.IssuanceLogConfig.check(c.PKIAddress)
	if err != nil {
		return err
	}
	return c.MQTTConfig.check()
}

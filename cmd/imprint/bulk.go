package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// BulkConfig are the settings of `imprint serve` for bulk registration. Inputs are
// found in the directory, unless one of the others is set.
type BulkConfig struct {
	// BulkDirectory holds input files, as ACCOUNT/BUCKET/KEY, and those of the
	// server's first account (--account) as BUCKET/KEY, too. Default: bulk in the
	// data directory.
	BulkDirectory string `koanf:"bulk-directory"`
	// BulkAccount is the account that BulkURL or BulkS3Endpoint is for; tasks of
	// others fail. Default: the server's first account.
	BulkAccount string `koanf:"bulk-account"`
	// BulkURL is an http(s) URL below which input files are, as BUCKET/KEY.
	BulkURL string `koanf:"bulk-url"`
	// BulkS3Endpoint is the URL of an S3-compatible store in whose buckets they are;
	// IMPRINT_BULK_S3_ACCESS_KEY and IMPRINT_BULK_S3_SECRET_KEY hold its credentials,
	// or the settings of these names in the file.
	BulkS3Endpoint  string `koanf:"bulk-s3-endpoint"`
	BulkS3Region    string `koanf:"bulk-s3-region"` // Default us-east-1.
	BulkS3AccessKey string `koanf:"bulk-s3-access-key"`
	BulkS3SecretKey string `koanf:"bulk-s3-secret-key"`
	// BulkTasks is how many tasks run at once, of all accounts. Default 4.
	BulkTasks int `koanf:"bulk-tasks"`
	// BulkRetention is how long tasks are kept with their reports. Default 720h.
	BulkRetention time.Duration `koanf:"bulk-retention"`
}

func addBulkFlags(f *pflag.FlagSet) {
	f.String("bulk-directory", "", "directory of input files of bulk registration, as ACCOUNT/BUCKET/KEY (default: bulk in the data directory)")
	f.String("bulk-url", "", "http(s) URL below which the input files of one account (--bulk-account) are instead, as BUCKET/KEY")
	f.String("bulk-s3-endpoint", "", "URL of the S3-compatible store where the input files of one account (--bulk-account) are instead")
	f.String("bulk-account", "", "account that bulk-url or bulk-s3-endpoint is for (default: the server's first account)")
	f.String("bulk-s3-region", "us-east-1", "region of the signatures for --bulk-s3-endpoint")
	f.Int("bulk-tasks", 4, "bulk registrations that run at once")
	f.Duration("bulk-retention", 720*time.Hour, "how long bulk registrations are kept with their reports")
}

func (c BulkConfig) check() error {
	sources := 0
	for _, source := range []string{c.BulkDirectory, c.BulkURL, c.BulkS3Endpoint} {
		if source != "" {
			sources++
		}
	}
	if sources > 1 {
		return usageError{fmt.Errorf("bulk-directory, bulk-url and bulk-s3-endpoint exclude each other")}
	}
	for name, address := range map[string]string{"bulk-url": c.BulkURL, "bulk-s3-endpoint": c.BulkS3Endpoint} {
		parsed, err := url.Parse(address)
		if err != nil || address != "" && (parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Host == "") {
			return usageError{fmt.Errorf("%s is %q, not an http(s) URL", name, address)}
		}
	}
	if c.BulkS3Endpoint != "" && (c.BulkS3AccessKey == "" || c.BulkS3SecretKey == "") {
		return usageError{fmt.Errorf("bulk-s3-endpoint needs IMPRINT_BULK_S3_ACCESS_KEY and IMPRINT_BULK_S3_SECRET_KEY")}
	}
	if c.BulkAccount != "" {
		_, err := imprint.ParseAccountID(c.BulkAccount)
		if err != nil {
			return usageError{fmt.Errorf("bulk-account: %w", err)}
		}
		if c.BulkURL == "" && c.BulkS3Endpoint == "" {
			return usageError{fmt.Errorf("bulk-account needs bulk-url or bulk-s3-endpoint: a directory has a part for each account")}
		}
	}
	if c.BulkTasks < 1 || c.BulkTasks > 1000 {
		return usageError{fmt.Errorf("bulk-tasks is %d, and must be 1 to 1000", c.BulkTasks)}
	}
	if c.BulkRetention < time.Minute {
		return usageError{fmt.Errorf("bulk-retention is %s, and must be at least a minute", c.BulkRetention)}
	}
	return nil
}

// bulkDir is where input files are looked for without any setting.
const bulkDir = "bulk"

// idleInput bounds the wait for an input's server: for its connection, for its
// answer, and for each part of the body, which may take as long as it needs.
const idleInput = 30 * time.Second

// input makes what inputs are read from; home is the server's first account.
func (c BulkConfig) input(data string, home imprint.AccountID) (provisioning.BulkInput, error) {
	account := home
	if c.BulkAccount != "" {
		account = imprint.AccountID(c.BulkAccount)
	}
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: idleInput}).DialContext,
		ResponseHeaderTimeout: idleInput, TLSHandshakeTimeout: idleInput, MaxIdleConnsPerHost: 1, IdleConnTimeout: idleInput,
	}}
	switch {
	case c.BulkURL != "":
		return provisioning.BulkURL{Base: c.BulkURL, Account: account, Client: client, Idle: idleInput}, nil
	case c.BulkS3Endpoint != "":
		return provisioning.BulkURL{
			Base: c.BulkS3Endpoint, Account: account, Client: client, Idle: idleInput, Region: c.BulkS3Region,
			Credentials: &aws.Credentials{AccessKeyID: c.BulkS3AccessKey, SecretAccessKey: c.BulkS3SecretKey},
		}, nil
	case c.BulkDirectory != "":
		return provisioning.BulkDirectory{Path: c.BulkDirectory, Home: home}, nil
	}
	dir := filepath.Join(data, bulkDir)
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the directory of bulk inputs: %w", err)
	}
	return provisioning.BulkDirectory{Path: dir, Home: home}, nil
}

// openBulk makes what runs bulk registrations, and goes on with those that the
// last stop interrupted.
func (s *server) openBulk(ctx context.Context) error {
	input, err := s.config.BulkConfig.input(s.config.Data, s.home.Account)
	if err != nil {
		return err
	}
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(s.reportKey[:])
	s.bulk, err = provisioning.NewBulk(ctx, s.claims, input, provisioning.BulkOptions{
		Concurrent: s.config.BulkTasks, Keep: s.config.BulkRetention, Trace: s.trace, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	s.closeLater(s.bulk.Close)
	return nil
}

const (
	reportPath = "/imprint/reports/"
	// reportLifetime is how long the URL of a report holds; a restart of the server
	// ends it, too.
	reportLifetime = time.Hour
	// reportPause bounds the time in which a client takes some hundred lines.
	reportPause = time.Minute
)

// reportURL names a report for whoever is given the URL.
func (s *server) reportURL(tenant imprint.Tenant, task, kind string) string {
	path := reportPath + strings.Join([]string{string(tenant.Account), string(tenant.Region), task, kind}, "/")
	until := strconv.FormatInt(s.clock().Add(reportLifetime).Unix(), 10)
	return s.linkURL() + path + "?expires=" + until + "&signature=" + s.signReport(path, until)
}

func (s *server) signReport(path, until string) string {
	mac := hmac.New(sha256.New, s.reportKey[:])
	_, _ = mac.Write([]byte(path + "\n" + until))
	return hex.EncodeToString(mac.Sum(nil))
}

// serveReport answers for the URL of a report.
func (s *server) serveReport(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	until, err := strconv.ParseInt(query.Get("expires"), 10, 64)
	good := hmac.Equal([]byte(query.Get("signature")), []byte(s.signReport(r.URL.Path, query.Get("expires"))))
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, reportPath), "/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		respond(w, http.StatusMethodNotAllowed, map[string]string{"message": "Reports are read with GET."})
		return
	case err != nil || !good || len(parts) != 4 || s.clock().Unix() > until:
		respond(w, http.StatusForbidden, map[string]string{"message": "The URL of the report has expired or isn't one. List the reports again."})
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "private, no-store")
	if r.Method == http.MethodHead {
		return
	}
	tenant := imprint.Tenant{Account: imprint.AccountID(parts[0]), Region: imprint.Region(parts[1])}
	control := http.NewResponseController(w)
	err = s.bulk.WriteReport(r.Context(), w, tenant, parts[2], parts[3], func() error { return control.SetWriteDeadline(time.Now().Add(reportPause)) })
	if err != nil {
		s.logger.Warn("couldn't send a report", "task", parts[2], "error", err)
		// The client must not take what it has for the whole.
		panic(http.ErrAbortHandler)
	}
}

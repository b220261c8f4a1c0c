package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/issuances"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// readDeviceCA gives the certificate of the built-in device CA; nil when there is none.
func readDeviceCA(dir string) (*x509.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(dir, pkiDir, "device-ca.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read the device CA: %w", err)
	}
	ca, err := pki.ParseCertificatePEM(string(text))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the device CA: %w", err)
	}
	return ca, nil
}

func newCAAudit() *cobra.Command {
	var which whichLog
	var remembered []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that the registry, the issuance log and the record of signatures agree",
		Long: `Compares the registry, the issuance log and the record of signatures: every certificate in
the registry that one of our CAs signed is in the log, every entry of the log is in the record of
signatures and every signature in the log, all tiles of the log are what its checkpoint signs.

The running server does it. On the data directory of a stopped server, or a copy of one, and
with --log, this command does it by itself; the server of the directory must be stopped then.

Exit status 3: something differs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			report := func(f translog.Finding) { printFinding(out, f, asJSON) }
			audited, err := which.audit(cmd, dir, remembered, report)
			if err != nil {
				return err
			}
			printAudited(out, audited, asJSON)
			if audited.Findings > 0 {
				return exitNo
			}
			return nil
		},
	}
	addDataFlag(cmd)
	which.add(cmd)
	cmd.Flags().StringArrayVar(&remembered, "checkpoint", nil, "file with a checkpoint that was kept; the log must begin with it (may be repeated)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each finding, and one at the end")
	return cmd
}

// audit audits the log that is meant: through its running server, or by itself.
func (w *whichLog) audit(cmd *cobra.Command, dir string, remembered []string, report func(translog.Finding)) (translog.Audited, error) {
	ctx := cmd.Context()
	server, verifier, err := w.running(cmd, dir)
	if err != nil {
		return translog.Audited{}, err
	}
	if server != nil {
		kept, err := readCheckpoints(verifier, remembered)
		if err != nil {
			return translog.Audited{}, err
		}
		return auditServer(ctx, server, verifier, kept, report)
	}
	source, verifier, err := w.open(dir)
	if err != nil {
		return translog.Audited{}, err
	}
	kept, err := readCheckpoints(verifier, remembered)
	if err != nil {
		return translog.Audited{}, err
	}
	store, shut, err := openStopped(ctx, dir)
	if err != nil {
		return translog.Audited{}, err
	}
	defer shut()
	ca, err := readDeviceCA(dir)
	if err != nil {
		return translog.Audited{}, err
	}
	check, err := translog.Recheck(ctx, store)
	if err != nil {
		return translog.Audited{}, err
	}
	return translog.Audit(ctx, translog.AuditConfig{
		Store: store, Source: source, Verifier: verifier, DeviceCA: ca, Check: check, Remembered: kept, Clock: time.Now, Report: report,
	})
}

// auditPoll is how often a running server is asked how far its audit is.
const auditPoll = 200 * time.Millisecond

// auditServer has a running server audit. That its log begins with the checkpoints that were
// kept is verified here, too: it isn't the server's word.
func auditServer(ctx context.Context, server *client.Client, verifier *tiles.Verifier, kept []tiles.Checkpoint, report func(translog.Finding)) (translog.Audited, error) {
	var started struct{ AuditID string }
	texts := []string{}
	for _, one := range kept {
		texts = append(texts, string(one.Raw))
	}
	err := server.Call(ctx, "POST", issuances.Path+"/audits", map[string]any{"checkpoints": texts}, &started)
	if err != nil {
		return translog.Audited{}, err
	}
	ticker := time.NewTicker(auditPoll)
	defer ticker.Stop()
	for from := 0; ; {
		var run struct {
			Status, Message, Checkpoint string
			Next                        int
			Summary                     translog.Audited
			Findings                    []struct {
				translog.Finding
				Account imprint.AccountID
				Region  imprint.Region
			}
		}
		err = server.Call(ctx, "GET", issuances.Path+"/audits/"+started.AuditID+"?from="+strconv.Itoa(from), nil, &run)
		if err != nil {
			return translog.Audited{}, err
		}
		for _, f := range run.Findings {
			f.Tenant = imprint.Tenant{Account: f.Account, Region: f.Region}
			report(f.Finding)
		}
		more := run.Next > from
		from = run.Next
		switch {
		case run.Status == "FAILED":
			return run.Summary, fmt.Errorf("the server couldn't finish the audit: %s", run.Message)
		case run.Status == "COMPLETED" && !more:
			return run.Summary, checkServerLog(ctx, server, verifier, kept, run.Checkpoint, &run.Summary, report)
		case more:
			continue
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return translog.Audited{}, ctx.Err()
		}
	}
}

// checkServerLog verifies the checkpoint of a server's audit, and that its log begins with
// those that were kept.
func checkServerLog(ctx context.Context, server *client.Client, verifier *tiles.Verifier, kept []tiles.Checkpoint, text string, audited *translog.Audited, report func(translog.Finding)) error {
	damage := func(problem string) {
		audited.Findings++
		report(translog.Finding{Kind: translog.FindingDamage, Path: tiles.CheckpointPath, Index: -1, Problem: problem})
	}
	if text == "" {
		return nil // the server told why there is none
	}
	checkpoint, err := verifier.Checkpoint([]byte(text))
	if err != nil {
		damage(fmt.Sprintf("the server's checkpoint isn't of the log whose key was given: %v", err))
		return nil
	}
	audited.Checkpoint = checkpoint
	for _, one := range kept {
		_, err = tiles.ProveConsistency(ctx, serverLog{server}, one, checkpoint)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			damage(err.Error())
		}
	}
	return nil
}

func readCheckpoints(verifier *tiles.Verifier, paths []string) ([]tiles.Checkpoint, error) {
	var kept []tiles.Checkpoint
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the checkpoint that was kept: %w", err)
		}
		checkpoint, err := verifier.Checkpoint(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		kept = append(kept, checkpoint)
	}
	return kept, nil
}

// openStopped opens the registry of a data directory whose server doesn't run.
func openStopped(ctx context.Context, dir string) (imprint.Store, func(), error) {
	if !exists(filepath.Join(dir, registryFile)) {
		return nil, nil, imprint.Errorf(imprint.CodeNotFound, "%s has no registry", dir).
			WithHint("Name the data directory of a server with --data or IMPRINT_DATA.")
	}
	sealer, err := openSealer(dir, "", false)
	if err != nil {
		return nil, nil, err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{
		Path: filepath.Join(dir, registryFile), Sealer: sealer, Clock: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, nil, err // it says what couldn't be opened
	}
	return store, func() { _ = store.Close() }, nil
}

func printFinding(out io.Writer, f translog.Finding, asJSON bool) {
	if asJSON {
		line, _ := json.Marshal(f) // strings and numbers alone
		fmt.Fprintf(out, "%s\n", line)
		return
	}
	fmt.Fprintf(out, "%s", f.Kind)
	if f.Path != "" {
		fmt.Fprintf(out, " %s", f.Path)
	}
	if f.Certificate != "" {
		fmt.Fprintf(out, " certificate %s in %s", f.Certificate, f.Tenant)
	}
	if f.Index >= 0 {
		fmt.Fprintf(out, " entry %d", f.Index)
	}
	fmt.Fprintf(out, ": %s\n", f.Problem)
}

func printAudited(out io.Writer, a translog.Audited, asJSON bool) {
	if asJSON {
		line, _ := json.Marshal(a) // numbers alone
		fmt.Fprintf(out, "%s\n", line)
		return
	}
	fmt.Fprintf(out, "log        %d entries, root %s\n", a.Entries, a.Checkpoint.Hash)
	fmt.Fprintf(out, "record     %d signatures, %d of them wait for the log\n", a.Issuances, a.Waiting)
	fmt.Fprintf(out, "registry   %d certificates, %d of them ours; %d in the log aren't registered\n", a.Certificates, a.Ours, a.Unregistered)
	fmt.Fprintf(out, "checked    %d certificates again, by their profiles and the linter\n", a.Rechecked)
	if a.WithoutBytes > 0 {
		fmt.Fprintf(out, "           %d entries have a certificate's id alone\n", a.WithoutBytes)
	}
	if a.Unchecked > 0 {
		fmt.Fprintf(out, "           %d entries name a CA that is gone, and their signatures weren't checked\n", a.Unchecked)
	}
	if a.Findings == 0 {
		fmt.Fprintln(out, "They agree.")
		return
	}
	fmt.Fprintf(out, "%d findings.\n", a.Findings)
}

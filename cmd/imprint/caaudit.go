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
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
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

// whichLog are the flags that say which log of issuances is meant, and who signs it.
type whichLog struct{ log, key string }

func (w *whichLog) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.log, "log", "", "directory or URL of the log (default: that of the data directory)")
	cmd.Flags().StringVar(&w.key, "key", "", "the log's public key, name+hash+key, or a file with it (default: verifier.txt of the data directory)")
}

// open gives the log that is meant.
func (w *whichLog) open(dir string) (tiles.Source, *tiles.Verifier, error) {
	key := w.key
	if key == "" {
		key = filepath.Join(dir, issuanceLog, "verifier.txt")
	}
	text, err := os.ReadFile(key)
	switch {
	case err == nil:
		key = string(text)
	case w.key == "" && errors.Is(err, fs.ErrNotExist):
		return nil, nil, imprint.Errorf(imprint.CodeNotFound, "there is no issuance log in %s", dir).
			WithHint("Name the data directory with --data, or the log and its public key with --log and --key.")
	case w.key == "":
		return nil, nil, fmt.Errorf("couldn't read the log's public key: %w", err)
	}
	verifier, err := tiles.NewVerifier(key)
	if err != nil {
		return nil, nil, usageError{err}
	}
	switch {
	case strings.HasPrefix(w.log, "https://"), strings.HasPrefix(w.log, "http://"):
		return tiles.HTTP(w.log, nil), verifier, nil
	case w.log != "":
		return tiles.Dir(w.log), verifier, nil
	}
	return tiles.Dir(filepath.Join(dir, issuanceLog, "log")), verifier, nil
}

func newCAAudit() *cobra.Command {
	var which whichLog
	var remembered []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that the registry, the issuance log and the record of signatures agree",
		Long: `Reads the registry and the issuance log of a stopped server, or of a copy of its data
directory, and compares them: every certificate in the registry that one of our CAs signed is in
the log, every entry of the log is in the record of signatures and every signature in the log,
and all tiles of the log are what its checkpoint signs.

Exit status 3: something differs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			source, verifier, err := which.open(dir)
			if err != nil {
				return err
			}
			kept, err := readCheckpoints(verifier, remembered)
			if err != nil {
				return err
			}
			store, shut, err := openStopped(cmd.Context(), dir)
			if err != nil {
				return err
			}
			defer shut()
			ca, err := readDeviceCA(dir)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			config := translog.AuditConfig{
				Store: store, Source: source, Verifier: verifier, DeviceCA: ca, Remembered: kept, Clock: time.Now,
				Report: func(f translog.Finding) { printFinding(out, f, asJSON) },
			}
			audited, err := translog.Audit(cmd.Context(), config)
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
		return nil, nil, fmt.Errorf("couldn't open the registry: %w", err)
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

func newCALogged() *cobra.Command {
	var which whichLog
	var proofFile string
	index := int64(-1)
	cmd := &cobra.Command{
		Use:   "logged CERTIFICATE.pem",
		Short: "Verify that a certificate is in an issuance log",
		Long: `Needs a log's directory or URL, its public key and the certificate, and nothing else of a
server. Without --index the log is searched from its end.

Exit status 3: the log doesn't have it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := cmd.Flags().GetString("data")
			if err != nil {
				return err
			}
			source, verifier, err := which.open(dir)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("couldn't read the certificate: %w", err)
			}
			certificate, err := pki.ParseCertificatePEM(string(text))
			if err != nil {
				return fmt.Errorf("couldn't read %s: %w", args[0], err)
			}
			var found tiles.Found
			if index >= 0 {
				found, err = tiles.VerifyAt(cmd.Context(), source, verifier, certificate.Raw, index)
			} else {
				found, err = tiles.VerifyCertificate(cmd.Context(), source, verifier, certificate.Raw)
			}
			if errors.Is(err, tiles.ErrNotInLog) {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return exitNo
			}
			if err != nil {
				return err
			}
			if proofFile != "" {
				err = os.WriteFile(proofFile, found.Proof.Marshal(), 0o644)
				if err != nil {
					return fmt.Errorf("couldn't write the proof: %w", err)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Certificate %s is entry %d of %d in %s, issuance %s of %s.\n",
				found.Entry.Certificate, found.Proof.Index, found.Checkpoint.N, found.Checkpoint.Origin, found.Entry.Issuance, found.Entry.Tenant)
			return nil
		},
	}
	addDataFlag(cmd)
	which.add(cmd)
	cmd.Flags().Int64Var(&index, "index", -1, "the entry's index, when it is known")
	cmd.Flags().StringVar(&proofFile, "proof", "", "write the proof to this file, in the form of c2sp.org/tlog-proof")
	return cmd
}

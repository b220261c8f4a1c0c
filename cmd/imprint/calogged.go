package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/issuances"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// whichLog are the flags that say which log of issuances is meant, and who signs it.
type whichLog struct{ log, key string }

func (w *whichLog) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.log, "log", "", "directory or URL of the log (default: that of the data directory)")
	cmd.Flags().StringVar(&w.key, "key", "", "the log's public key, name+hash+key, or a file with it (default: verifier.txt of the data directory)")
}

// verifier gives who verifies the log: the key that is named, or that of the data directory.
func (w *whichLog) verifier(dir string) (*tiles.Verifier, error) {
	key := w.key
	if key == "" {
		key = filepath.Join(dir, issuanceLog, "verifier.txt")
	}
	text, err := os.ReadFile(key)
	switch {
	case err == nil:
		key = string(text)
	case w.key == "" && errors.Is(err, fs.ErrNotExist):
		return nil, imprint.Errorf(imprint.CodeNotFound, "there is no issuance log in %s", dir).
			WithHint("Name the data directory with --data, or the log and its public key with --log and --key.")
	case w.key == "":
		return nil, fmt.Errorf("couldn't read the log's public key: %w", err)
	}
	verifier, err := tiles.NewVerifier(key)
	if err != nil {
		return nil, usageError{err}
	}
	return verifier, nil
}

// open gives the log that is meant, as files or by its URL.
func (w *whichLog) open(dir string) (tiles.Source, *tiles.Verifier, error) {
	verifier, err := w.verifier(dir)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case strings.HasPrefix(w.log, "https://"), strings.HasPrefix(w.log, "http://"):
		return tiles.HTTP(w.log, nil), verifier, nil
	case w.log != "":
		return tiles.Dir(w.log), verifier, nil
	}
	return tiles.Dir(filepath.Join(dir, issuanceLog, "log")), verifier, nil
}

// running gives a client of the server that is meant, and who verifies its log; nil when no
// log of a server's is meant, or the server of the data directory is stopped.
func (w *whichLog) running(cmd *cobra.Command, dir string) (*client.Client, *tiles.Verifier, error) {
	if w.log != "" {
		return nil, nil, nil
	}
	elsewhere := !cmd.Flags().Changed("data") && os.Getenv("AWS_ENDPOINT_URL_IOT") != "" && os.Getenv("AWS_ACCESS_KEY_ID") != ""
	if !elsewhere {
		// A copy of a data directory names the server that it is a copy of: what counts is
		// whether this one is open.
		if !sqlite.InUse(filepath.Join(dir, registryFile)) {
			return nil, nil, nil
		}
	}
	c, err := newOperatorClient(cmd)
	if err != nil {
		return nil, nil, err
	}
	if w.key != "" || !elsewhere {
		verifier, err := w.verifier(dir)
		return c, verifier, err
	}
	// Nobody told which key the log has: it is what the server says, whose TLS certificate was
	// verified. Who keeps it finds another one.
	var log struct{ VerifierKey string }
	err = c.Call(cmd.Context(), "GET", issuances.Path, nil, &log)
	if err != nil {
		return nil, nil, err
	}
	verifier, err := tiles.NewVerifier(log.VerifierKey)
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't use the public key that the server gives: %w", err)
	}
	return c, verifier, nil
}

// serverLog reads the log of a running server through its API.
type serverLog struct{ client *client.Client }

// Read implements tiles.Source.
func (l serverLog) Read(ctx context.Context, path string) ([]byte, error) {
	var file struct{ Content []byte }
	err := l.client.Call(ctx, "GET", issuances.Path+"/files?path="+url.QueryEscape(path), nil, &file)
	if isNotFound(err) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return file.Content, err
}

func isNotFound(err error) bool {
	var refusal *client.Error
	return errors.As(err, &refusal) && refusal.Code == "ResourceNotFoundException"
}

// prove has a running server prove that its log has a certificate, and verifies that.
func prove(ctx context.Context, c *client.Client, verifier *tiles.Verifier, der []byte) (tiles.Found, error) {
	id := pki.CertificateID(der)
	var answer struct{ Entry, Proof string }
	err := c.Call(ctx, "GET", issuances.Path+"/certificates/"+string(id), nil, &answer)
	if isNotFound(err) {
		return tiles.Found{}, fmt.Errorf("%w, whose id is %s: %w", tiles.ErrNotInLog, id, err)
	}
	if err != nil {
		return tiles.Found{}, err
	}
	var found tiles.Found
	found.Raw, err = base64.StdEncoding.DecodeString(answer.Entry)
	if err == nil {
		found.Entry, err = tiles.ParseEntry(found.Raw)
	}
	if err == nil {
		found.Proof, err = tiles.ParseProof([]byte(answer.Proof))
	}
	if err != nil {
		return found, fmt.Errorf("couldn't read what the server proves: %w", err)
	}
	if found.Entry.Certificate != id {
		return found, fmt.Errorf("the server proves certificate %s, and was asked for %s", found.Entry.Certificate, id)
	}
	found.Checkpoint, err = verifier.VerifyProof(found.Proof, found.Raw)
	return found, err
}

// find verifies that the log that is meant has a certificate, at an index unless that is
// negative.
func (w *whichLog) find(cmd *cobra.Command, dir string, der []byte, index int64) (tiles.Found, error) {
	server, verifier, err := w.running(cmd, dir)
	switch {
	case err != nil:
		return tiles.Found{}, err
	case server != nil && index >= 0:
		return tiles.VerifyAt(cmd.Context(), serverLog{server}, verifier, der, index)
	case server != nil:
		return prove(cmd.Context(), server, verifier, der)
	}
	source, verifier, err := w.open(dir)
	if err != nil {
		return tiles.Found{}, err
	}
	if index >= 0 {
		return tiles.VerifyAt(cmd.Context(), source, verifier, der, index)
	}
	return tiles.VerifyCertificate(cmd.Context(), source, verifier, der)
}

func newCALogged() *cobra.Command {
	var which whichLog
	var proofFile string
	index := int64(-1)
	cmd := &cobra.Command{
		Use:   "logged CERTIFICATE.pem",
		Short: "Verify that a certificate is in an issuance log",
		Long: `Asks the running server for a proof, and verifies it. With --log it needs a log's directory or
URL, its public key and the certificate, and nothing else of a server; so it does on the data
directory of a stopped server. Without --index such a log is searched from its end.

Exit status 3: the log doesn't have it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := cmd.Flags().GetString("data")
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
			found, err := which.find(cmd, dir, certificate.Raw, index)
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

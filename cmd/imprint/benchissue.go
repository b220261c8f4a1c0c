package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/bench"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/heapfloor"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/store/sqlite"
)

func newBenchIssue() *cobra.Command {
	opts, asJSON := bench.IssueOptions{}, false
	cmd := &cobra.Command{
		Use:   "issue",
		Short: "Measure issuing from CSRs against x509.CreateCertificate alone",
		Long: `Measure issuing from CSRs against x509.CreateCertificate alone: each certificate
is checked, linted, signed, in the record of signatures and in the issuance log, all on
disk. Both sides have CA keys of one kind and as many callers at a time. No server
is started: the rooms that issue are in this process.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Messages = cmd.ErrOrStderr()
			defer heapfloor.Hold(heapFloor)()
			figures, err := bench.Issue(cmd.Context(), openBenchIssuer, opts)
			if err != nil {
				return err
			}
			return printFigures(cmd.OutOrStdout(), figures, asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&opts.Certificates, "certificates", 6000, "how many certificates a round")
	f.IntVar(&opts.Concurrency, "concurrency", 128, "how many ask at a time")
	f.StringSliceVar(&opts.Kinds, "ca-key", bench.IssueKinds(), "kinds of CA keys to measure")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&opts.KeepData, "keep-data", false, "keep the data directory")
	f.StringVar(&opts.CPUProfile, "cpuprofile", "", "write a CPU profile of the last issuing round to this file")
	return cmd
}

// benchIssuer is a CA as the server has it: registry, record of signatures, log and engine.
type benchIssuer struct {
	store   imprint.Store
	log     *translog.Log
	engine  *ca.Engine
	tenant  imprint.Tenant
	ca      imprint.AuthorityID
	cleanup []func() error
}

func openBenchIssuer(ctx context.Context, dir, kind string) (bench.Issuer, error) {
	b := &benchIssuer{tenant: imprint.Tenant{Account: "000000000000", Region: "us-east-1"}}
	err := b.open(ctx, dir, kind)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *benchIssuer) open(ctx context.Context, dir, kind string) error {
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	sealer, err := openSealer(dir, "", true)
	if err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, registryFile), Sealer: sealer, Clock: time.Now, Logger: logger})
	if err != nil {
		return err
	}
	b.store = store
	b.cleanup = append(b.cleanup, store.Close)
	b.log, err = translog.Open(ctx, translog.Config{Dir: filepath.Join(dir, issuanceLog), Store: store, Sealer: sealer, Clock: time.Now, Logger: logger})
	if err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() error { return b.log.Close(context.Background()) })
	profiles, err := pki.NewProfiles()
	if err != nil {
		return err
	}
	b.engine = ca.New(ca.Options{Store: store, Sealer: sealer, Journal: issuelog.New(store).Within(b.log.Room), Clock: time.Now, Profiles: profiles, Logger: logger})
	b.cleanup = append(b.cleanup, func() error { b.engine.Close(); return nil })
	subject, err := pki.ParseSubject("/O=Acme/CN=Imprint bench CA")
	if err != nil {
		return err
	}
	root, err := b.engine.Create(ctx, b.tenant, ca.Spec{Name: "bench", Type: imprint.AuthorityRoot, RawSubject: subject, Kind: pki.KeyKind(kind), Profile: "root"})
	b.ca = root.ID
	return err
}

// Issue implements bench.Issuer.
func (b *benchIssuer) Issue(ctx context.Context, text string) error {
	csr, err := pki.ParseCSRPEM(text)
	if err != nil {
		return err
	}
	_, err = b.engine.Issue(ctx, b.tenant, b.ca, "operational", pki.RequestOf(csr))
	return err
}

// Logged implements bench.Issuer.
func (b *benchIssuer) Logged(ctx context.Context) error { return b.log.Settle(ctx) }

// Count implements bench.Issuer.
func (b *benchIssuer) Count(ctx context.Context) (registry, log int64, err error) {
	err = b.store.View(ctx, func(tx imprint.ReadTx) error {
		state, err := tx.IssuanceLog()
		if err != nil {
			return err
		}
		waiting, err := tx.UnloggedCount(1 << 30)
		registry = state.Size + waiting
		return err
	})
	return registry, b.log.Checkpoint().N, err
}

// Close implements bench.Issuer.
func (b *benchIssuer) Close() error {
	var err error
	for n := len(b.cleanup) - 1; n >= 0; n-- {
		err = errors.Join(err, b.cleanup[n]())
	}
	return err
}

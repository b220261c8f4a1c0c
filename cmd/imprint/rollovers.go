package main

import (
	"context"
	"crypto/x509"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/ca/rollover"
)

// openRollovers makes what plans how devices move from one CA to another, and what keeps
// the CRLs of CAs elsewhere.
func (s *server) openRollovers(ctx context.Context) error {
	planner, err := rollover.New(ctx, rollover.Options{
		Store: s.store, Clock: s.clock, BuiltIn: s.authority.Certificate(), Logger: s.logger,
		Flush: func(ctx context.Context) error { return s.trace.Flush(ctx) },
		Connected: func(tenant imprint.Tenant, id imprint.CertificateID) bool {
			return len(s.broker.Connected(tenant, "", id)) > 0
		},
		ServerChains: func() [][]*x509.Certificate { return s.certificates.Chains() },
	})
	if err != nil {
		return err
	}
	s.rollovers = planner
	s.closeLater(planner.Close)
	s.foreign = foreign.New(foreign.Options{Store: s.store, Clock: s.clock, PrivateAccount: s.privateAccount(), Logger: s.logger})
	return nil
}

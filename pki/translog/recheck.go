package translog

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/recheck"
)

// RulesOf is the name under which the rules of a profile are recorded: the profile's own, for CAs
// of tenants; the built-in device CA has profiles of its own.
func RulesOf(authority imprint.AuthorityID, profile string) string {
	if authority == "" {
		return "device-ca/" + profile
	}
	return profile
}

// Recheck makes an AuditConfig.Check of package recheck and the rules of profiles that a store
// has recorded: each certificate is checked by those that its profile had when it was
// prepared. It is nil when none were ever recorded.
func Recheck(ctx context.Context, store imprint.Store) (func(der []byte, signer *x509.Certificate, issuance imprint.Issuance) error, error) {
	type version struct {
		imprint.ProfileRules
		parsed recheck.Rules
	}
	history := map[string][]version{} // oldest first
	err := store.View(ctx, func(tx imprint.ReadTx) error {
		clear(history)
		all, err := tx.ProfileRules()
		if err != nil {
			return err
		}
		for _, one := range all {
			parsed, err := recheck.ParseRules([]byte(one.Rules))
			if err != nil {
				return fmt.Errorf("profile %s: %w", one.Name, err)
			}
			history[one.Name] = append(history[one.Name], version{one, parsed})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the rules of profiles: %w", err)
	}
	if len(history) == 0 {
		return nil, nil
	}
	return func(der []byte, signer *x509.Certificate, issuance imprint.Issuance) error {
		versions := history[RulesOf(issuance.Authority, issuance.Profile)]
		if len(versions) == 0 {
			return fmt.Errorf("no rules of its profile %q are recorded", imprint.Excerpt(issuance.Profile))
		}
		// The first ones stand for the time before anything was recorded.
		held := versions[0]
		for _, v := range versions[1:] {
			if !v.From.After(issuance.At) {
				held = v
			}
		}
		var above []byte
		if signer != nil {
			above = signer.Raw
		}
		problems := recheck.Certificate(der, above, issuance, held.parsed)
		if len(problems) == 0 {
			return nil
		}
		return errors.New(strings.Join(problems, "; "))
	}, nil
}

package ceremony

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// offline is the tenant of what a ceremony signs: it belongs to none.
var offline = imprint.Tenant{Account: "000000000000", Region: "offline"}

// discard is the journal of certificates that nobody gets.
type discard struct{}

func (discard) Record(context.Context, imprint.Issuance) error { return nil }

func (discard) Put(imprint.Tx, imprint.Issuance) error { return nil }

// rehearse makes a step's certificate with keys that are thrown away, and keeps it for
// those that stand below it.
func rehearse(ctx context.Context, s *Script, one *step) error {
	noon := s.day.Add(12 * time.Hour)
	clock := func() time.Time { return noon }
	request := pki.Request{RawSubject: one.subject, NotAfter: one.end, By: "ceremony"}
	var signer pki.Signer
	if one.csr != nil {
		request.PublicKey = one.csr.PublicKey
	} else {
		key, err := pki.NewKey(one.kind)
		if err != nil {
			return err
		}
		signer = pki.NewSoftSigner(key)
		request.PublicKey = key.Public()
	}
	cert, err := issueTrial(ctx, one, signer, clock, request)
	if err != nil || one.csr != nil {
		return err
	}
	one.trial, err = pki.NewAuthority(pki.IssuerConfig{Certificate: cert.Certificate, Signer: signer, Journal: discard{}, Clock: clock})
	return err
}

func issueTrial(ctx context.Context, one *step, signer pki.Signer, clock imprint.Clock, request pki.Request) (*pki.Issued, error) {
	if one.issuer == nil {
		return pki.NewRoot(ctx, offline, pki.IssuerConfig{Signer: signer, Journal: discard{}, Clock: clock}, one.profile, request)
	}
	issuer := one.issuer.trial
	if issuer == nil {
		// One that is there already, with another key in the place of its own.
		double := *one.issuer.present
		key, err := pki.NewKey(one.issuer.kind)
		if err != nil {
			return nil, fmt.Errorf("the key of CA %s can't sign here: %w", one.issuer.name, err)
		}
		double.PublicKey = key.Public()
		issuer, err = pki.NewAuthority(pki.IssuerConfig{Certificate: &double, Signer: pki.NewSoftSigner(key), Journal: discard{}, Clock: clock})
		if err != nil {
			return nil, err
		}
		one.issuer.trial = issuer
	}
	token, err := issuer.Prepare(ctx, offline, one.profile, request)
	if err != nil {
		return nil, err
	}
	return issuer.Sign(ctx, token)
}

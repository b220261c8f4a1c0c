package enrolment

import (
	"context"
	"time"

	"github.com/imprint-iot/imprint/awsapi"
)

// The requests and responses.
type (
	// ExpiringInput asks for a page of the certificates that end within so many seconds, or
	// ended less than that long ago.
	ExpiringInput struct {
		Within     int     `api:"query within Within required"`
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ExpiringOutput is a page of them, the earliest first.
	ExpiringOutput struct {
		Certificates []Expiring `api:"body certificates Certificates"`
		NextToken    string     `api:"body nextToken NextToken"`
	}
	// Expiring is a certificate that ends soon. Renewal is NONE, PENDING or PROVEN, and
	// RenewedBy the certificate that is to take its place.
	Expiring struct {
		CertificateID string    `api:"body certificateId String"`
		Serial        string    `api:"body serial String"`
		Subject       string    `api:"body subject String"`
		Things        []string  `api:"body things Things"`
		NotAfter      time.Time `api:"body notAfter Time"`
		RenewableFrom time.Time `api:"body renewableFrom Time"`
		Renewal       string    `api:"body renewal String"`
		RenewedBy     string    `api:"body renewedBy String"`
		RetiredAt     time.Time `api:"body retiredAt Time"`
		Reason        string    `api:"body reason String"`
	}
)

// ListExpiringCertificates is answered from the registry's own certificates.
var ListExpiringCertificates = awsapi.Define[ExpiringInput, ExpiringOutput](codec, operation("ListExpiringCertificates", "GET", "/imprint/expiring-certificates", "*"))

func (o Office) expiring(ctx context.Context, caller awsapi.Caller, in *ExpiringInput) (*ExpiringOutput, error) {
	all, next, err := o.Renewals.Expiring(ctx, tenantOf(caller), time.Duration(in.Within)*time.Second, pageOf(in.MaxResults, in.NextToken))
	if err != nil {
		return nil, err
	}
	out := &ExpiringOutput{Certificates: []Expiring{}, NextToken: next}
	for _, d := range all {
		one := Expiring{
			CertificateID: string(d.Certificate.ID), Serial: d.Certificate.Serial, Subject: d.Certificate.Subject, Things: []string{},
			NotAfter: d.Certificate.NotAfter, RenewableFrom: d.Opens, Renewal: "NONE",
		}
		for _, thing := range d.Things {
			one.Things = append(one.Things, string(thing))
		}
		if r := d.Renewal; r != nil {
			one.Renewal, one.RenewedBy, one.RetiredAt, one.Reason = string(r.State), string(r.Certificate), r.DueAt, r.Reason
		}
		out.Certificates = append(out.Certificates, one)
	}
	return out, nil
}

package rollover_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca/rollover"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// BenchmarkRehearse looks through a fleet of one CA, each device a thing with one
// certificate: the time is that of one device.
func BenchmarkRehearse(b *testing.B) {
	const devices = 10_000
	store := registrytest.New(b)
	line := authorityForBench(b)
	for from := 0; from < devices; from += 1000 {
		err := store.Update(b.Context(), func(tx imprint.Tx) error {
			if from == 0 {
				err := tx.PutCA(imprint.CACertificate{Tenant: home, ID: line.id, PEM: line.pem, Status: imprint.CAActive, NotAfter: line.cert.NotAfter})
				if err != nil {
					return err
				}
			}
			for n := from; n < from+1000; n++ {
				id, thing := imprint.CertificateID(fmt.Sprintf("%064x", n)), imprint.ThingName(fmt.Sprint("t", n))
				err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: id, PEM: line.pem, Status: imprint.CertificateActive, CAID: line.id, NotAfter: instant.Add(day), CreatedAt: instant.Add(time.Duration(n))})
				if err != nil {
					return err
				}
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: thing, Certificate: id})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	p, err := rollover.New(b.Context(), rollover.Options{Store: store, Clock: func() time.Time { return instant }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	looked := int64(0)
	q := rollover.Question{Tenant: home, From: string(line.id), Limit: 500}
	b.ReportAllocs()
	for looked < int64(b.N) {
		part, err := p.Rehearse(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		looked += part.Counts.Looked
		q.Cursor = part.Next
	}
}

func authorityForBench(b *testing.B) *authority {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "line"}, NotBefore: instant.Add(-day), NotAfter: instant.Add(day), BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	return authorityOf(cert, key)
}

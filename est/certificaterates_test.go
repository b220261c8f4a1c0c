package est_test

import (
	"crypto/x509/pkix"
	"net/http"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/est"
)

// A certificate is renewed for a few new keys an hour and no more; who asks for the same key
// is answered yet.
func TestRenewalsOfOneCertificateAreBounded(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", func(label *imprint.EnrolmentLabel) { label.Window, _ = imprint.ParseRenewalWindow("always") })
	pair, _ := l.enrolled("SN-1")
	var last []byte
	for range 10 {
		last = csr(t, newKey(t), name("SN-1"))
		l.as(pair).post("seven", "simplereenroll", last).certificate(t)
	}
	l.as(pair).post("seven", "simplereenroll", csr(t, newKey(t), name("SN-1"))).want(t, http.StatusTooManyRequests, "more than 10 times an hour")
	l.as(pair).post("seven", "simplereenroll", last).certificate(t)
	other, _ := l.enrolled("SN-2")
	l.as(other).post("seven", "simplereenroll", csr(t, newKey(t), name("SN-2"))).certificate(t)
}

// A device's certificate of its maker, and a station's, get so many certificates an hour, from
// whatever address and by whichever operation; others go on.
func TestEnrolmentsOfOneCertificateAreBounded(t *testing.T) {
	t.Parallel()
	l := newLine(t, func(o *est.Options) { o.StationRate = 12 })
	maker, stations := newMaker(t, "maker"), newMaker(t, "stations")
	l.label("seven", func(label *imprint.EnrolmentLabel) {
		label.DeviceCAs, label.StationCAs, label.ServerKeys = maker.pem, stations.pem, true
	})
	device, station := maker.device(pkix.Name{CommonName: "SN-1"}), stations.device(name("station-3"))
	for range 10 {
		l.as(device).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).certificate(t)
	}
	for _, operation := range []string{"simpleenroll", "serverkeygen"} {
		got := l.as(device).post("seven", operation, csr(t, newKey(t), name("SN-1")))
		got.want(t, http.StatusTooManyRequests, "more than 10 times an hour")
		if got.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", operation)
		}
	}
	for range 12 {
		l.as(station).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-2"))).certificate(t)
	}
	l.as(station).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-2"))).want(t, http.StatusTooManyRequests, "give the line more stations")
	l.as(maker.device(name("SN-1"))).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-1"))).certificate(t)
	l.as(stations.device(name("station-4"))).post("seven", "simpleenroll", csr(t, newKey(t), name("SN-2"))).certificate(t)
}

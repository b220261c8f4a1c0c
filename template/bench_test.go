package template_test

import (
	"encoding/asn1"
	"testing"

	"github.com/imprint-iot/imprint/template"
)

func BenchmarkPlanJITP(b *testing.B) {
	parsed, params := mustParse(b, jitpExample, template.JITP), jitpParams()
	b.ReportAllocs()
	for b.Loop() {
		_, err := parsed.Plan(params)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlanFleet(b *testing.B) {
	parsed := mustParse(b, fleetExample, template.Fleet)
	params := map[string]string{"SerialNumber": "SN-0017", "AWS::IoT::Certificate::Id": certID}
	b.ReportAllocs()
	for b.Loop() {
		_, err := parsed.Plan(params)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseJITP(b *testing.B) {
	body := []byte(jitpExample)
	b.ReportAllocs()
	for b.Loop() {
		_, err := template.Parse(body, template.JITP)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubjectParameters(b *testing.B) {
	cert := subject(b, nameSET{attr(6, asn1.TagPrintableString, "FR")}, nameSET{attr(10, asn1.TagUTF8String, "Example")},
		nameSET{attr(5, asn1.TagPrintableString, "SN-0017")}, nameSET{attr(3, asn1.TagUTF8String, "bulb-17")})
	b.ReportAllocs()
	for b.Loop() {
		template.SubjectParameters(cert, certID)
	}
}

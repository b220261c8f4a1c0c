package authorities_test

import (
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/authorities"
)

// TestARenewalIsAboutBothAuthorities: who may sign with one CA takes no certificate of
// another one's place.
func TestARenewalIsAboutBothAuthorities(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	first, second := w.make("first", "", "root"), w.make("second", "", "root")
	const one = `{"Effect":"Allow","Action":"imprint:IssueByProfile","Resource":"SECOND"}`
	w.allow("one", one, "SECOND", second.ARN)
	w.allow("both", one+`,{"Effect":"Allow","Action":"imprint:IssueByProfile","Resource":"FIRST"}`, "SECOND", second.ARN, "FIRST", first.ARN)
	csr := w.csr("SN-1")
	ask := func(user imprint.UserName, by shown, renews string) (string, error) {
		body := map[string]any{"csr": csr, "profile": "operational"}
		if renews != "" {
			body["renews"] = renews
		}
		var issued struct{ CertificateID string }
		err := w.as(user, "POST", authorities.Path+"/"+by.ID+"/certificates", body, &issued)
		return issued.CertificateID, err
	}
	old, err := ask(imprint.OperatorUser, first, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask("one", second, old)
	denied(t, "a renewal of another authority's certificate", err, first.ARN)
	renewed, err := ask("both", second, old)
	if err != nil {
		t.Fatalf("a renewal by who may sign with both: %v", err)
	}
	_, err = ask("one", second, renewed)
	if err != nil {
		t.Errorf("a renewal of the authority's own certificate: %v", err)
	}
	_, err = ask("one", second, old[:60]+"0000")
	apitest.WantRefusal(t, "a renewal of what nobody issued", err, 400, "CertificateValidationException", "can't be renewed")
}

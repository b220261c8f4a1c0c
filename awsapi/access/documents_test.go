package access

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

// TestDocumentsBeyondTheBoundTakeThePlaceOfOne ensures that an account with many policies
// doesn't have those of all others be read again.
func TestDocumentsBeyondTheBoundTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	g := Guard{documents: map[string]*policy.Document{}}
	for n := range maxDocuments + 10 {
		_, err := g.document(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:ListThings","Resource":"arn:aws:iot:*:*:thing/%d"}]}`, n))
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := len(g.documents); got != maxDocuments {
		t.Errorf("%d documents are kept, want %d", got, maxDocuments)
	}
}

package acmpca

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// TestASubjectThatCantBeReadHidesNoOthers: it is shown as what it is, and the list goes on.
func TestASubjectThatCantBeReadHidesNoOthers(t *testing.T) {
	t.Parallel()
	s := &Service{Clock: time.Now}
	for _, der := range [][]byte{{0x30, 0x03, 0x31, 0x01}, {0x04}, nil} {
		shown, err := s.present(&imprint.CertificateAuthority{Subject: der})
		if err != nil || len(shown.Configuration.Subject.Custom) != 1 {
			t.Errorf("%x: got %+v, %v", der, shown.Configuration, err)
		}
	}
}

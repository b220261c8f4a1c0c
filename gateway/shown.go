package gateway

import (
	"crypto/x509"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint/pki"
)

// maxShown bounds the certificates behind the leaf that are told of.
const maxShown = 4

// shownBy says who issued the first certificate of a chain and when it is valid, and
// what was sent with it. It is written for every connection, so it is put together by
// hand.
func shownBy(chain []*x509.Certificate) string {
	leaf := chain[0]
	b := make([]byte, 0, 256)
	b = append(b, "issuer "...)
	b = strconv.AppendQuote(b, names.text(leaf.RawIssuer))
	b = append(b, ", valid from "...)
	b = leaf.NotBefore.UTC().AppendFormat(b, time.RFC3339)
	b = append(b, " until "...)
	b = leaf.NotAfter.UTC().AppendFormat(b, time.RFC3339)
	others := chain[1:]
	if len(others) == 0 {
		b = append(b, "; sent without its CA"...)
	}
	for i, other := range others {
		switch {
		case i == maxShown:
			b = append(b, " and "...)
			b = strconv.AppendInt(b, int64(len(others)-maxShown), 10)
			return string(append(b, " more"...))
		case i == 0:
			b = append(b, "; sent with "...)
		default:
			b = append(b, ", "...)
		}
		b = strconv.AppendQuote(b, names.text(other.RawSubject))
	}
	return string(b)
}

// names remembers the texts of the subjects of CAs: a fleet has few, and each of its
// connections tells of them.
var names nameTexts

type nameTexts struct {
	mu    sync.RWMutex
	known map[string]string // DER to text
}

// maxNames bounds them; beyond it any one goes. A longer DER isn't kept.
const (
	maxNames   = 1024
	maxNameDER = 1024
)

func (n *nameTexts) text(raw []byte) string {
	n.mu.RLock()
	text, found := n.known[string(raw)]
	n.mu.RUnlock()
	if found {
		return text
	}
	text = strings.Clone(pki.SubjectText(raw))
	if len(raw) > maxNameDER {
		return text
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = make(map[string]string)
	}
	if len(n.known) >= maxNames {
		for old := range n.known {
			delete(n.known, old)
			break
		}
	}
	n.known[string(raw)] = text
	return text
}

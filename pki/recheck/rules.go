package recheck

import (
	"encoding/json"
	"fmt"
	"time"
)

// Rules are those of a profile, as they were recorded: the JSON of its checked config, with its
// defaults. What isn't known here is left alone.
type Rules struct {
	Name          string
	Kind          string
	CommonName    string
	Backdate      time.Duration
	NotAfter      time.Time
	Lifetime      time.Duration
	RefuseEd25519 bool
	Keys          []string
	Subject       struct {
		Required, Allowed []string
		Patterns, Fixed   map[string]string
	}
	Names struct {
		DNS, IP, URI, Email, Required bool
		Patterns                      map[string]string
		HardwareType                  string
	}
	PathLength     int
	NoPathLength   bool
	Constraints    map[string][]string
	ClientsOnly    bool
	ExtraKeyUsages []string
}

// ParseRules reads recorded rules.
func ParseRules(recorded []byte) (Rules, error) {
	var r Rules
	err := json.Unmarshal(recorded, &r)
	if err != nil {
		return r, fmt.Errorf("couldn't read the rules that were recorded: %w", err)
	}
	return r, nil
}

func (r *Rules) constrained() bool {
	for _, list := range r.Constraints {
		if len(list) > 0 {
			return true
		}
	}
	return false
}

func (r *Rules) ca() bool { return r.Kind == kindRoot || r.Kind == kindIntermediate }

// The kinds of profiles.
const (
	kindDevice       = "aws-device"
	kindOperational  = "operational"
	kindIDevID       = "idevid"
	kindServer       = "server"
	kindClaim        = "claim"
	kindIntermediate = "intermediate"
	kindRoot         = "root"
	kindOCSP         = "ocsp"
)

// attributes are the names that rules have for object identifiers.
var attributes = map[string]string{
	"C": "2.5.4.6", "O": "2.5.4.10", "OU": "2.5.4.11", "CN": "2.5.4.3", "SERIALNUMBER": "2.5.4.5", "L": "2.5.4.7", "ST": "2.5.4.8",
	"STREET": "2.5.4.9", "POSTALCODE": "2.5.4.17", "DNQUALIFIER": "2.5.4.46", "TITLE": "2.5.4.12",
	"UID": "0.9.2342.19200300.100.1.1", "EMAIL": "1.2.840.113549.1.9.1",
}

package imprint

import "time"

// ProfileRules are the rules that a certificate profile has from a time on. What was
// issued by it is checked again by those that held then.
type ProfileRules struct {
	Name  string
	From  time.Time
	Rules string // JSON of the profile's checked config
}

// ProfileRulesReader reads them.
type ProfileRulesReader interface {
	// ProfileRules lists all, by name and time.
	ProfileRules() ([]ProfileRules, error)
}

// ProfileRulesWriter writes them.
type ProfileRulesWriter interface {
	PutProfileRules(ProfileRules) error
}

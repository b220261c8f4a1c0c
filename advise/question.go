package advise

import (
	"errors"
	"fmt"
	"strings"
)

// Answer is one of a question's options, by its name.
type Answer string

// The options of the questions.
const (
	UniqueKey     Answer = "unique"
	SecureElement Answer = "secure-element"
	ClaimOnly     Answer = "claim"

	UniqueFirmware Answer = "unique-firmware"
	SignsCSRs      Answer = "csr"
	Injects        Answer = "injection"
	NothingUnique  Answer = "nothing"

	OwnCA     Answer = "own"
	VendorCA  Answer = "vendor"
	NoCA      Answer = "none"
	ImprintCA Answer = "imprint"

	OneAccount      Answer = "one"
	SeveralAccounts Answer = "several"

	WithInstaller Answer = "yes"
	NoInstaller   Answer = "no"
)

// Answers are one answer a question; an empty one isn't given yet.
type Answers struct {
	DeviceKey    Answer `json:"device-key"`
	Manufacturer Answer `json:"manufacturer"`
	PKI          Answer `json:"pki"`
	Accounts     Answer `json:"accounts"`
	Installer    Answer `json:"installer"`
}

// Question is one thing that must be known.
type Question struct {
	Name    string // of the flag and of the member of JSON
	Text    string
	Options []Option

	field func(*Answers) *Answer
}

// Option is one way to answer a question.
type Option struct {
	Answer Answer
	Text   string
}

// Questions gives all questions in the order in which they are asked.
func Questions() []Question {
	return []Question{
		{"device-key", "What can a device hold when it leaves the line?", []Option{
			{UniqueKey, "a key of its own, in its flash"},
			{SecureElement, "a key of its own, in a secure element or TPM that never gives it away"},
			{ClaimOnly, "nothing of its own: what it holds, all devices of the image hold"},
		}, func(a *Answers) *Answer { return &a.DeviceKey }},
		{"manufacturer", "What can the manufacturer do on the line?", []Option{
			{UniqueFirmware, "write a firmware image that is unique to each device"},
			{SignsCSRs, "take a signing request from each device, and put the signed certificate back"},
			{Injects, "inject keys and certificates that were made elsewhere"},
			{NothingUnique, "nothing that differs from device to device"},
		}, func(a *Answers) *Answer { return &a.Manufacturer }},
		{"pki", "Who runs the PKI that signs the devices' certificates?", []Option{
			{OwnCA, "you: a CA of your own, which can be registered here"},
			{VendorCA, "a vendor, such as the secure element's, whose CA signs for others, too"},
			{NoCA, "nobody"},
			{ImprintCA, "Imprint: its device CA shall sign"},
		}, func(a *Answers) *Answer { return &a.PKI }},
		{"accounts", "Who owns the accounts that devices go to?", []Option{
			{OneAccount, "one owner: the account is known when the device is made"},
			{SeveralAccounts, "several owners or stages: each device must be able to go to any account"},
		}, func(a *Answers) *Answer { return &a.Accounts }},
		{"installer", "Is somebody whom you trust, with a phone or laptop, at a device's first start?", []Option{
			{WithInstaller, "yes"},
			{NoInstaller, "no"},
		}, func(a *Answers) *Answer { return &a.Installer }},
	}
}

// Names gives the options of a question as a person types them.
func (q Question) Names() string {
	var names []string
	for _, option := range q.Options {
		names = append(names, string(option.Answer))
	}
	return strings.Join(names, "|")
}

// Of gives what was answered to a question; empty: nothing yet.
func (q Question) Of(a Answers) Answer { return *q.field(&a) }

// Answer puts an answer in. Words that aren't options are refused with the options.
func (q Question) Answer(a *Answers, word string) error {
	for _, option := range q.Options {
		if string(option.Answer) == word {
			*q.field(a) = option.Answer
			return nil
		}
	}
	return fmt.Errorf("--%s is %q, not one of %s", q.Name, word, q.Names())
}

// Missing gives the questions that aren't answered.
func (a Answers) Missing() []Question {
	var missing []Question
	for _, q := range Questions() {
		if q.Of(a) == "" {
			missing = append(missing, q)
		}
	}
	return missing
}

// check refuses answers that aren't complete or aren't options.
func (a Answers) check() error {
	var all []error
	for _, q := range Questions() {
		all = append(all, q.Answer(&a, string(q.Of(a))))
	}
	return errors.Join(all...)
}

// certified says whether a device has a certificate of its own when it leaves the line
// with these answers: one that a CA of the maker's or of a vendor signed.
func (a Answers) certified() bool {
	return a.DeviceKey != ClaimOnly && (a.PKI == OwnCA || a.PKI == VendorCA) && a.personal()
}

// personal says whether anything on a device is its own when it leaves the line. A
// secure element brings its vendor's certificate along, whatever the line does.
func (a Answers) personal() bool {
	if a.DeviceKey == ClaimOnly {
		return false
	}
	return a.Manufacturer != NothingUnique || a.DeviceKey == SecureElement && a.PKI == VendorCA
}

// makesKeys says whether keys are made on the device, which then sends signing requests.
func (a Answers) makesKeys() bool {
	return a.DeviceKey == SecureElement || a.DeviceKey == UniqueKey && (a.Manufacturer == SignsCSRs || a.Manufacturer == NothingUnique)
}

package imprint

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// LabelName is what a path of EST names a label by: 1 to 64 characters of
// [A-Za-z0-9._~-], and none of the operations' names.
type LabelName string

// DefaultLabel is the label of paths that have none.
const DefaultLabel LabelName = "default"

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)

// estOperations can't be labels: a path would mean two things (RFC 7030 section 3.2.2).
var estOperations = map[string]bool{
	"cacerts": true, "simpleenroll": true, "simplereenroll": true, "fullcmc": true, "serverkeygen": true, "csrattrs": true, ".": true, "..": true,
}

// ParseLabelName checks a label's name.
func ParseLabelName(s string) (LabelName, error) {
	if !labelPattern.MatchString(s) || estOperations[s] {
		return "", Errorf(CodeInvalidRequest, "label %q does not match [A-Za-z0-9._~-]{1,64}, or is an operation of EST", Excerpt(s))
	}
	return LabelName(s), nil
}

// EnrolmentLabel says who gets certificates over EST (RFC 7030) at the paths that name it:
// which authority of which tenant signs by which profile, and who may ask. A name is one
// label of the whole server, because a path says nothing of tenants.
type EnrolmentLabel struct {
	Tenant    Tenant
	Name      LabelName
	Authority AuthorityID
	Profile   string
	// DeviceCAs and StationCAs are PEM: whose certificates devices and stations of a factory
	// line show. A device asks for itself alone; a station for any subject that the profile
	// allows.
	DeviceCAs, StationCAs string
	// Passwords lets one-time passwords in.
	Passwords bool
	// ServerKeys lets devices ask for a key that is made here.
	ServerKeys bool
	// Binding demands that a request is tied to its TLS connection (RFC 7030 section 3.5).
	Binding bool
	// Window is when certificates may be renewed; the zero one is the server's.
	Window               RenewalWindow
	CreatedAt, ChangedAt time.Time
}

// EnrolmentPassword lets one device enrol once. The password itself isn't kept.
type EnrolmentPassword struct {
	ID     string // what the device gives as its user name
	Tenant Tenant
	Label  LabelName
	Hash   []byte // SHA-256 of the password
	// Subject is the serialNumber or the commonName that the request must have; empty: any.
	Subject              string
	CreatedAt, ExpiresAt time.Time
	UsedAt               time.Time // zero: it wasn't
	// Authority and Serial name the certificate that it was used for.
	Authority AuthorityID
	Serial    string
}

// RenewalWindow is the part of a certificate's life, at its end, in which it may be
// renewed. The zero one says nothing.
type RenewalWindow struct{ text string }

// The default is what devices are told to do: renew when two thirds of the life are over.
const defaultWindow = "1/3"

// maxWindowPart bounds the numbers of a fraction.
const maxWindowPart = 1000

// ParseRenewalWindow reads always, a fraction of the life such as 1/3, or a time such as
// 30d or 12h; empty: the zero window. Errors: CodeInvalidRequest.
func ParseRenewalWindow(text string) (RenewalWindow, error) {
	w := RenewalWindow{strings.TrimSpace(text)}
	if w.text == "" || w.text == "always" {
		return w, nil
	}
	_, _, isPart := w.part()
	length, err := w.length()
	if !isPart && (err != nil || length <= 0) {
		return RenewalWindow{}, Errorf(CodeInvalidRequest, "renewal window %q isn't always, a fraction of the life such as 1/3, or a time such as 30d", Excerpt(text))
	}
	return w, nil
}

// String gives the text that ParseRenewalWindow reads.
func (w RenewalWindow) String() string { return w.text }

// IsZero says whether nothing was said.
func (w RenewalWindow) IsZero() bool { return w.text == "" }

// Equal says whether two say the same.
func (w RenewalWindow) Equal(other RenewalWindow) bool { return w.text == other.text }

// Opens gives the time from which on a certificate with this validity may be renewed.
func (w RenewalWindow) Opens(notBefore, notAfter time.Time) time.Time {
	if w.text == "" {
		w.text = defaultWindow
	}
	if w.text == "always" {
		return notBefore
	}
	opens := notBefore
	if of, from, isPart := w.part(); isPart {
		// In seconds: a certificate without end lives longer than a Duration counts.
		life := notAfter.Unix() - notBefore.Unix()
		opens = time.Unix(notAfter.Unix()-life/from*of, 0).UTC()
	} else if length, err := w.length(); err == nil {
		opens = notAfter.Add(-length)
	}
	if opens.Before(notBefore) {
		return notBefore
	}
	return opens
}

func (w RenewalWindow) part() (of, from int64, ok bool) {
	a, b, ok := strings.Cut(w.text, "/")
	if !ok {
		return 0, 0, false
	}
	of, err := strconv.ParseInt(a, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	from, err = strconv.ParseInt(b, 10, 32)
	return of, from, err == nil && of >= 1 && of <= from && from <= maxWindowPart
}

func (w RenewalWindow) length() (time.Duration, error) {
	days, isDays := strings.CutSuffix(w.text, "d")
	if !isDays {
		return time.ParseDuration(w.text)
	}
	n, err := strconv.ParseInt(days, 10, 32)
	if err != nil || n < 1 || n > 100_000 {
		return 0, fmt.Errorf("%q isn't a number of days", w.text)
	}
	return time.Duration(n) * 24 * time.Hour, nil
}

// EnrolmentReader reads labels and one-time passwords.
type EnrolmentReader interface {
	// EnrolmentLabel gives one by its name, whichever tenant it is of.
	EnrolmentLabel(LabelName) (EnrolmentLabel, error)
	EnrolmentLabels(Tenant, Page) ([]EnrolmentLabel, string, error) // by name
	// LabelNameKept gives the account that a name is kept for at a time; empty: none.
	LabelNameKept(name LabelName, at time.Time) (AccountID, error)
	EnrolmentPassword(id string) (EnrolmentPassword, error)
	EnrolmentPasswords(Tenant, LabelName, Page) ([]EnrolmentPassword, string, error) // by id
}

// EnrolmentWriter writes them.
type EnrolmentWriter interface {
	PutEnrolmentLabel(EnrolmentLabel) error
	// DeleteEnrolmentLabel deletes its passwords, too.
	DeleteEnrolmentLabel(Tenant, LabelName) error
	// KeepLabelName keeps a name for an account until a time. Of one account the last most
	// names are kept.
	KeepLabelName(name LabelName, account AccountID, until time.Time, most int) error
	PutEnrolmentPassword(EnrolmentPassword) error
	DeleteEnrolmentPassword(id string) error
	// TrimEnrolmentPasswords deletes those that ended before a time, at most limit in one
	// call, and returns how many.
	TrimEnrolmentPasswords(before time.Time, limit int) (int, error)
}

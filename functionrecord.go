package imprint

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// FunctionName is 1 to 64 characters of [a-zA-Z0-9_-].
type FunctionName string

// LatestVersion is the version of a function that can be changed.
const LatestVersion = "$LATEST"

var functionNamePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// ParseFunctionName checks a function's name.
func ParseFunctionName(s string) (FunctionName, error) {
	if !functionNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "function name %q does not match [a-zA-Z0-9_-]{1,64}", Excerpt(s))
	}
	return FunctionName(s), nil
}

// Function is one version of a function: $LATEST, or a published one, which
// never changes.
type Function struct {
	Tenant  Tenant
	Name    FunctionName
	Version string // LatestVersion, or a number from 1
	// Runtime and Handler say what runs: a runtime of AWS Lambda and the handler
	// in the code, or one of package functions' own runtimes and the address that
	// it calls.
	Runtime, Handler  string
	Role, Description string
	Timeout           time.Duration // of one run
	MemoryMB          int
	// CodeSHA256 is the lowercase hex SHA-256 of the code's zip, CodeSize its
	// bytes; empty for functions that run elsewhere.
	CodeSHA256 string
	CodeSize   int64
	// Environment is given to the function's processes. The keeper seals it.
	Environment map[string]string
	// Concurrency is how many runs may be under way at once, of all versions
	// together; -1: as many as the server allows. Only $LATEST's counts.
	Concurrency int
	// RevisionID changes with every change.
	RevisionID string
	// LastPublished is the number that was published last, kept with $LATEST.
	LastPublished int
	ModifiedAt    time.Time
}

// ARN names the function, with its version unless that is $LATEST.
func (f Function) ARN() string {
	arn := f.Tenant.FunctionARN(f.Name)
	if f.Version == "" || f.Version == LatestVersion {
		return arn
	}
	return arn + ":" + f.Version
}

// FunctionARN names a function as AWS Lambda does.
func (t Tenant) FunctionARN(n FunctionName) string {
	partition := "aws"
	switch {
	case strings.HasPrefix(string(t.Region), "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(string(t.Region), "us-gov-"):
		partition = "aws-us-gov"
	}
	return "arn:" + partition + ":lambda:" + string(t.Region) + ":" + string(t.Account) + ":function:" + string(n)
}

// FunctionAlias is a name for a version of a function.
type FunctionAlias struct {
	Tenant      Tenant
	Function    FunctionName
	Name        string
	Version     string
	Description string
	RevisionID  string
}

// FunctionPermission is one statement of a function's resource policy: who may
// invoke it.
type FunctionPermission struct {
	Tenant   Tenant
	Function FunctionName
	// Qualifier is the version or alias that the statement is about; empty: the
	// function without one.
	Qualifier     string
	StatementID   string
	Action        string // lambda:InvokeFunction, or with wildcards
	Principal     string // such as iot.amazonaws.com
	SourceARN     string // with wildcards; empty: any
	SourceAccount string // empty: any
}

// Allows says whether the statement lets a principal invoke the function for a
// source in an account.
func (p FunctionPermission) Allows(principal, sourceARN string, account AccountID) bool {
	if p.Action != "*" && p.Action != "lambda:*" && p.Action != "lambda:InvokeFunction" {
		return false
	}
	if p.Principal != "*" && p.Principal != principal {
		return false
	}
	if p.SourceAccount != "" && p.SourceAccount != string(account) {
		return false
	}
	return p.SourceARN == "" || likeARN(p.SourceARN, sourceARN)
}

// likeARN is IAM's ArnLike: each of the six parts is compared with wildcards by
// itself.
func likeARN(pattern, arn string) bool {
	want, got := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		if !like(want[i], got[i]) {
			return false
		}
	}
	return true
}

// like compares with * (any text) and ? (any byte), in time that is at most the
// product of both lengths.
func like(pattern, text string) bool {
	p, t, star, resume := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			resume++
			p, t = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// QueuedCall is an asynchronous run of a function that is owed.
type QueuedCall struct {
	ID        string // sorts by time
	Tenant    Tenant
	Function  FunctionName
	Qualifier string // version or alias; empty: $LATEST
	Payload   []byte // JSON; empty in lists
	SourceARN string
	AttemptID string
	Failures  int // runs that ended with an error of the function
	Refusals  int // times that it couldn't be run, in a row
	DueAt     time.Time
	CreatedAt time.Time
}

// OwedUnits is how much something that is owed takes of the bound of its account: one, and
// one for each 8 KiB, so that a bound of rows is one of the disk, too.
func OwedUnits(bytes int) int { return 1 + bytes/OwedUnit }

// OwedUnit are the bytes of a unit.
const OwedUnit = 8 << 10

// DueQueue is one queue of a tenant's owed work, with when the first of it is due.
type DueQueue struct {
	Name  string
	DueAt time.Time
}

// FunctionReader reads functions and what belongs to them.
type FunctionReader interface {
	Function(t Tenant, name FunctionName, version string) (Function, error)
	// Functions lists by name and version: $LATEST of each, or all versions.
	Functions(t Tenant, allVersions bool, p Page) ([]Function, string, error)
	// FunctionVersions lists one function's versions, $LATEST first and then by
	// text.
	FunctionVersions(Tenant, FunctionName, Page) ([]Function, string, error)
	// FunctionByHandler finds the $LATEST with a runtime and a handler, the first by
	// name.
	FunctionByHandler(t Tenant, runtime, handler string) (Function, error)
	// FunctionCode says whether any version of any tenant has the code.
	FunctionCode(sha256 string) (bool, error)
	// FunctionCodeBytes sums the code of all versions of an account, in all its
	// regions; what several versions of a region share counts once.
	FunctionCodeBytes(AccountID) (int64, error)
	FunctionAlias(t Tenant, name FunctionName, alias string) (FunctionAlias, error)
	FunctionAliases(Tenant, FunctionName, Page) ([]FunctionAlias, string, error) // by name
	// FunctionPermissions lists the statements about one qualifier by id, at most
	// 100.
	FunctionPermissions(t Tenant, name FunctionName, qualifier string) ([]FunctionPermission, error)
	// CallTenants lists the tenants that have calls.
	CallTenants() ([]Tenant, error)
	// CallQueues lists by name the functions of a tenant that have calls, those
	// after a name.
	CallQueues(t Tenant, after string, limit int) ([]DueQueue, error)
	// QueuedCalls lists those of a function that are due at a time, the most
	// overdue first, without their payloads.
	QueuedCalls(t Tenant, name FunctionName, due time.Time, limit int) ([]QueuedCall, error)
	QueuedCall(id string) (QueuedCall, error)
	// NextCall is when the next call is due after a time; zero: there is none.
	NextCall(after time.Time) (time.Time, error)
	// QueuedCallUnits is how much of the queue a tenant's calls take: OwedUnits of the
	// payload of each.
	QueuedCallUnits(Tenant) (int, error)
}

// FunctionWriter writes them.
type FunctionWriter interface {
	PutFunction(Function) error
	// DeleteFunction deletes a version; of $LATEST all that belongs to the function
	// goes with it: versions, aliases, permissions, queued calls.
	DeleteFunction(t Tenant, name FunctionName, version string) error
	PutFunctionAlias(FunctionAlias) error
	// DeleteFunctionAlias deletes an alias with its permissions.
	DeleteFunctionAlias(t Tenant, name FunctionName, alias string) error
	PutFunctionPermission(FunctionPermission) error
	DeleteFunctionPermission(t Tenant, name FunctionName, qualifier, statement string) error
	PutQueuedCall(QueuedCall) error
	DeleteQueuedCall(id string) error
}

// ParseFunctionVersion reads the number of a published version.
func ParseFunctionVersion(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && strconv.Itoa(n) == s
}

// ParseFunctionARN splits a function's ARN into its tenant, name and qualifier,
// which may be empty. Errors: CodeInvalidRequest.
func ParseFunctionARN(s string) (Tenant, FunctionName, string, error) {
	parts := strings.Split(s, ":")
	if len(s) > 2048 || len(parts) < 7 || len(parts) > 8 || parts[0] != "arn" || parts[2] != "lambda" || parts[5] != "function" {
		return Tenant{}, "", "", Errorf(CodeInvalidRequest, "%q is not an ARN of the form arn:aws:lambda:region:account:function:name", Excerpt(s))
	}
	region, err := ParseRegion(parts[3])
	if err != nil {
		return Tenant{}, "", "", err
	}
	account, err := ParseAccountID(parts[4])
	if err != nil {
		return Tenant{}, "", "", err
	}
	name, err := ParseFunctionName(parts[6])
	if err != nil {
		return Tenant{}, "", "", err
	}
	qualifier := ""
	if len(parts) == 8 {
		qualifier = parts[7]
	}
	return Tenant{Account: account, Region: region}, name, qualifier, nil
}

package imprint

import (
	"fmt"
	"regexp"
	"time"
)

// UserName names a user in its account: 1 to 64 characters of [\w+=,.@-].
type UserName string

// OperatorUser holds the first access key of an account. It has no row and no
// policies: its keys may do everything in the account.
const OperatorUser UserName = "operator"

// Limits of users, those of IAM where it has them.
const (
	MaxUsers           = 5000 // of one account
	MaxKeysPerUser     = 5
	MaxPoliciesPerUser = 10
	// MaxUserPolicy is how long a user's policy may be, in characters without
	// whitespace.
	MaxUserPolicy = 6144
)

var userNamePattern = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)

// ParseUserName checks a user's name.
func ParseUserName(s string) (UserName, error) {
	if !userNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, `user name %q does not match [\w+=,.@-]{1,64}`, Excerpt(s))
	}
	return UserName(s), nil
}

// UserARN names a user as IAM does. Users belong to the whole account: there is
// no region in it.
func (a AccountID) UserARN(n UserName) string {
	return "arn:aws:iam::" + string(a) + ":user/" + string(n)
}

// User is somebody, or something, that signs requests in an account and may do
// what its policies allow, and nothing without them.
type User struct {
	Account     AccountID
	Name        UserName
	Description string
	CreatedAt   time.Time
}

// ARN names the user.
func (u User) ARN() string { return u.Account.UserARN(u.Name) }

// UserPolicy is one identity policy of a user.
type UserPolicy struct {
	Account    AccountID
	User       UserName
	Name       PolicyName
	Document   string
	CreatedAt  time.Time
	ModifiedAt time.Time
}

// NotFoundUser is the error for a user that doesn't exist.
func NotFoundUser(n UserName) *Error {
	return Errorf(CodeNotFound, "user %s doesn't exist in this account", n).
		WithHint("imprint user list shows those that do.")
}

// ChangeUser is the kind of a Change of a user or its policies. Its tenant has an
// account and no region; its key is the user's name.
const ChangeUser ChangeKind = "user"

// UserReader reads users and what belongs to them.
type UserReader interface {
	User(AccountID, UserName) (User, error)
	Users(AccountID, Page) ([]User, string, error) // by name
	// UserPolicies lists by name, at most 100.
	UserPolicies(AccountID, UserName) ([]UserPolicy, error)
	// UserKeys lists a user's access keys by id, at most 100.
	UserKeys(AccountID, UserName) ([]AccessKey, error)
	// Accounts lists the accounts that have access keys, at most 10,000.
	Accounts() ([]AccountID, error)
}

// UserWriter writes them.
type UserWriter interface {
	PutUser(User) error
	DeleteUser(AccountID, UserName) error // with its policies and access keys
	PutUserPolicy(UserPolicy) error
	DeleteUserPolicy(AccountID, UserName, PolicyName) error
}

// CheckUserName refuses names that no user can be given.
func CheckUserName(s string) (UserName, error) {
	name, err := ParseUserName(s)
	if err != nil {
		return "", fmt.Errorf("couldn't name the user: %w", err)
	}
	if name == OperatorUser {
		return "", Errorf(CodeInvalidRequest, "%s is the name of the account's first access key, which may do everything", name).
			WithHint("Choose another name.")
	}
	return name, nil
}

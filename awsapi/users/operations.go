package users

import (
	"time"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
)

// Nothing is the response of operations without one.
type Nothing struct{}

// User is a user without what belongs to it.
type User struct {
	UserName     string    `api:"body userName String"`
	ARN          string    `api:"body userArn String"`
	Description  string    `api:"body description String"`
	CreationDate time.Time `api:"body creationDate Time"`
}

// AccessKey is an access key without its secret.
type AccessKey struct {
	AccessKeyID  string    `api:"body accessKeyId String"`
	UserName     string    `api:"body userName String"`
	CreationDate time.Time `api:"body creationDate Time"`
}

// UserPolicy is one identity policy.
type UserPolicy struct {
	PolicyName       string    `api:"body policyName String"`
	PolicyDocument   string    `api:"body policyDocument String"`
	CreationDate     time.Time `api:"body creationDate Time"`
	LastModifiedDate time.Time `api:"body lastModifiedDate Time"`
}

// Requests and responses.
type (
	// ListUsersInput is the request of ListUsers.
	ListUsersInput struct {
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ListUsersOutput is its response.
	ListUsersOutput struct {
		Users     []User `api:"body users Users"`
		NextToken string `api:"body nextToken NextToken"`
	}
	// NamedUserInput is the request of operations on a user.
	NamedUserInput struct {
		UserName string `api:"path userName UserName required"`
	}
	// CreateUserInput is the request of CreateUser.
	CreateUserInput struct {
		UserName    string  `api:"path userName UserName required"`
		Description *string `api:"body description Description"`
	}
	// UserOutput is the response of CreateUser.
	UserOutput struct {
		User User `api:"body user User"`
	}
	// DescribeUserOutput is the response of DescribeUser.
	DescribeUserOutput struct {
		User       User         `api:"body user User"`
		Policies   []UserPolicy `api:"body policies Policies"`
		AccessKeys []AccessKey  `api:"body accessKeys AccessKeys"`
	}
	// ListUserKeysOutput is the response of ListUserKeys.
	ListUserKeysOutput struct {
		AccessKeys []AccessKey `api:"body accessKeys AccessKeys"`
	}
	// CreateUserKeyOutput is the response of CreateUserKey: the only one with the
	// secret.
	CreateUserKeyOutput struct {
		AccessKeyID     string    `api:"body accessKeyId String"`
		SecretAccessKey string    `api:"body secretAccessKey String"`
		UserName        string    `api:"body userName String"`
		CreationDate    time.Time `api:"body creationDate Time"`
	}
	// DeleteUserKeyInput is the request of DeleteUserKey.
	DeleteUserKeyInput struct {
		UserName    string `api:"path userName UserName required"`
		AccessKeyID string `api:"path accessKeyId AccessKeyId required"`
	}
	// ListUserPoliciesOutput is the response of ListUserPolicies.
	ListUserPoliciesOutput struct {
		Policies []UserPolicy `api:"body policies Policies"`
	}
	// NamedPolicyInput is the request of GetUserPolicy and DeleteUserPolicy.
	NamedPolicyInput struct {
		UserName   string `api:"path userName UserName required"`
		PolicyName string `api:"path policyName PolicyName required"`
	}
	// PutUserPolicyInput is the request of PutUserPolicy.
	PutUserPolicyInput struct {
		UserName       string `api:"path userName UserName required"`
		PolicyName     string `api:"path policyName PolicyName required"`
		PolicyDocument string `api:"body policyDocument PolicyDocument required"`
	}
	// UserPolicyOutput is the response of PutUserPolicy and GetUserPolicy.
	UserPolicyOutput struct {
		Policy UserPolicy `api:"body policy Policy"`
	}
	// CreateAccountInput is the request of CreateAccount.
	CreateAccountInput struct {
		AccountID string `api:"path accountId AccountId required"`
	}
	// CreateAccountOutput is its response: the only one with the secret.
	CreateAccountOutput struct {
		AccountID       string    `api:"body accountId String"`
		Region          string    `api:"body region String"`
		Endpoint        string    `api:"body endpointAddress String"`
		EndpointPrefix  string    `api:"body endpointPrefix String"`
		AccessKeyID     string    `api:"body accessKeyId String"`
		SecretAccessKey string    `api:"body secretAccessKey String"`
		CreationDate    time.Time `api:"body creationDate Time"`
	}
	// ListAccountsInput is the request of ListAccounts.
	ListAccountsInput struct{}
	// ListAccountsOutput is its response.
	ListAccountsOutput struct {
		Accounts []Account `api:"body accounts Accounts"`
	}
)

// Account is an account with the addresses of its devices.
type Account struct {
	AccountID string     `api:"body accountId String"`
	Endpoints []Endpoint `api:"body endpoints Endpoints"`
}

// Endpoint is where devices of a tenant connect.
type Endpoint struct {
	Region  string `api:"body region String"`
	Address string `api:"body endpointAddress String"`
}

var codec = restjson.New(restjson.Shapes{
	"MaxResults":     {Limits: restjson.Between(1, 250)},
	"NextToken":      {Limits: restjson.AtMost(2048)},
	"UserName":       {Limits: restjson.Between(1, 64), Pattern: `[\w+=,.@-]+`},
	"PolicyName":     {Limits: restjson.Between(1, 128), Pattern: `[\w+=,.@-]+`},
	"Description":    {Limits: restjson.AtMost(1000), Pattern: `[^\x00-\x1f]*`},
	"AccessKeyId":    {Limits: restjson.Between(1, 128), Pattern: `\w+`},
	"AccountId":      {Pattern: `[0-9]{12}`},
	"PolicyDocument": {Limits: restjson.Between(1, 131072)},
}, "InvalidRequestException")

const (
	usersPath    = "/imprint/users"
	accountsPath = "/imprint/accounts"
)

func operation(name, method, path, resource string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: method, Path: path, Action: "imprint:" + name, Resource: resource}
}

func onUser(name, method, path string) awsapi.Operation {
	return operation(name, method, usersPath+"/{userName}"+path, "arn:aws:iam::{account}:user/{userName}")
}

// The operations.
var (
	opListUsers     = awsapi.Define[ListUsersInput, ListUsersOutput](codec, operation("ListUsers", "GET", usersPath, "*"))
	opCreateUser    = awsapi.Define[CreateUserInput, UserOutput](codec, onUser("CreateUser", "POST", ""))
	opDescribeUser  = awsapi.Define[NamedUserInput, DescribeUserOutput](codec, onUser("DescribeUser", "GET", ""))
	opDeleteUser    = awsapi.Define[NamedUserInput, Nothing](codec, onUser("DeleteUser", "DELETE", ""))
	opListKeys      = awsapi.Define[NamedUserInput, ListUserKeysOutput](codec, onUser("ListUserKeys", "GET", "/keys"))
	opCreateKey     = awsapi.Define[NamedUserInput, CreateUserKeyOutput](codec, onUser("CreateUserKey", "POST", "/keys"))
	opDeleteKey     = awsapi.Define[DeleteUserKeyInput, Nothing](codec, onUser("DeleteUserKey", "DELETE", "/keys/{accessKeyId}"))
	opListPolicies  = awsapi.Define[NamedUserInput, ListUserPoliciesOutput](codec, onUser("ListUserPolicies", "GET", "/policies"))
	opPutPolicy     = awsapi.Define[PutUserPolicyInput, UserPolicyOutput](codec, onUser("PutUserPolicy", "PUT", "/policies/{policyName}"))
	opGetPolicy     = awsapi.Define[NamedPolicyInput, UserPolicyOutput](codec, onUser("GetUserPolicy", "GET", "/policies/{policyName}"))
	opDeletePolicy  = awsapi.Define[NamedPolicyInput, Nothing](codec, onUser("DeleteUserPolicy", "DELETE", "/policies/{policyName}"))
	opListAccounts  = awsapi.Define[ListAccountsInput, ListAccountsOutput](codec, operation("ListAccounts", "GET", accountsPath, "*"))
	opCreateAccount = awsapi.Define[CreateAccountInput, CreateAccountOutput](codec, operation("CreateAccount", "POST", accountsPath+"/{accountId}", "*"))
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{
		opListUsers.Operation, opCreateUser.Operation, opDescribeUser.Operation, opDeleteUser.Operation,
		opListKeys.Operation, opCreateKey.Operation, opDeleteKey.Operation,
		opListPolicies.Operation, opPutPolicy.Operation, opGetPolicy.Operation, opDeletePolicy.Operation,
		opListAccounts.Operation, opCreateAccount.Operation,
	}
}

// Routes binds the operations.
func (d *Directory) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(opListUsers, d.listUsers), awsapi.Handle(opCreateUser, d.createUser),
		awsapi.Handle(opDescribeUser, d.describeUser), awsapi.Handle(opDeleteUser, d.deleteUser),
		awsapi.Handle(opListKeys, d.listKeys), awsapi.Handle(opCreateKey, d.createKey), awsapi.Handle(opDeleteKey, d.deleteKey),
		awsapi.Handle(opListPolicies, d.listPolicies), awsapi.Handle(opPutPolicy, d.putPolicy),
		awsapi.Handle(opGetPolicy, d.getPolicy), awsapi.Handle(opDeletePolicy, d.deletePolicy),
		awsapi.Handle(opListAccounts, d.listAccounts), awsapi.Handle(opCreateAccount, d.createAccount),
	}
}

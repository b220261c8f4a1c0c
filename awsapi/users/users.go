// Package users is Imprint's own API for the users of an account, their access
// keys and identity policies, and for the accounts of a server:
//
//	GET    /imprint/users                                ListUsers
//	POST   /imprint/users/{userName}                     CreateUser
//	GET    /imprint/users/{userName}                     DescribeUser
//	DELETE /imprint/users/{userName}                     DeleteUser
//	GET    /imprint/users/{userName}/keys                ListUserKeys
//	POST   /imprint/users/{userName}/keys                CreateUserKey
//	DELETE /imprint/users/{userName}/keys/{accessKeyId}  DeleteUserKey
//	GET    /imprint/users/{userName}/policies            ListUserPolicies
//	PUT    /imprint/users/{userName}/policies/{name}     PutUserPolicy
//	GET    /imprint/users/{userName}/policies/{name}     GetUserPolicy
//	DELETE /imprint/users/{userName}/policies/{name}     DeleteUserPolicy
//	GET    /imprint/accounts                             ListAccounts
//	POST   /imprint/accounts/{accountId}                 CreateAccount
//
// Requests are signed like every other one of the control plane. The actions are
// imprint:CreateUser and so on; the resource is the user's ARN,
// arn:aws:iam::ACCOUNT:user/NAME, or "*". A caller manages the users of its own
// account. Accounts are managed from the server's first account alone.
//
// A secret is in the answer of the request that made it and never again.
package users

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
)

// Directory answers the operations about users.
type Directory struct {
	Store imprint.Store
	Clock imprint.Clock
	// NewKey makes the id and the secret of an access key.
	NewKey func() (id, secret string)
	// Home is the account from which accounts are managed.
	Home imprint.AccountID
	// EnsureTenant makes a tenant that isn't there, and gives its settings.
	EnsureTenant func(context.Context, imprint.Tenant) (imprint.TenantSettings, error)
	// Endpoint gives the host name of a tenant's devices.
	Endpoint func(imprint.TenantSettings, string) (string, error)
}

const defaultPage = 100

func accountOf(caller awsapi.Caller) imprint.AccountID { return imprint.AccountID(caller.Account) }

// change runs fn in a transaction.
func change[T any](ctx context.Context, d *Directory, fn func(imprint.Tx) (T, error)) (T, error) {
	var made T
	err := d.Store.Update(ctx, func(tx imprint.Tx) error {
		result, err := fn(tx)
		made = result
		return err
	})
	return made, err
}

func (d *Directory) listUsers(ctx context.Context, caller awsapi.Caller, in *ListUsersInput) (*ListUsersOutput, error) {
	page := imprint.Page{Limit: defaultPage, Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	if in.NextToken != nil {
		page.Cursor = *in.NextToken
	}
	out := &ListUsersOutput{}
	err := d.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, next, err := tx.Users(accountOf(caller), page)
		*out = ListUsersOutput{Users: make([]User, 0, len(found)), NextToken: next}
		for _, u := range found {
			out.Users = append(out.Users, presentUser(u))
		}
		return err
	})
	return out, err
}

func presentUser(u imprint.User) User {
	return User{UserName: string(u.Name), ARN: u.ARN(), Description: u.Description, CreationDate: u.CreatedAt}
}

func (d *Directory) createUser(ctx context.Context, caller awsapi.Caller, in *CreateUserInput) (*UserOutput, error) {
	name, err := imprint.CheckUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	user := imprint.User{Account: accountOf(caller), Name: name, CreatedAt: d.Clock()}
	if in.Description != nil {
		user.Description = *in.Description
	}
	return change(ctx, d, func(tx imprint.Tx) (*UserOutput, error) {
		_, err := tx.User(user.Account, user.Name)
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "user %s exists already", name).WithResource(string(name), user.ARN())
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, err
		}
		all, _, err := tx.Users(user.Account, imprint.Page{Limit: imprint.MaxUsers, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't count the users: %w", err)
		}
		if len(all) >= imprint.MaxUsers {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "account %s has %d users, as many as allowed", user.Account, len(all))
		}
		return &UserOutput{User: presentUser(user)}, tx.PutUser(user)
	})
}

func (d *Directory) describeUser(ctx context.Context, caller awsapi.Caller, in *NamedUserInput) (*DescribeUserOutput, error) {
	name, err := imprint.ParseUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	out := &DescribeUserOutput{}
	err = d.Store.View(ctx, func(tx imprint.ReadTx) error {
		user, err := tx.User(accountOf(caller), name)
		if err != nil {
			return err
		}
		policies, err := tx.UserPolicies(user.Account, name)
		if err != nil {
			return err
		}
		keys, err := tx.UserKeys(user.Account, name)
		*out = DescribeUserOutput{User: presentUser(user), Policies: []UserPolicy{}, AccessKeys: presentKeys(keys)}
		for _, p := range policies {
			out.Policies = append(out.Policies, presentPolicy(p))
		}
		return err
	})
	return out, err
}

func (d *Directory) deleteUser(ctx context.Context, caller awsapi.Caller, in *NamedUserInput) (*Nothing, error) {
	name, err := imprint.CheckUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	return change(ctx, d, func(tx imprint.Tx) (*Nothing, error) {
		_, err := tx.User(accountOf(caller), name)
		if err != nil {
			return nil, err
		}
		return nil, tx.DeleteUser(accountOf(caller), name)
	})
}

// holder checks that somebody of a name can hold access keys: a user, or the
// account's operator.
func holder(tx imprint.ReadTx, account imprint.AccountID, name imprint.UserName) error {
	if name == imprint.OperatorUser {
		return nil
	}
	_, err := tx.User(account, name)
	return err
}

func (d *Directory) listKeys(ctx context.Context, caller awsapi.Caller, in *NamedUserInput) (*ListUserKeysOutput, error) {
	name, err := imprint.ParseUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	out := &ListUserKeysOutput{}
	err = d.Store.View(ctx, func(tx imprint.ReadTx) error {
		err := holder(tx, accountOf(caller), name)
		if err != nil {
			return err
		}
		keys, err := tx.UserKeys(accountOf(caller), name)
		out.AccessKeys = presentKeys(keys)
		return err
	})
	return out, err
}

func presentKeys(keys []imprint.AccessKey) []AccessKey {
	out := make([]AccessKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, AccessKey{AccessKeyID: k.ID, UserName: k.User, CreationDate: k.CreatedAt})
	}
	return out
}

func (d *Directory) createKey(ctx context.Context, caller awsapi.Caller, in *NamedUserInput) (*CreateUserKeyOutput, error) {
	name, err := imprint.ParseUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	id, secret := d.NewKey()
	return change(ctx, d, func(tx imprint.Tx) (*CreateUserKeyOutput, error) {
		key := imprint.AccessKey{ID: id, Secret: secret, Account: accountOf(caller), User: string(name), CreatedAt: d.Clock()}
		err := holder(tx, key.Account, name)
		if err != nil {
			return nil, err
		}
		keys, err := tx.UserKeys(key.Account, name)
		if err != nil {
			return nil, fmt.Errorf("couldn't count the access keys of %s: %w", name, err)
		}
		if len(keys) >= imprint.MaxKeysPerUser {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "user %s has %d access keys, as many as allowed", name, len(keys)).
				WithHint("Delete one that is out of use: imprint user key list %s, imprint user key delete %s ID.", name, name)
		}
		return &CreateUserKeyOutput{AccessKeyID: id, SecretAccessKey: secret, UserName: string(name), CreationDate: key.CreatedAt}, tx.PutAccessKey(key)
	})
}

func (d *Directory) deleteKey(ctx context.Context, caller awsapi.Caller, in *DeleteUserKeyInput) (*Nothing, error) {
	name, err := imprint.ParseUserName(in.UserName)
	if err != nil {
		return nil, err
	}
	return change(ctx, d, func(tx imprint.Tx) (*Nothing, error) {
		keys, err := tx.UserKeys(accountOf(caller), name)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if key.ID != in.AccessKeyID {
				continue
			}
			if name == imprint.OperatorUser && len(keys) == 1 {
				return nil, imprint.Errorf(imprint.CodeDeleteConflict, "access key %s is the last one of the account's operator", key.ID).
					WithHint("Make another one first: imprint user key add %s.", name)
			}
			return nil, tx.DeleteAccessKey(key.ID)
		}
		return nil, imprint.Errorf(imprint.CodeNotFound, "user %s has no access key %s", name, imprint.Excerpt(in.AccessKeyID))
	})
}

func presentPolicy(p imprint.UserPolicy) UserPolicy {
	return UserPolicy{PolicyName: string(p.Name), PolicyDocument: p.Document, CreationDate: p.CreatedAt, LastModifiedDate: p.ModifiedAt}
}

func (d *Directory) listPolicies(ctx context.Context, caller awsapi.Caller, in *NamedUserInput) (*ListUserPoliciesOutput, error) {
	described, err := d.describeUser(ctx, caller, in)
	if err != nil {
		return nil, err
	}
	return &ListUserPoliciesOutput{Policies: described.Policies}, nil
}

// namedPolicy reads the names of a user and of one of its policies.
func namedPolicy(in *NamedPolicyInput) (imprint.UserName, imprint.PolicyName, error) {
	user, err := imprint.CheckUserName(in.UserName)
	if err != nil {
		return "", "", err
	}
	name, err := imprint.ParsePolicyName(in.PolicyName)
	return user, name, err
}

func findPolicy(tx imprint.ReadTx, account imprint.AccountID, user imprint.UserName, name imprint.PolicyName) (imprint.UserPolicy, int, error) {
	policies, err := tx.UserPolicies(account, user)
	if err != nil {
		return imprint.UserPolicy{}, 0, err
	}
	for _, p := range policies {
		if p.Name == name {
			return p, len(policies), nil
		}
	}
	return imprint.UserPolicy{}, len(policies), imprint.Errorf(imprint.CodeNotFound, "user %s has no policy %s", user, name)
}

func (d *Directory) putPolicy(ctx context.Context, caller awsapi.Caller, in *PutUserPolicyInput) (*UserPolicyOutput, error) {
	user, name, err := namedPolicy(&NamedPolicyInput{UserName: in.UserName, PolicyName: in.PolicyName})
	if err != nil {
		return nil, err
	}
	_, err = access.ParsePolicy(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	return change(ctx, d, func(tx imprint.Tx) (*UserPolicyOutput, error) {
		account, now := accountOf(caller), d.Clock()
		_, err := tx.User(account, user)
		if err != nil {
			return nil, err
		}
		p, count, err := findPolicy(tx, account, user, name)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound && count >= imprint.MaxPoliciesPerUser:
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "user %s has %d policies, as many as allowed", user, count).
				WithHint("Put the statements of several into one.")
		case imprint.CodeOf(err) == imprint.CodeNotFound:
			p = imprint.UserPolicy{Account: account, User: user, Name: name, CreatedAt: now}
		case err != nil:
			return nil, err
		}
		p.Document, p.ModifiedAt = in.PolicyDocument, now
		return &UserPolicyOutput{Policy: presentPolicy(p)}, tx.PutUserPolicy(p)
	})
}

func (d *Directory) getPolicy(ctx context.Context, caller awsapi.Caller, in *NamedPolicyInput) (*UserPolicyOutput, error) {
	user, name, err := namedPolicy(in)
	if err != nil {
		return nil, err
	}
	out := &UserPolicyOutput{}
	err = d.Store.View(ctx, func(tx imprint.ReadTx) error {
		p, _, err := findPolicy(tx, accountOf(caller), user, name)
		out.Policy = presentPolicy(p)
		return err
	})
	return out, err
}

func (d *Directory) deletePolicy(ctx context.Context, caller awsapi.Caller, in *NamedPolicyInput) (*Nothing, error) {
	user, name, err := namedPolicy(in)
	if err != nil {
		return nil, err
	}
	return change(ctx, d, func(tx imprint.Tx) (*Nothing, error) {
		_, _, err := findPolicy(tx, accountOf(caller), user, name)
		if err != nil {
			return nil, err
		}
		return nil, tx.DeleteUserPolicy(accountOf(caller), user, name)
	})
}

// onlyHome keeps accounts from managing accounts.
func (d *Directory) onlyHome(caller awsapi.Caller) error {
	if accountOf(caller) == d.Home {
		return nil
	}
	return imprint.Errorf(imprint.CodeAccessDenied, "accounts are managed from the server's first account, %s", d.Home).
		WithHint("Use an access key of account %s.", d.Home)
}

func (d *Directory) createAccount(ctx context.Context, caller awsapi.Caller, in *CreateAccountInput) (*CreateAccountOutput, error) {
	err := d.onlyHome(caller)
	if err != nil {
		return nil, err
	}
	account, err := imprint.ParseAccountID(in.AccountID)
	if err != nil {
		return nil, err
	}
	id, secret := d.NewKey()
	now := d.Clock()
	_, err = change(ctx, d, func(tx imprint.Tx) (*Nothing, error) {
		known, err := tx.UserKeys(account, imprint.OperatorUser)
		if err != nil {
			return nil, err
		}
		if len(known) > 0 {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "account %s exists already", account).WithResource(string(account), "")
		}
		return nil, tx.PutAccessKey(imprint.AccessKey{ID: id, Secret: secret, Account: account, User: string(imprint.OperatorUser), CreatedAt: now})
	})
	if err != nil {
		return nil, err
	}
	tenant := imprint.Tenant{Account: account, Region: imprint.Region(caller.Region)}
	settings, err := d.EnsureTenant(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("couldn't make tenant %s: %w", tenant, err)
	}
	endpoint, err := d.Endpoint(settings, "iot:Data-ATS")
	if err != nil {
		return nil, err
	}
	return &CreateAccountOutput{
		AccountID: string(account), Region: caller.Region, Endpoint: endpoint, EndpointPrefix: settings.EndpointPrefix,
		AccessKeyID: id, SecretAccessKey: secret, CreationDate: now.Truncate(time.Millisecond),
	}, nil
}

func (d *Directory) listAccounts(ctx context.Context, caller awsapi.Caller, _ *ListAccountsInput) (*ListAccountsOutput, error) {
	err := d.onlyHome(caller)
	if err != nil {
		return nil, err
	}
	out := &ListAccountsOutput{}
	err = d.Store.View(ctx, func(tx imprint.ReadTx) error {
		*out = ListAccountsOutput{Accounts: []Account{}}
		accounts, err := tx.Accounts()
		if err != nil {
			return err
		}
		tenants, err := imprint.AllTenants(tx)
		if err != nil {
			return err
		}
		for _, account := range accounts {
			one := Account{AccountID: string(account), Endpoints: []Endpoint{}}
			for _, settings := range tenants {
				if settings.Tenant.Account != account {
					continue
				}
				address, err := d.Endpoint(settings, "iot:Data-ATS")
				if err != nil {
					return err
				}
				one.Endpoints = append(one.Endpoints, Endpoint{Region: string(settings.Tenant.Region), Address: address})
			}
			out.Accounts = append(out.Accounts, one)
		}
		return nil
	})
	return out, err
}

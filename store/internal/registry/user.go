package registry

import (
	"github.com/imprint-iot/imprint"
)

const (
	userColumns       = "account, name, description, created_at"
	userPolicyColumns = "account, user_name, name, document, created_at, modified_at"
)

var (
	putUser       = upsert("users", 2, "account", "name", "description", "created_at")
	putUserPolicy = upsert("user_policies", 3, "account", "user_name", "name", "document", "created_at", "modified_at")

	usersByName = newList("us", userColumns, "users WHERE account = $1", 1, []string{"name"}, scanUser,
		func(u *imprint.User) []any { return []any{string(u.Name)} })
)

func scanUser(_ *Tx, r Rows, u *imprint.User) error {
	var created int64
	err := r.Scan((*string)(&u.Account), (*string)(&u.Name), &u.Description, &created)
	u.CreatedAt = readTime(created)
	return err
}

func scanUserPolicy(_ *Tx, r Rows, p *imprint.UserPolicy) error {
	var created, modified int64
	err := r.Scan((*string)(&p.Account), (*string)(&p.User), (*string)(&p.Name), &p.Document, &created, &modified)
	p.CreatedAt, p.ModifiedAt = readTime(created), readTime(modified)
	return err
}

// User implements imprint.UserReader.
func (t *Tx) User(account imprint.AccountID, name imprint.UserName) (imprint.User, error) {
	u, found, err := first(t, scanUser, "SELECT "+userColumns+" FROM users WHERE account = $1 AND name = $2", string(account), string(name))
	if err == nil && !found {
		err = imprint.NotFoundUser(name)
	}
	return u, err
}

// Users implements imprint.UserReader.
func (t *Tx) Users(account imprint.AccountID, p imprint.Page) ([]imprint.User, string, error) {
	return usersByName.page(t, p, nil, string(account))
}

// UserPolicies implements imprint.UserReader.
func (t *Tx) UserPolicies(account imprint.AccountID, user imprint.UserName) ([]imprint.UserPolicy, error) {
	return all(t, scanUserPolicy, "SELECT "+userPolicyColumns+" FROM user_policies WHERE account = $1 AND user_name = $2 ORDER BY name LIMIT $3",
		string(account), string(user), int64(maxPlain))
}

// UserKeys implements imprint.UserReader.
func (t *Tx) UserKeys(account imprint.AccountID, user imprint.UserName) ([]imprint.AccessKey, error) {
	return all(t, scanAccessKey, "SELECT "+accessKeyColumns+" FROM access_keys WHERE account = $1 AND user_name = $2 ORDER BY id LIMIT $3",
		string(account), string(user), int64(maxPlain))
}

// Accounts implements imprint.UserReader.
func (t *Tx) Accounts() ([]imprint.AccountID, error) {
	return all(t, func(_ *Tx, r Rows, a *imprint.AccountID) error { return r.Scan((*string)(a)) },
		"SELECT DISTINCT account FROM access_keys ORDER BY account LIMIT $1", int64(maxPage))
}

// PutUser implements imprint.UserWriter.
func (t *Tx) PutUser(u imprint.User) error {
	_, err := t.exec(putUser, string(u.Account), string(u.Name), u.Description, millis(u.CreatedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeUser, imprint.Tenant{Account: u.Account}, string(u.Name))
	return nil
}

// DeleteUser implements imprint.UserWriter.
func (t *Tx) DeleteUser(account imprint.AccountID, name imprint.UserName) error {
	keys, err := t.UserKeys(account, name)
	if err != nil {
		return err
	}
	for _, key := range keys {
		err = t.DeleteAccessKey(key.ID)
		if err != nil {
			return err
		}
	}
	_, err = t.exec("DELETE FROM user_policies WHERE account = $1 AND user_name = $2", string(account), string(name))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeUser, imprint.Tenant{Account: account}, string(name),
		"DELETE FROM users WHERE account = $1 AND name = $2", string(account), string(name))
}

// PutUserPolicy implements imprint.UserWriter. The change is the user's.
func (t *Tx) PutUserPolicy(p imprint.UserPolicy) error {
	_, err := t.exec(putUserPolicy, string(p.Account), string(p.User), string(p.Name), p.Document, millis(p.CreatedAt), millis(p.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeUser, imprint.Tenant{Account: p.Account}, string(p.User))
	return nil
}

// DeleteUserPolicy implements imprint.UserWriter. The change is the user's.
func (t *Tx) DeleteUserPolicy(account imprint.AccountID, user imprint.UserName, name imprint.PolicyName) error {
	return t.remove(imprint.ChangeUser, imprint.Tenant{Account: account}, string(user),
		"DELETE FROM user_policies WHERE account = $1 AND user_name = $2 AND name = $3", string(account), string(user), string(name))
}

package storetest

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
)

// userRows are rows of an account: the region of the tenant is part of their
// names here.
func userRows() []row {
	name := func(t imprint.Tenant) imprint.UserName { return imprint.UserName("user-" + string(t.Region)) }
	return []row{{
		name: "user",
		full: func(t imprint.Tenant) any {
			return imprint.User{Account: t.Account, Name: name(t), Description: unusual, CreatedAt: instant}
		},
		bare:   func(t imprint.Tenant) any { return imprint.User{Account: t.Account, Name: name(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutUser(v.(imprint.User)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.User(t.Account, name(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteUser(t.Account, name(t)) },
	}, {
		name: "user policy",
		full: func(t imprint.Tenant) any {
			return imprint.UserPolicy{Account: t.Account, User: name(t), Name: "p", Document: unusual + string(t.Region), CreatedAt: instant, ModifiedAt: instant.Add(1e9)}
		},
		bare: func(t imprint.Tenant) any {
			return imprint.UserPolicy{Account: t.Account, User: name(t), Name: "p"}
		},
		put: func(tx imprint.Tx, v any) error { return tx.PutUserPolicy(v.(imprint.UserPolicy)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) {
			found, err := tx.UserPolicies(t.Account, name(t))
			if err == nil && len(found) == 0 {
				return imprint.UserPolicy{}, imprint.NotFoundUser(name(t))
			}
			if err != nil {
				return imprint.UserPolicy{}, err
			}
			return found[0], nil
		},
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteUserPolicy(t.Account, name(t), "p") },
	}}
}

func userLists() []pagedList {
	return []pagedList{{
		"users",
		func(tx imprint.Tx, t imprint.Tenant, n int) error {
			// Every region of an account adds the same users.
			return tx.PutUser(imprint.User{Account: t.Account, Name: imprint.UserName(name(n))})
		},
		func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.Users(t.Account, p)
			return numbers(found, next, err, func(u imprint.User) string { return string(u.Name) })
		},
	}}
}

// testUsers ensures that what belongs to a user is found by the user, goes with
// it, and that watchers hear of it.
func testUsers(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	here, other := here.Account, other.Account
	update(t, store, func(tx imprint.Tx) error {
		for _, account := range []imprint.AccountID{here, other} {
			for _, user := range []string{"anna", "anna2", "bert"} {
				err := tx.PutUser(imprint.User{Account: account, Name: imprint.UserName(user)})
				if err != nil {
					return err
				}
				for _, n := range []string{"2", "1"} {
					err = tx.PutUserPolicy(imprint.UserPolicy{Account: account, User: imprint.UserName(user), Name: imprint.PolicyName(n), Document: user + n})
					if err != nil {
						return err
					}
					err = tx.PutAccessKey(imprint.AccessKey{ID: string(account) + user + n, Account: account, User: user, Secret: "secret " + user + n})
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	owned := func(account imprint.AccountID, user imprint.UserName) string {
		var words []string
		view(t, store, func(tx imprint.ReadTx) error {
			words = nil
			policies, err := tx.UserPolicies(account, user)
			for _, p := range policies {
				words = append(words, p.Document)
			}
			if err != nil {
				return err
			}
			keys, err := tx.UserKeys(account, user)
			for _, k := range keys {
				words = append(words, k.ID, k.Secret)
			}
			return err
		})
		return strings.Join(words, ", ")
	}
	whole := string(here) + "anna1, secret anna1, " + string(here) + "anna2, secret anna2"
	same(t, "what belongs to anna", owned(here, "anna"), "anna1, anna2, "+whole)
	var ear heard
	stop := store.Watch(ear.add)
	defer stop()
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteUser(here, "anna") })
	account := imprint.Tenant{Account: here}
	same(t, "what watchers hear", ear.take(), []imprint.Change{
		{Kind: imprint.ChangeAccessKey, Tenant: account, Key: string(here) + "anna1"},
		{Kind: imprint.ChangeAccessKey, Tenant: account, Key: string(here) + "anna2"},
		{Kind: imprint.ChangeUser, Tenant: account, Key: "anna"},
	})
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteUserPolicy(here, "bert", "1") })
	same(t, "what watchers hear of a policy", ear.take(), []imprint.Change{{Kind: imprint.ChangeUser, Tenant: account, Key: "bert"}})
	same(t, "what belongs to anna after her end", owned(here, "anna"), "")
	same(t, "what belongs to anna elsewhere", owned(other, "anna") != "", true)
	same(t, "what belongs to a user with a longer name", owned(here, "anna2") != "", true)
	view(t, store, func(tx imprint.ReadTx) error {
		found, err := tx.Accounts()
		same(t, "the accounts", found, []imprint.AccountID{here, other})
		return err
	})
}

package functions

import (
	"context"
	"fmt"
	"regexp"

	"github.com/imprint-iot/imprint"
)

const (
	maxAliases    = 1000 // of one function
	maxStatements = 100  // of one qualifier
)

var aliasPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,128}$`)

// CreateAlias names a version. Errors: CodeInvalidRequest, CodeNotFound,
// CodeAlreadyExists.
func (s *Service) CreateAlias(ctx context.Context, a imprint.FunctionAlias) (imprint.FunctionAlias, error) {
	_, numbered := imprint.ParseFunctionVersion(a.Name)
	if numbered || !aliasPattern.MatchString(a.Name) {
		return a, imprint.Errorf(imprint.CodeInvalidRequest, "%q can't be the name of an alias", imprint.Excerpt(a.Name))
	}
	return a, s.store.Update(ctx, func(tx imprint.Tx) error {
		_, err := tx.Function(a.Tenant, a.Function, a.Version)
		if err != nil {
			return missing(err, a.Tenant, a.Function, a.Version)
		}
		_, err = tx.FunctionAlias(a.Tenant, a.Function, a.Name)
		if err == nil {
			return imprint.Errorf(imprint.CodeAlreadyExists, "Alias already exists: %s:%s", a.Tenant.FunctionARN(a.Function), a.Name)
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		list, _, err := tx.FunctionAliases(a.Tenant, a.Function, imprint.Page{Limit: maxAliases, Ascending: true})
		if err != nil {
			return err
		}
		if len(list) >= maxAliases {
			return imprint.Errorf(imprint.CodeLimitExceeded, "function %s has %d aliases already", a.Function, maxAliases)
		}
		a.RevisionID = newRevision()
		return tx.PutFunctionAlias(a)
	})
}

// UpdateAlias lets edit change an alias. Errors: CodeNotFound,
// CodeVersionConflict.
func (s *Service) UpdateAlias(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, alias, revision string, edit func(*imprint.FunctionAlias)) (imprint.FunctionAlias, error) {
	var made imprint.FunctionAlias
	err := s.store.Update(ctx, func(tx imprint.Tx) error {
		a, err := tx.FunctionAlias(tenant, name, alias)
		if err != nil {
			return missing(err, tenant, name, alias)
		}
		if revision != "" && revision != a.RevisionID {
			return imprint.Errorf(imprint.CodeVersionConflict, "%w", ErrRevision)
		}
		edit(&a)
		_, err = tx.Function(tenant, name, a.Version)
		if err != nil {
			return missing(err, tenant, name, a.Version)
		}
		a.RevisionID = newRevision()
		made = a
		return tx.PutFunctionAlias(a)
	})
	return made, err
}

// DeleteAlias removes an alias and its permissions; one that isn't there is no
// error, as at AWS Lambda.
func (s *Service) DeleteAlias(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, alias string) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteFunctionAlias(tenant, name, alias) })
}

// AddPermission adds a statement. Errors: CodeNotFound, CodeAlreadyExists,
// CodeLimitExceeded, CodeVersionConflict.
func (s *Service) AddPermission(ctx context.Context, p imprint.FunctionPermission, revision string) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		list, err := permissionsOf(tx, p.Tenant, p.Function, p.Qualifier, revision)
		if err != nil {
			return err
		}
		for _, other := range list {
			if other.StatementID == p.StatementID {
				return imprint.Errorf(imprint.CodeAlreadyExists, "The statement id (%s) provided already exists. Please provide a new statement id, or remove the existing statement.", p.StatementID)
			}
		}
		if len(list) >= maxStatements {
			return imprint.Errorf(imprint.CodeLimitExceeded, "the policy has %d statements already", maxStatements)
		}
		return tx.PutFunctionPermission(p)
	})
}

// RemovePermission removes a statement. Errors: CodeNotFound,
// CodeVersionConflict.
func (s *Service) RemovePermission(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, qualifier, statement, revision string) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		list, err := permissionsOf(tx, tenant, name, qualifier, revision)
		if err != nil {
			return err
		}
		for _, p := range list {
			if p.StatementID == statement {
				return tx.DeleteFunctionPermission(tenant, name, p.Qualifier, statement)
			}
		}
		return imprint.Errorf(imprint.CodeNotFound, "Statement %s is not found in resource policy.", imprint.Excerpt(statement))
	})
}

// permissionsOf gives the statements about a qualifier of a function that
// exists.
func permissionsOf(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.FunctionName, qualifier, revision string) ([]imprint.FunctionPermission, error) {
	found, err := lookUp(tx, tenant, name, qualifier)
	if err != nil {
		return nil, err
	}
	if revision != "" && revision != found.function.RevisionID {
		return nil, imprint.Errorf(imprint.CodeVersionConflict, "%w", ErrRevision)
	}
	list, err := tx.FunctionPermissions(tenant, name, PolicyQualifier(qualifier))
	if err != nil {
		return nil, fmt.Errorf("couldn't read the permissions of function %s: %w", name, err)
	}
	return list, nil
}

// PolicyQualifier is the qualifier that permissions are kept under: $LATEST has
// those of the function without one.
func PolicyQualifier(qualifier string) string {
	if qualifier == imprint.LatestVersion {
		return ""
	}
	return qualifier
}

// Alias finds an alias. Errors: CodeNotFound.
func (s *Service) Alias(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, alias string) (imprint.FunctionAlias, error) {
	var found imprint.FunctionAlias
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		a, err := tx.FunctionAlias(tenant, name, alias)
		found = a
		return err
	})
	if err != nil {
		return found, missing(err, tenant, name, alias)
	}
	return found, nil
}

// Aliases lists a function's aliases by name. Errors: CodeNotFound.
func (s *Service) Aliases(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, page imprint.Page) ([]imprint.FunctionAlias, string, error) {
	var list []imprint.FunctionAlias
	var next string
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		_, err := latestOf(tx, tenant, name, "")
		if err != nil {
			return err
		}
		list, next, err = tx.FunctionAliases(tenant, name, page)
		return err
	})
	return list, next, err
}

// Permissions lists the statements about a qualifier. Errors: CodeNotFound.
func (s *Service) Permissions(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, qualifier string) ([]imprint.FunctionPermission, error) {
	var list []imprint.FunctionPermission
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := permissionsOf(tx, tenant, name, qualifier, "")
		list = found
		return err
	})
	return list, err
}

package functions

import (
	"context"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
)

// Tags lists the tags of a function, by key. Errors: CodeNotFound.
func (s *Service) Tags(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName) ([]imprint.Tag, error) {
	var found []imprint.Tag
	err := s.store.View(ctx, func(tx imprint.ReadTx) error {
		_, err := lookUp(tx, tenant, name, "")
		if err != nil {
			return err
		}
		found, err = tx.Tags(tenant, tenant.FunctionARN(name))
		return err
	})
	return found, err
}

// Tag adds tags to a function, or gives those that are there another value. Errors:
// CodeNotFound, CodeInvalidRequest for a key that is AWS's and for more tags than a
// resource may have.
func (s *Service) Tag(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, tags ...imprint.Tag) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		_, err := lookUp(tx, tenant, name, "")
		if err != nil {
			return err
		}
		return putTags(tx, tenant, tenant.FunctionARN(name), tags)
	})
}

// Untag takes tags away; keys that aren't there are no error. Errors: CodeNotFound.
func (s *Service) Untag(ctx context.Context, tenant imprint.Tenant, name imprint.FunctionName, keys ...string) error {
	return s.store.Update(ctx, func(tx imprint.Tx) error {
		_, err := lookUp(tx, tenant, name, "")
		if err != nil {
			return err
		}
		for _, key := range keys {
			err := tx.DeleteTag(tenant, tenant.FunctionARN(name), key)
			if err != nil {
				return fmt.Errorf("couldn't delete tag %q of function %s: %w", key, name, err)
			}
		}
		return nil
	})
}

func putTags(tx imprint.Tx, tenant imprint.Tenant, arn string, tags []imprint.Tag) error {
	for _, tag := range tags {
		if strings.HasPrefix(strings.ToLower(tag.Key), "aws:") {
			return imprint.Errorf(imprint.CodeInvalidRequest, "tag key %q begins with aws:, which is reserved", tag.Key)
		}
		err := tx.PutTag(tenant, arn, tag)
		if err != nil {
			return fmt.Errorf("couldn't tag %s: %w", arn, err)
		}
	}
	all, err := tx.Tags(tenant, arn)
	if err != nil {
		return fmt.Errorf("couldn't read the tags of %s: %w", arn, err)
	}
	if len(all) > imprint.MaxTagsPerResource {
		return imprint.Errorf(imprint.CodeInvalidRequest, "%s would have %d tags, at most %d are allowed", arn, len(all), imprint.MaxTagsPerResource)
	}
	return nil
}

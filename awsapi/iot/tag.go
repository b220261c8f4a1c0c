package iot

import (
	"context"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

func (s *Service) tagRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleFor(TagResource, func(c awsapi.Caller, in *TagResourceInput) string { return taggedARN(c, in.ResourceArn) }, s.tagResource),
		awsapi.HandleFor(UntagResource, func(c awsapi.Caller, in *UntagResourceInput) string { return taggedARN(c, in.ResourceArn) }, s.untagResource),
		awsapi.HandleFor(ListTagsForResource, func(c awsapi.Caller, in *ListTagsForResourceInput) string { return taggedARN(c, in.ResourceArn) }, s.listTagsForResource),
	}
}

// tagResource adds tags, or gives those that are there another value.
func (s *Service) tagResource(ctx context.Context, caller awsapi.Caller, in *TagResourceInput) (*TagResourceOutput, error) {
	target, err := parseTagged(tenantOf(caller), in.ResourceArn)
	if err != nil {
		return nil, err
	}
	var first *imprint.FirstConnection
	if target.ca != "" {
		first, err = firstConnectionOf(in.Tags)
	}
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*TagResourceOutput, error) {
		err := target.exists(tx)
		if err != nil {
			return nil, err
		}
		err = putTags(tx, target.tenant, target.arn, in.Tags)
		if err != nil || first == nil {
			return nil, err
		}
		return nil, target.setFirstConnection(tx, *first)
	})
}

// untagResource takes tags away; keys that aren't there are no error.
func (s *Service) untagResource(ctx context.Context, caller awsapi.Caller, in *UntagResourceInput) (*UntagResourceOutput, error) {
	target, err := parseTagged(tenantOf(caller), in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*UntagResourceOutput, error) {
		err := target.exists(tx)
		if err != nil {
			return nil, err
		}
		for _, key := range in.TagKeys {
			err := tx.DeleteTag(target.tenant, target.arn, key)
			if err != nil {
				return nil, fmt.Errorf("couldn't delete tag %q of %s: %w", key, target.arn, err)
			}
			if key != imprint.FirstConnectionTag {
				continue
			}
			err = target.setFirstConnection(tx, imprint.FirstConnectionDefault)
			if err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
}

// listTagsForResource lists all tags at once: a resource has at most 50.
func (s *Service) listTagsForResource(ctx context.Context, caller awsapi.Caller, in *ListTagsForResourceInput) (*ListTagsForResourceOutput, error) {
	target, err := parseTagged(tenantOf(caller), in.ResourceArn)
	if err != nil {
		return nil, err
	}
	if in.NextToken != nil && *in.NextToken != "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "nextToken isn't one that ListTagsForResource gave")
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListTagsForResourceOutput, error) {
		err := target.exists(tx)
		if err != nil {
			return nil, err
		}
		tags, err := tx.Tags(target.tenant, target.arn)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the tags of %s: %w", target.arn, err)
		}
		out := &ListTagsForResourceOutput{Tags: make([]Tag, 0, len(tags))}
		for _, tag := range tags {
			out.Tags = append(out.Tags, Tag{Key: tag.Key, Value: new(tag.Value)})
		}
		return out, nil
	})
}

// putTags adds tags to a resource of the tenant, in the transaction that makes
// the resource or after it was found there. A tag without a value has the empty
// one. Errors: CodeInvalidRequest for a key that is twice in the request or
// begins with aws:, CodeLimitExceeded when the resource would have more than
// imprint.MaxTagsPerResource.
func putTags(tx imprint.Tx, tenant imprint.Tenant, arn string, tags []Tag) error {
	if len(tags) == 0 {
		return nil
	}
	err := checkTags(tags)
	if err != nil {
		return err
	}
	present, err := tx.Tags(tenant, arn)
	if err != nil {
		return fmt.Errorf("couldn't read the tags of %s: %w", arn, err)
	}
	keys := make(map[string]bool, len(present)+len(tags))
	for _, tag := range present {
		keys[tag.Key] = true
	}
	for _, tag := range tags {
		keys[tag.Key] = true
	}
	if len(keys) > imprint.MaxTagsPerResource {
		return imprint.Errorf(imprint.CodeLimitExceeded, "%s would have %d tags, at most %d are allowed", arn, len(keys), imprint.MaxTagsPerResource)
	}
	for _, tag := range tags {
		err := tx.PutTag(tenant, arn, imprint.Tag{Key: tag.Key, Value: valueOf(tag)})
		if err != nil {
			return fmt.Errorf("couldn't tag %s: %w", arn, err)
		}
	}
	return nil
}

// checkTags holds the rules for the tags of one request (AWS General Reference,
// "Tagging AWS resources"). Their length and characters are constraints of the
// model.
func checkTags(tags []Tag) error {
	seen := make(map[string]bool, len(tags))
	for _, tag := range tags {
		switch {
		case strings.HasPrefix(strings.ToLower(tag.Key), "aws:"):
			return imprint.Errorf(imprint.CodeInvalidRequest, "tag key %q begins with aws:, which is reserved", tag.Key)
		case seen[tag.Key]:
			return imprint.Errorf(imprint.CodeInvalidRequest, "tag key %q is there twice", tag.Key)
		}
		seen[tag.Key] = true
	}
	return nil
}

func valueOf(tag Tag) string {
	if tag.Value == nil {
		return ""
	}
	return *tag.Value
}

// firstConnectionOf reads imprint.FirstConnectionTag out of a request's tags;
// nil when it isn't there.
func firstConnectionOf(tags []Tag) (*imprint.FirstConnection, error) {
	for _, tag := range tags {
		if tag.Key != imprint.FirstConnectionTag {
			continue
		}
		value := imprint.FirstConnection(valueOf(tag))
		if value != imprint.FirstConnectionHold && value != imprint.FirstConnectionClose {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "tag %s has the value %q, it must be %s or %s",
				imprint.FirstConnectionTag, value, imprint.FirstConnectionHold, imprint.FirstConnectionClose)
		}
		return &value, nil
	}
	return nil, nil
}

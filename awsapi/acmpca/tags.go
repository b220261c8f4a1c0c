package acmpca

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
)

// maxTags bounds those of one authority.
const maxTags = 50

func checkTag(t tag) error {
	if strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
		return refuse("InvalidTagException", "The tag "+imprint.Excerpt(t.Key)+" begins with aws:, which is AWS's.")
	}
	return nil
}

// tagsOf reads the tags of a request; none are nil.
func tagsOf(list []tag) (map[string]string, error) {
	var tags map[string]string
	for _, t := range list {
		err := checkTag(t)
		if err != nil {
			return nil, err
		}
		if tags == nil {
			tags = map[string]string{}
		}
		_, twice := tags[t.Key]
		if twice {
			return nil, refuse("InvalidTagException", "The tag "+imprint.Excerpt(t.Key)+" is there twice.")
		}
		tags[t.Key] = text(t.Value)
	}
	return tags, nil
}

func (s *Service) editTags(ctx context.Context, caller awsapi.Caller, in *tagInput, edit func(map[string]string) error) (*nothing, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	_, err = s.Engine.Update(ctx, tenantOf(caller), id, ca.Edit{Tags: edit})
	return nil, err
}

func (s *Service) tag(ctx context.Context, caller awsapi.Caller, in *tagInput) (*nothing, error) {
	added, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	return s.editTags(ctx, caller, in, func(tags map[string]string) error {
		maps.Copy(tags, added)
		if len(tags) > maxTags {
			return refuse("TooManyTagsException", "A certificate authority has at most 50 tags.")
		}
		return nil
	})
}

// untag takes tags away; one that is named with a value only when it has that.
func (s *Service) untag(ctx context.Context, caller awsapi.Caller, in *tagInput) (*nothing, error) {
	return s.editTags(ctx, caller, in, func(tags map[string]string) error {
		for _, t := range in.Tags {
			if t.Value == nil || tags[t.Key] == *t.Value {
				delete(tags, t.Key)
			}
		}
		return nil
	})
}

// listTags gives tags by their keys; the token is the last key of a page.
func (s *Service) listTags(ctx context.Context, caller awsapi.Caller, in *listTagsInput) (*listTagsOutput, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	out := &listTagsOutput{Tags: []tag{}}
	for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
		if in.NextToken != nil && key <= *in.NextToken {
			continue
		}
		if in.MaxResults != nil && len(out.Tags) == *in.MaxResults {
			out.NextToken = out.Tags[len(out.Tags)-1].Key
			break
		}
		value := a.Tags[key]
		out.Tags = append(out.Tags, tag{Key: key, Value: &value})
	}
	return out, nil
}

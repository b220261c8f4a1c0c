package lambda

import (
	"context"
	"maps"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

func tagList(tags map[string]string) []imprint.Tag {
	list := make([]imprint.Tag, 0, len(tags))
	for key, value := range tags {
		list = append(list, imprint.Tag{Key: key, Value: value})
	}
	return list
}

// tagMap is the inverse of tagList; nil for none.
func tagMap(list []imprint.Tag) map[string]string {
	var tags map[string]string
	for _, tag := range list {
		if tags == nil {
			tags = map[string]string{}
		}
		tags[tag.Key] = tag.Value
	}
	return tags
}

func (s *Service) listTags(ctx context.Context, caller awsapi.Caller, in *TagsInput) (*TagsOutput, error) {
	name, err := oneLatest(tenantOf(caller), in.Resource)
	if err != nil {
		return nil, err
	}
	list, err := s.functions.Tags(ctx, tenantOf(caller), name)
	if err != nil {
		return nil, err
	}
	out := &TagsOutput{Tags: map[string]string{}}
	maps.Copy(out.Tags, tagMap(list))
	return out, nil
}

func (s *Service) tag(ctx context.Context, caller awsapi.Caller, in *TagInput) (*Nothing, error) {
	name, err := oneLatest(tenantOf(caller), in.Resource)
	if err != nil {
		return nil, err
	}
	return nil, s.functions.Tag(ctx, tenantOf(caller), name, tagList(in.Tags)...)
}

func (s *Service) untag(ctx context.Context, caller awsapi.Caller, in *UntagInput) (*Nothing, error) {
	name, err := oneLatest(tenantOf(caller), in.Resource)
	if err != nil {
		return nil, err
	}
	return nil, s.functions.Untag(ctx, tenantOf(caller), name, in.Keys...)
}

// codeSigning says that a function's code needs no signature. Terraform's provider can't read
// a function without this answer.
func (s *Service) codeSigning(ctx context.Context, caller awsapi.Caller, in *NameInput) (*CodeSigningOutput, error) {
	f, _, err := s.find(ctx, caller, in.FunctionName, nil)
	if err != nil {
		return nil, err
	}
	return &CodeSigningOutput{FunctionName: string(f.Name)}, nil
}

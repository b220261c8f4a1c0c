package functions_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// A function has its tags from its creation to its end, and the next of its name has none of
// them.
func TestTagsLastAsLongAsTheirFunction(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	hook := imprint.Function{Tenant: home, Name: "f", Runtime: functions.RuntimeWebhook, Handler: "https://hooks.example.com/f", Role: role,
		Environment: map[string]string{"IMPRINT_WEBHOOK_SECRET": "0123456789abcdef"}}
	want := func(what string, tags ...imprint.Tag) {
		t.Helper()
		got, err := h.Tags(t.Context(), home, "f")
		if err != nil || !slices.Equal(got, tags) {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, tags)
		}
	}
	create := func(tags ...imprint.Tag) error {
		_, err := h.Create(t.Context(), hook, nil, true, tags...)
		return err
	}
	if err := create(imprint.Tag{Key: "AWS:a", Value: "1"}); imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("a key that is AWS's: got %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(create(imprint.Tag{Key: "a", Value: "1"}, imprint.Tag{Key: "b", Value: "2"}))
	must(h.Tag(t.Context(), home, "f", imprint.Tag{Key: "a", Value: "3"}, imprint.Tag{Key: "c"}))
	must(h.Untag(t.Context(), home, "f", "b", "nothing"))
	want("changed", imprint.Tag{Key: "a", Value: "3"}, imprint.Tag{Key: "c"})
	var many []imprint.Tag
	for n := range imprint.MaxTagsPerResource {
		many = append(many, imprint.Tag{Key: fmt.Sprintf("key-%d", n)})
	}
	if err := h.Tag(t.Context(), home, "f", many...); imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("two tags too many: got %v", err)
	}
	must(h.Delete(t.Context(), home, "f", "1"))
	want("without a version", imprint.Tag{Key: "a", Value: "3"}, imprint.Tag{Key: "c"})
	must(h.Delete(t.Context(), home, "f", ""))
	for what, err := range map[string]error{
		"tagging": h.Tag(t.Context(), home, "f", imprint.Tag{Key: "a"}), "untagging": h.Untag(t.Context(), home, "f", "a"),
	} {
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			t.Errorf("%s what is gone: got %v", what, err)
		}
	}
	must(create())
	want("the next function of the name")
}

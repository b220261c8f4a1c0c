package main

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAllPagesOfAListAreRead ensures that pages come in their order, each with the
// token of the one before, that an empty page isn't the end, and that a failure leaves
// no part of a list.
func TestAllPagesOfAListAreRead(t *testing.T) {
	t.Parallel()
	broke := errors.New("the connection broke")
	for _, row := range []struct {
		name  string
		pages map[string][]int
		next  map[string]string
		fail  error
		want  []int
	}{
		{"one page", map[string][]int{"": {1, 2}}, nil, nil, []int{1, 2}},
		{"an empty one between", map[string][]int{"": {1}, "b": {2, 3}}, map[string]string{"": "a", "a": "b"}, nil, []int{1, 2, 3}},
		{"nothing", nil, nil, nil, []int{}},
		{"a failure after the first", map[string][]int{"": {1}}, map[string]string{"": "a"}, broke, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := allPages(func(token string) ([]int, string, error) {
				if token != "" && row.fail != nil {
					return nil, "", row.fail
				}
				return row.pages[token], row.next[token], nil
			})
			if diff := cmp.Diff(row.want, got); diff != "" || !errors.Is(err, row.fail) {
				t.Errorf("got %v, want %v; rows (-want +got):\n%s", err, row.fail, diff)
			}
		})
	}
}

package recheck

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// directories holds the names of directories in the CA's name constraints against the
// subject (RFC 5280 section 4.2.1.10), which crypto/x509 doesn't. It says whether there was
// nothing else in them that crypto/x509 doesn't know.
func (i *inspection) directories() bool {
	constraints, there := i.signer.extension(idConstraints)
	if !there {
		return true
	}
	permitted, excluded, err := readDirectories(constraints.value)
	if err != nil {
		i.wrong("its CA's name constraints can't be read: %v", err)
		return false
	}
	subject, err := readRelativeNames(i.c.subject)
	if err != nil {
		return true // subject tells
	}
	below := func(directory [][]attribute) bool { return isBelow(subject, directory) }
	if slices.ContainsFunc(excluded, below) || len(permitted) > 0 && !slices.ContainsFunc(permitted, below) {
		i.wrong("its subject isn't in a directory that its CA's name constraints permit")
	}
	return true
}

// readDirectories reads the directories of name constraints.
func readDirectories(value []byte) (permitted, excluded [][][]attribute, err error) {
	input := cryptobyte.String(value)
	var body cryptobyte.String
	if !input.ReadASN1(&body, tag.SEQUENCE) || !input.Empty() {
		return nil, nil, errors.New("they aren't a sequence")
	}
	for n, into := range []*[][][]attribute{&permitted, &excluded} {
		var trees cryptobyte.String
		if !body.ReadOptionalASN1(&trees, nil, tag.Tag(n).ContextSpecific().Constructed()) {
			return nil, nil, errors.New("a list of them can't be read")
		}
		for !trees.Empty() {
			var tree, name cryptobyte.String
			var kind tag.Tag
			if !trees.ReadASN1(&tree, tag.SEQUENCE) || !tree.ReadAnyASN1(&name, &kind) || !tree.Empty() {
				return nil, nil, errors.New("one has distances, or can't be read")
			}
			switch kind {
			case tag.Tag(4).ContextSpecific().Constructed():
				directory, err := readRelativeNames(name)
				if err != nil {
					return nil, nil, err
				}
				*into = append(*into, directory)
			case tag.Tag(1).ContextSpecific(), tag.Tag(2).ContextSpecific(), tag.Tag(6).ContextSpecific(), tag.Tag(7).ContextSpecific():
			default:
				return nil, nil, errors.New("one is of names of another kind")
			}
		}
	}
	return permitted, excluded, nil
}

// isBelow says whether a name begins with another, without regard to case and to how much
// space there is (RFC 5280 section 7.1).
func isBelow(name, directory [][]attribute) bool {
	if len(name) < len(directory) {
		return false
	}
	for n, want := range directory {
		if len(name[n]) != len(want) {
			return false
		}
		for _, one := range want {
			if !slices.ContainsFunc(name[n], func(a attribute) bool { return a.id == one.id && plain(a.value) == plain(one.value) }) {
				return false
			}
		}
	}
	return true
}

func plain(value string) string { return strings.ToLower(strings.Join(strings.Fields(value), " ")) }

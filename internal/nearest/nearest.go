// Package nearest finds the name that somebody meant who wrote another. Capitals
// don't count. It looks at no word that is longer than any name could be, so text
// from outside costs little.
package nearest

import "strings"

// longest is how long a word may be, in bytes.
const longest = 64

// Name gives the name with the smallest distance to what was written, the first of
// several, or "" when none is close enough to be meant: half of the word must stay.
func Name(written string, names []string) string {
	if len(written) > longest {
		return ""
	}
	best, bestDistance := "", len(written)/2+1
	for _, name := range names {
		d := Distance(written, name)
		if d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// Distance is the Levenshtein distance of two words in bytes, capitals aside: how many
// must be put in, taken away or changed. Callers bound the lengths, as its time is
// their product.
func Distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

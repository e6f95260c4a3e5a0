// Package nearest suggests the known words that a misspelled word was probably meant to be.
//
// Package space and the configuration file use Key for configuration keys. Package people uses Names for user names. The
// two rules differ: a key has at most one suggestion and is compared without case and separators, while a name has up to
// three suggestions, which include completions.
package nearest

import (
	"slices"
	"strings"
)

// EditDistance is the number of bytes to insert, delete or replace on the way from a to b (Levenshtein distance).
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances from the first i bytes of a to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// maxTypos is the largest edit distance of a suggestion.
const maxTypos = 2

// Key returns the known key that key was probably meant to be, "" if there is none. Keys are equal apart from case, dashes
// and underscores, or within maxTypos. Short keys allow only one typo, or half of all words would be near "sdk".
func Key(key string, known []string) string {
	best, bestTypos := "", maxTypos+1
	for _, other := range known {
		typos := keyDistance(normalizeKey(key), normalizeKey(other))
		if typos < bestTypos && (typos == 0 || typos <= len(other)/4) {
			best, bestTypos = other, typos
		}
	}
	return best
}

func normalizeKey(key string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(key))
}

// keyDistance is EditDistance without the work for keys whose lengths alone differ by more than maxTypos.
func keyDistance(a, b string) int {
	if far := max(len(a)-len(b), len(b)-len(a)); far > maxTypos {
		return far
	}
	return EditDistance(a, b)
}

// maxNames bounds the suggestions of Names.
const maxNames = 3

// Names returns the known names that name was probably meant to be, the most likely first.
func Names(name string, known []string) []string {
	name = strings.ToLower(name)
	byTypos := make([][]string, maxTypos+2)
	for _, other := range known {
		if i, similar := similarity(name, other); similar {
			byTypos[i] = append(byTypos[i], other)
		}
	}
	found := slices.Concat(byTypos...)
	return found[:min(len(found), maxNames)]
}

// similarity returns the edit distance of similar names, or maxTypos+1 if name is a prefix of other.
func similarity(name, other string) (typos int, similar bool) {
	if len(name) == 0 || len(name) > len(other)+maxTypos {
		return 0, false
	}
	typos = EditDistance(name, other)
	if typos <= maxTypos && typos < len(name) { // otherwise any two names of two letters were similar
		return typos, true
	}
	return maxTypos + 1, strings.HasPrefix(other, name)
}

package build

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Releases are versions of the two packages that spacehost depends on.
type Releases struct{ Gradio, Spaces string }

// NewestTested are the newest releases that the tests run with. `make next` runs them with newer ones, pre-releases
// included (docs/next.txt). Raise a version here together with that of the tests (cmd/spacehost, gradios and
// newSpacesRequirement).
var NewestTested = Releases{Gradio: "6.31.0", Spaces: "0.52.0.dev3"}

// untestedWarning returns one sentence if env has a release that is newer than NewestTested, else "".
func untestedWarning(env *Environment) string {
	var newer, tested []string
	for _, p := range []struct{ name, has, tested string }{
		{"gradio", env.Gradio, NewestTested.Gradio}, {"spaces", env.Spaces, NewestTested.Spaces},
	} {
		if isNewer(p.has, p.tested) {
			newer, tested = append(newer, p.name+" "+p.has), append(tested, p.name+" "+p.tested)
		}
	}
	verb, noun := "is", "release"
	switch len(newer) {
	case 0:
		return ""
	case 2:
		verb, noun = "are", "releases"
	}
	return fmt.Sprintf("%s %s newer than the newest %s that spacehost is tested with (%s); if calls fail, pin the tested %s in README.md (sdk_version) or requirements.txt",
		strings.Join(newer, " and "), verb, noun, strings.Join(tested, ", "), noun)
}

var versionPattern = lazyregexp.New(`^(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?(?:\+.*)?$`)

// isNewer reports whether version a is newer than b, in the order of PEP 440 without epochs. A version that does not have
// that form is not newer.
func isNewer(a, b string) bool {
	keyA, keyB := versionKey(a), versionKey(b)
	if keyA == nil || keyB == nil {
		return false
	}
	return slices.Compare(keyA, keyB) > 0
}

// releaseParts is the number of parts of a version that count, such as 3 for 6.31.0.
const releaseParts = 6

// versionKey returns numbers that order like the version; nil without the form of PEP 440.
func versionKey(version string) []int {
	m := versionPattern.FindStringSubmatch(version)
	if m == nil {
		return nil
	}
	parts := strings.Split(m[1], ".")
	key := make([]int, releaseParts)
	for i := range min(len(parts), releaseParts) {
		key[i] = number(parts[i])
	}
	const none = 1 << 30
	phase := map[string]int{"a": 1, "b": 2, "rc": 3, "": 4}[m[2]]
	if m[2] == "" && m[4] == "" && m[5] != "" { // 1.0.dev1 is older than 1.0a1
		phase = 0
	}
	post, dev := -1, none
	if m[4] != "" {
		post = number(m[4])
	}
	if m[5] != "" {
		dev = number(m[5])
	}
	return append(key, phase, number(m[3]), post, dev)
}

func number(digits string) int {
	n, _ := strconv.Atoi(digits) // "" is 0; the pattern admits digits only
	return n
}

package build

import (
	"fmt"
	"slices"
	"strconv"

	"spacehost/internal/lazyregexp"
)

// oldestSpaces is the oldest release of the spaces package that works with each Gradio, newest Gradio first. It is the
// only place that holds these versions: a test compares the pages with it. The versions were found by calls of
// functions and generators in November 2026, with gradio 6.31.0, 5.49.1 and 4.44.1.
//
//   - Gradio 5.43 removed the default of LocalContext.progress. Before spaces 0.40.1 every GPU call then fails with
//     LookupError, on the Hub too (spaces/zero/gradio.py).
//   - Before spaces 0.28 the package has other internals than the runner patches; 0.20 fails at import.
var oldestSpaces = []struct{ gradio, spaces string }{
	{"5.43", "0.40.1"},
	{"0", "0.28.0"},
}

// checkSpaces refuses a release of spaces whose GPU functions would fail with this Gradio.
func (j *job) checkSpaces(step string, env *Environment) error {
	oldest := oldestSpacesFor(env.Gradio)
	if !older(env.Spaces, oldest) {
		return nil
	}
	return &Error{Step: step, LogPath: j.output.path,
		Problem: fmt.Sprintf("spaces %s does not work with gradio %s here; the oldest release that works is %s", env.Spaces, env.Gradio, oldest),
		Hint:    fmt.Sprintf("require spaces>=%s in requirements.txt, or remove its version there", oldest)}
}

func oldestSpacesFor(gradio string) string {
	for _, row := range oldestSpaces {
		if !older(gradio, row.gradio) {
			return row.spaces
		}
	}
	return ""
}

var numbers = lazyregexp.New(`\d+`)

// older compares the first three numbers of two versions. A missing number is 0.
func older(version, than string) bool {
	return slices.Compare(firstThree(version), firstThree(than)) < 0
}

func firstThree(version string) []int {
	three := make([]int, 3)
	for i, text := range numbers.FindAllString(version, 3) {
		three[i], _ = strconv.Atoi(text) // a number that overflows is compared as the largest int
	}
	return three
}

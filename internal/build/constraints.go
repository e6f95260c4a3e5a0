package build

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"spacehost/internal/lazyregexp"
)

//go:embed constraints/*.txt
var constraintFiles embed.FS

// release is a version reduced to major and minor.
type release struct{ major, minor int }

func (r release) before(other release) bool {
	return r.major < other.major || r.major == other.major && r.minor < other.minor
}

// constrained lists the Gradio releases that need constraints to be installable today, oldest first. Releases before
// `until` get the constraints. Unless the author chooses a Python, they get none newer than newestPython (Gradio 4
// needs audioop, which Python 3.13 removed).
var constrained = []struct {
	until        release
	constraints  string
	newestPython release
}{
	{release{5, 0}, "gradio-4.txt", release{3, 12}},
	{release{5, 7}, "gradio-5.0.txt", release{3, 12}},
	{release{5, 24}, "gradio-5.7.txt", release{3, 13}},
}

// constraintsFor returns the constraints for this version of Gradio, and the newest Python that it supports. An
// unknown version ("": the newest) has none.
func constraintsFor(gradio string) (constraints []byte, newestPython release) {
	version, ok := parseRelease(gradio)
	if !ok {
		return nil, release{}
	}
	for _, l := range constrained {
		if version.before(l.until) {
			text, err := constraintFiles.ReadFile("constraints/" + l.constraints)
			if err != nil {
				panic(err) // the file is embedded: the first test finds a wrong name
			}
			return text, l.newestPython
		}
	}
	return nil, release{}
}

// constraintWarnings warns about the packages that this Gradio's constraints keep at an older version, unless the
// author names all of them.
func (in inputs) constraintWarnings() []string {
	held, named := []string{}, map[string]bool{}
	for _, r := range parseRequirements(in.Files[requirements]) {
		named[r.name] = true
	}
	for _, r := range parseRequirements(string(in.Constraints)) {
		if !named[r.name] {
			held = append(held, r.text)
		}
	}
	if len(held) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("gradio %s does not work with the newest versions of its dependencies, so %s is installed; add that to requirements.txt too, so that the Space also builds elsewhere", in.Gradio, strings.Join(held, ", "))}
}

var releasePattern = lazyregexp.New(`^(\d+)\.(\d+)`)

func parseRelease(version string) (release, bool) {
	found := releasePattern.FindStringSubmatch(version)
	if found == nil {
		return release{}, false
	}
	major, err1 := strconv.Atoi(found[1])
	minor, err2 := strconv.Atoi(found[2])
	return release{major, minor}, err1 == nil && err2 == nil
}

package build

import (
	"embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

//go:embed constraints/*.txt
var constraintFiles embed.FS

// release is a version as far as it matters here: major and minor.
type release struct{ major, minor int }

func (r release) before(other release) bool {
	return r.major < other.major || r.major == other.major && r.minor < other.minor
}

// lines are the Gradio lines that need help to be installed today, oldest first: those before `until` get
// the constraints and, where the author leaves the choice, no newer Python than they were made for
// (Gradio 4 needs audioop, which Python 3.13 dropped).
var lines = []struct {
	until        release
	constraints  string
	newestPython release
}{
	{release{5, 0}, "gradio-4.txt", release{3, 12}},
	{release{5, 7}, "gradio-5.0.txt", release{3, 12}},
	{release{5, 24}, "gradio-5.7.txt", release{3, 13}},
}

// constraintsFor returns what must hold beside this version of Gradio, and the newest Python it likes.
// A version that is not known ("": the newest) needs nothing.
func constraintsFor(gradio string) (constraints []byte, newestPython release) {
	version, ok := parseRelease(gradio)
	if !ok {
		return nil, release{}
	}
	for _, l := range lines {
		if version.before(l.until) {
			text, err := constraintFiles.ReadFile("constraints/" + l.constraints)
			if err != nil {
				panic(err) // the file is embedded: a wrong name here is found by the first test
			}
			return text, l.newestPython
		}
	}
	return nil, release{}
}

// heldBack names what this Gradio's constraints keep older than today's, unless the author has named it all.
func (in inputs) heldBack() []string {
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
	return []string{fmt.Sprintf("gradio %s breaks with the newest of what it is made of, so it gets %s; write that into requirements.txt too, for wherever else the Space is built", in.Gradio, strings.Join(held, ", "))}
}

var releasePattern = regexp.MustCompile(`^(\d+)\.(\d+)`)

func parseRelease(version string) (release, bool) {
	found := releasePattern.FindStringSubmatch(version)
	if found == nil {
		return release{}, false
	}
	major, err1 := strconv.Atoi(found[1])
	minor, err2 := strconv.Atoi(found[2])
	return release{major, minor}, err1 == nil && err2 == nil
}

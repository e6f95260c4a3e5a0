package check

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Pins are what an environment contains: its Python and the version of each package, by normalized name.
//
// Their file is a list in the format of `pip freeze`, with the Python in a comment, so that pip can install it. ReadPins also
// reads the output of `pip freeze`, and of an installation in the build log of a Space on the Hub.
type Pins struct {
	Python   string // such as 3.10.13; empty: not known
	Packages map[string]string
}

// lockPython begins the line of the Python.
const lockPython = "# python "

var (
	distInfo   = lazyregexp.New(`^([A-Za-z0-9][A-Za-z0-9._]*)-([^-]+)\.dist-info$`)
	notInName  = lazyregexp.New(`[-_.]+`)
	pinnedLine = lazyregexp.New(`^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*===?\s*([^\s;]+)`)
	direct     = lazyregexp.New(`^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s+@\s+(\S+)`)
	installed  = lazyregexp.New(`Successfully installed ((?:\S+-\S+ ?)+)`)
	byUV       = lazyregexp.New(`(?:^|\s)\+ ([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)`)
	nameOf     = lazyregexp.New(`^(.+)-([0-9][^-]*)$`)
	pythonLine = lazyregexp.New(`\bPython (3\.\d+(?:\.\d+)?)\b`)
)

// packageName normalizes a name as PyPI does (PEP 503).
func packageName(name string) string { return strings.ToLower(notInName.ReplaceAllString(name, "-")) }

// PinsOf reads which packages an environment contains, from the names of its folders: no code of a package runs. python is the
// path of its interpreter, and version that of the Python.
func PinsOf(python, version string) (*Pins, error) {
	home := filepath.Dir(filepath.Dir(python))
	folders, _ := filepath.Glob(filepath.Join(home, "lib", "python3*", "site-packages")) // the pattern is well formed
	if len(folders) != 1 {
		return nil, fmt.Errorf("%s is not the Python of an environment: no lib/python3.*/site-packages beside it", python)
	}
	entries, err := os.ReadDir(folders[0])
	if err != nil {
		return nil, fmt.Errorf("read the packages of the environment: %w", err)
	}
	l := &Pins{Python: version, Packages: map[string]string{}}
	for _, entry := range entries {
		if found := distInfo.FindStringSubmatch(entry.Name()); found != nil {
			l.Packages[packageName(found[1])] = found[2]
		}
	}
	return l, nil
}

// Write writes the file of the Pins.
func (l *Pins) Write(w io.Writer) error {
	var text strings.Builder
	text.WriteString("# written by spacehost check --write-lock\n")
	if l.Python != "" {
		text.WriteString(lockPython + l.Python + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(l.Packages)) {
		fmt.Fprintf(&text, "%s==%s\n", name, l.Packages[name])
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// ReadPins reads the file of Pins, the output of `pip freeze`, or a build log. Of a package that is named several times, the
// last version counts: a build installs in several steps. A text without any package is an error.
func ReadPins(r io.Reader) (*Pins, error) {
	l := &Pins{Packages: map[string]string{}}
	lines := bufio.NewScanner(io.LimitReader(r, maxLock))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l.read(strings.TrimSpace(lines.Text()))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(l.Packages) == 0 {
		return nil, fmt.Errorf("it names no package; give a file of --write-lock, the output of pip freeze, or a build log")
	}
	return l, nil
}

// maxLock bounds what is read of a file: a build log is a few megabytes at most.
const maxLock = 64 << 20

func (l *Pins) read(line string) {
	if version, ok := strings.CutPrefix(line, lockPython); ok {
		l.Python = version
		return
	}
	for _, rule := range []*lazyregexp.Regexp{pinnedLine, direct} {
		if found := rule.FindStringSubmatch(line); found != nil {
			l.Packages[packageName(found[1])] = found[2]
			return
		}
	}
	if found := installed.FindStringSubmatch(line); found != nil {
		for _, one := range strings.Fields(found[1]) {
			if parts := nameOf.FindStringSubmatch(one); parts != nil {
				l.Packages[packageName(parts[1])] = parts[2]
			}
		}
		return
	}
	if found := byUV.FindStringSubmatch(line); found != nil {
		l.Packages[packageName(found[1])] = found[2]
	} else if found := pythonLine.FindStringSubmatch(line); found != nil && l.Python == "" {
		l.Python = found[1]
	}
}

// Drift is a difference between Pins and an environment. A version is empty where the package is missing.
type Drift struct {
	Name        string `json:"name"` // of a package, or "python"
	Pinned, Now string
}

// leading are the packages that decide most about a Space on ZeroGPU. Drift lists them first.
var leading = []string{"python", "gradio", "spaces", "torch"}

// Compare lists what differs in now, the leading packages first.
func (l *Pins) Compare(now *Pins) (all []Drift) {
	names := maps.Clone(l.Packages)
	maps.Copy(names, now.Packages)
	if l.Python != "" && now.Python != "" && l.Python != now.Python && !strings.HasPrefix(now.Python, l.Python+".") {
		all = append(all, Drift{"python", l.Python, now.Python})
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before, after := l.Packages[name], now.Packages[name]; before != after {
			all = append(all, Drift{name, before, after})
		}
	}
	slices.SortStableFunc(all, func(a, b Drift) int { return rank(a.Name) - rank(b.Name) })
	return all
}

func rank(name string) int {
	if at := slices.Index(leading, name); at >= 0 {
		return at
	}
	return len(leading)
}

package space

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/lazyregexp"
)

// What ZeroGPU has (hub-docs, spaces-zerogpu.md, "Supported Versions").
var (
	zeroPythons = []string{"3.10.13", "3.12.12"}
	zeroTorches = []string{"2.8.0", "2.9.1", "2.10.0", "2.11.0"}
)

const (
	requirementsName = "requirements.txt"
	packagesName     = "packages.txt"
)

// checkPython warns about an unquoted number, and a Python that ZeroGPU does not have.
func (m *frontMatter) checkPython(key Key, value *yaml.Node) {
	unquoted(UnquotedPython)(m, key, value)
	text := value.Value
	zero := slices.ContainsFunc(zeroPythons, func(p string) bool {
		return p == text || strings.HasPrefix(p, text+".") && strings.Count(text, ".") == 1
	})
	if !zero && pythonVersion.MatchString(text) {
		m.warn(OtherPython, m.line(key.Name), key.Name, fmt.Sprintf("ZeroGPU has no Python %s: it has %s", text, strings.Join(zeroPythons, " and ")), `write python_version: "3.12" or "3.10"`)
	}
}

// checkMissingPython warns that the Hub and this machine choose different versions.
func (m *frontMatter) checkMissingPython() {
	if m.value("python_version") == nil && len(m.fields) > 0 {
		m.warn(OtherPython, 0, "python_version", "README.md has no python_version: the Hub takes 3.10, spacehost the python3 of this machine", `write python_version: "3.10" or "3.12"`)
	}
}

// requirementLine matches a line that bounds a package: its name, extras, and the comma-separated bounds.
var requirementLine = lazyregexp.New(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*((?:===|==|~=|!=|<=|>=|<|>)[^;#]+)`)

// boundedRequirement is a line of a requirements.txt with bounds.
type boundedRequirement struct {
	line   int
	name   string // in lower case, with dashes (PEP 503)
	text   string // as written
	bounds []string
}

// boundedRequirements leaves out URLs, markers and included files.
func boundedRequirements(requirements []byte) (all []boundedRequirement) {
	for i, line := range strings.Split(unixLines(requirements), "\n") {
		line = strings.TrimSpace(line)
		if marked, _, _ := strings.Cut(line, " #"); strings.Contains(marked, ";") { // an environment marker, such as sys_platform == "darwin"
			continue
		}
		if found := requirementLine.FindStringSubmatch(line); found != nil {
			name := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(found[1]))
			all = append(all, boundedRequirement{i + 1, name, line, strings.Split(strings.ReplaceAll(found[2], " ", ""), ",")})
		}
	}
	return all
}

// requirementName matches the name at the beginning of a requirement, with or without bounds, markers or an address.
var requirementName = lazyregexp.New(`^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(?:$|[;#@=~!<>(,])`)

// Unmet returns what the Space in a folder asks for and an environment does not have: gradio at another version than that of
// README.md or of gradio, unless that is empty, and lines of requirements.txt. installed are versions by normalized name (PEP 503).
// Lines with a marker are left out. What cannot be compared, such as an included file or a repository, is unmet.
func Unmet(dir, gradio string, installed map[string]string) (all []string) {
	if c, err := CheckDir(dir); err == nil && gradio == "" && c.Space != nil {
		gradio = c.Space.SDKVersion
	}
	if gradio != "" && installed["gradio"] != gradio {
		all = append(all, "gradio "+gradio)
	}
	requirements, _ := readText(dir, requirementsName) // the build reports a file that cannot be read
	bounded := map[int]boundedRequirement{}
	for _, r := range boundedRequirements(requirements) {
		bounded[r.line] = r
	}
	for i, line := range strings.Split(unixLines(requirements), "\n") {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
		if line == "" || strings.HasPrefix(line, "#") || strings.Contains(line, ";") || isIndexOption(line) {
			continue
		}
		found := requirementName.FindStringSubmatch(line)
		if found == nil {
			all = append(all, line)
			continue
		}
		version, has := installed[strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(found[1]))]
		if r, ok := bounded[i+1]; !has || ok && r.name != "gradio" && !allows(r.bounds, version) {
			all = append(all, line)
		}
	}
	return all
}

// isIndexOption reports whether a line names where packages come from, and none of them.
func isIndexOption(line string) bool {
	return strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "-r") && !strings.HasPrefix(line, "--requirement") && !strings.HasPrefix(line, "-e") && !strings.HasPrefix(line, "--editable")
}

// CheckRequirements warns about lines of a requirements.txt that exclude every torch that ZeroGPU has. nil means a missing
// file. URLs, markers and included files are not examined.
func CheckRequirements(requirements []byte) (findings []Finding) {
	for _, r := range boundedRequirements(requirements) {
		fits := func(version string) bool { return allows(r.bounds, version) }
		if r.name == "torch" && !slices.ContainsFunc(zeroTorches, fits) {
			findings = append(findings, Finding{Code: TorchExcluded, File: requirementsName, Line: r.line, Hub: torchRefused,
				Problem: fmt.Sprintf("ZeroGPU has no torch that fits %q: it has %s", r.text, strings.Join(zeroTorches, ", ")),
				Fix:     "choose one of these"})
		}
	}
	return findings
}

// checkPins finds lines about packages that the Hub's build installs itself. gradio is what README.md says.
func checkPins(requirements []byte, gradio string) (findings []Finding) {
	for _, r := range boundedRequirements(requirements) {
		pinned := strings.HasPrefix(r.bounds[0], "==")
		switch {
		case r.name == "gradio" && releaseNumbers.MatchString(gradio) && !allows(r.bounds, gradio):
			findings = append(findings, Finding{Code: GradioPinned, File: requirementsName, Line: r.line,
				Problem: fmt.Sprintf("%q excludes gradio %s, the sdk_version in README.md, which the build installs too", r.text, gradio),
				Fix:     "remove the line, and set sdk_version alone"})
		case (r.name == "spaces" || r.name == "huggingface-hub") && pinned:
			findings = append(findings, Finding{Code: PackagePinned, File: requirementsName, Line: r.line, Note: true,
				Problem: fmt.Sprintf("%q pins %s", r.text, r.name)})
		}
	}
	return findings
}

var releaseNumbers = lazyregexp.New(`^\d+(\.\d+)*$`)

// torchRefused are ZeroGPU's words for such a line, with stage CONFIG_ERROR, as quoted in public issues.
const torchRefused = "torch version in requirements.txt is not compatible with ZeroGPU"

// refusal returns the first of these findings as the *ConfigError with which ZeroGPU stops a Space; nil without one.
func refusal(findings []Finding) error {
	if len(findings) == 0 {
		return nil
	}
	f := findings[0]
	return &ConfigError{Code: TorchExcluded, Problem: fmt.Sprintf("%s (%s line %d: %s)", torchRefused, f.File, f.Line, f.Problem), Next: f.Fix}
}

var bound = lazyregexp.New(`^(===|==|~=|!=|<=|>=|<|>)v?([0-9]+(?:\.[0-9]+)*)(\.\*)?([^,]*)$`)

// allows reports whether a release fits all bounds (PEP 440). A bound of another form, such as a pre-release, is taken as
// one that fits: no warning is better than a wrong one. Local versions (2.8.0+cu126) are ignored, as in PEP 440.
func allows(bounds []string, version string) bool {
	for _, text := range bounds {
		found := bound.FindStringSubmatch(text)
		if found == nil || found[4] != "" && !strings.HasPrefix(found[4], "+") {
			continue
		}
		if !fits(found[1], found[2], found[3] != "", version) {
			return false
		}
	}
	return true
}

// fits compares version with one bound. wild is set for ==2.8.*.
func fits(operator, limit string, wild bool, version string) bool {
	order := slices.Compare(numbers(version), numbers(limit))
	prefix := strings.HasPrefix(version+".", limit+".")
	switch operator {
	case "==", "===":
		return order == 0 || wild && prefix
	case "!=":
		return order != 0 && !(wild && prefix)
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	parent := limit[:max(0, strings.LastIndex(limit, "."))] // ~=2.8.0 is >=2.8.0, ==2.8.*
	return order >= 0 && strings.HasPrefix(version+".", parent+".")
}

// numbers returns the parts of a release, without trailing zeros: 2.8 and 2.8.0 are equal.
func numbers(version string) (parts []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part) // the pattern has checked it
		parts = append(parts, n)
	}
	for len(parts) > 0 && parts[len(parts)-1] == 0 {
		parts = parts[:len(parts)-1]
	}
	return parts
}

package build

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// failure is a step that failed, with all that helps to say why.
type failure struct {
	step
	raw    string // the end of the tool's output
	said   string // the same in one line, without the boxes that uv and pip draw
	dir    string // Config.Dir
	python string // its version
	gradio string // the version asked for; empty: the newest
	pins   bool   // README.md pins that version
	text   string // of step.file
	lines  []requirement
	held   []requirement // by our constraints for that version
	err    error
}

// explain turns the failure of a step into an *Error with one sentence.
func (j *job) explain(s step, err error) error {
	f := failure{step: s, dir: j.dir, python: j.python.Version, gradio: j.inputs.Gradio, pins: j.spec.Gradio != "",
		text: j.inputs.Files[s.file], err: err}
	f.lines, f.held = parseRequirements(f.text), parseRequirements(string(j.inputs.Constraints))
	if tool, ok := errors.AsType[*toolError](err); ok {
		f.raw = tool.output
		f.said = flatten(tool.output)
	}
	problem, hint := f.reason()
	return &Error{Step: s.text, Problem: problem, Hint: hint, LogPath: j.output.path, Tail: lastLines(f.raw), Err: err}
}

// reason asks each rule, the ones about the machine first: without a network every package is "not found".
// The patterns were taken from uv 0.5.0 and 0.13.8 and from pip 23.0 and 26.3; testdata/said has what they said.
func (f failure) reason() (problem, hint string) {
	rules := []func(failure) (string, string, bool){
		failure.diskFull, failure.untrusted, failure.refused, failure.unreachable,
		failure.noVenv, failure.noGit, failure.gitFailed,
		failure.syntax, failure.noFile, failure.notText,
		failure.otherPython, failure.noWheel, failure.noPackage, failure.noVersion, failure.conflict,
		failure.notBuilt, failure.notImported,
	}
	for _, rule := range rules {
		if problem, hint, ok := rule(f); ok {
			return problem, hint
		}
	}
	return fmt.Sprintf("%s failed: %s", f.step.text, f.lastWord()), "read the log for the reason"
}

// lastWord is the line that most likely says why: the last one that claims to be an error, else the last.
func (f failure) lastWord() string {
	lines := lastLines(f.raw)
	if len(lines) == 0 {
		return f.err.Error()
	}
	last := lines[len(lines)-1]
	for _, line := range lines {
		if errorLine.MatchString(line) {
			last = line
		}
	}
	return strings.TrimSpace(last)
}

var (
	errorLine = regexp.MustCompile(`(?i)^\s*(error|fatal)\b|Error: `)
	boxes     = strings.NewReplacer("│", " ", "╰─▶", " ", "├─▶", " ", "╰─>", " ", "×", " ")
)

func flatten(output string) string {
	return strings.Join(strings.Fields(boxes.Replace(output)), " ")
}

// match returns the groups of the first pattern that fits what was said.
func (f failure) match(patterns ...*regexp.Regexp) ([]string, bool) {
	for _, p := range patterns {
		if found := p.FindStringSubmatch(f.said); found != nil {
			return found, true
		}
	}
	return nil, false
}

// in names the file at fault, for the start of a sentence.
func (f failure) in() string { return orElse(f.file, f.step.text) }

// ours reports whether the name is of the SDK's step, where README.md is to blame and not a requirement.
func (f failure) ours(name string) bool { return f.file == "README.md" && normal(name) == "gradio" }

// written returns the requirement as the author wrote it, where the tool gives a normalized one.
func (f failure) written(said string) string {
	for _, r := range f.lines {
		if r.name == normal(requirementName.FindString(said)) {
			return r.text
		}
	}
	return said
}

func (f failure) diskFull() (string, string, bool) {
	problem, hint := full(f.dir)
	return problem, hint, isFull(f.raw+f.err.Error(), f.dir)
}

var badCertificate = regexp.MustCompile(`CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer`)

func (f failure) untrusted() (string, string, bool) {
	_, ok := f.match(badCertificate)
	return "the certificate of the package index is not trusted here",
		"set SSL_CERT_FILE to a file with your organisation's certificates", ok
}

var statusOf = []*regexp.Regexp{
	regexp.MustCompile(`HTTP status (?:client|server) error \((\d+[^)]*)\) for url \(([^)]*)\)`),
	regexp.MustCompile(`HTTP error (\d+) while getting (\S+)`),
	regexp.MustCompile(`(\d+ (?:Client|Server) Error): .*? for url: (\S+)`),
}

func (f failure) refused() (string, string, bool) {
	m, ok := f.match(statusOf...)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: %s answered %q", f.in(), hostOf(m[2]), m[1]), "correct that address, or what signs you in there", true
}

var (
	unreachableHost = []*regexp.Regexp{
		regexp.MustCompile("(?:Failed to fetch|error sending request for url)[: (`]+([^`) ]+)"),
		regexp.MustCompile(`connection broken by .*?host='([^']+)'`),
		regexp.MustCompile(`Could not install packages due to an OSError: HTTPS?ConnectionPool\(host='([^']+)'`),
	}
	// What pip says when its last attempt begins (an attempt that then fails in silence), and uv's reasons.
	gaveUp = regexp.MustCompile(`Retry\(total=0|Max retries exceeded|error sending request|client error \(Connect\)|dns error|operation timed out|could not connect`)
)

func (f failure) unreachable() (string, string, bool) {
	if _, ok := f.match(gaveUp); !ok {
		return "", "", false
	}
	what := "the package index"
	if m, ok := f.match(unreachableHost...); ok {
		what = hostOf(m[1])
	}
	return fmt.Sprintf("%s: %s cannot be reached", f.in(), what),
		"check the network, and HTTPS_PROXY, UV_DEFAULT_INDEX and PIP_INDEX_URL where they are set", true
}

func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}

var venvMissing = regexp.MustCompile(`ensurepip is not available|No module named '?"?(?:venv|ensurepip|pip)\b`)

func (f failure) noVenv() (string, string, bool) {
	_, ok := f.match(venvMissing)
	return "this machine's Python has no venv or no pip", "install them (on Debian: apt install python3-venv), or install uv", ok
}

var gitMissing = regexp.MustCompile(`Git executable not found|cannot find binary path|Cannot find command 'git'`)

func (f failure) noGit() (string, string, bool) {
	_, ok := f.match(gitMissing)
	return f.in() + ": a package comes from git, which is not installed", "install git", ok
}

var gitSaid = regexp.MustCompile(`(?:Git operation failed|git (?:clone|fetch|checkout)).*?(fatal: .*?)(?: error: subprocess| × |$)`)

func (f failure) gitFailed() (string, string, bool) {
	if !strings.Contains(f.said, "Git operation failed") && !strings.Contains(f.said, "git clone") {
		return "", "", false
	}
	m, ok := f.match(gitSaid)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: git failed (%s)", f.in(), m[1]), "correct the repository's address, or your access to it", true
}

var (
	uvSyntax  = regexp.MustCompile("Couldn't parse requirement in `([^`]+)` at position (\\d+)")
	pipSyntax = regexp.MustCompile(`Invalid requirement: (?:'([^']+)'|"([^"]+)").*? \(from line \d+ of ([^)]+)\)`)
)

func (f failure) syntax() (string, string, bool) {
	const hint = "correct that line"
	if m, ok := f.match(uvSyntax); ok {
		return fmt.Sprintf("%s: %q is not a requirement", filepath.Base(m[1]), f.lineAt(m[2])), hint, true
	}
	if m, ok := f.match(pipSyntax); ok && !strings.Contains(f.said, "looks like a path") {
		return fmt.Sprintf("%s: %q is not a requirement", filepath.Base(m[3]), m[1]+m[2]), hint, true
	}
	return "", "", false
}

// lineAt returns the line of the file at uv's position, which counts bytes.
func (f failure) lineAt(position string) string {
	n, err := strconv.Atoi(position)
	if err != nil || n > len(f.text) {
		return "line at " + position
	}
	begin := strings.LastIndexByte(f.text[:n], '\n') + 1
	line, _, _ := strings.Cut(f.text[begin:], "\n")
	return strings.TrimSpace(line)
}

var fileMissing = []*regexp.Regexp{
	regexp.MustCompile("failed to read from file `([^`]+)`"),
	regexp.MustCompile(`Could not open requirements file: .*?: '([^']+)'`),
	regexp.MustCompile(`Distribution not found at: file://(\S+)`),
	regexp.MustCompile(`It looks like a path\. File '([^']+)' does not exist`),
	regexp.MustCompile(`Invalid requirement: '([^']+)'.*It looks like a path`),
}

func (f failure) noFile() (string, string, bool) {
	m, ok := f.match(fileMissing...)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s names the file %q, which is not in the Space", f.in(), filepath.Base(m[1])), "add it, or correct that line", true
}

var notUTF8 = regexp.MustCompile(`stream did not contain valid UTF-8|UnicodeDecodeError`)

func (f failure) notText() (string, string, bool) {
	_, ok := f.match(notUTF8)
	return f.in() + " is not UTF-8 text", "save it as UTF-8", ok && f.file != ""
}

var needsPython = regexp.MustCompile(`does not satisfy Python(\S+) and (\S+) depends on Python`)

func (f failure) otherPython() (string, string, bool) {
	what, needs := "", ""
	if m, ok := f.match(needsPython); ok {
		what, needs = m[2], m[1]
	} else if what, needs, ok = f.pipNeedsPython(); !ok {
		return "", "", false
	}
	hint := "change its version, or python_version in README.md"
	return fmt.Sprintf("%s: %q needs Python %s, and the Space has %s", f.in(), f.written(what), needs, f.python), hint, true
}

var pipNoVersion = regexp.MustCompile(`Could not find a version that satisfies the requirement (.+?) (?:\(from (?:[^v)][^)]*)\) )?\(from versions: ([^)]*)\)`)

// pipNeedsPython looks the pinned version up in pip's list of those for other Pythons.
func (f failure) pipNeedsPython() (what, needs string, ok bool) {
	m, ok := f.match(pipNoVersion)
	if !ok {
		return "", "", false
	}
	_, version, ok := strings.Cut(m[1], "==")
	if !ok {
		return "", "", false
	}
	ignored := regexp.MustCompile(`[ ;]` + regexp.QuoteMeta(version) + ` Requires-Python ([^;\s]+)`)
	needed := ignored.FindStringSubmatch(f.said)
	if needed == nil {
		return "", "", false
	}
	return m[1], needed[1], true
}

var wheelless = regexp.MustCompile(`(\S+) has no wheels with a matching Python (?:ABI|implementation|version) tag|(\S+) has no wheels with a matching platform tag`)

func (f failure) noWheel() (string, string, bool) {
	m, ok := f.match(wheelless)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: %q has no build for Python %s on this machine", f.in(), f.written(m[1]+m[2]), f.python),
		"change its version, or python_version in README.md", true
}

var noSuchPackage = []*regexp.Regexp{
	regexp.MustCompile(`(?:Because|because|and) (\S+) was not found in the (?:package registry|cache|provided package locations)(?: and (\S+) depends on)?`),
	regexp.MustCompile(`Could not find a version that satisfies the requirement ([^\s(]+) (?:\(from ((?:[^v)\-][^)]*)|v[^e)][^)]*)\) )?\(from versions: none\)`),
}

func (f failure) noPackage() (string, string, bool) {
	m, ok := f.match(noSuchPackage...)
	if !ok {
		return "", "", false
	}
	name := requirementName.FindString(f.written(m[1]))
	if m[2] != "" && f.written(m[1]) == m[1] {
		return fmt.Sprintf("%s: no package %q, which %q needs, was found in the index", f.in(), name, m[2]), "change the version of " + requirementName.FindString(m[2]), true
	}
	return fmt.Sprintf("%s: no package %q was found in the index", f.in(), name), "correct its name or version", true
}

var noSuchVersion = []*regexp.Regexp{
	regexp.MustCompile(`there is no version of ([^\s,]+)`),
	regexp.MustCompile(`only \S+ is available and you require ([^\s,]+)`),
	regexp.MustCompile(`only the following versions of \S+ are available: .* and you require ([^\s,]+), we can conclude that your requirements`),
	pipNoVersion,
}

func (f failure) noVersion() (string, string, bool) {
	m, ok := f.match(noSuchVersion...)
	if !ok {
		return "", "", false
	}
	if name := requirementName.FindString(m[1]); f.ours(name) {
		return fmt.Sprintf("README.md: there is no gradio %s in the index", f.gradio), "correct sdk_version", true
	}
	return fmt.Sprintf("%s: no version of %q was found in the index", f.in(), f.written(m[1])), "correct its version", true
}

var contradiction = []*regexp.Regexp{
	regexp.MustCompile(`No solution found when resolving(.*)your requirements are unsatisfiable`),
	regexp.MustCompile(`Cannot install (.* conflicting dependencies\..*?)(?:To fix this|ResolutionImpossible|$)`),
}

// conflict names the author's lines that the tool's reasoning is about.
//  1. Another Gradio than sdk_version's: that pin, and sdk_version, which counts on the Hub too.
//  2. Lines that exclude each other.
//  3. One line, which Gradio (or our constraints for it) excludes.
func (f failure) conflict() (string, string, bool) {
	m, ok := f.match(contradiction...)
	if !ok {
		return "", "", false
	}
	mine := f.named(m[1])
	for _, r := range mine {
		if r.name == "gradio" && f.pins { // 1
			return fmt.Sprintf("%s asks for %q, and sdk_version in README.md is %s", f.file, r.text, f.gradio), "remove that line, or change sdk_version", true
		}
	}
	switch len(mine) {
	case 0:
		return fmt.Sprintf("%s: the requirements contradict each other", f.in()), "read the log to see which", true
	case 1: // 3
		return fmt.Sprintf("%s: %q cannot be installed together with gradio %s", f.in(), mine[0].text, orElse(f.gradio, "(the newest)")), "loosen or remove it" + f.heldTo(mine[0].name), true
	}
	return fmt.Sprintf("%s: %s cannot be installed together", f.in(), quoted(mine)), "loosen or remove one of them", true // 2
}

// heldTo says what this Gradio can do with, if we know it.
func (f failure) heldTo(name string) string {
	for _, r := range f.held {
		if r.name == name {
			return ": that Gradio works only with " + r.text
		}
	}
	return ""
}

var word = regexp.MustCompile(`[A-Za-z0-9][A-Za-z0-9._-]*`)

// named returns the requirements that occur in the tool's reasoning.
func (f failure) named(reasoning string) []requirement {
	words := map[string]bool{}
	for _, w := range word.FindAllString(reasoning, -1) {
		words[normal(strings.TrimRight(w, "._-"))] = true
	}
	var all []requirement
	for _, r := range f.lines {
		if words[r.name] {
			all = append(all, r)
		}
	}
	return all
}

func quoted(all []requirement) string {
	var texts []string
	for _, r := range all {
		texts = append(texts, strconv.Quote(r.text))
	}
	return strings.Join(texts, " and ")
}

var (
	unbuilt = []*regexp.Regexp{
		regexp.MustCompile("Failed to (?:build|download and build):? `([^`]+)`"),
		regexp.MustCompile(`Failed building wheel for (\S+)`),
		regexp.MustCompile(`Failed to build '(?:[^']*/)?([^'/]+)'`),
		regexp.MustCompile(`Failed to build ([A-Za-z0-9]\S*)`),
	}
	buildBroke = regexp.MustCompile(`[Bb]uild backend (?:returned an error|failed)|subprocess-exited-with-error|metadata-generation-failed`)
)

func (f failure) notBuilt() (string, string, bool) {
	what := "a package"
	m, named := f.match(unbuilt...)
	_, broke := f.match(buildBroke)
	if !named && !broke {
		return "", "", false
	}
	if named {
		what = strconv.Quote(f.written(m[1]))
	}
	return fmt.Sprintf("%s: %s could not be built from its source", f.in(), what),
		fmt.Sprintf("choose a version with a wheel for Python %s, or install what the log says is missing", f.python), true
}

var imports = regexp.MustCompile(`Traceback \(most recent call last\).*importlib`)

// notImported is the last step: all is installed, and does not fit together.
func (f failure) notImported() (string, string, bool) {
	if _, ok := f.match(imports); !ok || f.file != "" {
		return "", "", false
	}
	return "gradio and spaces are installed and cannot be imported: " + f.lastWord(), "pin in requirements.txt the package that is named there", true
}

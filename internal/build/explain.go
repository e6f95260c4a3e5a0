package build

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"spacehost/internal/lazyregexp"
)

// failure is a failed step, with the facts that explain it.
type failure struct {
	step
	raw    string // the end of the tool's output
	flat   string // the same in one line, without the box characters of uv and pip
	dir    string // Config.Dir
	python string // its version
	gradio string // the requested version; empty: the newest
	pins   bool   // README.md pins that version
	text   string // of step.file
	lines  []requirement
	bounds []requirement // our constraints for that version
	err    error
}

// explain turns the failure of a step into an *Error with one sentence.
func (j *job) explain(s step, err error) error {
	if explained, ok := errors.AsType[*Error](err); ok {
		return explained
	}
	f := failure{step: s, dir: j.dir, python: j.python.Version, gradio: j.inputs.Gradio, pins: j.spec.Gradio != "",
		text: j.inputs.Files[s.file], err: err}
	f.lines, f.bounds = parseRequirements(f.text), parseRequirements(string(j.inputs.Constraints))
	if errors.Is(err, errTimeLimit) {
		problem := fmt.Sprintf("%s: its packages were not installed within %s", f.subject(), j.timeLimit())
		return &Error{Step: s.text, Problem: problem, Hint: "choose versions with wheels, which need no compiler", LogPath: j.output.path, Err: err}
	}
	if tool, ok := errors.AsType[*toolError](err); ok {
		f.raw = tool.output
		f.flat = flatten(tool.output)
	}
	problem, hint := f.reasonWithRefusal()
	explained := &Error{Step: s.text, Problem: problem, Hint: hint, File: f.file, LogPath: j.output.path, Tail: lastLines(f.raw), Err: err}
	explained.Requirement, explained.Line = f.line(problem)
	if _, _, unbuilt := f.notBuilt(); unbuilt {
		explained.Missing, _ = f.missing()
	}
	return explained
}

// RefusedConnection begins the line that a Confinement adds to the output of a failed tool whose connection it has refused.
const RefusedConnection = "spacehost refused a connection: "

// reasonWithRefusal adds the connection that the tool was refused, which may be the cause.
func (f failure) reasonWithRefusal() (problem, hint string) {
	problem, hint = f.reason()
	if refused := refusedConnection.FindStringSubmatch(f.raw); refused != nil {
		hint += fmt.Sprintf(" (the build was refused a connection: %s)", strings.TrimSpace(refused[1]))
	}
	return problem, hint
}

var refusedConnection = lazyregexp.New(`(?m)^` + RefusedConnection + `(.*)$`)

// reason tries each rule, starting with the rules about the machine: without a network every package is "not found".
// The patterns match uv 0.5.0 and 0.13.8 and pip 23.0 and 26.3; their output is in testdata/recorded.
func (f failure) reason() (problem, hint string) {
	rules := []func(failure) (string, string, bool){
		failure.diskFull, failure.untrusted, failure.refused, failure.gitUnreachable, failure.unreachable,
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
	return fmt.Sprintf("%s failed: %s", f.step.text, f.errorText()), "read the log for the reason"
}

// errorText returns the line that most likely names the cause: the last line that looks like an error, else the last
// line.
func (f failure) errorText() string {
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
	errorLine = lazyregexp.New(`(?i)^\s*(error|fatal)\b|Error: `)
	boxes     = strings.NewReplacer("│", " ", "╰─▶", " ", "├─▶", " ", "╰─>", " ", "×", " ")
)

func flatten(output string) string {
	return strings.Join(strings.Fields(boxes.Replace(output)), " ")
}

// match returns the groups of the first pattern that matches the output.
func (f failure) match(patterns ...*lazyregexp.Regexp) ([]string, bool) {
	for _, p := range patterns {
		if found := p.FindStringSubmatch(f.flat); found != nil {
			return found, true
		}
	}
	return nil, false
}

// subject names the file at fault, for the start of a sentence.
func (f failure) subject() string { return orElse(f.file, f.step.text) }

// isSDK reports whether name is a package of the SDK step. Then README.md is at fault, not a requirement.
func (f failure) isSDK(name string) bool {
	return f.file == "README.md" && normalizeName(name) == "gradio"
}

// asWritten returns the requirement as the author wrote it, where the tool prints a normalized name.
func (f failure) asWritten(printed string) string {
	for _, r := range f.lines {
		if r.name == normalizeName(requirementName.FindString(printed)) {
			return r.text
		}
	}
	return printed
}

func (f failure) diskFull() (string, string, bool) {
	problem, hint := diskFull(f.dir)
	return problem, hint, isFull(f.raw+f.err.Error(), f.dir)
}

var badCertificate = lazyregexp.New(`CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer`)

func (f failure) untrusted() (string, string, bool) {
	_, ok := f.match(badCertificate)
	return "the certificate of the package index is not trusted on this machine",
		"set SSL_CERT_FILE to a file with your organisation's certificates", ok
}

var statusOf = []*lazyregexp.Regexp{
	lazyregexp.New(`HTTP status (?:client|server) error \((\d+[^)]*)\) for url \(([^)]*)\)`),
	lazyregexp.New(`HTTP error (\d+) while getting (\S+)`),
	lazyregexp.New(`(\d+ (?:Client|Server) Error): .*? for url: (\S+)`),
}

func (f failure) refused() (string, string, bool) {
	m, ok := f.match(statusOf...)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: %s answered %q", f.subject(), hostOf(m[2]), m[1]), "correct that address or its credentials", true
}

var (
	unreachableHost = []*lazyregexp.Regexp{
		lazyregexp.New("(?:Failed to fetch|error sending request for url)[: (`]+([^`) ]+)"),
		lazyregexp.New(`connection broken by .*?host='([^']+)'`),
		lazyregexp.New(`Could not install packages due to an OSError: HTTPS?ConnectionPool\(host='([^']+)'`),
	}
	// What pip prints when its last attempt begins (that attempt then fails without output), and the reasons of uv.
	gaveUp = lazyregexp.New(`Retry\(total=0|Max retries exceeded|error sending request|client error \(Connect\)|dns error|operation timed out|could not connect`)
)

func (f failure) unreachable() (string, string, bool) {
	if _, ok := f.match(gaveUp); !ok {
		return "", "", false
	}
	what := "the package index"
	if m, ok := f.match(unreachableHost...); ok {
		what = hostOf(m[1])
	}
	return fmt.Sprintf("%s: %s cannot be reached", f.subject(), what),
		"check the network, and HTTPS_PROXY, UV_DEFAULT_INDEX and PIP_INDEX_URL where they are set", true
}

func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Host
	}
	return address
}

var venvMissing = lazyregexp.New(`ensurepip is not available|No module named '?"?(?:venv|ensurepip|pip)\b`)

func (f failure) noVenv() (string, string, bool) {
	_, ok := f.match(venvMissing)
	return "this machine's Python has no venv or no pip", "install both (on Debian: apt install python3-venv), or install uv", ok
}

var gitMissing = lazyregexp.New(`Git executable not found|cannot find binary path|Cannot find command 'git'`)

func (f failure) noGit() (string, string, bool) {
	_, ok := f.match(gitMissing)
	return f.subject() + ": a package is installed from git, which this machine does not have", "install git", ok
}

var (
	gitFatal = []*lazyregexp.Regexp{
		lazyregexp.New(`fatal: unable to access '([^']+)'?: (.*?)(?: error: | × | note: |$)`),
		lazyregexp.New(`ssh: (?:Could not resolve hostname|connect to host) ([^:\s]+)(?: port \d+)?: (.*?)(?: fatal: |$)`),
	}
	// The words of curl, ssh and the C library for a machine without a network, and for a host that does not answer.
	noNetwork = lazyregexp.New(`Could not resolve|Network is unreachable|No route to host|name resolution|Name or service not known|nodename nor servname`)
	noAnswer  = lazyregexp.New(`Failed to connect|Couldn't connect|timed out|Connection refused|Connection reset`)
)

// gitUnreachable handles git without a network, whose output otherwise reads like a wrong address.
func (f failure) gitUnreachable() (string, string, bool) {
	m, ok := f.match(gitFatal...)
	if !ok {
		return "", "", false
	}
	problem := "git cannot reach"
	if noNetwork.MatchString(m[2]) {
		problem = "no network: git cannot reach"
	} else if !noAnswer.MatchString(m[2]) {
		return "", "", false
	}
	return fmt.Sprintf("%s: %s %s (%s)", f.subject(), problem, hostOf(m[1]), m[2]), "check the network, and HTTPS_PROXY where it is set", true
}

var gitOutput = lazyregexp.New(`(?:Git operation failed|git (?:clone|fetch|checkout)).*?(fatal: .*?)(?: error: subprocess| × |$)`)

func (f failure) gitFailed() (string, string, bool) {
	if !strings.Contains(f.flat, "Git operation failed") && !strings.Contains(f.flat, "git clone") {
		return "", "", false
	}
	m, ok := f.match(gitOutput)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: git failed (%s)", f.subject(), m[1]), "correct the repository's address, or your access to it", true
}

var (
	uvSyntax  = lazyregexp.New("Couldn't parse requirement in `([^`]+)` at position (\\d+)")
	pipSyntax = lazyregexp.New(`Invalid requirement: (?:'([^']+)'|"([^"]+)").*? \(from line \d+ of ([^)]+)\)`)
)

func (f failure) syntax() (string, string, bool) {
	const hint = "correct that line"
	if m, ok := f.match(uvSyntax); ok {
		return fmt.Sprintf("%s: %q is not a valid requirement", filepath.Base(m[1]), f.lineAt(m[2])), hint, true
	}
	if m, ok := f.match(pipSyntax); ok && !strings.Contains(f.flat, "looks like a path") {
		return fmt.Sprintf("%s: %q is not a valid requirement", filepath.Base(m[3]), m[1]+m[2]), hint, true
	}
	return "", "", false
}

// lineAt returns the line at uv's position, which counts bytes.
func (f failure) lineAt(position string) string {
	n, err := strconv.Atoi(position)
	if err != nil || n > len(f.text) {
		return "line at " + position
	}
	begin := strings.LastIndexByte(f.text[:n], '\n') + 1
	line, _, _ := strings.Cut(f.text[begin:], "\n")
	return strings.TrimSpace(line)
}

var fileMissing = []*lazyregexp.Regexp{
	lazyregexp.New("failed to read from file `([^`]+)`"),
	lazyregexp.New(`Could not open requirements file: .*?: '([^']+)'`),
	lazyregexp.New(`Distribution not found at: file://(\S+)`),
	lazyregexp.New(`It looks like a path\. File '([^']+)' does not exist`),
	lazyregexp.New(`Invalid requirement: '([^']+)'.*It looks like a path`),
}

func (f failure) noFile() (string, string, bool) {
	m, ok := f.match(fileMissing...)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s names the file %q, which is not in the Space", f.subject(), filepath.Base(m[1])), "add it, or correct that line", true
}

var notUTF8 = lazyregexp.New(`stream did not contain valid UTF-8|UnicodeDecodeError`)

func (f failure) notText() (string, string, bool) {
	_, ok := f.match(notUTF8)
	return f.subject() + " is not UTF-8 text", "save it as UTF-8", ok && f.file != ""
}

var needsPython = lazyregexp.New(`does not satisfy Python(\S+) and (\S+) depends on Python`)

func (f failure) otherPython() (string, string, bool) {
	what, needs := "", ""
	if m, ok := f.match(needsPython); ok {
		what, needs = m[2], m[1]
	} else if what, needs, ok = f.pipNeedsPython(); !ok {
		return "", "", false
	}
	hint := "change its version, or python_version in README.md"
	return fmt.Sprintf("%s: %q needs Python %s, but the Space has %s", f.subject(), f.asWritten(what), needs, f.python), hint, true
}

var pipNoVersion = lazyregexp.New(`Could not find a version that satisfies the requirement (.+?) (?:\(from (?:[^v)][^)]*)\) )?\(from versions: ([^)]*)\)`)

// pipNeedsPython finds the pinned version in pip's list of versions for other Pythons.
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
	needed := ignored.FindStringSubmatch(f.flat)
	if needed == nil {
		return "", "", false
	}
	return m[1], needed[1], true
}

var wheelless = lazyregexp.New(`(\S+) has no wheels with a matching Python (?:ABI|implementation|version) tag|(\S+) has no wheels with a matching platform tag`)

func (f failure) noWheel() (string, string, bool) {
	m, ok := f.match(wheelless)
	if !ok {
		return "", "", false
	}
	return fmt.Sprintf("%s: %q has no build for Python %s on this machine", f.subject(), f.asWritten(m[1]+m[2]), f.python),
		"change its version, or python_version in README.md", true
}

var noSuchPackage = []*lazyregexp.Regexp{
	lazyregexp.New(`(?:Because|because|and) (\S+) was not found in the (?:package registry|cache|provided package locations)(?: and (\S+) depends on)?`),
	lazyregexp.New(`Could not find a version that satisfies the requirement ([^\s(]+) (?:\(from ((?:[^v)\-][^)]*)|v[^e)][^)]*)\) )?\(from versions: none\)`),
}

func (f failure) noPackage() (string, string, bool) {
	m, ok := f.match(noSuchPackage...)
	if !ok {
		return "", "", false
	}
	name := requirementName.FindString(f.asWritten(m[1]))
	if m[2] != "" && f.asWritten(m[1]) == m[1] {
		return fmt.Sprintf("%s: no package %q, which %q needs, was found in the index", f.subject(), name, m[2]), "change the version of " + requirementName.FindString(m[2]), true
	}
	return fmt.Sprintf("%s: no package %q was found in the index", f.subject(), name), "correct its name or version", true
}

var noSuchVersion = []*lazyregexp.Regexp{
	lazyregexp.New(`there is no version of ([^\s,]+)`),
	lazyregexp.New(`only \S+ is available and you require ([^\s,]+)`),
	lazyregexp.New(`only the following versions of \S+ are available: .* and you require ([^\s,]+), we can conclude that your requirements`),
	pipNoVersion,
}

func (f failure) noVersion() (string, string, bool) {
	m, ok := f.match(noSuchVersion...)
	if !ok {
		return "", "", false
	}
	if name := requirementName.FindString(m[1]); f.isSDK(name) {
		return fmt.Sprintf("README.md: gradio %s was not found in the index", f.gradio), "correct sdk_version", true
	}
	return fmt.Sprintf("%s: no version of %q was found in the index", f.subject(), f.asWritten(m[1])), "correct its version", true
}

var contradiction = []*lazyregexp.Regexp{
	lazyregexp.New(`No solution found when resolving(.*)your requirements are unsatisfiable`),
	lazyregexp.New(`Cannot install (.* conflicting dependencies\..*?)(?:To fix this|ResolutionImpossible|$)`),
}

// conflict names the author's lines that the tool's explanation mentions:
//  1. Another Gradio than sdk_version: the pin, and sdk_version, which has precedence on the Hub too.
//  2. Lines that exclude each other.
//  3. One line, which Gradio (or our constraints for it) excludes.
func (f failure) conflict() (string, string, bool) {
	m, ok := f.match(contradiction...)
	if !ok {
		return "", "", false
	}
	mentioned := f.mentioned(m[1])
	for _, r := range mentioned {
		if r.name == "gradio" && f.pins { // 1
			return fmt.Sprintf("%s requires %q, but sdk_version in README.md is %s", f.file, r.text, f.gradio), "remove that line, or change sdk_version", true
		}
	}
	switch len(mentioned) {
	case 0:
		return fmt.Sprintf("%s: the requirements contradict each other", f.subject()), "read the log for details", true
	case 1: // 3
		return fmt.Sprintf("%s: %q cannot be installed together with gradio %s", f.subject(), mentioned[0].text, orElse(f.gradio, "(the newest)")), "loosen or remove it" + f.boundOf(mentioned[0].name), true
	}
	return fmt.Sprintf("%s: %s cannot be installed together", f.subject(), quoted(mentioned)), "loosen or remove one of them", true // 2
}

// boundOf names the versions that this Gradio works with, if known.
func (f failure) boundOf(name string) string {
	for _, r := range f.bounds {
		if r.name == name {
			return ": this Gradio works only with " + r.text
		}
	}
	return ""
}

var word = lazyregexp.New(`[A-Za-z0-9][A-Za-z0-9._-]*`)

// mentioned returns the requirements that the tool's explanation contains.
func (f failure) mentioned(explanation string) []requirement {
	words := map[string]bool{}
	for _, w := range word.FindAllString(explanation, -1) {
		words[normalizeName(strings.TrimRight(w, "._-"))] = true
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
	unbuilt = []*lazyregexp.Regexp{
		lazyregexp.New("Failed to (?:build|download and build):? `([^`]+)`"),
		lazyregexp.New(`Failed building wheel for (\S+)`),
		lazyregexp.New(`Failed to build '(?:[^']*/)?([^'/]+)'`),
		lazyregexp.New(`Failed to build ([A-Za-z0-9]\S*)`),
	}
	buildBroke = lazyregexp.New(`[Bb]uild backend (?:returned an error|failed)|subprocess-exited-with-error|metadata-generation-failed`)
)

func (f failure) notBuilt() (string, string, bool) {
	what := "a package"
	m, named := f.match(unbuilt...)
	_, broke := f.match(buildBroke)
	if !named && !broke {
		return "", "", false
	}
	if named {
		what = strconv.Quote(f.asWritten(m[1]))
	}
	hint := orElse(f.missingHint(), fmt.Sprintf("choose a version with a wheel for Python %s, or install what the log reports as missing", f.python))
	return fmt.Sprintf("%s: %s could not be built from its source", f.subject(), what), hint, true
}

var imports = lazyregexp.New(`Traceback \(most recent call last\).*importlib`)

// notImported handles the last step: everything is installed, but the versions are incompatible.
func (f failure) notImported() (string, string, bool) {
	if _, ok := f.match(imports); !ok || f.file != "" {
		return "", "", false
	}
	return "gradio and spaces are installed but cannot be imported: " + f.errorText(), "pin the named package in requirements.txt", true
}

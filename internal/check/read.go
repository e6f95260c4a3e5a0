package check

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"spacehost/gpu"
	"spacehost/internal/lazyregexp"
	"spacehost/internal/nearest"
	"spacehost/internal/space"
	"spacehost/quota"
)

// Options configures Read.
type Options struct {
	Dir string
	// Python is the interpreter that parses the Space's Python; it runs the embedded reader only. "": none was found, for
	// the reason in NoPython.
	Python   string
	NoPython string
	// Tiers, Tier and Hardware decide which declared durations are refused: Tier is the one whose refusals count.
	Tiers    quota.Tiers
	Tier     string
	Hardware gpu.Hardware
}

// Read performs stage read. It runs no code of the Space. Errors are a *space.FolderError, a *space.ConfigError of a file
// that cannot be read, and the end of ctx. A Space that `spacehost run` refuses sets Report.Stop.
func Read(ctx context.Context, o Options) (*Report, error) {
	found, err := space.CheckDir(o.Dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Performed: []Stage{StageRead}, Stop: found.Refused}
	if err := r.Add(StageRead, readmeFacts(found)...); err != nil {
		return nil, err
	}
	r.listFiles(found)
	r.Ignores = append(r.Ignores, commentsIn(found.Dir, "README.md")...)
	r.Ignores = append(r.Ignores, commentsIn(found.Dir, "requirements.txt")...)
	r.Ignores = append(r.Ignores, commentsIn(found.Dir, "packages.txt")...)
	if err := r.readApp(ctx, found, o); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r, nil
}

// Skip adds the stages that are not performed to NotLookedAt, with the flags that perform them. hint follows the flags.
func (r *Report) Skip(run, call bool, hint string) {
	if !run {
		r.NotLookedAt = append(r.NotLookedAt, "versions of installed packages, and what the app does when it starts (--run"+hint+")")
	}
	if !call {
		r.NotLookedAt = append(r.NotLookedAt, "what its endpoints return (--call"+hint+")")
	}
}

// rulesOf maps the findings of package space to rules.
var rulesOf = map[space.Code]string{
	space.NoFrontMatter: "A100", space.NotEnclosed: "A100", space.BadSyntax: "A101", space.CannotRead: "A101", space.BadSDK: "A102",
	space.BadVersion: "A103", space.OldVersion: "A103", space.UnquotedVersion: "A103", space.BadPython: "A104", space.UnquotedPython: "A104", space.BadAppFile: "A105", space.RefusedValue: "A106", space.UnknownKey: "A107",
	space.IgnoredValue: "A108", space.BadPreload: "A109", space.OtherPython: "A110", space.NoVersion: "B101",
	space.TorchExcluded: "A201", space.GradioPinned: "A202", space.PackagePinned: "A203", space.DebianPackages: "A205",
}

func readmeFacts(found *space.Checked) (facts []Fact) {
	for _, f := range found.Findings {
		fact := Fact{Rule: rulesOf[f.Code], File: f.File, Line: f.Line, Values: map[string]string{"problem": f.Problem, "fix": f.Fix}}
		switch {
		case f.Code == space.OtherPython && badPython(found, f.Line):
			continue
		case f.Refused, f.Code == space.NotEnclosed, f.Code == space.BadSDK && f.Line == 0:
			fact.Severity = Error
		case f.Code == space.OldVersion, f.Code == space.UnquotedVersion, f.Code == space.UnquotedPython:
			fact.Severity = Warning // public Spaces with such values run
		case f.Code == space.BadAppFile && !found.HasReadme:
			fact.Severity = Warning // README.md, which comes first, may yet name another file
		case f.Note && f.Code == space.UnknownKey:
			fact.Severity = Info // the key has a reader besides the Hub
		}
		facts = append(facts, fact)
	}
	return facts
}

// badPython reports whether the line has an error that makes the version itself meaningless.
func badPython(found *space.Checked, line int) bool {
	for _, f := range found.Findings {
		if f.Code == space.BadPython && f.Line == line {
			return true
		}
	}
	return false
}

// listFiles adds which files besides Python were looked at.
func (r *Report) listFiles(found *space.Checked) {
	for _, file := range []struct {
		name   string
		exists bool
	}{{"README.md", found.HasReadme}, {"requirements.txt", found.HasRequirements}, {"packages.txt", found.HasPackages}} {
		if file.exists {
			r.LookedAt = append(r.LookedAt, file.name)
		}
	}
}

// readApp reads the app file and the modules that it imports.
func (r *Report) readApp(ctx context.Context, found *space.Checked, o Options) error {
	appFile := found.AppFile
	switch {
	case found.Space == nil && found.Refused != nil && appFile != "" && isOtherSDK(found):
		r.NotLookedAt = append(r.NotLookedAt, "Python, because the Space is not a Gradio Space")
		return nil
	case appFile == "" && !found.HasReadme:
		if appFile = onlyPython(found.Dir); appFile == "" {
			r.NotLookedAt = append(r.NotLookedAt, "Python, because there is no app file")
			return nil
		}
		r.LookedAt = append(r.LookedAt, filepath.ToSlash(appFile)+" in place of the missing app.py")
	case appFile == "":
		r.NotLookedAt = append(r.NotLookedAt, "Python, because there is no app file")
		return nil
	}
	if o.Python == "" {
		r.NotLookedAt = append(r.NotLookedAt, "Python: "+o.NoPython)
		return nil
	}
	out, err := readPython(ctx, o.Python, found.Dir, appFile)
	if err != nil {
		r.NotLookedAt = append(r.NotLookedAt, "Python: "+err.Error())
		r.Unread = fmt.Errorf("the Python of the Space was not read: %w", err)
		return nil
	}
	r.LookedAt = append(r.LookedAt, out.LookedAt...)
	r.NotLookedAt = append(r.NotLookedAt, out.NotLookedAt...)
	r.Ignores = append(r.Ignores, out.Ignores...)
	if r.Inventory = out.Inventory; r.Inventory != nil {
		out.Facts = append(out.Facts, DurationFacts(r.Inventory.GPUFunctions, o.Limits())...)
	}
	if found.Space != nil && takesEventData(found.Space.SDKVersion) {
		out.Facts = slices.DeleteFunc(out.Facts, func(f Fact) bool { return f.Rule == "G311" })
	}
	return r.Add(StageRead, out.Facts...)
}

// takesEventData reports whether event data of this release of gradio can be pickled: EventData.__getattr__ came with gradio 6
// (5.49.1 and 6.31.0, events.py). An empty version is the newest.
func takesEventData(version string) bool {
	major, err := strconv.Atoi(strings.Split(version, ".")[0])
	return err == nil && major < 6
}

// Limits returns what declared durations are compared with.
func (o Options) Limits() DurationLimits {
	limits := DurationLimits{Preset: o.Tiers.Preset, Tier: o.Tier, Hardware: o.Hardware.Name, Factor: max(1, o.Hardware.DurationFactor), SizeFactor: quota.Factor}
	for _, tier := range o.Tiers.All {
		limits.Tiers = append(limits.Tiers, TierLimit{Name: tier.Name, Seconds: tier.LongestCall().Seconds(), Unlimited: tier.Unlimited})
	}
	return limits
}

// isOtherSDK reports whether README.md asks for another SDK than Gradio.
func isOtherSDK(found *space.Checked) bool {
	for _, f := range found.Findings {
		if f.Code == space.BadSDK && f.Line > 0 {
			return true
		}
	}
	return false
}

// onlyPython returns the only Python file in a folder, "" if there are none or several.
func onlyPython(dir string) string {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.py"))
	if err != nil || len(files) != 1 {
		return ""
	}
	return filepath.Base(files[0])
}

var globSigns = lazyregexp.New(`[*?\[\\]`)

// escapeGlob quotes the signs of filepath.Match. Windows has no quote, and few folders with these signs.
func escapeGlob(dir string) string {
	if os.PathSeparator == '\\' {
		return dir
	}
	return globSigns.ReplaceAllString(dir, `\$0`)
}

var comment = lazyregexp.New(`^(|.*\s)#\s*spacehost:\s*ignore\[([^\]]*)\]`)

// commentsIn returns the comments of a file in which # begins a comment outside of Python. A comment alone in its line is
// about the next line.
func commentsIn(dir, file string) (ignores []Ignore) {
	lines := sourceLines(dir, file)
	for i, line := range lines {
		found := comment.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		ignore := Ignore{File: file, Line: i + 1, IDs: splitIDs(found[2])}
		if strings.TrimSpace(found[1]) == "" {
			ignore.Line, ignore.At = i+2, i+1
		}
		ignores = append(ignores, ignore)
	}
	return ignores
}

// splitIDs reads a list of identifiers, separated by commas or blanks, in any case.
func splitIDs(text string) []string {
	return strings.FieldsFunc(strings.ToUpper(text), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// CheckIDs normalizes a list of identifiers of rules and prefixes of them. Its error names the first that is none.
func CheckIDs(list []string) (ids []string, err error) {
	for _, item := range list {
		for _, id := range splitIDs(item) {
			known := false
			for _, rule := range Rules() {
				known = known || strings.HasPrefix(rule.ID, id)
			}
			if !known {
				return nil, unknownRule(id)
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Find returns the rule of an identifier in any case. Its error suggests one.
func Find(id string) (Rule, error) {
	if rule, ok := RuleByID(strings.ToUpper(strings.TrimSpace(id))); ok {
		return rule, nil
	}
	return Rule{}, unknownRule(id)
}

func unknownRule(id string) error {
	var ids []string
	for _, rule := range Rules() {
		ids = append(ids, rule.ID)
	}
	if near := nearest.Key(id, ids); near != "" {
		return fmt.Errorf("unknown rule %.40q; did you mean %s?", id, near)
	}
	return fmt.Errorf("unknown rule %.40q; `spacehost explain-rule` lists all", id)
}

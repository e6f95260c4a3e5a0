package checkrun

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"spacehost/internal/check"
	"spacehost/internal/printable"
	"spacehost/worker"
)

// observations collects what is observed of one start. Its methods may be called from any goroutine.
type observations struct {
	mu       sync.Mutex
	stage    check.Stage // of what comes in now
	took     time.Duration
	built    bool     // the environment was built
	unmet    []string // what the Space asks for and --python does not have
	facts    []staged
	listed   chan struct{} // closed by setCalls
	list     worker.CallList
	sentence struct{ lookedAt, notLookedAt []string } // of the calls
}

type staged struct {
	worker.Observation
	stage check.Stage
}

func newObservations() *observations {
	return &observations{stage: check.StageRun, listed: make(chan struct{})}
}

func (o *observations) add(one worker.Observation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.facts = append(o.facts, staged{one, o.stage})
}

func (o *observations) setCalls(list worker.CallList) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.listed: // of another app of this Space, which visitors do not reach
	default:
		o.list = list
		close(o.listed)
	}
}

// running begins stage call: the Space answers.
func (o *observations) running(after time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stage, o.took = check.StageCall, after
}

// progress passes on the lines of the build and of the start.
func (o *observations) progress(show func(string)) func(string) {
	return func(text string) {
		if strings.HasPrefix(text, "[") { // a step of the build
			o.mu.Lock()
			o.built = true
			o.mu.Unlock()
		}
		if show != nil {
			show(text)
		}
	}
}

func (o *observations) lookedAt(format string, args ...any) {
	o.sentence.lookedAt = append(o.sentence.lookedAt, fmt.Sprintf(format, args...))
}

func (o *observations) notLookedAt(format string, args ...any) {
	o.sentence.notLookedAt = append(o.sentence.notLookedAt, fmt.Sprintf(format, args...))
}

// call makes the calls of the list. The last observations of a worker may arrive after the answer of its call.
func (o *observations) call(ctx context.Context, options Options, url string) {
	ctx, cancel := context.WithTimeout(ctx, options.CallsTimeout)
	defer cancel()
	select {
	case <-o.listed:
	case <-time.After(listTimeout):
		o.notLookedAt("its calls, because the runner did not list them within %s", listTimeout)
		return
	case <-ctx.Done():
		return
	}
	o.mu.Lock()
	list := o.list
	o.mu.Unlock()
	for _, one := range list.Skipped {
		o.notLookedAt("%s: %s", one.Name, one.Reason)
	}
	c := caller{base: url + list.Path}
	made := 0
	for _, endpoint := range list.Endpoints {
		if ctx.Err() != nil {
			o.notLookedAt("/%s, because the calls took %s together (--calls-timeout)", endpoint.Name, options.CallsTimeout)
			continue
		}
		made++
		before := o.number()
		o.outcome(endpoint, options, before, c.call(ctx, endpoint, options.CallTimeout))
	}
	if made > 0 {
		o.lookedAt("%s on simulated GPUs, each in a session of its own", calls(made))
		select {
		case <-time.After(lateObservations):
		case <-ctx.Done():
		}
	}
}

const (
	listTimeout      = 20 * time.Second // the runner evaluates duration functions for 5 s at most
	lateObservations = 200 * time.Millisecond
)

func (o *observations) number() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.facts)
}

// cutShort are observations of a call that did not do all of its work.
var cutShort = []string{"A206", "B604", "G801", "S801", "F308", "offline", "simulated"}

// outcome records what a call has shown in addition to its observations. Exceptions after made-up values are warnings: the
// function may rightly refuse them.
func (o *observations) outcome(endpoint worker.PlannedCall, options Options, before int, end ended) {
	switch {
	case end.late:
		o.notLookedAt("/%s, which did not end within %s (--call-timeout)", endpoint.Name, options.CallTimeout)
	case end.err != nil:
		o.notLookedAt("/%s: %v", endpoint.Name, end.err)
	case end.words != "" && o.number() == before:
		o.notLookedAt("the result of /%s, which ends with an error that the app itself shows: %s", endpoint.Name, end.words)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	cut := slices.ContainsFunc(o.facts[before:], func(one staged) bool { return slices.Contains(cutShort, one.Rule) })
	for i := before; i < len(o.facts); i++ {
		one := &o.facts[i]
		if cut && one.Rule == "C406" {
			one.Rule = "" // its seconds are those until the failure
		}
		if !endpoint.Given && (one.Rule == "G801" || one.Rule == "S801") {
			one.Severity = string(check.Warning)
		}
		switch {
		case one.File != "":
		case one.Rule == "G802": // the host has seen it
			one.File, one.Line, one.Values["function"] = endpoint.File, endpoint.Line, endpoint.Name
		case one.Rule == "S801" && end.late: // the check has left
			one.Rule = ""
		case one.Rule == "G801" || one.Rule == "S801": // no line of the app took part: a library refuses the values of the check
			o.notLookedAt("the result of /%s, which ends with %s in a library: %s", endpoint.Name, one.Values["exception"], one.Values["message"])
			one.Rule = ""
		}
	}
}

// addTo adds the findings of a start that ended with err to report.
func (o *observations) addTo(report *check.Report, limits check.DurationLimits, err error, called bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if fact, ok := buildFact(err); ok {
		for i, found := range report.Findings {
			if found.ID == "A202" && found.File == fact.File && found.Line == fact.Line {
				report.Findings[i].Severity = check.Error // the build has shown it
			}
		}
		return addFact(report, check.StageBuild, fact)
	}
	if err == nil || startError(err) != nil {
		report.Performed = append(report.Performed, check.StageRun)
	}
	if err == nil && called {
		report.Performed = append(report.Performed, check.StageCall)
	}
	o.summarize(report, err, called)
	var usage []worker.Observation
	for _, one := range o.facts {
		switch one.Rule {
		case "simulated":
			report.NotLookedAt = append(report.NotLookedAt, fmt.Sprintf("%s (%s), which needs a real GPU: %s", one.Values["function"], place(one.Observation), one.Values["message"]))
		case "offline":
			if text := o.offline(one.Observation); text != "" && !slices.Contains(report.NotLookedAt, text) {
				report.NotLookedAt = append(report.NotLookedAt, text)
			}
		case "missing":
			if knowsVariable(report, one.Values["name"]) {
				continue // B603 lists it
			}
			report.NotLookedAt = append(report.NotLookedAt, fmt.Sprintf("the start with the variable %s (%s), which is not set (--secret, --variable)", one.Values["name"], place(one.Observation)))
		case "C406":
			usage = append(usage, one.Observation)
		default:
			if one.Rule == "B604" && one.Values["function"] != "" {
				report.NotLookedAt = append(report.NotLookedAt, fmt.Sprintf("the result of %s (%s), which needs the variable %s (--secret, --variable)", one.Values["function"], place(one.Observation), one.Values["name"]))
			}
			if err := addFact(report, one.stage, o.inGivenPython(fact(one.Observation))); err != nil {
				return err
			}
		}
	}
	var facts []check.Fact
	if called {
		facts = append(usageFacts(usage), o.durationFacts(limits)...)
	}
	if start := startError(err); start != nil && report.AtLeast(check.Error) == 0 && !slices.ContainsFunc(report.Findings, ofRun) && !o.misses() {
		values := map[string]string{"reason": exitReason(start)}
		if err := addFact(report, check.StageRun, check.Fact{Rule: "A801", Values: values}); err != nil {
			return err
		}
	}
	for _, one := range facts {
		if err := addFact(report, check.StageCall, one); err != nil {
			return err
		}
	}
	return nil
}

// offline describes a connection that failed, once for each line; "" if a finding of the start describes it.
func (o *observations) offline(one worker.Observation) string {
	if slices.ContainsFunc(o.facts, func(other staged) bool { return other.Rule == "A803" && place(other.Observation) == place(one) }) {
		return ""
	}
	if one.Values["function"] == "" && slices.ContainsFunc(o.facts, func(other staged) bool {
		return other.Rule == "offline" && other.Values["function"] != "" && place(other.Observation) == place(one)
	}) {
		return "" // the exception of the same connection has more to tell
	}
	return fmt.Sprintf("%s, which needs a connection to %s: %s", place(one), one.Values["name"], one.Values["cause"])
}

// maxUnmet is how many packages a report lists.
const maxUnmet = 8

// ofPackages are rules about the installed packages, and about exceptions that other ones may not raise.
var ofPackages = []string{"A206", "A801", "B701", "B801", "G801", "S801"}

// inGivenPython weakens what depends on installed packages if they are not those that the Space asks for.
func (o *observations) inGivenPython(f check.Fact) check.Fact {
	if len(o.unmet) == 0 || !slices.Contains(ofPackages, f.Rule) {
		return f
	}
	f.Severity = check.Warning
	if f.Rule == "A206" {
		f.Values["because"], f.Values["target"] = "the Python of --python does not have it", "that Python, or leave out --python"
	}
	return f
}

// exitReason returns the reason of an exit that no observation explains, with the last line of the app: that of sys.exit("...").
func exitReason(start *worker.StartError) string {
	reason := strings.TrimSuffix(start.Reason, ".")
	if n := len(start.Tail); n > 0 {
		reason += fmt.Sprintf(", its last line is %q", printable.Reason(start.Tail[n-1]))
	}
	return reason
}

// misses reports whether the start failed for want of a variable, which stage read describes.
func (o *observations) misses() bool {
	return slices.ContainsFunc(o.facts, func(one staged) bool { return one.Rule == "B604" })
}

func knowsVariable(report *check.Report, name string) bool {
	return report.Inventory != nil && slices.ContainsFunc(report.Inventory.Variables, func(v check.Variable) bool { return v.Name == name })
}

func ofRun(f check.Finding) bool { return f.Stage == check.StageRun && f.Severity != check.Info }

func (o *observations) summarize(report *check.Report, err error, called bool) {
	switch {
	case err == nil:
		with := ""
		if o.built {
			with = " with the build of its environment"
		}
		report.LookedAt = append(report.LookedAt, fmt.Sprintf("one start on simulated GPUs, which took %.1f s%s", o.took.Seconds(), with))
	case startError(err) != nil:
		report.LookedAt = append(report.LookedAt, "one start on simulated GPUs, which failed")
	}
	if n := len(o.unmet); n > 0 && (err == nil || startError(err) != nil) {
		text := "packages that the Space asks for and --python does not have: " + printable.Reason(strings.Join(o.unmet[:min(n, maxUnmet)], ", "))
		if n > maxUnmet {
			text += fmt.Sprintf(" and %d more", n-maxUnmet)
		}
		report.NotLookedAt = append(report.NotLookedAt, text)
	}
	report.LookedAt = append(report.LookedAt, o.sentence.lookedAt...)
	report.NotLookedAt = append(report.NotLookedAt, o.sentence.notLookedAt...)
	if err != nil && called {
		report.NotLookedAt = append(report.NotLookedAt, "its calls, because the start failed")
	}
}

func place(one worker.Observation) string {
	return check.Finding{File: one.File, Line: one.Line}.Place()
}

func fact(one worker.Observation) check.Fact {
	f := check.Fact{Rule: one.Rule, File: one.File, Line: one.Line, Values: one.Values}
	if severity := check.Severity(one.Severity); slices.Contains([]check.Severity{check.Error, check.Warning, check.Info}, severity) {
		f.Severity = severity
	}
	return f
}

// whole are rules of the Space as a whole, and the findings of stage read that name a line for them. A Space without
// `import spaces` (E304) is none for ZeroGPU.
var whole = map[string][]string{"A305": {"A305", "A311", "E304"}, "A311": {"A305", "A311", "E304"}}

// generic are rules about any exception. Another error of the same place explains it.
var generic = []string{"A801", "B801", "G801", "S801", "H801"}

// explains are the findings of a file after which an observation is no news.
var explains = map[string][]string{
	"H801": {"H402", "H403", "H404", "H405"}, "E301": {"E301", "E304"}, "C508": {"C504"}, "A207": {"A202"}, "A802": {"A606"}, "F309": {"F309"}, "C319": {"C319"}, "A604": {"A604"},
}

// ofFunction are rules whose findings of one function are one, whatever the line.
var ofFunction = []string{"F308", "F315", "G312", "G315", "H407"}

// sameName compares names of which one may be qualified, such as Model.embed and embed.
func sameName(a, b string) bool {
	return a != "" && a[strings.LastIndexByte(a, '.')+1:] == b[strings.LastIndexByte(b, '.')+1:]
}

// addFact adds one Fact, unless report explains it already. An unknown rule is a claim of the Space's code, and is dropped.
func addFact(report *check.Report, stage check.Stage, f check.Fact) error {
	rule, known := check.RuleByID(f.Rule)
	if !known {
		return nil
	}
	explained := func(found check.Finding) bool {
		here := found.Severity == check.Error && found.File == f.File && f.File != "" && found.Line >= f.Line && found.Line <= f.Line+2 // the def below its decorator
		return slices.Contains(whole[f.Rule], found.ID) || slices.Contains(generic, f.Rule) && here ||
			found.File == f.File && slices.Contains(explains[f.Rule], found.ID) ||
			f.Rule == "B604" && found.ID == "B601" && found.Values["name"] == f.Values["name"] ||
			found.ID == f.Rule && found.Stage != stage && slices.Contains(ofFunction, f.Rule) && sameName(found.Values["function"], f.Values["function"])
	}
	if slices.ContainsFunc(report.Findings, explained) {
		return nil
	}
	if f.Rule == "A206" { // the start has looked the module up, and a call has imported it
		report.Findings = slices.DeleteFunc(report.Findings, func(found check.Finding) bool {
			return found.ID == "A206" && found.Severity == check.Warning && found.Values["module"] == f.Values["module"]
		})
	}
	if f.Rule == "B802" { // certain now
		report.Findings = slices.DeleteFunc(report.Findings, func(found check.Finding) bool {
			return found.ID == "G317" && found.Severity == check.Info && found.File == f.File && sameName(found.Values["name"], f.Values["name"])
		})
	}
	if !slices.Contains(rule.Stages, stage) { // the list of calls arrives while the start ends
		stage = rule.Stages[0]
	}
	return report.Add(stage, f)
}

// usageFacts compares the declared with the used seconds of each function. A much too long declaration is reported.
func usageFacts(all []worker.Observation) (facts []check.Fact) {
	type usage struct {
		one            worker.Observation
		declared, used float64
		calls          int
	}
	functions := map[string]*usage{}
	for _, one := range all {
		declared, errDeclared := strconv.ParseFloat(one.Values["declared"], 64)
		used, errUsed := strconv.ParseFloat(one.Values["used"], 64)
		if errDeclared != nil || errUsed != nil {
			continue
		}
		key := fmt.Sprintf("%s %s %d %g", one.Values["function"], one.File, one.Line, declared)
		u := functions[key]
		if u == nil {
			u = &usage{one: one, declared: declared}
			functions[key] = u
		}
		u.used, u.calls = max(u.used, used), u.calls+1
	}
	for _, key := range slices.Sorted(maps.Keys(functions)) {
		u := functions[key]
		suggested := max(5, 5*math.Ceil(2*u.used/5))
		if u.declared < leastDeclared || suggested > u.declared/2 {
			continue
		}
		facts = append(facts, check.Fact{Rule: "C406", File: u.one.File, Line: u.one.Line, Values: map[string]string{
			"function": u.one.Values["function"], "declared": number(u.declared), "used": fmt.Sprintf("%.1f", u.used), "calls": calls(u.calls), "suggested": number(suggested),
		}})
	}
	return facts
}

func calls(n int) string {
	if n == 1 {
		return "1 call"
	}
	return fmt.Sprintf("%d calls", n)
}

// leastDeclared is the shortest declaration that is worth a finding, in seconds.
const leastDeclared = 20

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// durationFacts compares what duration functions return with the longest call of each tier.
func (o *observations) durationFacts(limits check.DurationLimits) []check.Fact {
	if limits.SizeFactor == nil { // no limits are given
		return nil
	}
	var facts []check.Fact
	for _, d := range o.list.Durations {
		of := check.DurationFacts([]check.GPUFunction{{
			Name: d.Function, File: d.File, Line: d.Line, Size: d.Size, Duration: "dynamic", Longest: &check.Extreme{Seconds: d.Longest, Inputs: d.Inputs},
		}}, limits)
		for i := range of {
			if d.Handler != "" {
				of[i].Severity = check.Info
				of[i].Values["inputs"] += fmt.Sprintf(", if %s passes its inputs on unchanged", d.Handler)
			}
		}
		facts = append(facts, of...)
	}
	return facts
}

package check

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// sample is a report with every severity, and with texts that formats must escape.
func sample(t *testing.T) *Report {
	t.Helper()
	r := &Report{LookedAt: []string{"README.md", "app.py and 2 modules"}, NotLookedAt: []string{"what happens at the start (--run)"}, Performed: []Stage{StageRead}}
	facts := []Fact{
		{Rule: "B101", Values: map[string]string{"problem": "README.md has no sdk_version", "fix": "write one"}},
		{Rule: "A107", File: "README.md", Line: 4, Values: map[string]string{"problem": `unknown key "licence, 100%: <a>"`, "fix": "did you mean \"license\"?"}},
		{Rule: "A203", File: "requirements.txt", Line: 2, Values: map[string]string{"problem": "pins\nspaces"}},
		{Rule: "F315", File: "engines/my app.py", Line: 16, Values: map[string]string{"function": "embed", "role": "handler", "name": "model", "placed": "6"}},
	}
	if err := r.Add(StageRead, facts...); err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(Filter{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	return r
}

func written(t *testing.T, r *Report, format string, v View) string {
	t.Helper()
	var out strings.Builder
	if err := r.Write(&out, format, v); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestText(t *testing.T) {
	r := sample(t)
	r.Sanitize()
	got := written(t, r, "text", View{Base: "spaces/demo", Took: 120 * time.Millisecond})
	const want = `spaces/demo: warning B101 README.md has no sdk_version
    Fix: write one.  docs: spacehost explain-rule B101

spaces/demo/README.md:4: warning A107 unknown key "licence, 100%: <a>"
    Fix: did you mean "license"?  docs: spacehost explain-rule A107

spaces/demo/engines/my app.py:16: error F315 embed (handler) runs model, which stands on cuda (line 6), outside of any GPU function. ZeroGPU computes nothing there: the result is zeros, or the call fails.
    Fix: decorate embed with @spaces.GPU, or move the call into a GPU function.  docs: spacehost explain-rule F315

spaces/demo/requirements.txt:2: info A203 pins spaces. The Hub installs the newest release, which fits its own side; the pin stays at an old one.
    Fix: remove the version, or test it again with each update of the platform.  docs: spacehost explain-rule A203

1 error, 2 warnings, 1 info in 0.12 s.
Looked at: README.md; app.py and 2 modules.
Not looked at: what happens at the start (--run).
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	colored := written(t, r, "text", View{Color: true})
	if !strings.Contains(colored, ".: \x1b[33;1mwarning\x1b[0m B101") || !strings.Contains(colored, "engines/my app.py:16: \x1b[31;1merror\x1b[0m F315") {
		t.Errorf("colored text:\n%q", colored)
	}
}

func TestJSON(t *testing.T) {
	for name, r := range map[string]*Report{"findings": sample(t), "empty": {}} {
		var got struct {
			Findings    []Finding `json:"findings"`
			LookedAt    []string  `json:"looked_at"`
			NotLookedAt []string  `json:"not_looked_at"`
		}
		text := written(t, r, "json", View{Base: "demo"})
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Findings) != len(r.Findings) || got.Findings == nil || got.LookedAt == nil || got.NotLookedAt == nil {
			t.Errorf("%s: %s", name, text)
		}
		for i, f := range got.Findings {
			want := r.Findings[i]
			want.Values = nil // not written
			if !reflect.DeepEqual(f, want) || f.Fingerprint == "" {
				t.Errorf("%s: got %+v, want %+v", name, f, want)
			}
		}
	}
}

// TestSARIF validates with the schema of the standard (oasis-tcs/sarif-spec, sarif-2.1/schema), and checks what GitHub's
// code scanning requires besides it: a location in each result, relative URIs, help of rules.
func TestSARIF(t *testing.T) {
	schema := sarifSchemaOf(t)
	root := t.TempDir()
	for name, row := range map[string]struct {
		report *Report
		base   string
		uri    string // of the finding in the app
	}{
		"working folder": {sample(t), "", "engines/my%20app.py"},
		"below it":       {sample(t), "spaces/demo", "spaces/demo/engines/my%20app.py"},
		"outside":        {sample(t), "../demo", "engines/my%20app.py"},
		"absolute":       {sample(t), filepath.ToSlash(t.TempDir()), "engines/my%20app.py"},
		"empty":          {&Report{}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := written(t, row.report, "sarif", View{Base: row.base, Root: root, Version: "1.2.3"})
			document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(document); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			var log sarifLog
			if err := json.Unmarshal([]byte(text), &log); err != nil {
				t.Fatal(err)
			}
			run := log.Runs[0]
			if base := run.Bases[sarifBase].URI; !strings.HasPrefix(base, "file:///") || !strings.HasSuffix(base, "/") {
				t.Errorf("originalUriBaseIds: %q", base)
			}
			if len(run.Results) != len(row.report.Findings) || len(run.Tool.Driver.Rules) != len(Rules()) {
				t.Fatalf("%d results, %d rules", len(run.Results), len(run.Tool.Driver.Rules))
			}
			uris := ""
			for _, result := range run.Results {
				place := result.Locations[0].Physical
				uris += place.Artifact.URI + " "
				if place.Region.Line < 1 || place.Artifact.Base != sarifBase || strings.HasPrefix(place.Artifact.URI, "/") {
					t.Errorf("result %+v", result)
				}
				if rule := run.Tool.Driver.Rules[result.RuleIndex]; rule.ID != result.RuleID || rule.Help.Markdown == "" || rule.Help.Text == "" {
					t.Errorf("rule of %s: %+v", result.RuleID, rule)
				}
				if len(result.Fingerprints["spacehost/v1"]) != 32 {
					t.Errorf("fingerprints %v", result.Fingerprints)
				}
			}
			if !strings.Contains(uris, row.uri) {
				t.Errorf("URIs %s, want %s among them", uris, row.uri)
			}
		})
	}
}

func sarifSchemaOf(t *testing.T) *jsonschema.Schema {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "sarif-schema-2.1.0.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	document, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("sarif.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("sarif.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestFolderURI(t *testing.T) {
	rows := map[string]string{"/work/my app": "file:///work/my%20app/", "/": "file:///"}
	if runtime.GOOS == "windows" {
		rows = map[string]string{`C:\work\a`: "file:///C:/work/a/"}
	}
	for folder, want := range rows {
		if got := folderURI(folder); got != want {
			t.Errorf("%s: got %s, want %s", folder, got, want)
		}
	}
}

func TestJUnit(t *testing.T) {
	var got junitSuites
	text := written(t, sample(t), "junit", View{Base: "demo"})
	if err := xml.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got.Tests != 4 || got.Failures != 3 || len(got.Suites) != 4 || !strings.HasPrefix(text, "<?xml") {
		t.Errorf("%d tests, %d failures, %d suites\n%s", got.Tests, got.Failures, len(got.Suites), text)
	}
	app := got.Suites[2].Cases[0]
	if app.Failure == nil || app.Failure.Type != "error" || app.File != "demo/engines/my app.py" || app.Line != 16 || !strings.Contains(app.Failure.Text, "Fix: decorate embed") {
		t.Errorf("%+v", app)
	}
	if info := got.Suites[3].Cases[0]; info.Failure != nil || !strings.Contains(info.Out, "pins\nspaces") {
		t.Errorf("an info line: %+v", info)
	}
	if err := xml.Unmarshal([]byte(written(t, &Report{}, "junit", View{})), &got); err != nil || got.Tests != 1 || got.Failures != 0 {
		t.Errorf("an empty report: %+v, %v", got, err)
	}
}

func TestGitHub(t *testing.T) {
	got := written(t, sample(t), "github", View{Base: "demo"})
	for _, want := range []string{
		"::warning title=B101::README.md has no sdk_version. Fix: write one.\n",
		"::warning file=demo/README.md,line=4,title=A107::unknown key \"licence, 100%25: <a>\". Fix: did you mean \"license\"?\n",
		"::error file=demo/engines/my app.py,line=16,title=F315::embed (handler)",
		"::notice file=demo/requirements.txt,line=2,title=A203::pins%0Aspaces.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if property.Replace("a:b,c%\n") != "a%3Ab%2Cc%25%0A" {
		t.Errorf("property: %s", property.Replace("a:b,c%\n"))
	}
}

// codeQuality is the documented format of GitLab's Code Quality (docs.gitlab.com/ci/testing/code_quality, "Code Quality report
// format"): required fields, the words of a severity, and a path without ./ at its start.
const codeQuality = `{"type": "array", "items": {
	"type": "object",
	"required": ["description", "check_name", "fingerprint", "severity", "location"],
	"properties": {
		"description": {"type": "string", "minLength": 1},
		"check_name": {"type": "string", "minLength": 1},
		"fingerprint": {"type": "string", "minLength": 1},
		"severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
		"location": {
			"type": "object",
			"required": ["path", "lines"],
			"properties": {
				"path": {"type": "string", "minLength": 1, "not": {"pattern": "^[./]"}},
				"lines": {"type": "object", "required": ["begin"], "properties": {"begin": {"type": "integer", "minimum": 1}}}
			}
		}
	}
}}`

func TestGitLab(t *testing.T) {
	definition, err := jsonschema.UnmarshalJSON(strings.NewReader(codeQuality))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("gitlab.json", definition); err != nil {
		t.Fatal(err)
	}
	schema := compiler.MustCompile("gitlab.json")
	two := &Report{}
	two.Merge(sample(t), "first")
	two.Merge(sample(t), "second")
	for name, r := range map[string]*Report{"findings": sample(t), "two Spaces": two, "empty": {}} {
		text := written(t, r, "gitlab", View{})
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
		var issues []gitlabIssue
		if err := json.Unmarshal([]byte(text), &issues); err != nil || len(issues) != len(r.Findings) {
			t.Errorf("%s: %d issues of %d findings, %v", name, len(issues), len(r.Findings), err)
		}
		digests := map[string]bool{}
		for _, issue := range issues {
			digests[issue.Fingerprint] = true
		}
		if len(digests) != len(issues) {
			t.Errorf("%s: %d fingerprints of %d issues", name, len(digests), len(issues))
		}
	}
	var issues []gitlabIssue
	if err := json.Unmarshal([]byte(written(t, sample(t), "gitlab", View{Base: "demo"})), &issues); err != nil {
		t.Fatal(err)
	}
	if first := issues[0]; first.Check != "B101" || first.Severity != "major" || first.Location.Path != "demo/README.md" || first.Location.Lines.Begin != 1 {
		t.Errorf("a finding about the whole Space: %+v", first)
	}
	if app := issues[2]; app.Severity != "critical" || app.Location != (gitlabLocation{"demo/engines/my app.py", gitlabLines{16}}) || !strings.Contains(app.Description, "Fix: decorate embed") {
		t.Errorf("an error: %+v", app)
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := (&Report{}).Write(&strings.Builder{}, "xml", View{}); err == nil || !strings.Contains(err.Error(), "use text, json") {
		t.Errorf("error %v", err)
	}
}

// TestGitHubSummary: the name of a file of the Space begins no workflow command.
func TestGitHubSummary(t *testing.T) {
	r := &Report{NotLookedAt: []string{"Python: a\n::error::forged ::x.py"}}
	if text := written(t, r, "github", View{}); strings.Contains(text, "\n::error::forged") {
		t.Errorf("got %q", text)
	}
}

// TestUnread: a check that could not read the Python is no success for code scanning.
func TestUnread(t *testing.T) {
	if text := written(t, &Report{Unread: errors.New("crashed")}, "sarif", View{}); !strings.Contains(text, `"executionSuccessful": false`) {
		t.Errorf("got %s", text)
	}
}

// TestMerge puts a finding about one of several Spaces on its folder: SARIF names its README.md, GitHub no file.
func TestMerge(t *testing.T) {
	one := &Report{Unread: errors.New("no grammar"), Ignored: 1, LookedAt: []string{"app.py"}}
	if err := one.Add(StageRead, Fact{Rule: "C508", Values: map[string]string{"function": "f", "where": "here"}}, Fact{Rule: "A606", File: "app.py", Line: 3}); err != nil {
		t.Fatal(err)
	}
	var all Report
	all.Merge(one, "demos/one")
	all.Merge(&Report{Stop: errors.New("refused"), Known: 2}, "/far")
	if all.Stop == nil || all.Unread.Error() != "demos/one: no grammar" || all.Ignored != 1 || all.Known != 2 || all.LookedAt[0] != "demos/one: app.py" {
		t.Errorf("merged %+v", all)
	}
	for format, want := range map[string][]string{
		"text":   {"demos/one: warning C508 ", "demos/one/app.py:3: error A606 "},
		"sarif":  {`"uri": "demos/one/README.md"`, `"uri": "demos/one/app.py"`},
		"github": {"::warning title=C508::", "::error file=demos/one/app.py,line=3,title=A606::"},
	} {
		var out strings.Builder
		if err := all.Write(&out, format, View{Root: "/work"}); err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s lacks %q:\n%s", format, text, out.String())
			}
		}
	}
	if got := (View{Base: "/far/away"}).place(Finding{File: "app.py", Line: 1}); got != "/far/away/app.py:1" {
		t.Errorf("a Space in an absolute folder is at %q", got)
	}
}

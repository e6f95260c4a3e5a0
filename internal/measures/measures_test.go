package measures

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRepositoryIsWithinTheLimits(t *testing.T) {
	root, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Measure(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Funcs) < 1000 || len(r.Files) < 300 || r.Group(groupComments, "").Words < 10000 {
		t.Fatalf("%d functions, %d files: the measure does not find the source", len(r.Funcs), len(r.Files))
	}
	for _, problem := range r.Problems() {
		t.Error(problem)
	}
	for _, a := range r.Unused {
		t.Errorf("allow.txt: %q matches nothing in %s; remove the line", a.Text, a.Glob)
	}
}

// tree writes files, given as pairs of name and content, and measures them.
func tree(t *testing.T, allow string, files ...string) *Report {
	t.Helper()
	root := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(root, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := parseAllowlist(allow)
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure(root, entries, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sample(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// function returns a function of that many lines.
func function(name string, lines int) string {
	return "func " + name + "() {\n" + strings.Repeat("\tprintln()\n", lines-2) + "}\n"
}

// expect compares the problems of a report with the beginnings of the expected ones.
func expect(t *testing.T, r *Report, want ...string) {
	t.Helper()
	got := r.Problems()
	for i, problem := range got {
		if i >= len(want) || !strings.HasPrefix(problem, want[i]) {
			t.Errorf("got problems %q, want %q", got, want)
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("got problems %q, want %q", got, want)
	}
}

func TestLongFunctionsAreProblems(t *testing.T) {
	r := tree(t, "", "a/a.go", "package a\n\n"+function("long", 60), "a/a_test.go", "package a\n\n"+function("test", 90))
	expect(t, r, "function length: the 90th percentile is 60", "function length: the 99th percentile is 60")
	if long := r.LongFuncs(50); len(long) != 1 || long[0] != (Func{"a/a.go", 3, "long", 60}) {
		t.Errorf("got long functions %v, want one of 60 lines", long)
	}
	few := "package a\n" + strings.Repeat(function("_", 25), 9)
	expect(t, tree(t, "", "a.go", few+function("last", 50)))
	expect(t, tree(t, "", "a.go", few+function("last", 51)), "function length: the 99th percentile is 51")
	expect(t, tree(t, "", "a.go", few+function("_", 26)+function("_", 26)), "function length: the 90th percentile is 26")
}

func TestMethodsAreNamedByTheirType(t *testing.T) {
	r := tree(t, "", "a.go", "package a\n\nfunc (*T[A]) m(a,\n\tb int) {\n}\n\nfunc (T) n() {}\n")
	if want := []Func{{"a.go", 3, "T.m", 3}, {"a.go", 7, "T.n", 1}}; !slices.Equal(r.Funcs, want) {
		t.Errorf("got %v, want %v", r.Funcs, want)
	}
}

func TestPercentilesAreTheNearestRank(t *testing.T) {
	r := &Report{}
	if got := r.Percentile(90); got != 0 {
		t.Errorf("without functions: got %d, want 0", got)
	}
	for lines := 200; lines > 0; lines-- {
		r.Funcs = append(r.Funcs, Func{Lines: lines})
	}
	for p, want := range map[int]int{0: 1, 50: 100, 90: 180, 99: 198, 100: 200} {
		if got := r.Percentile(p); got != want {
			t.Errorf("percentile %d: got %d, want %d", p, got, want)
		}
	}
}

func TestLongFilesAreProblems(t *testing.T) {
	lines := func(first string, n int) string { return first + strings.Repeat("\n", n-1) + "\n" }
	r := tree(t, "", "a_test.go", lines("package a", 501), "b/b.py", strings.TrimSuffix(lines("", 502), "\n")+"x", "testdata/c.mjs", lines("", 503),
		"fits.go", lines("package a", 500), "d.txt", lines("", 600), "node_modules/e.js", lines("", 600), ".venv/f.py", lines("", 600))
	expect(t, r, "testdata/c.mjs has 503 lines", "b/b.py has 502 lines", "a_test.go has 501 lines")
}

func TestPronounsAreProblems(t *testing.T) {
	word := strings.Split(strings.TrimSpace(sample(t, "texts.md")), " ")[0]
	text := func(words int) string { return word + strings.Repeat(" word", words-1) }
	expect(t, tree(t, "", "a.go", "package a\n\n// "+text(666)+"\n"), "comments: 1 pronouns in 666 words, 1.5 per 1,000")
	expect(t, tree(t, "", "a.go", "package a\n\n// "+text(667)+"\n"))
	expect(t, tree(t, "", "a.go", "package a\n\nconst s = \""+text(20)+"\"\n"), "strings: 1 pronouns in 20 words")
	expect(t, tree(t, "", "docs/a/b.md", text(20)), "docs: 1 pronouns in 20 words")
	expect(t, tree(t, "", "testdata/space/README.md", text(20), "notes.txt", text(20)))
}

func TestPronounsAreFoundInEachKindOfText(t *testing.T) {
	want := map[string][]string{}
	for line := range strings.Lines(sample(t, "found")) {
		name, hit, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want[name] = append(want[name], hit)
	}
	if len(want) != 7 {
		t.Fatalf("testdata/found.txt has hits of %d files, not 7", len(want))
	}
	for name, want := range want {
		at := name
		if strings.HasSuffix(name, ".html") {
			at = "internal/console/pages/" + name
		}
		if got := found(tree(t, "", at, sample(t, name))); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
	}
}

// found returns the hits as line, kind and word. A word outside of the limit follows a hyphen.
func found(r *Report) (all []string) {
	for _, h := range r.Hits {
		mark := ""
		if !h.Limited {
			mark = "-"
		}
		all = append(all, fmt.Sprintf("%d %s %s%s", h.Line, h.Kind, mark, h.Word))
	}
	return all
}

func TestOnlyTheAllowedTextIsExempt(t *testing.T) {
	source := sample(t, "texts.go")
	line := strings.Split(source, "\n")[11]
	_, line, _ = strings.Cut(line, "\\n") // the text of the second pronoun on its line
	line, _, _ = strings.Cut(line, ";")
	allowed := func(glob, text string) *Report { return tree(t, glob+"\t"+text+"\treason", "a/b/texts.go", source) }
	for _, glob := range []string{"a/b/texts.go", "a/*/*.go", "a/**"} {
		if r := allowed(glob, line); len(r.Hits) != 3 || len(r.Unused) != 0 {
			t.Errorf("%s: got %v, %d entries unused, want one pronoun exempt", glob, found(r), len(r.Unused))
		}
	}
	for _, glob := range []string{"a/*.go", "b/**", "a/b"} {
		if r := allowed(glob, line); len(r.Hits) != 4 || len(r.Unused) != 1 {
			t.Errorf("%s: got %v, %d entries unused, want none exempt", glob, found(r), len(r.Unused))
		}
	}
	for _, line := range []string{"a.go\ttext", "a.go\ttext\t", "a.go text reason"} {
		if _, err := parseAllowlist("# comment\n\n" + line); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: got %v, want an error of line 3", line, err)
		}
	}
}

func TestReportIsPrinted(t *testing.T) {
	r := tree(t, "", "a/a.go", "package a\n\n"+function("long", 60), "b/texts.go", sample(t, "texts.go"))
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"median 5, p90 60 (limit 25)", "    60  a/a.go:3 long\n", "STRINGS", "\n          b        3", "Problems: 4\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not contain %q:\n%s", want, &out)
		}
	}
	out.Reset()
	r.PrintWords(&out)
	if lines := strings.Split(out.String(), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "b/texts.go:1: // Package sample is") {
		t.Errorf("got %q, want four lines", lines)
	}
}

func TestDirectoriesRestrictTheMeasure(t *testing.T) {
	root, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Measure(root, "internal/measures/measure/")
	if err != nil || len(r.Files) != 1 || r.Files[0].Path != "internal/measures/measure/main.go" {
		t.Errorf("got %v, %v; want the command alone", r, err)
	}
	if _, err := Root(t.TempDir()); err == nil {
		t.Error("a directory without go.mod has a root")
	}
}

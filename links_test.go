package spacehost

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

// TestLinksResolve checks every relative link and image of the Markdown pages in the root, docs and examples. The target must be
// a file or a folder of the repository, and an anchor must be a heading of the target.
func TestLinksResolve(t *testing.T) {
	pages := markdownPages(t)
	if len(pages) < 10 {
		t.Fatalf("got %d pages, want at least 10: %v", len(pages), pages)
	}
	for _, problem := range brokenLinks(t, os.DirFS("."), pages) {
		t.Error(problem)
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	tree := fstest.MapFS{
		"README.md": {Data: []byte("# Title\n\n[ok](docs/a.md) [ok](docs) [ok](docs/a.md#two-words) [ok](#title) [ok](https://example.org/x.md)\n" +
			"[gone](docs/b.md)\n[bad anchor](docs/a.md#three)\n![gone](docs/x.svg \"title\")\n[bad anchor](#nothing)\n[outside](../other.md)\n[ref]: docs/c.md\n" +
			"`[code](gone.md)`\n```\n[code](gone.md)\n```\n[two\nlines](docs/d.md)\n")},
		"docs/a.md": {Data: []byte("# A\n\n## Two words\n\n## Two words\n\n[ok](../README.md#title) [second](#two-words-1) [bad](#two-words-2)\n\n```\n## In code\n```\n\n[bad](#in-code)\n")},
	}
	want := []string{
		"README.md:4: docs/b.md does not exist",
		"README.md:5: docs/a.md has no heading #three",
		"README.md:6: docs/x.svg does not exist",
		"README.md:7: README.md has no heading #nothing",
		"README.md:8: ../other.md is outside of the repository",
		"README.md:9: docs/c.md does not exist",
		"README.md:15: docs/d.md does not exist",
		"docs/a.md:7: docs/a.md has no heading #two-words-2",
		"docs/a.md:13: docs/a.md has no heading #in-code",
	}
	got := brokenLinks(t, tree, []string{"README.md", "docs/a.md"})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// markdownPages returns the documentation: Markdown in the root, and at any depth below docs and examples.
func markdownPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"docs", "examples"} {
		err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && path.Ext(name) == ".md" {
				pages = append(pages, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return pages
}

var (
	inlineLink    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)`)
	referenceLink = regexp.MustCompile(`(?m)^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$`)
	htmlLink      = regexp.MustCompile(`(?:src|href)="([^"]+)"`)
	codeSpan      = regexp.MustCompile("`[^`\n]*`")
	linkText      = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// brokenLinks returns "page:line: problem" of each link that does not resolve inside tree.
func brokenLinks(t *testing.T, tree fs.FS, pages []string) (problems []string) {
	t.Helper()
	for _, page := range pages {
		text := codeSpan.ReplaceAllStringFunc(withoutCodeBlocks(readPage(t, tree, page)), func(code string) string { return strings.Repeat(" ", len(code)) })
		found := map[int]string{} // by line; the map keeps one problem of a line
		for _, pattern := range []*regexp.Regexp{inlineLink, referenceLink, htmlLink} {
			for _, at := range pattern.FindAllStringSubmatchIndex(text, -1) {
				line := 1 + strings.Count(text[:at[2]], "\n")
				if problem := brokenLink(t, tree, page, text[at[2]:at[3]]); problem != "" {
					found[line] = problem
				}
			}
		}
		for line := range 1 + strings.Count(text, "\n") {
			if problem := found[line]; problem != "" {
				problems = append(problems, page+":"+strconv.Itoa(line)+": "+problem)
			}
		}
	}
	return problems
}

// brokenLink returns why a link of page does not resolve, or "". Links with a scheme are not checked.
func brokenLink(t *testing.T, tree fs.FS, page, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		return link + " cannot be parsed: " + err.Error()
	}
	if u.Scheme != "" || u.Host != "" {
		return ""
	}
	target := page
	if u.Path != "" {
		target = path.Join(path.Dir(page), u.Path)
	}
	if !fs.ValidPath(target) {
		return link + " is outside of the repository"
	}
	info, err := fs.Stat(tree, target)
	if err != nil {
		return target + " does not exist"
	}
	if u.Fragment == "" || !info.IsDir() && path.Ext(target) != ".md" {
		return ""
	}
	if info.IsDir() || !headings(readPage(t, tree, target))[u.Fragment] {
		return target + " has no heading #" + u.Fragment
	}
	return ""
}

func readPage(t *testing.T, tree fs.FS, name string) string {
	t.Helper()
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withoutCodeBlocks replaces the lines of fenced code by empty ones.
func withoutCodeBlocks(text string) string {
	lines := strings.Split(text, "\n")
	fence := ""
	for i, line := range lines {
		mark := strings.TrimSpace(line)
		switch {
		case fence == "" && (strings.HasPrefix(mark, "```") || strings.HasPrefix(mark, "~~~")):
			fence = mark[:3]
		case fence != "" && strings.HasPrefix(mark, fence):
			fence = ""
		case fence == "":
			continue
		}
		lines[i] = ""
	}
	return strings.Join(lines, "\n")
}

// headings returns the anchors of a page, as GitHub makes them: lower case, spaces as hyphens, no punctuation, and -1, -2 ...
// after a repeated heading.
func headings(text string) map[string]bool {
	anchors, seen := map[string]bool{}, map[string]int{}
	for line := range strings.SplitSeq(withoutCodeBlocks(text), "\n") {
		title := strings.TrimLeft(line, "#")
		if level := len(line) - len(title); level == 0 || level > 6 || !strings.HasPrefix(title, " ") {
			continue
		}
		anchor := strings.Map(anchorRune, strings.ToLower(linkText.ReplaceAllString(strings.TrimSpace(title), "$1")))
		if n := seen[anchor]; n > 0 {
			anchors[anchor+"-"+strconv.Itoa(n)] = true
		} else {
			anchors[anchor] = true
		}
		seen[anchor]++
	}
	return anchors
}

func anchorRune(r rune) rune {
	switch {
	case r == ' ':
		return '-'
	case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
		return r
	}
	return -1
}

// codePath matches a code span that names a source file of this repository by its path.
var codePath = regexp.MustCompile("`((?:bench|cmd|examples|gpu|gradioapi|internal|migrations|queue|quota|server|worker)/[\\w./-]+\\.(?:go|py|sql))`")

// TestNamedFilesExist checks the source files that the pages name without a link.
func TestNamedFilesExist(t *testing.T) {
	named := 0
	for _, page := range markdownPages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range codePath.FindAllSubmatch(text, -1) {
			named++
			if _, err := os.Stat(string(found[1])); err != nil {
				t.Errorf("%s names %s: %v", page, found[1], err)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d named files were found", named)
	}
}

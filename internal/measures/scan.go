package measures

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// span is a piece of text of one kind, with the number of its first line.
type span struct {
	line int
	kind Kind
	text string
}

// scan returns the texts and the functions of a file.
type scan func(name, text string) ([]span, []Func, error)

// scanner returns the scan of a file, or nil if the file does not count.
func scanner(name string) scan {
	switch ext := path.Ext(name); {
	case ext == ".go":
		return scanGo
	case ext == ".py":
		return plain(scanPython)
	case ext == ".js" || ext == ".mjs":
		return plain(scanJavaScript)
	case ext == ".html" && strings.HasPrefix(name, "internal/console/pages/"):
		return plain(scanHTML)
	case ext == ".txtar":
		return plain(scanScript)
	case name == "Makefile" || name == ".ci/run" || ext == ".sh" || ext == ".yaml" || ext == ".conf":
		return plain(func(text string) []span { return hashComments(text, ConfigComment) })
	case ext == ".md" && isPage(name):
		return plain(func(text string) []span { return []span{{1, MarkdownText, text}} })
	}
	return nil
}

// isPage reports whether a Markdown file is documentation. The cards of the tests' Spaces are not.
func isPage(name string) bool {
	return !strings.Contains(name, "/") || strings.HasPrefix(name, "docs/") || strings.HasPrefix(name, "examples/")
}

func plain(spans func(text string) []span) scan {
	return func(_, text string) ([]span, []Func, error) { return spans(text), nil, nil }
}

// scanGo returns comments, string literals except import paths and struct tags, and functions outside of tests.
func scanGo(name, text string) (spans []span, funcs []Func, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	line := func(at token.Pos) int { return files.Position(at).Line }
	literals, comments := GoString, GoComment
	if isTest(name) {
		literals, comments = GoTestString, GoTestComment
	} else {
		funcs = goFuncs(name, file, line)
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			spans = append(spans, span{line(c.Pos()), comments, c.Text})
		}
	}
	tags := map[ast.Node]bool{}
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			if n.Tag != nil {
				tags[n.Tag] = true
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && !tags[n] {
				spans = append(spans, span{line(n.Pos()), literals, unquote(n.Value)})
			}
		}
		return true
	})
	return spans, funcs, nil
}

func goFuncs(name string, file *ast.File, line func(token.Pos) int) (funcs []Func) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		from := line(f.Pos())
		funcs = append(funcs, Func{name, from, funcName(f), line(f.Body.Rbrace) - from + 1})
	}
	return funcs
}

// funcName returns the name of a function, after the type of its receiver.
func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	for {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.IndexListExpr:
			receiver = r.X
		case *ast.Ident:
			return r.Name + "." + f.Name.Name
		default:
			return f.Name.Name
		}
	}
}

// unquote returns the value of a literal. Line feeds remain only if the source has them too, for the line numbers.
func unquote(literal string) string {
	value, err := strconv.Unquote(literal)
	if err != nil {
		value = literal
	}
	if !strings.HasPrefix(literal, "`") {
		value = strings.ReplaceAll(value, "\n", " ")
	}
	return value
}

// hash matches a comment of a Makefile, a shell script or a YAML file. ${#list[@]} is no comment.
var hash = regexp.MustCompile(`(?:^|\s)#.*`)

func hashComments(text string, kind Kind) (spans []span) {
	for i, line := range strings.Split(text, "\n") {
		if comment := hash.FindString(line); comment != "" {
			spans = append(spans, span{i + 1, kind, comment})
		}
	}
	return spans
}

// scanScript splits a testscript into comment lines, and commands with the files behind them.
func scanScript(text string) (spans []span) {
	for i, line := range strings.Split(text, "\n") {
		kind := ScriptText
		if strings.HasPrefix(line, "#") {
			kind = ScriptComment
		}
		spans = append(spans, span{i + 1, kind, line})
	}
	return spans
}

var (
	tag       = regexp.MustCompile(`(?s)<!--.*?-->|<[^>]*>|\{\{.*?\}\}`) // {{...}}: code of html/template
	attribute = regexp.MustCompile(`(?s)\s(?:title|placeholder|alt|aria-label|content)="([^"]*)"`)
)

// scanHTML returns the visible text of a page: its text and the attributes that browsers show or read aloud.
func scanHTML(text string) []span {
	visible := tag.ReplaceAllStringFunc(text, func(tag string) string {
		kept := strings.Repeat("\n", strings.Count(tag, "\n"))
		if strings.HasPrefix(tag, "<!--") {
			return tag
		}
		for _, value := range attribute.FindAllStringSubmatch(tag, -1) {
			kept = " " + strings.ReplaceAll(value[1], "\n", " ") + " " + kept
		}
		return " " + kept
	})
	return []span{{1, PageText, visible}}
}

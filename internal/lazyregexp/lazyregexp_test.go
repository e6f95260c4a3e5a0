package lazyregexp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestMethods compares each method with the one of package regexp.
func TestMethods(t *testing.T) {
	const expression, text = `(\w)(\d)`, "a1 b2 c"
	lazy, eager := New(expression), regexp.MustCompile(expression)
	for _, c := range []struct{ got, want any }{
		{lazy.MatchString(text), eager.MatchString(text)},
		{lazy.FindString(text), eager.FindString(text)},
		{lazy.FindAllString(text, -1), eager.FindAllString(text, -1)},
		{lazy.FindStringSubmatch(text), eager.FindStringSubmatch(text)},
		{lazy.FindAllStringSubmatch(text, -1), eager.FindAllStringSubmatch(text, -1)},
		{lazy.ReplaceAllString(text, "$2$1"), eager.ReplaceAllString(text, "$2$1")},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

// TestTestsFindMistakes: a wrong expression fails every test of its package, used or not.
func TestTestsFindMistakes(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New accepted a wrong expression in a test")
		}
	}()
	New(`(`)
}

// TestNoExpressionIsCompiledAtTheStart looks for expressions in variables of the packages of spacehost.
func TestNoExpressionIsCompiledAtTheStart(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{range .GoFiles}}{{$.Dir}}/{{.}}{{"\n"}}{{end}}{{end}}`, "spacehost/cmd/spacehost").Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for path := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(path, root+"/") {
			continue // of another module
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			if variables, ok := declared.(*ast.GenDecl); ok && variables.Tok == token.VAR {
				reportCompiled(t, set, variables)
			}
		}
	}
	if files < 100 {
		t.Errorf("%d files of the program were read; want at least 100", files)
	}
}

// reportCompiled ignores function literals, which run later.
func reportCompiled(t *testing.T, set *token.FileSet, variables *ast.GenDecl) {
	ast.Inspect(variables, func(n ast.Node) bool {
		if called, ok := n.(*ast.SelectorExpr); ok && called.Sel.Name == "MustCompile" {
			t.Errorf("%s: regexp.MustCompile runs in every process; use lazyregexp.New", set.Position(called.Pos()))
		}
		_, isFunction := n.(*ast.FuncLit)
		return !isFunction
	})
}

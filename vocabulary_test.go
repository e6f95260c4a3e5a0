package spacehost

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// vocabularyFile defines the terms. Its header must stay as vocabularyHeader has it.
const (
	vocabularyFile   = "docs/vocabulary.md"
	vocabularyHeader = "| Word | Meaning | On the wire | Not |"
	proseOnly        = "(prose only)"
)

// allowedNames are exported names that contain a forbidden word for a good reason. Add an entry only if the name is that of
// another system or has an established meaning in Go.
var allowedNames = map[string]string{
	"queue.Message.ETA": "Gradio's own word: eta and rank_eta of its messages",
}

func TestExportedNamesFollowTheVocabulary(t *testing.T) {
	synonyms := readVocabularyFile(t)
	used := map[string]bool{}
	for _, file := range sourceFiles(t) {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := checkNames(file, source, synonyms)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if _, allowed := allowedNames[f.name]; allowed {
				used[f.name] = true
				continue
			}
			t.Errorf("%s: exported name %s contains %q; use the term %q (%s) or add the name to allowedNames with a reason",
				f.position, f.name, f.word, f.term, vocabularyFile)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowedNames)) {
		if !used[name] {
			t.Errorf("allowedNames has %s, which no exported name needs; remove the entry", name)
		}
	}
}

// The check finds every kind of exported declaration, plurals and phrases, and nothing else.
func TestVocabularyCheckFindsForbiddenNames(t *testing.T) {
	const table = vocabularyHeader + "\n|---|---|---|---|\n" +
		"| Device | a GPU | nvidiaUUID | card |\n" +
		"| Dialect | a format | | protocol version |\n" +
		"| Job | work | | work item, request (prose only) |\n"
	const source = `package gpu

// A Card in a comment is not a name.
type CardStatus struct {
	ProtocolVersion int
	discarded       int
}

const MaxCards, Discard = 1, 2

type Store interface{ NextWorkItem() }

func (s CardStatus) UseGPUCard(card int) { Card := card; _ = Card }

type hidden struct{ Card int }

func helperCard() {}

type Request struct{ Version int }
`
	synonyms, err := readVocabulary(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	found, err := checkNames("sample.go", []byte(source), synonyms)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s: %s not %s", f.position, f.name, f.term, f.word))
	}
	want := []string{
		"sample.go:4 gpu.CardStatus: Device not card",
		"sample.go:5 gpu.CardStatus.ProtocolVersion: Dialect not protocol version",
		"sample.go:9 gpu.MaxCards: Device not card",
		"sample.go:11 gpu.Store.NextWorkItem: Job not work item",
		"sample.go:13 gpu.CardStatus.UseGPUCard: Device not card",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A table that cannot be read must not pass as a table without forbidden words.
func TestVocabularyTableIsChecked(t *testing.T) {
	for _, bad := range []string{
		"",
		"| Word | Meaning | Not |\n|---|---|---|\n| Device | a GPU | card |\n",
		vocabularyHeader + "\n|---|---|---|---|\n| Device | a GPU | card |\n",
		vocabularyHeader + "\n|---|---|---|---|\n| Device | | | card |\n",
		vocabularyHeader + "\n|---|---|---|---|\n| Device | a GPU | | card |\n| Device | again | | |\n",
	} {
		if synonyms, err := readVocabulary(strings.NewReader(bad)); err == nil {
			t.Errorf("no error, but %v, for\n%s", synonyms, bad)
		}
	}
}

// synonym is a word, or a phrase of several words, that names use in place of term.
type synonym struct {
	term  string
	words []string
}

func readVocabularyFile(t *testing.T) []synonym {
	t.Helper()
	file, err := os.Open(vocabularyFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	synonyms, err := readVocabulary(file)
	if err != nil {
		t.Fatalf("%s: %v", vocabularyFile, err)
	}
	return synonyms
}

// readVocabulary returns the checked words of all tables with vocabularyHeader.
func readVocabulary(from io.Reader) (all []synonym, err error) {
	terms := map[string]bool{}
	inTable := false
	for lines := bufio.NewScanner(from); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == vocabularyHeader:
			inTable = true
			continue
		case !strings.HasPrefix(line, "|"):
			inTable = false
		}
		if !inTable || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 4 {
			return nil, fmt.Errorf("row %q has %d columns, not 4", line, len(cells))
		}
		term, meaning := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1])
		if term == "" || meaning == "" {
			return nil, fmt.Errorf("row %q needs a word and a meaning", line)
		}
		if terms[term] {
			return nil, fmt.Errorf("%q is defined twice", term)
		}
		terms[term] = true
		for entry := range strings.SplitSeq(cells[3], ",") {
			entry = strings.TrimSpace(entry)
			if entry != "" && !strings.HasSuffix(entry, proseOnly) {
				all = append(all, synonym{term, strings.Fields(strings.ToLower(entry))})
			}
		}
	}
	if len(terms) == 0 {
		return nil, fmt.Errorf("no table with the header %q", vocabularyHeader)
	}
	return all, nil
}

// sourceFiles are the Go files of this repository that are no tests.
func sourceFiles(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && path != "." && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".")):
			return filepath.SkipDir
		case !entry.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d source files; run the test in the root of the repository", len(all))
	}
	return all
}

type nameFinding struct{ position, name, word, term string }

// checkNames returns the exported names of one file that contain a synonym, in the order of the file.
func checkNames(path string, source []byte, synonyms []synonym) (found []nameFinding, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, n := range exportedNames(file) {
		words := camelWords(n.ident.Name)
		for _, s := range synonyms {
			if containsPhrase(words, s.words) {
				position := files.Position(n.ident.Pos())
				found = append(found, nameFinding{
					fmt.Sprintf("%s:%d", position.Filename, position.Line), n.qualified, strings.Join(s.words, " "), s.term,
				})
			}
		}
	}
	return found, nil
}

type exportedName struct {
	ident     *ast.Ident
	qualified string // package.Name, or package.Type.Name
}

// exportedNames are top-level names, and methods and fields of exported types.
func exportedNames(file *ast.File) (all []exportedName) {
	add := func(owner string, idents ...*ast.Ident) {
		for _, ident := range idents {
			if ident.IsExported() {
				all = append(all, exportedName{ident, owner + "." + ident.Name})
			}
		}
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			owner := file.Name.Name
			if d.Recv != nil {
				receiver := receiverName(d.Recv.List[0].Type)
				if !ast.IsExported(receiver) {
					continue
				}
				owner += "." + receiver
			}
			add(owner, d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.ValueSpec:
					add(file.Name.Name, s.Names...)
				case *ast.TypeSpec:
					add(file.Name.Name, s.Name)
					if s.Name.IsExported() {
						for _, member := range members(s.Type) {
							add(file.Name.Name+"."+s.Name.Name, member.Names...)
						}
					}
				}
			}
		}
	}
	return all
}

func receiverName(receiver ast.Expr) string {
	switch r := receiver.(type) {
	case *ast.StarExpr:
		return receiverName(r.X)
	case *ast.IndexExpr:
		return receiverName(r.X)
	case *ast.IndexListExpr:
		return receiverName(r.X)
	case *ast.Ident:
		return r.Name
	}
	return ""
}

func members(of ast.Expr) []*ast.Field {
	switch t := of.(type) {
	case *ast.StructType:
		return t.Fields.List
	case *ast.InterfaceType:
		return t.Methods.List
	}
	return nil
}

// camelWords splits "UseGPUCard2" into "use", "gpu", "card2".
func camelWords(name string) (words []string) {
	runes := []rune(name)
	start := 0
	for i := 1; i < len(runes); i++ {
		afterLower := unicode.IsUpper(runes[i]) && !unicode.IsUpper(runes[i-1])
		endOfAcronym := unicode.IsUpper(runes[i]) && i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if afterLower || endOfAcronym {
			words = append(words, strings.ToLower(string(runes[start:i])))
			start = i
		}
	}
	return append(words, strings.ToLower(string(runes[start:])))
}

// containsPhrase ignores a plural "s" at the end of each word.
func containsPhrase(words, phrase []string) bool {
	for i := 0; i+len(phrase) <= len(words); i++ {
		if slices.EqualFunc(words[i:i+len(phrase)], phrase, func(word, want string) bool {
			return word == want || word == want+"s"
		}) {
			return true
		}
	}
	return false
}

package gradioapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/queue"
)

// found collects the paths that a walk reports, in order: path@field[index], with ! if marked.
func found(t testing.TB, raw string) (all []string) {
	t.Helper()
	err := walkFiles([]byte(raw), func(f fileRef) error {
		if f.element {
			return nil
		}
		mark := ""
		if f.marked {
			mark = "!"
		}
		all = append(all, fmt.Sprintf("%s%s@%s[%d]", f.path, mark, f.field, f.index))
		return nil
	})
	if err != nil {
		t.Fatalf("walk %.100s: %v", raw, err)
	}
	return all
}

func TestWalkFindsEveryFile(t *testing.T) {
	nested := `{"path":"/p","meta":{"_type":"gradio.FileData"}}`
	for range 8 {
		text, _ := json.Marshal(nested)
		nested = string(text)
	}
	rows := map[string][]string{
		`{"data":[1,"x",{"path":"/p"}]}`:                                            {"/p@data[2]"},
		`{"data":[{"path":"/p","meta":{"_type":"gradio.FileData"}}]}`:               {"/p!@data[0]"},
		`{"data":[{"meta":{"_type":"gradio.FileData"},"path":"/p"}]}`:               {"/p!@data[0]"},
		`{"data":[{"path":"/p","orig_name":null}]}`:                                 {"/p!@data[0]"},
		`{"data":[[],[{"a":{"b":[{"path" : "/p"}]}}]]}`:                             {"/p@data[1]"},
		`{"data":[NaN,-Infinity,{"path":"/p"}]}`:                                    {"/p@data[2]"},
		`{"data":[{"\u0070ath":"\u002fp"}]}`:                                        {"/p@data[0]"},
		`{"data":[{"path":"/a","path":"/b"}]}`:                                      {"/a@data[0]", "/b@data[0]"},
		`{"data":[{"path":"/p"`:                                                     {"/p@data[0]"},
		`{"data":[{"path":["/p"]},{"path":null},{"x":"path"},"path","/p"]}`:         nil,
		`{"event_data":{"path":"/p"},"data":[]}`:                                    {"/p@event_data[-1]"},
		`{"image":{"path":"/p"}}`:                                                   {"/p@image[-1]"},
		`{"data":["{\"path\":\"/p\"}"]}`:                                            nil, // plain text is not walked
		`{"data":["[{\"path\":\"/p\",\"meta\":{\"_type\":\"gradio.FileData\"}}]"]}`: {"/p!@[0]"},
		`{"data":[` + nested + `]}`:                                                 {"/p!@[-1]"},
		`]}]}{"data":[{"path":"/p"}]}`:                                              {"/p@data[0]"},
		``:                                                                          nil, `"`: nil, "\\": nil,
	}
	for raw, want := range rows {
		got := found(t, raw)
		for i := range got { // the position of a nested path does not matter
			if _, inner, ok := strings.Cut(got[i], "!@"); ok && !strings.HasPrefix(inner, "data") && !strings.HasPrefix(inner, "event") {
				got[i] = "/p!@"
			}
		}
		for i := range want {
			if strings.HasPrefix(want[i], "/p!@[") {
				want[i] = "/p!@"
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%.120s: got %q, want %q", raw, got, want)
		}
	}
}

func TestWalkIsBounded(t *testing.T) {
	check := func(fileRef) error { return nil }
	if err := walkFiles([]byte(strings.Repeat(`[`, maxDepth+1)), check); err != errTooDeep {
		t.Errorf("%d levels: got %v, want errTooDeep", maxDepth+1, err)
	}
	long := `{"path":"` + strings.Repeat("x", 1_000_000) + `"}`
	for range 12 {
		text, _ := json.Marshal(long)
		long = `[` + string(text) + `]`
	}
	if err := walkFiles([]byte(long), check); err != errTooDeep {
		t.Errorf("a long nested string: got %v, want errTooDeep", err)
	}
}

// TestCheckPath: a path must be in the folders of uploads and caches, or be the author's own.
func TestCheckPath(t *testing.T) {
	home := t.TempDir()
	for _, path := range []string{"up/a/x", "upside/x", "cache/x", "own/x", "static/x", "secret/x"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(home, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(home, "secret"), filepath.Join(home, "up", "link")); err != nil {
		t.Fatal(err)
	}
	f := &queue.Files{Uploads: filepath.Join(home, "up"), Cache: filepath.Join(home, "cache"), Allowed: []string{filepath.Join(home, "own")}}
	f.SetStatic([]string{filepath.Join(home, "static")})
	check := func(path string) error {
		paths := pathCheck{ctx: t.Context(), shelf: shelf.New(shelf.Config{}), files: f}
		return paths.end(paths.add(path))
	}
	for path, ok := range map[string]bool{
		"up/a/x": true, "cache/x": true, "own/x": true, "static/x": true, "up/a/../a/x": true, "up//a/./x": true,
		"secret/x": false, "up/../secret/x": false, "up/link/x": false, "upside/x": false, "up/none": false, "up/a/x\x00": false, "": false,
	} {
		if err := check(home + "/" + path); (err == nil) != ok {
			t.Errorf("%q: got %v, want allowed: %v", path, err, ok)
		}
	}
	for path, ok := range map[string]bool{
		"": true, "x": false, "up/a/x": false, "/etc/passwd": false, "/proc/self/cwd/x": false, "~/x": false, "file:///etc/passwd": false,
		"https://example.com/a.png": true, "http://8.8.8.8/": true, "http://127.0.0.1/": false, "http://[::1]/": false, "http://[::ffff:10.0.0.1]/": false,
		"http://2130706433/": false, "http://0x7f.1/": false, "http://127.1/": false, "http://localhost./": false, "http://a.localhost:80/": false,
		"http://169.254.169.254/latest": false, "http://metadata.google.internal/": false, "http://100.64.0.1/": false, "http://0.0.0.0/": false,
		"http://evil.com\\@127.0.0.1/": false, "http://u:p@example.com/": false, "http:///x": false, "http://[fe80::1%25eth0]/": false,
	} {
		if err := check(path); (err == nil) != ok {
			t.Errorf("%q: got %v, want allowed: %v", path, err, ok)
		}
	}
}

// TestChecksKeepTheOrder: the first wrong path of a body is reported, whether it is a file or a URL. A body that names many files
// is checked in parts.
func TestChecksKeepTheOrder(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(home, "a")
	many := slices.Repeat([]string{good}, 2*maxPathsAtOnce+1)
	for _, row := range []struct {
		paths []string
		wrong string
	}{
		{[]string{good, "", "https://example.com/"}, ""},
		{[]string{good, "/wrong", "http://localhost/"}, "/wrong"},
		{[]string{good, "http://localhost/", "/wrong"}, "http://localhost/"},
		{many, ""},
		{append(slices.Clone(many), "/wrong", "/wrong too"), "/wrong"},
		{append([]string{"/wrong"}, many...), "/wrong"},
	} {
		counted := &countingShelf{Shelf: shelf.New(shelf.Config{})}
		paths := pathCheck{ctx: t.Context(), shelf: counted, files: &queue.Files{Uploads: home}}
		var err error
		for _, path := range row.paths {
			if err = paths.add(path); err != nil {
				break
			}
		}
		err = paths.end(err)
		wrong := &FileError{}
		if errors.As(err, &wrong) != (row.wrong != "") || wrong.Path != row.wrong {
			t.Errorf("%d paths: got %v, want %q refused", len(row.paths), err, row.wrong)
		}
		if counted.most > maxPathsAtOnce {
			t.Errorf("%d paths at once, want %d at most", counted.most, maxPathsAtOnce)
		}
	}
	paths := pathCheck{ctx: t.Context(), shelf: &countingShelf{Shelf: shelf.New(shelf.Config{}), fails: true}, files: &queue.Files{Uploads: home}}
	if err := paths.end(paths.add(good)); err == nil {
		t.Error("a call whose files could not be checked is let through")
	}
}

// countingShelf counts the paths of a check. It may fail.
type countingShelf struct {
	Shelf
	most  int
	fails bool
}

func (s *countingShelf) Check(ctx context.Context, f *queue.Files, paths []string) ([]string, error) {
	s.most = max(s.most, len(paths))
	if s.fails {
		return nil, errors.New("unreachable")
	}
	return s.Shelf.Check(ctx, f, paths)
}

// FuzzWalkFiles: the walk finds every path that encoding/json finds in a valid body.
func FuzzWalkFiles(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		var paths []string
		err := walkFiles(raw, func(f fileRef) error {
			if !f.element {
				paths = append(paths, f.path)
			}
			return nil
		})
		var value any
		if err != nil || json.Unmarshal(raw, &value) != nil {
			return
		}
		for _, want := range pathsIn(value) {
			if !slices.Contains(paths, want) {
				t.Errorf("path %q of body %q was not found; found %q", want, raw, paths)
			}
		}
	})
}

func pathsIn(value any) (all []string) {
	switch v := value.(type) {
	case []any:
		for _, inner := range v {
			all = append(all, pathsIn(inner)...)
		}
	case map[string]any:
		if path, ok := v["path"].(string); ok {
			all = append(all, path)
		}
		for _, inner := range v {
			all = append(all, pathsIn(inner)...)
		}
	}
	return all
}

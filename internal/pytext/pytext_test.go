package pytext

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"spacehost/internal/pytext/pytexttest"
)

// TestDumpsMatchesPython: the rows are orjson output; Python parses them and writes the same values with
// json.dumps.
func TestDumpsMatchesPython(t *testing.T) {
	rows := []string{
		`null`, `true`, `false`, `0`, `-1`, `1.0`, `0.1`, `-0.0`, `1e+16`, `1e+22`, `1.5e+300`, `5e-324`, `123456789012345678901234567890`,
		`""`, `"hi a"`, `"a, b: c"`, `"\"quoted\", \\ and /"`, `"ends with \\"`, `"<>&'"`, `"\b\t\n\f\r"`, `"\u0000\u001f"`, "\"\x7f\"",
		`"é"`, `"ß€"`, `"😀"`, `"a😀, b"`, "\"\u2028\u2029\u0085\ufeff\uffff\"", `"\u00e9 as an escape"`, `"日本語"`,
		`[]`, `{}`, `[[]]`, `[{}]`, `["a",1,null,[true,false]]`, `{"a":1,"b":[2,{"c":"d"}],"é":{"x":{}}}`, `[["append",[],"tok1 "]]`, `{"a,b":"c:d","\"":","}`,
		`{"error":"custom boom","duration":3,"visible":true,"title":"My Title"}`,
	}
	want := dumps(t, rows)
	for i, row := range rows {
		if got := string(Dumps([]byte(row))); got != want[i] {
			t.Errorf("%s: got %s, want %s", row, got, want[i])
		}
	}
}

// dumps runs Python's json.dumps. Only the text of numbers changes.
func dumps(t *testing.T, rows []string) []string {
	t.Helper()
	cmd := exec.Command("python3", "-c", "import json, sys\nfor line in sys.stdin.buffer.read().split(b'\\0'): print(json.dumps(json.loads(line)))")
	cmd.Stdin = strings.NewReader(strings.Join(rows, "\x00"))
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("python3 failed: %v", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(rows) {
		t.Fatalf("python3 wrote %d lines for %d rows", len(lines), len(rows))
	}
	return lines
}

// TestDumpsOfRandomValues uses random values in compact form, written by Go, which escapes more than orjson.
func TestDumpsOfRandomValues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]string, 500)
	for i := range rows {
		rows[i] = string(JSON(randomValue(r, 4)))
	}
	want := dumps(t, rows)
	for i, row := range rows {
		if got := Dumps([]byte(row)); string(got) != want[i] {
			t.Errorf("%s:\ngot  %s\nwant %s", row, got, want[i])
		}
	}
}

func randomValue(r *rand.Rand, depth int) any {
	switch kind := r.IntN(6); {
	case kind == 0:
		return nil
	case kind == 1:
		return r.IntN(2) == 0
	case kind == 2:
		return r.Int64()
	case kind == 3 && depth > 0:
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = randomValue(r, depth-1)
		}
		return list
	case kind == 4 && depth > 0:
		return map[string]any{randomText(r): randomValue(r, depth-1)}
	}
	return randomText(r)
}

func randomText(r *rand.Rand) string {
	var text strings.Builder
	for range r.IntN(8) {
		text.WriteString([]string{"a", `"`, `\`, ", ", ": ", "\n", "\x01", "\x7f", "é", "\u2028", "😀", "{", "]"}[r.IntN(13)])
	}
	return text.String()
}

func FuzzDumps(f *testing.F) {
	f.Add([]byte(`{"a":[1,"é\\\"",null],"b":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, back any
		if pytexttest.Decode(data, &want) != nil {
			t.Skip("not JSON")
		}
		got := Dumps(data)
		if err := pytexttest.Decode(got, &back); err != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%q became %q: %v", data, got, err)
		}
		if i := bytes.IndexFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
			t.Errorf("%q became %q, which is not printable ASCII at %d", data, got, i)
		}
	})
}

func TestParseOptions(t *testing.T) {
	for header, want := range map[string]string{
		`form-data; name="files"; filename="a;b \"c\".txt"`:   `a;b "c".txt`,
		`form-data; filename=plain.txt ; name=files`:          `plain.txt`,
		`form-data; name="files"; filename="C:\dir\x.txt"`:    `x.txt`,
		`form-data; name="files"; FileName="x"`:               `x`,
		`form-data; name="files"; filename*=utf-8''x`:         ``,
		`form-data; name="files"; filename="a\\b"`:            `a\b`,
		`form-data; name="files"; filename="open`:             `"open`,
		`form-data; name="files"; filename="a"; filename="b"`: `b`,
	} {
		if kind, options := ParseOptions(header); kind != "form-data" || options["filename"] != want || options["name"] == "" {
			t.Errorf("%s: got %q %q, want %q", header, kind, options, want)
		}
	}
}

package shelf

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestNamesMatchGradio: the rows are the results of the real packages (gradio_client 2.7 with Gradio 6, 1.13 with 5,
// 1.3 with 4).
func TestNamesMatchGradio(t *testing.T) {
	for _, row := range []struct{ name, v4, v5, v6 string }{
		{"plain.txt", "plain.txt", "plain.txt", "plain.txt"},
		{"a b#c(d)[e].t+t", "a bcde.tt", "a bcde.t+t", "a b#c(d)[e].t+t"},
		{"x!$`{}<>:|?*.y!z", "x.yz", "x.y!z", "x.yz"},
		{"..", "..", "..", ".."},
		{".", ".", ".", "file"},
		{"", "", "", "file"},
		{"#.txt", ".txt", ".txt", "#.txt"},
		{"!.txt", ".txt", ".txt", "file.txt"},
		{"con.txt", "con.txt", "con.txt", "_con.txt"},
		{"NUL", "NUL", "NUL", "_NUL"},
		{"com¹.x", "com¹.x", "com¹.x", "_com¹.x"},
		{"ends. .", "ends. .", "ends. .", "ends"},
		{"é日本.png", "é日本.png", "é日本.png", "é日本.png"},
		{".env", ".env", ".env", ".env"},
		{strings.Repeat("n", 250) + ".txt", strings.Repeat("n", 200), strings.Repeat("n", 196) + ".txt", strings.Repeat("n", 196) + ".txt"},
		{"a." + strings.Repeat("é", 150), "a." + strings.Repeat("é", 99), "." + strings.Repeat("é", 150), "file." + strings.Repeat("é", 97)},
	} {
		if got := nameV4(row.name); got != row.v4 {
			t.Errorf("4: %q: got %q, want %q", row.name, got, row.v4)
		}
		if got := nameV5(row.name); got != row.v5 {
			t.Errorf("5: %q: got %q, want %q", row.name, got, row.v5)
		}
		if got := nameV6(row.name); got != row.v6 {
			t.Errorf("6: %q: got %q, want %q", row.name, got, row.v6)
		}
	}
}

// FuzzUploadName: no name leads out of a folder or exceeds the limit of file systems.
func FuzzUploadName(f *testing.F) {
	f.Fuzz(func(t *testing.T, filename string) {
		for _, rule := range []naming{nameV4, nameV5, nameV6} {
			in := intake{rename: rule}
			name, err := in.nameOf(safeDecode(filename))
			if err == nil && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > maxName || !utf8.ValidString(name)) {
				t.Errorf("%q became %q", filename, name)
			}
		}
	})
}

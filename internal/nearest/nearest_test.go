package nearest

import (
	"strings"
	"testing"
)

func TestEditDistance(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"ada", "ada", 0}, {"kitten", "sitting", 3}, {"ab", "ba", 2}, {"flaw", "lawn", 2}} {
		if got := EditDistance(row.a, row.b); got != row.want {
			t.Errorf("EditDistance(%s, %s): got %d, want %d", row.a, row.b, got, row.want)
		}
	}
}

func TestNames(t *testing.T) {
	all := []string{"ada", "ada.lovelace", "adam", "ben", "bo", "grace", "zoe"}
	for name, want := range map[string]string{
		"adda": "ada adam", "ADA": "ada adam ada.lovelace", "ad": "ada ada.lovelace adam", "grcae": "grace", "gr": "grace",
		"b": "ben bo", "xy": "", "": "", "nobody": "", strings.Repeat("a", 1<<16): "",
	} {
		if got := strings.Join(Names(name, all), " "); got != want {
			t.Errorf("Names(%.40q): got %q, want %q", name, got, want)
		}
	}
}

func TestKey(t *testing.T) {
	all := []string{"title", "sdk", "sdk_version", "app_file", "fullWidth", "python_version", "pinned"}
	for key, want := range map[string]string{
		"Title": "title", "titel": "", "tite": "title", "app-file": "app_file", "appfile": "app_file", "full_width": "fullWidth",
		"sdkversion": "sdk_version", "sdk_verison": "sdk_version", "sdk_verisno": "", "pyhton_version": "python_version",
		"sdx": "", "sd": "", "SDK": "sdk", "": "", "pined": "pinned", "pnd": "", strings.Repeat("t", 1<<20): "",
	} {
		if got := Key(key, all); got != want {
			t.Errorf("Key(%.40q): got %q, want %q", key, got, want)
		}
	}
}

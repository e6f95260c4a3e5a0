package people

import (
	"net/http"
	"strings"
	"testing"
)

// header makes a header of "Name: value" lines, as net/http does.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

// longToken is the longest accepted token.
var longToken = "sph_" + strings.Repeat("a", maxBearer-4)

// bearerRows are the cases of TestBearer.
var bearerRows = []struct {
	name  string
	lines []string
	want  string // "": absent
}{
	{"none", nil, ""},
	{"Authorization", []string{"Authorization: Bearer sph_a"}, "sph_a"},
	{"x-hf-authorization", []string{"x-hf-authorization: Bearer sph_a"}, "sph_a"},
	{"names in any case", []string{"AUTHORIZATION: Bearer sph_a"}, "sph_a"},
	{"scheme in any case", []string{"Authorization: bEARER sph_a"}, "sph_a"},
	{"spaces", []string{"Authorization:   Bearer   sph_a  "}, "sph_a"},
	{"tab", []string{"Authorization: Bearer\tsph_a"}, "sph_a"},
	{"of full length", []string{"Authorization: Bearer " + longToken}, longToken},
	{"one that ByToken will refuse", []string{`Authorization: Bearer sph_"typo"`}, `sph_"typo"`},
	{"prefix alone", []string{"Authorization: Bearer sph_"}, "sph_"},

	{"empty", []string{"Authorization: "}, ""},
	{"scheme alone", []string{"Authorization: Bearer"}, ""},
	{"no scheme", []string{"Authorization: sph_a"}, ""},
	{"no space", []string{"Authorization: Bearersph_a"}, ""},
	{"another scheme", []string{"Authorization: Basic sph_a"}, ""},
	{"token scheme", []string{"Authorization: token sph_a"}, ""},
	{"Hugging Face's", []string{"Authorization: Bearer hf_a"}, ""},
	{"Hugging Face's, as gradio_client sends it", []string{"x-hf-authorization: Bearer hf_a"}, ""},
	{"an app's own", []string{"Authorization: Bearer eyJhbGciOi.sph_a.x"}, ""},
	{"prefix in capitals", []string{"Authorization: Bearer SPH_a"}, ""},
	{"prefix later", []string{"Authorization: Bearer xsph_a"}, ""},
	{"two tokens in a line", []string{"Authorization: Bearer sph_a, Bearer sph_a"}, ""},
	{"two words", []string{"Authorization: Bearer sph_a b"}, ""},
	{"too long", []string{"Authorization: Bearer " + longToken + "a"}, ""},
	{"line too long", []string{"Authorization: Bearer " + strings.Repeat(" ", maxLine) + "sph_a"}, ""},
	{"huge", []string{"Authorization: Bearer sph_" + strings.Repeat("a", 1<<20)}, ""},
	{"not ASCII", []string{"Authorization: Bearer sph_é"}, ""},
	{"broken byte", []string{"Authorization: Bearer sph_\xff"}, ""},
	{"NUL", []string{"Authorization: Bearer sph_\x00"}, ""},
	{"DEL", []string{"Authorization: Bearer sph_\x7f"}, ""},
	{"line break", []string{"Authorization: Bearer sph_a\r\nX: y"}, ""},
	{"another header", []string{"Proxy-Authorization: Bearer sph_a"}, ""},
	{"in a cookie", []string{"Cookie: Authorization=Bearer sph_a"}, ""},

	{"both, the same", []string{"Authorization: Bearer sph_a", "x-hf-authorization: Bearer sph_a"}, "sph_a"},
	{"both, different", []string{"Authorization: Bearer sph_a", "x-hf-authorization: Bearer sph_b"}, "sph_b"},
	{"saved token of Hugging Face beside ours", []string{"Authorization: Bearer sph_a", "x-hf-authorization: Bearer hf_b"}, "sph_a"},
	{"an app's own beside ours", []string{"Authorization: Basic YTpi", "x-hf-authorization: Bearer sph_b"}, "sph_b"},

	{"twice the same", []string{"Authorization: Bearer sph_a", "Authorization: bearer  sph_a"}, "sph_a"},
	{"twice, different", []string{"Authorization: Bearer sph_a", "Authorization: Bearer sph_b"}, ""},
	{"twice, the second not ours", []string{"Authorization: Bearer sph_a", "Authorization: Bearer hf_b"}, ""},
	{"twice, the first not ours", []string{"Authorization: Basic YTpi", "Authorization: Bearer sph_a"}, ""},
	{"twice, the second empty", []string{"Authorization: Bearer sph_a", "Authorization: "}, ""},
	{"three times, the last different", []string{"Authorization: Bearer sph_a", "Authorization: Bearer sph_a", "Authorization: Bearer sph_b"}, ""},
	{"x-hf-authorization twice, different", []string{"x-hf-authorization: Bearer sph_a", "x-hf-authorization: Bearer sph_b"}, ""},
	{"Authorization where x-hf-authorization disagrees", []string{"x-hf-authorization: Bearer sph_a", "x-hf-authorization: Bearer sph_b", "Authorization: Bearer sph_c"}, "sph_c"},
}

func TestBearer(t *testing.T) {
	for _, row := range bearerRows {
		t.Run(row.name, func(t *testing.T) {
			token, ok := Bearer(header(row.lines...))
			if token != row.want || ok != (row.want != "") {
				t.Errorf("%.200q: got %.200q, %v, want %.200q", row.lines, token, ok, row.want)
			}
		})
	}
	if token, ok := Bearer(nil); ok || token != "" {
		t.Errorf("no header: got %q, %v", token, ok)
	}
}

// For any input, a token is accepted only from a header line that contains it in the exact form of a spacehost token.
func FuzzBearer(f *testing.F) {
	for _, seed := range [][4]string{
		{"Bearer sph_a", "", "", ""}, {"bearer  sph_a", "Bearer sph_a", "", ""}, {"Bearer sph_a", "Bearer sph_b", "Bearer hf_a", ""},
		{"Basic YTpi", "", "Bearer sph_a", "Bearer sph_a"}, {"Bearer\tsph_\x00", "Bearer sph_\xff", "Bearer sph_é", "Bearer\u00a0sph_a"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		h := http.Header{"Authorization": {a, b}, "X-Hf-Authorization": {c, d}}
		token, ok := Bearer(h)
		if !ok {
			if token != "" {
				t.Errorf("absent, and yet %q", token)
			}
			return
		}
		if !strings.HasPrefix(token, tokenPrefix) || len(token) > maxBearer || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("accepted %q", token)
		}
		if !(strings.Contains(a, token) && strings.Contains(b, token)) && !(strings.Contains(c, token) && strings.Contains(d, token)) {
			t.Errorf("accepted %q, which not all lines of a header contain: %q", token, h)
		}
		again, ok := Bearer(http.Header{"Authorization": {"Bearer " + token}})
		if !ok || again != token {
			t.Errorf("%q comes back as %q, %v", token, again, ok)
		}
	})
}

package server

import (
	"fmt"
	"strings"
	"testing"
)

func TestLiteralPercentInAPathIsEscaped(t *testing.T) {
	for line, want := range map[string]string{
		"GET /file=/a/100%.txt HTTP/1.1\r\n":  "GET /file=/a/100%25.txt HTTP/1.1\r\n",
		"GET /100%20%2F%zz%2 HTTP/1.1\r\n":    "GET /100%20%2F%25zz%252 HTTP/1.1\r\n",
		"GET /% HTTP/1.1\n":                   "GET /%25 HTTP/1.1\n",
		"GET /%%20 HTTP/1.1\r\n":              "GET /%25%20 HTTP/1.1\r\n",
		"GET /plain?a=100%&b=1 HTTP/1.1\r\n":  "GET /plain?a=100%&b=1 HTTP/1.1\r\n",
		"GET /a%C3%A9 HTTP/1.1\r\n":           "GET /a%C3%A9 HTTP/1.1\r\n",
		"no request\r\n":                      "no request\r\n",
		"GET http://x/1%?q=%zz HTTP/1.1\r\n":  "GET http://x/1%25?q=%zz HTTP/1.1\r\n",
		"GET /%\r\n":                          "GET /%25\r\n",
		"\r\n":                                "\r\n",
		"GET  HTTP/1.1\r\n":                   "GET  HTTP/1.1\r\n",
		"GET /5%-off/index.html HTTP/1.1\r\n": "GET /5%25-off/index.html HTTP/1.1\r\n",
	} {
		if got := string(new(targetFixer).fix([]byte(line))); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// Requests of one connection are followed, in pieces of any size. Bodies are never changed.
func TestFixerFollowsTheRequestsOfAConnection(t *testing.T) {
	line := "GET /1% HTTP/1.1\r\n"
	fixed := "GET /1%25 HTTP/1.1\r\n"
	rest := "Host: x\r\n\r\n"
	for name, row := range map[string]struct{ in, want string }{
		"two requests":    {line + rest + line + rest, fixed + rest + fixed + rest},
		"a body":          {"POST /2% HTTP/1.1\r\ncontent-length: 18\r\n\r\n" + line + line + rest, "POST /2%25 HTTP/1.1\r\ncontent-length: 18\r\n\r\n" + line + fixed + rest},
		"an empty body":   {"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + line + rest, "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n" + fixed + rest},
		"chunks":          {"POST /2% HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + line + rest, "POST /2%25 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + line + rest},
		"two lengths":     {"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n" + line + rest, "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n" + line + rest},
		"a bad length":    {"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n" + line + rest, "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n" + line + rest},
		"an upgrade":      {"GET /2% HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + line + rest, "GET /2%25 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + line + rest},
		"an endless line": {line + strings.Repeat("x", maxLine+1) + "\r\n\r\n" + line, fixed + strings.Repeat("x", maxLine+1) + "\r\n\r\n" + line},
	} {
		for _, size := range []int{1, 2, 7, len(row.in)} {
			t.Run(fmt.Sprint(name, " by ", size), func(t *testing.T) {
				var f targetFixer
				var got strings.Builder
				for in := []byte(row.in); len(in) > 0; {
					n := min(size, len(in))
					got.Write(f.fix(in[:n]))
					in = in[n:]
				}
				if got.String() != row.want {
					t.Errorf("got %.200q, want %.200q", got.String(), row.want)
				}
			})
		}
	}
}

package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

//go:embed pages
var embedded embed.FS

// policy lets the pages load only this host's own files, and connect only to it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action http: https:; frame-ancestors 'none'"

// types are the content types of the pages' files: the machine's table may be incomplete.
var types = map[string]string{".html": echo.MIMETextHTMLCharsetUTF8, ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

// RegisterPages mounts the pages: the index at /, and its files below /app. Pages are public, the data that they show is not.
func RegisterPages(e *echo.Echo) {
	e.GET("/", func(c echo.Context) error { return answerFile(c, "index.html") })
	e.GET("/app/*", func(c echo.Context) error { return answerFile(c, c.Param("*")) })
}

// file is an embedded file, ready to send.
type file struct {
	kind         string // content type
	plain, small []byte // small is compressed with gzip
	digest       string // of plain
}

// files reads and compresses the embedded files once, by their paths below pages.
var files = sync.OnceValue(func() map[string]file {
	all := map[string]file{}
	err := fs.WalkDir(embedded, "pages", func(name string, entry fs.DirEntry, err error) error {
		kind, known := types[path.Ext(name)]
		if err != nil || entry.IsDir() || !known {
			return err
		}
		text, err := fs.ReadFile(embedded, name)
		if err == nil {
			sum := sha256.Sum256(text)
			all[strings.TrimPrefix(name, "pages/")] = file{kind, text, compressed(text), hex.EncodeToString(sum[:16])}
		}
		return err
	})
	if err != nil {
		panic(err) // the files are part of the program
	}
	return all
})

func compressed(text []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // a valid level
	_, _ = w.Write(text)                                    // cannot fail: it writes to memory
	_ = w.Close()
	return out.Bytes()
}

// answerFile answers with an embedded file. A browser keeps it and asks each time whether it has changed: a new version of the host may
// run at the same address.
func answerFile(c echo.Context, name string) error {
	f, known := files()[strings.TrimPrefix(path.Clean("/"+name), "/")]
	if !known {
		return echo.ErrNotFound
	}
	head := c.Response().Header()
	web.SetPageHeaders(head, policy)
	head.Set(echo.HeaderContentType, f.kind)
	head.Set(echo.HeaderCacheControl, "no-cache")
	head.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	body, tag := f.plain, f.digest
	if strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
		body, tag = f.small, f.digest+"-gzip"
		head.Set(echo.HeaderContentEncoding, "gzip")
	}
	head.Set("ETag", `"`+tag+`"`)
	http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(body))
	return nil
}

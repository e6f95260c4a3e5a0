// Command storybook serves the real pages of the console with canned answers, without a host.
//
// # Terms
//
// A story is one page in one state, for a person of one role. Its pages are those of package dashboard, below the sub-path of its name.
// Its answers are Go values of the types of the API, by the endpoints of packages control and dashboard. A state decides how
// the answers arrive: filled, empty, never (loading), refused (error), or from a connection that breaks (lost).
//
// # Use
//
// `make storybook` prints the address of an index of all stories. The tests of this package open each story in a browser: they check
// accessibility, the width of a phone and the keyboard, and take the pictures of the documentation. A new endpoint needs one
// line in answers.go; a test names the endpoints that have none.
package main

import (
	"flag"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:6006", "address to listen on")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "storybook: %v; choose another address with --addr\n", err)
		os.Exit(1)
	}
	fmt.Printf("storybook: http://%s/\n", listener.Addr())
	fmt.Fprintln(os.Stderr, "storybook:", http.Serve(listener, newBook(time.Now())))
	os.Exit(1)
}

// newBook returns the handler of all stories. All values are of one moment.
func newBook(now time.Time) http.Handler {
	mux := http.NewServeMux()
	all := stories()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { show(w, indexPage, all) })
	for _, s := range all {
		mux.HandleFunc("GET /"+s.name(), func(w http.ResponseWriter, _ *http.Request) { show(w, openingPage, s) })
		mux.Handle("/"+s.name()+"/", http.StripPrefix("/"+s.name(), s.handler(now)))
	}
	return mux
}

func show(w http.ResponseWriter, page *template.Template, value any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, value) // the reader may have gone
}

// indexPage lists the stories.
var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Stories of the console</title>
<style>:root { color-scheme: light dark } body { font: 1rem/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem } ul { columns: 16rem; padding-left: 1.2rem }</style>
<h1>Stories of the console</h1><ul>{{range .}}<li><a href="{{.Name}}">{{.Name}}</a></li>{{end}}</ul></html>
`))

// openingPage signs in, as the pages keep their bearer, and opens the page of a story.
var openingPage = template.Must(template.New("story").Parse(`<!doctype html>
<title>{{.Name}}</title><script>
{{if .SignedOut}}sessionStorage.removeItem("bearer"){{else}}sessionStorage.setItem("bearer", "story"){{end}}
location.replace({{.Address}})
</script>
`))

// Name returns the name of the story for the templates.
func (s story) Name() string { return s.name() }

// SignedOut reports whether the story begins without a bearer.
func (s story) SignedOut() bool { return s.state == signedOut }

// Address returns where the pages of the story begin.
func (s story) Address() string {
	address := s.name() + "/#" + s.page
	if s.at != "" {
		address += "/" + url.PathEscape(s.values(time.Time{}).text(s.at))
	}
	return address
}

package gradioapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// FileError refuses a call that names a file which its visitor cannot have.
type FileError struct{ Path string }

// Error speaks Gradio's words (gradio/processing_utils.py, _check_allowed).
func (e *FileError) Error() string {
	return fmt.Sprintf("Cannot move %s to the gradio cache dir because it was not uploaded by a user.", e.Path)
}

// checkFiles looks at the files that a call's body names, before any code of the Space does: Gradio's own check
// has been wrong more than once (CVE-2024-1728, -0964, -51751), and gr.Image of 5.49 and 6.31 opens whatever path
// it is given without a mark. Files that are named have been uploaded here, are the author's own, or are public URLs.
//
//  1. A body in another encoding than UTF-8 would be read here otherwise than by Python, which guesses.
//  2. With no word of FileData in it, and no escape that could hide one, there is nothing to look at: the usual case.
//  3. What is marked as a file is one anywhere. A bare {"path": ...} is one for a component that takes files, and
//     may be anything in an app's own JSON.
func (h *Handler) checkFiles(c call, raw []byte, kinds kinds) error {
	if bytes.IndexByte(raw, 0) >= 0 { // 1
		return echo.NewHTTPError(http.StatusBadRequest, "The body is not JSON in UTF-8.")
	}
	if !mayNameFiles(raw) && len(c.manifest.Explorers) == 0 { // 2
		return nil
	}
	kindOf := kinds(c.manifest, raw)
	err := walkFiles(raw, func(f named) error {
		kind := kindOf(f)
		switch {
		case f.element && (kind == explored || kind == either):
			return checkSteps(f.path)
		case f.element, !f.marked && kind != filed && kind != either: // 3
			return nil
		}
		return h.checkPath(c.manifest.Files, f.path)
	})
	if errors.As(err, new(*FileError)) || errors.As(err, new(*StepError)) {
		return echo.NewHTTPError(http.StatusForbidden, err.Error())
	}
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, err.Error())
	}
	return nil
}

// kind is what a value of a call may name.
type kind int

const (
	filed    kind = iota // files, marked or not
	free                 // the app's own JSON: only what is marked is a file
	explored             // steps below the root of a gr.FileExplorer
	either               // of the last and the first: it cannot be told which
)

// kinds says of the body of a route what the value is in which something stands.
type kinds func(m queue.Manifest, raw []byte) func(named) kind

func allFree(named) kind { return free }

// allEither is for values of a function that only Gradio knows; it reads "7", 7.0 and NaN, which Go does not.
func allEither(m queue.Manifest, _ []byte) func(named) kind {
	return func(f named) kind {
		switch {
		case f.field != "data":
			return free
		case len(m.Explorers) > 0:
			return either
		}
		return filed
	}
}

// kindsByIndex is for bodies like that of a join, {"data": [...], "fn_index": 0}; where the index is missing, the
// path may name the Endpoint (gradio/route_utils.py, get_fn). One that is made as the app goes is not known here.
func kindsByIndex(name string) kinds {
	return func(m queue.Manifest, raw []byte) func(named) kind {
		var index *int
		if !parseFields(raw, map[string]any{"fn_index": &index}) {
			return allEither(m, raw)
		}
		if index == nil {
			return kindsByName(name)(m, raw)
		}
		endpoint, known := m.Endpoints[*index]
		return kindsIn(m, endpoint, known)
	}
}

// kindsByName is for a /call, in whose body an index means nothing (gradio/data_classes.py, SimplePredictBody).
func kindsByName(name string) kinds {
	return func(m queue.Manifest, raw []byte) func(named) kind {
		if name == "" {
			return allEither(m, raw)
		}
		endpoint, known := endpointOf(m, name)
		return kindsIn(m, endpoint, known)
	}
}

func kindsIn(m queue.Manifest, e queue.Endpoint, known bool) func(named) kind {
	if !known && m.Renders {
		return allFree
	}
	return func(f named) kind {
		switch {
		case f.field != "data" || slices.Contains(e.Free, f.index):
			return free
		case slices.Contains(e.Explores, f.index):
			return explored
		}
		return filed
	}
}

// kindsByField is for a /call/v2, whose values have names: one that may be free makes all so.
func kindsByField(name string) kinds {
	return func(m queue.Manifest, _ []byte) func(named) kind {
		endpoint, _ := endpointOf(m, name)
		return func(f named) kind {
			switch {
			case f.element && len(endpoint.Explores) > 0:
				return explored
			case len(endpoint.Free) > 0:
				return free
			}
			return filed
		}
	}
}

// kindsOfServer is for what a component's frontend calls: the explorer's own function takes steps, too.
func kindsOfServer(m queue.Manifest, raw []byte) func(named) kind {
	id, _, ok := parseServer(raw)
	steps := len(m.Explorers) > 0 && (!ok || slices.Contains(m.Explorers, id))
	return func(f named) kind {
		if steps && f.field == "data" {
			return explored
		}
		return free
	}
}

// StepError refuses a way out of a gr.FileExplorer's root, which 5.49 hands on to the app.
type StepError struct{ Step string }

func (e *StepError) Error() string {
	return fmt.Sprintf("%q is no file or folder below the one that is explored.", e.Step)
}

func checkSteps(step string) error {
	if path.IsAbs(step) || strings.ContainsRune(step, 0) || slices.Contains(strings.Split(strings.ReplaceAll(step, `\`, "/"), "/"), "..") {
		return &StepError{step}
	}
	return nil
}

// checkPath is Gradio's rule for inputs (gradio/processing_utils.py, async_move_files_to_cache), with the
// author's own paths let through: Gradio refuses those that it does not want.
func (h *Handler) checkPath(f *queue.Files, name string) error {
	switch {
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		if isInternalURL(name) {
			return &FileError{name}
		}
		return nil // Gradio fetches it from public addresses alone
	case name == "", f == nil, f.Proxied:
		return nil
	}
	real, ok := resolve(path.Clean(name))
	if !ok || !isInAny(real, []string{f.Uploads, f.Cache}) && !isInAny(real, f.Allowed) && !isInAny(real, f.Static()) {
		return &FileError{name}
	}
	return nil
}

// fileWords are keys of FileData (gradio/data_classes.py) that data of an app's own hardly has.
var fileWords = []string{"gradio.FileData", "orig_name", "mime_type", "is_stream", `path"`, `path\`}

func mayNameFiles(raw []byte) bool {
	if bytes.Contains(raw, []byte(`\u`)) {
		return true
	}
	for _, word := range fileWords {
		if bytes.Contains(raw, []byte(word)) {
			return true
		}
	}
	return false
}

// Bounds of a walk. Python's own parser gives up at about a thousand levels.
const (
	maxDepth  = 500
	maxNested = 8 // times the body's size, read again as strings in strings in strings
)

var errTooDeep = errors.New("the body is nested too deeply")

// named is a path in an object that Gradio could take for a file.
type named struct {
	path string
	// marked: as FileData, or by keys that only FileData has; a path in a string that is JSON always is.
	marked bool
	// field is the key at the top of the body under which it stands, and index its place in the array there; -1: none.
	field string
	index int
	// element: not a path, but a string in an array.
	element bool
}

// walkFiles calls check with each path of each object in raw. Strings that are JSON are walked too. It reads what
// Python would, NaN included, and does not mind what Python would not: there is nothing that it could be talked
// into overlooking.
func walkFiles(raw []byte, check func(named) error) error {
	budget := maxNested * len(raw)
	return walkNested(raw, check, &budget, false)
}

func walkNested(raw []byte, check func(named) error, budget *int, inside bool) error {
	w := walk{raw: raw, check: check, budget: budget, inside: inside}
	for w.at < len(w.raw) {
		if err := w.step(); err != nil {
			return err
		}
	}
	for len(w.open) > 0 { // cut short
		if err := w.close(); err != nil {
			return err
		}
	}
	return nil
}

// walk is a scanner over JSON that keeps of each open object only what makes it a file.
type walk struct {
	raw    []byte
	at     int
	budget *int // of bytes in strings; shared by all that are nested
	inside bool // a string
	open   []object
	check  func(named) error
}

// object is what is open: an array has no keys.
type object struct {
	key    string // the last one read
	value  bool   // a key and its colon were read
	commas int
	array  bool
	paths  []string
	marked bool
}

func (w *walk) step() error {
	b := w.raw[w.at]
	w.at++
	switch b {
	case '{', '[':
		if len(w.open) == maxDepth {
			return errTooDeep
		}
		w.open = append(w.open, object{array: b == '['})
	case '}', ']':
		return w.close()
	case ':':
		if o := w.top(); o != nil {
			o.value = true
		}
	case ',':
		if o := w.top(); o != nil {
			o.key, o.value, o.commas = "", false, o.commas+1
		}
	case '"':
		return w.text()
	}
	return nil
}

func (w *walk) top() *object {
	if len(w.open) == 0 {
		return nil
	}
	return &w.open[len(w.open)-1]
}

func (w *walk) close() error {
	o := w.top()
	if o == nil {
		return nil
	}
	w.open = w.open[:len(w.open)-1]
	if w.inside && !o.marked {
		return nil
	}
	found := w.place()
	found.marked = o.marked
	for _, found.path = range o.paths {
		if err := w.check(found); err != nil {
			return err
		}
	}
	return nil
}

// place is where the scanner is.
func (w *walk) place() named {
	found := named{index: -1}
	if len(w.open) > 0 {
		found.field = w.open[0].key
	}
	if len(w.open) > 1 && w.open[1].array {
		found.index = w.open[1].commas
	}
	return found
}

// text reads the string that has just begun.
func (w *walk) text() error {
	start, plain := w.at, true
	for w.at < len(w.raw) && w.raw[w.at] != '"' {
		if w.raw[w.at] == '\\' {
			plain = false
			w.at++
		}
		w.at++
	}
	end := min(w.at, len(w.raw))
	w.at = end + 1
	body := w.raw[start:end]
	o := w.top()
	if o != nil && !o.value {
		return w.keyed(o, unquote(body, plain))
	}
	if o != nil && o.key == "path" {
		o.paths = append(o.paths, unquote(body, plain))
	}
	if o != nil && o.key == "_type" && unquote(body, plain) == "gradio.FileData" {
		w.mark()
	}
	return w.inner(body, plain)
}

// keyed notes a key; in an array it is an element, which may be JSON.
func (w *walk) keyed(o *object, key string) error {
	if o.array && !w.inside {
		found := w.place()
		found.path, found.element = key, true
		if err := w.check(found); err != nil {
			return err
		}
	}
	o.key = key
	switch key {
	case "orig_name", "mime_type", "is_stream":
		o.marked = true
	}
	return w.inner([]byte(key), true)
}

// mark marks the object whose "meta" is open, and the open one itself.
func (w *walk) mark() {
	for i := max(0, len(w.open)-2); i < len(w.open); i++ {
		w.open[i].marked = true
	}
}

// inner walks a string that looks like JSON.
func (w *walk) inner(body []byte, plain bool) error {
	if plain && bytes.IndexByte(body, '"') < 0 || !mayNameFiles(body) {
		return nil
	}
	if *w.budget -= len(body); *w.budget < 0 {
		return errTooDeep
	}
	return walkNested([]byte(unquote(body, plain)), w.check, w.budget, true)
}

// unquote is what Python would read; of a broken string, the bytes.
func unquote(body []byte, plain bool) string {
	var s string
	if plain || json.Unmarshal(slicesConcat(`"`, body, `"`), &s) != nil {
		return string(body)
	}
	return s
}

func slicesConcat(before string, body []byte, after string) []byte {
	out := make([]byte, 0, len(body)+len(before)+len(after))
	return append(append(append(out, before...), body...), after...)
}

// isInternalURL reports whether an address, as it stands, is of this machine or its network. What a name resolves
// to, Gradio looks at when it fetches (safehttpx).
func isInternalURL(address string) bool {
	host, ok := hostOf(address)
	if !ok || host == "localhost" || strings.HasSuffix(host, ".localhost") || strings.HasSuffix(host, ".internal") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		// 2130706433, 0x7f.1, 127.1: numbers that getaddrinfo takes for an address.
		last := host[strings.LastIndexByte(host, '.')+1:]
		return strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
	}
	ip = ip.Unmap()
	return !ip.IsGlobalUnicast() || ip.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(ip)
}

// hostOf returns the host of a URL, in lower case and without a dot at its end; false if readers could disagree
// about which it is.
func hostOf(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(address, "\\\t\r\n ") {
		return "", false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	return host, host != ""
}

func readCloser(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

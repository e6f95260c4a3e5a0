package gradioapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// FileError refuses a call that names a file which the caller may not use.
type FileError struct{ Path string }

// Error is Gradio's own text (gradio/processing_utils.py, _check_allowed).
func (e *FileError) Error() string {
	return fmt.Sprintf("Cannot move %s to the gradio cache dir because it was not uploaded by a user.", e.Path)
}

// checkFiles checks the files that a call's body names before any code of the Space reads them. Gradio's own check
// has been wrong more than once (CVE-2024-1728, -0964, -51751). gr.Image of 5.49 and 6.31 opens any path that is
// given without a mark. A named file must have been uploaded here, belong to the author, or be a public URL.
//
//  1. A body in another encoding than UTF-8 could be read differently here and by Python, which guesses the
//     encoding.
//  2. A body without a key of FileData, and without an escape that could hide one, needs no walk. This is the
//     usual case.
//  3. A marked file is one anywhere. A bare {"path": ...} is a file for a component that takes files, and may be
//     anything in an app's own JSON.
func (h *Handler) checkFiles(c call, raw []byte, rule kindRule) error {
	if bytes.IndexByte(raw, 0) >= 0 { // 1
		return echo.NewHTTPError(http.StatusBadRequest, "The body is not JSON in UTF-8.")
	}
	if !mayNameFiles(raw) && len(c.manifest.Explorers) == 0 { // 2
		return nil
	}
	kindOf := rule(c.manifest, raw)
	paths := pathCheck{ctx: c.Request().Context(), shelf: h.config.Shelf, files: c.manifest.Files}
	err := paths.end(walkFiles(raw, func(f fileRef) error {
		kind := kindOf(f)
		switch {
		case f.element && (kind == kindExplorer || kind == kindEither):
			return checkSteps(f.path)
		case f.element, !f.marked && kind != kindFile && kind != kindEither: // 3
			return nil
		}
		return paths.add(f.path)
	}))
	if errors.As(err, new(*FileError)) || errors.As(err, new(*StepError)) {
		return echo.NewHTTPError(http.StatusForbidden, err.Error())
	}
	if errors.As(err, new(*shelfError)) {
		return err
	}
	if err != nil {
		return echo.NewHTTPError(http.StatusBadRequest, err.Error())
	}
	return nil
}

// kind is what a value of a call may name.
type kind int

const (
	kindFile     kind = iota // files, marked or not
	kindFree                 // the app's own JSON: only a marked object is a file
	kindExplorer             // path elements below the root of a gr.FileExplorer
	kindEither               // explorer elements or files: undecidable
)

// kindRule returns, for the body of a route, the kind of the value that contains a file reference.
type kindRule func(m queue.Manifest, raw []byte) func(fileRef) kind

func allFreeKind(fileRef) kind { return kindFree }

// allEitherKind is for values of a function that only Gradio can determine: it accepts "7", 7.0 and NaN as an index,
// which Go does not.
func allEitherKind(m queue.Manifest, _ []byte) func(fileRef) kind {
	return func(f fileRef) kind {
		switch {
		case f.field != "data":
			return kindFree
		case len(m.Explorers) > 0:
			return kindEither
		}
		return kindFile
	}
}

// kindsByIndex is for bodies like that of a join, {"data": [...], "fn_index": 0}. Without an index the path may name
// the Endpoint (gradio/route_utils.py, get_fn). An Endpoint that gr.render creates later is unknown here.
func kindsByIndex(name string) kindRule {
	return func(m queue.Manifest, raw []byte) func(fileRef) kind {
		var index *int
		if !parseFields(raw, map[string]any{"fn_index": &index}) {
			return allEitherKind(m, raw)
		}
		if index == nil {
			return kindsByName(name)(m, raw)
		}
		endpoint, known := m.Endpoints[*index]
		return kindsIn(m, endpoint, known)
	}
}

// kindsByName is for a /call, whose body has no index (gradio/data_classes.py, SimplePredictBody).
func kindsByName(name string) kindRule {
	return func(m queue.Manifest, raw []byte) func(fileRef) kind {
		if name == "" {
			return allEitherKind(m, raw)
		}
		endpoint, known := endpointOf(m, name)
		return kindsIn(m, endpoint, known)
	}
}

func kindsIn(m queue.Manifest, e queue.Endpoint, known bool) func(fileRef) kind {
	if !known && m.Renders {
		return allFreeKind
	}
	return func(f fileRef) kind {
		switch {
		case f.field != "data" || slices.Contains(e.Free, f.index):
			return kindFree
		case slices.Contains(e.Explores, f.index):
			return kindExplorer
		}
		return kindFile
	}
}

// kindsByField is for a /call/v2, whose values have names. One value that may be free makes all of them free.
func kindsByField(name string) kindRule {
	return func(m queue.Manifest, _ []byte) func(fileRef) kind {
		endpoint, _ := endpointOf(m, name)
		return func(f fileRef) kind {
			switch {
			case f.element && len(endpoint.Explores) > 0:
				return kindExplorer
			case len(endpoint.Free) > 0:
				return kindFree
			}
			return kindFile
		}
	}
}

// kindsOfServer is for functions that a component's frontend calls. The file explorer's own function takes path
// elements too.
func kindsOfServer(m queue.Manifest, raw []byte) func(fileRef) kind {
	id, _, ok := parseServer(raw)
	steps := len(m.Explorers) > 0 && (!ok || slices.Contains(m.Explorers, id))
	return func(f fileRef) kind {
		if steps && f.field == "data" {
			return kindExplorer
		}
		return kindFree
	}
}

// StepError refuses a path that leads out of a gr.FileExplorer's root. Gradio 5.49 passes such a path on to the app.
type StepError struct{ Step string }

func (e *StepError) Error() string {
	return fmt.Sprintf("%q is not a file or folder below the root of the file explorer.", e.Step)
}

func checkSteps(step string) error {
	if path.IsAbs(step) || strings.ContainsRune(step, 0) || slices.Contains(strings.Split(strings.ReplaceAll(step, `\`, "/"), "/"), "..") {
		return &StepError{step}
	}
	return nil
}

// maxPathsAtOnce bounds the paths that wait for the Shelf: a body may name millions.
const maxPathsAtOnce = 1000

// pathCheck checks the paths that the body of one call names, in their order. Those of files are checked by the Shelf, together.
type pathCheck struct {
	ctx     context.Context
	shelf   Shelf
	files   *queue.Files
	waiting []string
}

// shelfError means that the paths of a call could not be checked.
type shelfError struct{ error }

// add checks a path, or lets it wait. A URL is not fetched here, and Gradio fetches from public addresses only. A Space that has
// not reported its folders, or has components of another Space, checks its paths itself.
func (p *pathCheck) add(name string) error {
	switch {
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		if isInternalURL(name) {
			return &FileError{name}
		}
		return nil
	case name == "", p.files == nil, p.files.Proxied:
		return nil
	}
	if p.waiting = append(p.waiting, name); len(p.waiting) < maxPathsAtOnce {
		return nil
	}
	return p.end(nil)
}

// end checks the paths that wait. A wrong one comes before the error that has ended the walk behind it.
func (p *pathCheck) end(behind error) error {
	if len(p.waiting) == 0 {
		return behind
	}
	wrong, err := p.shelf.Check(p.ctx, p.files, p.waiting)
	p.waiting = p.waiting[:0]
	switch {
	case err != nil:
		return &shelfError{fmt.Errorf("check the files of a call: %w", err)}
	case len(wrong) > 0:
		return &FileError{wrong[0]}
	}
	return behind
}

// fileWords are keys of FileData (gradio/data_classes.py) that an app's own data rarely contains.
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

// Limits of a walk. Python's own parser fails at about a thousand levels.
const (
	maxDepth  = 500
	maxNested = 8 // times the body's size: strings nested in strings are read again
)

var errTooDeep = errors.New("the body is nested too deeply")

// fileRef is a path in an object that Gradio could take for a file.
type fileRef struct {
	path string
	// marked is set for FileData, by its type or by keys that only FileData has. A path inside a JSON string is always
	// marked.
	marked bool
	// field is the body's top-level key that contains the path. index is its position in that key's array; -1: none.
	field string
	index int
	// element is set for a string in an array, which is not a path.
	element bool
}

// walkFiles calls check for each path of each object in raw. Strings that contain JSON are walked too. The scanner
// accepts everything that Python accepts, NaN included, and more. No input can make it overlook a path.
func walkFiles(raw []byte, check func(fileRef) error) error {
	budget := maxNested * len(raw)
	return walkNested(raw, check, &budget, false)
}

func walkNested(raw []byte, check func(fileRef) error, budget *int, inside bool) error {
	w := walk{raw: raw, check: check, budget: budget, inside: inside}
	for w.at < len(w.raw) {
		if err := w.step(); err != nil {
			return err
		}
	}
	for len(w.open) > 0 { // the body was cut short
		if err := w.close(); err != nil {
			return err
		}
	}
	return nil
}

// walk is a JSON scanner. It keeps only the file-related data of each open object.
type walk struct {
	raw    []byte
	at     int
	budget *int // bytes of strings left; shared by all nested walks
	inside bool // set within a string
	open   []object
	check  func(fileRef) error
}

// object is an open object, or an array, which has no keys.
type object struct {
	key    string // the last one read
	value  bool   // a key and its colon have been read
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
		return w.readString()
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
	found := w.position()
	found.marked = o.marked
	for _, found.path = range o.paths {
		if err := w.check(found); err != nil {
			return err
		}
	}
	return nil
}

// position returns the scanner's position.
func (w *walk) position() fileRef {
	found := fileRef{index: -1}
	if len(w.open) > 0 {
		found.field = w.open[0].key
	}
	if len(w.open) > 1 && w.open[1].array {
		found.index = w.open[1].commas
	}
	return found
}

// readString reads the string that has just begun.
func (w *walk) readString() error {
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
		return w.noteKey(o, unquote(body, plain))
	}
	if o != nil && o.key == "path" {
		o.paths = append(o.paths, unquote(body, plain))
	}
	if o != nil && o.key == "_type" && unquote(body, plain) == "gradio.FileData" {
		w.mark()
	}
	return w.walkString(body, plain)
}

// noteKey records a key. In an array the string is an element, which may be JSON.
func (w *walk) noteKey(o *object, key string) error {
	if o.array && !w.inside {
		found := w.position()
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
	return w.walkString([]byte(key), true)
}

// mark marks the open object, and the object that contains it as "meta".
func (w *walk) mark() {
	for i := max(0, len(w.open)-2); i < len(w.open); i++ {
		w.open[i].marked = true
	}
}

// walkString walks a string that looks like JSON.
func (w *walk) walkString(body []byte, plain bool) error {
	if plain && bytes.IndexByte(body, '"') < 0 || !mayNameFiles(body) {
		return nil
	}
	if *w.budget -= len(body); *w.budget < 0 {
		return errTooDeep
	}
	return walkNested([]byte(unquote(body, plain)), w.check, w.budget, true)
}

// unquote returns the string that Python would read, or the raw bytes of an invalid one.
func unquote(body []byte, plain bool) string {
	var s string
	if plain || json.Unmarshal(concat(`"`, body, `"`), &s) != nil {
		return string(body)
	}
	return s
}

func concat(before string, body []byte, after string) []byte {
	out := make([]byte, 0, len(body)+len(before)+len(after))
	return append(append(append(out, before...), body...), after...)
}

// isInternalURL reports whether an address is literally one of this machine or its network. Gradio checks resolved
// addresses when it fetches (safehttpx).
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

// hostOf returns the host of a URL in lower case, without a final dot. ok is false if parsers could disagree about
// the host.
func hostOf(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(address, "\\\t\r\n ") {
		return "", false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	return host, host != ""
}

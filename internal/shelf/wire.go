package shelf

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Between front and node, each connection carries HTTP/1.1. The path of a request names the operation, and its query has the
// parameters, which may be any bytes. An upload changes its connection to frames.
const (
	wirePrefix   = "/shelf/1/"
	opVisit      = "visit"
	opUpload     = "upload"
	opManifest   = "manifest"
	opCheck      = "check"
	opNote       = "note"
	opFolder     = "folder"
	opUploads    = "uploads"
	opRemove     = "remove"
	wireUpgrade  = "spacehost-upload"
	wireMaxQuery = 8 << 20 // a visitor's query, escaped twice
)

// headerResult is the header of the node's answer that says what its body is.
const (
	headerResult      = "Spacehost-Shelf"
	headerAllowOrigin = "Spacehost-Allow-Origin" // Call.AllowOrigin applies

	resultAnswer   = "answer"   // the answer of the Shelf, or that of a call
	resultPass     = "pass"     // Call.Pass decides
	resultManifest = "manifest" // the manifest of the request is not known
	resultError    = "error"    // the text of an error
)

// neededHeaders are the headers of a visitor's request that a Shelf reads. Others, such as tokens and cookies, stay at the front.
var neededHeaders = []string{
	"Accept-Encoding", "Content-Type", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range",
}

func needed(all http.Header) http.Header {
	out := make(http.Header, len(neededHeaders))
	for _, name := range neededHeaders {
		if values := all[name]; len(values) > 0 {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// encodeCall returns the parameters of a visitor's request.
func (c call) encode(space, digest string) url.Values {
	v := url.Values{
		"space": {space}, "manifest": {digest}, "method": {c.r.Method}, "path": {c.r.URL.Path}, "query": {c.r.URL.RawQuery},
		"size": {strconv.FormatInt(c.r.ContentLength, 10)}, "owner": {c.Owner},
	}
	for name, set := range map[string]bool{"native": c.Native, "empty": c.EmptyProgress, "files": c.Files != nil, "frontend": c.Frontend != nil} {
		if set {
			v.Set(name, "1")
		}
	}
	return v
}

// decodeCall returns the visitor's request that a request of the front stands for, and its Call without callbacks.
func decodeCall(r *http.Request, v url.Values, m manifest) (*http.Request, Call) {
	c := Call{Native: v.Has("native"), EmptyProgress: v.Has("empty"), Owner: v.Get("owner")}
	if v.Has("files") {
		c.Files = m.Files
	}
	if v.Has("frontend") {
		c.Frontend = m.Frontend
	}
	size, err := strconv.ParseInt(v.Get("size"), 10, 64)
	if err != nil {
		size = -1
	}
	out := r.WithContext(r.Context())
	out.Method, out.ContentLength, out.Header, out.Body = v.Get("method"), size, needed(r.Header), http.NoBody
	out.URL = &url.URL{RawQuery: v.Get("query")}
	return out, c
}

// The bodies of calls, in JSON. Paths are bytes, because a visitor's path may have any.
type (
	checkCall   struct{ Paths [][]byte }
	checkAnswer struct{ Wrong []int } // positions in Paths

	// note is a use of an upload by a Session, by its digest; empty: by none.
	note struct{ Sum, Session string }
	// noteCall has notes, and Sessions that are closed, by the name of the upload that they refer to.
	noteCall struct {
		Notes  []note
		Closed map[string][]string
	}
	// noteAnswer has the Sessions that refer to an upload with maxReferences, where one more was to be noted.
	noteAnswer struct{ Full map[string][]string }

	folderAnswer  struct{ Uploads string } // empty: no upload is marked
	uploadsAnswer struct{ Uploads []Upload }
	removeCall    struct {
		Name  string
		Used  time.Time
		ByApp bool
	}
	removeAnswer struct{ Removed bool }
)

// mayAnswer reports whether a Shelf may answer a request that is no upload. Other requests need no question to the node.
func (c call) mayAnswer() bool {
	if c.Frontend != nil {
		return IsFrontendFile(c.Frontend, c.r)
	}
	at := c.r.URL.Path
	return c.Files != nil && c.Native && (at == "/upload_progress" || strings.HasPrefix(at, "/file="))
}

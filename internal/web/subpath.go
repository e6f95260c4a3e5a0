package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

type subPathKey struct{}

// SubPath returns the sub-path at which the request has reached its Space, such as "/hello", or "".
func SubPath(r *http.Request) string {
	path, _ := r.Context().Value(subPathKey{}).(string)
	return path
}

// BelowSubPath returns r without the sub-path in its URL; SubPath returns it from then on. A request outside of the sub-path
// is returned unchanged. The request for the sub-path itself gets the path "".
//
// A reverse proxy passes such requests on unchanged. If it removed the sub-path, many proxies would also decode the rest of the
// path, and files with an encoded character would not be found.
func BelowSubPath(r *http.Request, path string) *http.Request {
	rest, below := cutSubPath(r.URL.Path, path)
	if path == "" || !below {
		return r
	}
	u := *r.URL
	u.Path = rest
	if u.RawPath != "" {
		if u.RawPath, below = cutSubPath(u.RawPath, path); !below {
			return r
		}
	}
	r = r.WithContext(context.WithValue(r.Context(), subPathKey{}, path))
	r.URL = &u
	return r
}

func cutSubPath(from, path string) (rest string, below bool) {
	rest, below = strings.CutPrefix(from, path)
	return rest, below && (rest == "" || rest[0] == '/')
}

// AddSubPath returns a Location header of a Space below the sub-path of r: a path, or a URL of the same host. Other URLs are
// returned unchanged.
func AddSubPath(r *http.Request, location string) string {
	path := SubPath(r)
	u, err := url.Parse(location)
	if path == "" || err != nil || u.Host != "" && u.Host != r.Host || u.Host == "" && !IsOwnPath(location) {
		return location
	}
	if _, below := cutSubPath(u.Path, path); below { // the Space has written its root, which contains the sub-path
		return location
	}
	u.Path = path + u.Path
	if u.RawPath != "" {
		u.RawPath = path + u.RawPath
	}
	return u.String()
}

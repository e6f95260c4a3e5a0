package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Address is where browsers reach a Space or the console. The zero value means that the operator has set none.
type Address struct {
	Scheme string // http or https
	Host   string // name or IP address, in lower case, with the port unless it is the scheme's default
	Path   string // the sub-path, such as /survey; "": the root
}

// ParseAddress parses a URL such as https://gpu.lab.example:8443/survey.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return Address{}, fmt.Errorf("%.100q is not a URL of a website; give one such as https://gpu.lab.example/survey", text)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return Address{}, fmt.Errorf("%.100q has more than scheme, host, port and path; remove the rest", text)
	case !hostRule.MatchString(u.Host) || strings.HasSuffix(u.Host, ":"):
		return Address{}, fmt.Errorf("%.100q has an invalid host; use a name such as gpu.lab.example, with a port if it is not the scheme's default", text)
	}
	a := Address{u.Scheme, strings.ToLower(u.Host), strings.TrimSuffix(u.Path, "/")}
	if port := u.Port(); port != "" && port == defaultPorts[u.Scheme] {
		a.Host = strings.TrimSuffix(a.Host, ":"+port)
	}
	if u.RawPath != "" || a.Path != "" && CheckSubPath(a.Path) != nil {
		return Address{}, fmt.Errorf("%.100q has an invalid path; write it as /hello: use letters, digits, '.', '_' and '-'", text)
	}
	return a, nil
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// maxSubPath is the length of the longest sub-path.
const maxSubPath = 200

// subPathRule allows no character that a browser, a proxy or a Space would encode.
var subPathRule = lazyregexp.New(`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`)

// CheckSubPath refuses text that is not a sub-path such as /hello, and the path of the host's own pages.
func CheckSubPath(path string) error {
	if len(path) > maxSubPath || !subPathRule.MatchString(path) || strings.HasPrefix(path+"/", "/__spacehost/") {
		return errors.New("write it as /hello: begin with '/', end without it, and use letters, digits, '.', '_' and '-'")
	}
	return nil
}

// IsSet reports whether the operator has set the Address.
func (a Address) IsSet() bool { return a.Host != "" }

// Origin returns the Address as browsers write it in the header Origin.
func (a Address) Origin() string { return a.Scheme + "://" + a.Host }

// String returns the URL, without a slash at its end; "" for the zero value.
func (a Address) String() string {
	if !a.IsSet() {
		return ""
	}
	return a.Origin() + a.Path
}

// HostName returns the host in lower case, without the port and the brackets of an IPv6 address.
func (a Address) HostName() string { return (&url.URL{Host: a.Host}).Hostname() }

// Port returns the port that browsers use.
func (a Address) Port() string {
	if _, port, err := net.SplitHostPort(a.Host); err == nil {
		return port
	}
	return defaultPorts[a.Scheme]
}

type (
	receivedKey struct{}
	plainKey    struct{}
)

// IsPlain reports whether the visitor's connection is not encrypted, as far as it is known. A trusted proxy that names http is
// believed, even at an address with https: it may serve both.
func IsPlain(r *http.Request) bool {
	plain, _ := r.Context().Value(plainKey{}).(bool)
	return plain || Scheme(r) != "https"
}

// ReceivedHost returns the Host with which a request has reached the machine, which AtAddress may have replaced.
func ReceivedHost(r *http.Request) string {
	if host, ok := r.Context().Value(receivedKey{}).(string); ok {
		return host
	}
	return r.Host
}

// AtAddress returns r as its browser has sent it to a, whatever Host, scheme and path a proxy has passed on. SubPath returns the
// path of a from then on.
func AtAddress(r *http.Request, a Address) *http.Request {
	ctx := context.WithValue(r.Context(), receivedKey{}, ReceivedHost(r))
	if named, ok := ctx.Value(schemeKey{}).(string); ok && named == "http" {
		ctx = context.WithValue(ctx, plainKey{}, true)
	}
	ctx = context.WithValue(ctx, schemeKey{}, a.Scheme)
	r = r.WithContext(ctx)
	r.Host = a.Host
	if below := BelowSubPath(r, a.Path); a.Path == "" || SubPath(below) == a.Path {
		return below
	}
	return withSubPath(r, a.Path) // the proxy has removed it
}

func withSubPath(r *http.Request, path string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), subPathKey{}, path))
}

type prefixKey struct{}

// BelowPrefix returns r below the X-Forwarded-Prefix of a trusted proxy, which has removed that path. A request that is below a
// sub-path already, or has no such header, is returned unchanged.
func BelowPrefix(r *http.Request) *http.Request {
	prefix, ok := r.Context().Value(prefixKey{}).(string)
	if !ok || SubPath(r) != "" {
		return r
	}
	return withSubPath(r, prefix)
}

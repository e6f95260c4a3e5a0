package web

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"strings"

	"spacehost/internal/identity"
)

// cookiePrefix begins the names of all host cookies. Spaces neither receive nor set them.
const cookiePrefix = "spacehost-"

// IsOurCookie reports whether a cookie name is reserved for the host. It ignores case, because servers behind the host
// may do so.
func IsOurCookie(name string) bool {
	name = strings.ToLower(textproto.TrimString(name))
	for _, guard := range []string{"__host-", "__secure-"} {
		name = strings.TrimPrefix(name, guard)
	}
	return strings.HasPrefix(name, cookiePrefix)
}

// StripCookies removes the host's cookies from a request's headers. Other cookies are not changed.
func StripCookies(h http.Header) {
	lines := h["Cookie"]
	if len(lines) == 0 || !strings.Contains(strings.ToLower(strings.Join(lines, ";")), cookiePrefix) {
		return
	}
	var kept []string
	for _, line := range lines {
		if rest := stripLine(line); rest != "" {
			kept = append(kept, rest)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

func stripLine(line string) string {
	var kept []string
	for _, pair := range strings.Split(line, ";") {
		if name, _, _ := strings.Cut(pair, "="); !IsOurCookie(name) {
			kept = append(kept, pair)
		}
	}
	return textproto.TrimString(strings.Join(kept, ";"))
}

// StripSetCookies removes headers that would set a host cookie from a Space's response.
func StripSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); IsOurCookie(name) {
			h["Set-Cookie"] = withoutHostCookies(lines)
			return
		}
	}
}

func withoutHostCookies(lines []string) (kept []string) {
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); !IsOurCookie(name) {
			kept = append(kept, line)
		}
	}
	return kept
}

// Cookies reads and sets the two host cookies of a Space: the sign-in and the visitor cookie, which identifies the
// browser. Browsers share cookies between ports, so the cookie names depend on the Space.
type Cookies struct{ Space string }

const (
	signInCookie  = "in-"
	visitorCookie = "visitor-"
)

// cookieName contains a hash instead of the Space's name, which other Spaces must not learn. With TLS a page of another host name
// cannot set a cookie with the prefix __Host-, which browsers accept for the path "/" only.
func (c Cookies) cookieName(kind string, r *http.Request) string {
	sum := sha256.Sum256([]byte(c.Space))
	name := cookiePrefix + kind + hex.EncodeToString(sum[:8])
	switch {
	case Scheme(r) != "https":
		return name
	case SubPath(r) != "":
		return "__Secure-" + name
	}
	return "__Host-" + name
}

// SignIn returns the value of the request's sign-in cookie, or "".
func (c Cookies) SignIn(r *http.Request) string {
	return cookie(r.Header, c.cookieName(signInCookie, r))
}

// Visitor returns the digest of the request's visitor cookie, or "".
func (c Cookies) Visitor(r *http.Request) string {
	text := cookie(r.Header, c.cookieName(visitorCookie, r))
	if text == "" {
		return ""
	}
	return visitorDigest(text)
}

func visitorDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// SetSignIn sets the sign-in cookie for age seconds, or for the browser's session if age is 0. An empty text deletes it.
func (c Cookies) SetSignIn(h http.Header, r *http.Request, text string, age int) {
	c.set(h, r, signInCookie, text, age)
}

// visitorAge is a year, in seconds.
const visitorAge = 365 * 24 * 60 * 60

// SetVisitor sets a new visitor cookie and returns its digest.
func (c Cookies) SetVisitor(h http.Header, r *http.Request) string {
	text := rand.Text()
	c.set(h, r, visitorCookie, text, visitorAge)
	return visitorDigest(text)
}

func (c Cookies) set(h http.Header, r *http.Request, kind, text string, age int) {
	if text == "" {
		age = -1
	}
	h.Add("Set-Cookie", (&http.Cookie{
		Name: c.cookieName(kind, r), Value: text, Path: cmp.Or(SubPath(r), "/"), MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: Scheme(r) == "https",
	}).String())
}

// maxCookie is the maximum length of a cookie value, far above that of host cookies.
const maxCookie = 128

// cookie returns the value of the only cookie of that name. Several cookies count as none: another page on this machine
// has set one of them, and the host cannot tell which.
func cookie(h http.Header, name string) (value string) {
	for _, line := range h["Cookie"] {
		for _, pair := range strings.Split(line, ";") {
			given, text, _ := strings.Cut(pair, "=")
			if textproto.TrimString(given) != name {
				continue
			}
			text = textproto.TrimString(text)
			if value != "" || text == "" || len(text) > maxCookie || strings.IndexFunc(text, identity.IsInvisible) >= 0 {
				return ""
			}
			value = text
		}
	}
	return value
}

// IsOwnPath reports whether a browser resolves text to a path of the current site instead of another site.
func IsOwnPath(text string) bool {
	return strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") &&
		!strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f })
}

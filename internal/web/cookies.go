// Package web reads and writes the parts of an HTTP request that identify its client: cookies, trusted proxies, attempt limits.
package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"strings"

	"spacehost/internal/identity"
)

// cookiePrefix begins the name of every cookie of the host's: no Space sees one, nor sets one.
const cookiePrefix = "spacehost-"

// IsOurCookie reports whether a cookie's name is one that only the host may read and set, in any case of letters, since
// what reads cookies behind us may not care about it.
func IsOurCookie(name string) bool {
	name = strings.ToLower(textproto.TrimString(name))
	for _, guard := range []string{"__host-", "__secure-"} {
		name = strings.TrimPrefix(name, guard)
	}
	return strings.HasPrefix(name, cookiePrefix)
}

// StripCookies takes the host's cookies out of a request's headers. What other cookies stand beside them stays as it is.
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

// StripSetCookies takes out of a Space's answer what would set one of the host's cookies.
func StripSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); IsOurCookie(name) {
			h["Set-Cookie"] = withoutOurs(lines)
			return
		}
	}
}

func withoutOurs(lines []string) (kept []string) {
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); !IsOurCookie(name) {
			kept = append(kept, line)
		}
	}
	return kept
}

// Cookies are the two that a Space's visitors have of the host's: who signed in there, and which browser it is. Ports do
// not part cookies, so their names say whose they are.
type Cookies struct{ Space string }

const (
	signInCookie  = "in-"
	visitorCookie = "visitor-"
)

// cookieName has nothing of the Space's name, which others need not see.
func (c Cookies) cookieName(kind string, r *http.Request) string {
	sum := sha256.Sum256([]byte(c.Space))
	name := cookiePrefix + kind + hex.EncodeToString(sum[:8])
	if Scheme(r) == "https" {
		name = "__Host-" + name
	}
	return name
}

// SignIn is what the request's browser was given at its sign-in; "" if it brings none.
func (c Cookies) SignIn(r *http.Request) string {
	return cookie(r.Header, c.cookieName(signInCookie, r))
}

// Visitor is the digest of what the request's browser was given at its first visit; "" if it brings none.
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

// SetSignIn gives the browser a sign-in for as long as it is open, or for age seconds; "" takes it away.
func (c Cookies) SetSignIn(h http.Header, r *http.Request, text string, age int) {
	c.set(h, r, signInCookie, text, age)
}

// visitorAge is a year, in seconds.
const visitorAge = 365 * 24 * 60 * 60

// SetVisitor makes the browser one that is known again, and returns the digest of what it was given.
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
		Name: c.cookieName(kind, r), Value: text, Path: "/", MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: Scheme(r) == "https",
	}).String())
}

// maxCookie is far above what ours have.
const maxCookie = 128

// cookie is the value of the one cookie of that name. Of several none counts: another page of this machine has set one
// of them, and which of two is whose nobody can tell.
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

// IsOwnPath reports whether a browser takes text for a path of the site that it is on, and not for another site.
func IsOwnPath(text string) bool {
	return strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") &&
		!strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f })
}

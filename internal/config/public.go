package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"spacehost/internal/web"
)

// TLS names the files of a certificate. The zero value means that the host serves plain HTTP.
type TLS struct {
	Cert string // PEM file of the certificate and its intermediate ones
	Key  string // PEM file of its private key
}

// IsSet reports whether the host serves TLS.
func (t TLS) IsSet() bool { return t.Cert != "" }

// Load reads the pair. Its errors name the file and the next step.
func (t TLS) Load() (*tls.Certificate, error) {
	for _, file := range []string{t.Cert, t.Key} {
		if _, err := readSmall(file, maxConfig); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w; correct the path or the file", file, WithoutPath(err))
		}
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are not a certificate and its key: %w; give a PEM file with the certificate first, and the file of its private key", t.Cert, t.Key, err)
	}
	return &pair, nil
}

// webAddress reads a `url`.
func (l *loader) webAddress(n node, into *web.Address) {
	text, ok := n.text()
	if !ok {
		return
	}
	address, err := web.ParseAddress(text)
	if err == nil && strings.HasPrefix(address.Path+"/", "/api/") {
		err = fmt.Errorf("%.100q begins with the path of the Hub's API; choose another path", text)
	}
	if err != nil {
		n.fail("%v", err)
		return
	}
	*into = address
}

// tlsFiles reads `tls`. The pair is loaded, so that --check finds what a start would find.
func (l *loader) tlsFiles(n node) {
	var files TLS
	problems := len(l.problems)
	n.fields("a mapping with `cert` and `key`", map[string]func(node){
		"cert": func(at node) { l.path(at, &files.Cert) },
		"key":  func(at node) { l.path(at, &files.Key) },
	})
	if len(l.problems) > problems {
		return
	}
	if files.Cert == "" || files.Key == "" {
		n.fail("needs both `cert` and `key`; add the path of the missing PEM file")
		return
	}
	pair, err := files.Load()
	if err != nil {
		n.fail("%v", err)
		return
	}
	if isWorldReadable(files.Key) {
		l.warn(n, "every user of this machine may read the private key; run chmod o-r %s", files.Key)
	}
	if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && time.Now().After(leaf.NotAfter) {
		l.warn(n, "the certificate in %s has expired on %s; renew it", files.Cert, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	l.settings.TLS = files
}

// checkURL checks the `url` of a Space against its other keys and against the other addresses, and applies it.
func (l *loader) checkURL(s *spaceEntry, claims *claims) {
	if !s.URL.IsSet() {
		if s.Visibility == Private && l.settings.ConsoleURL.Scheme == "https" && !l.settings.TLS.IsSet() {
			l.warn(s.at, "browsers reach the console through a proxy at %s, but this private Space has no `url`, so its members are sent to the address on which it listens; add its address in browsers, such as url: https://drafts.lab.example", l.settings.ConsoleURL)
		}
		l.claimHost(s, claims)
		return
	}
	if s.pathAt.isPresent() {
		s.pathAt.fail("`url` contains the sub-path already; remove `path`")
	}
	if other, used := claims.claim("url "+s.URL.String(), s.at.path); used {
		s.urlAt.fail("%s is already the address of %s; choose another host name, port or path", s.URL, other)
		return
	}
	s.SubPath = s.URL.Path
	if s.isAtSharedAddress() {
		for _, route := range s.Routes() {
			if other, used := claims.claim("route "+route, s.at.path); used {
				s.urlAt.fail("requests for %s at the shared `address` already go to %s; choose another host name or path", route, other)
			}
		}
	}
}

// sharedOriginAdvice ends a warning about a Space and the console at one origin, for which a browser keeps one session.
const sharedOriginAdvice = "so the Space's pages can read the token that a person enters at the console; give the console a host name or a port of its own, unless you trust the Space's code"

// warnSharedOrigin warns about a Space that browsers may reach at the console's origin: by its `url`; by its `host`, at the port of
// the shared `address` or at the default one of a proxy; or by a `path` of a proxy that serves the console below a path too.
func (l *loader) warnSharedOrigin(s *spaceEntry) {
	console := l.settings.ConsoleURL
	if !console.IsSet() {
		return
	}
	_, port, _ := net.SplitHostPort(l.settings.Address.Value)
	switch {
	case s.URL.IsSet() && console.Origin() == s.URL.Origin():
		l.warn(s.urlAt, "this Space and the console share the origin %s, "+sharedOriginAdvice, console.Origin())
	case s.Host != "" && (s.Host == console.Host || s.Host == console.HostName() && console.Port() == port):
		l.warn(s.hostAt, "this Space and the console share the host name %s, "+sharedOriginAdvice, s.Host)
	case !s.URL.IsSet() && s.SubPath != "" && console.Path != "":
		l.warn(s.pathAt, "this Space has a `path` and no `url`: if a proxy serves it at the console's origin %s, its pages can read the token that a person enters at the console; give the console a host name of its own, or the Space a `url` with another one", console.Origin())
	}
}

// claimHost records the route of a Space without a `url`. Equal hosts are reported by checkSpace.
func (l *loader) claimHost(s *spaceEntry, claims *claims) {
	if !s.isAtSharedAddress() || s.Host == "" || claims.names["host "+s.Host] != "" {
		return
	}
	if other, used := claims.claim("route "+s.Host, s.at.path); used {
		s.hostAt.fail("requests for %s at the shared `address` already go to %s; choose another host name", s.Host, other)
	}
}

// SetConsoleURL sets ConsoleURL, unless text is empty.
func (s *Settings) SetConsoleURL(text string) (err error) {
	if text != "" {
		s.ConsoleURL, err = web.ParseAddress(text)
	}
	return err
}

// claimConsole records the console's URL, and its route at the shared address.
func (l *loader) claimConsole(c *claims) {
	if console := l.settings.ConsoleURL; console.IsSet() {
		c.claim("url "+console.String(), "console_url")
		if console.Path != "" {
			c.claim("route "+RouteOf(console), "console_url")
		}
	}
}

// RouteOf returns how the shared address finds the Site of a URL: by its host name and path, whatever the port.
func RouteOf(a web.Address) string { return a.HostName() + a.Path }

// Routes returns the host names, with paths, by which requests at the shared address reach the Space.
func (s SpaceSettings) Routes() (all []string) {
	if s.Host != "" {
		all = append(all, s.Host)
	}
	if s.URL.IsSet() && !slices.Contains(all, RouteOf(s.URL)) {
		all = append(all, RouteOf(s.URL))
	}
	return all
}

// PublicNames returns the host names by which the Space is known: its `host`, and that of its `url`.
func (s SpaceSettings) PublicNames() (all []string) {
	if s.Host != "" {
		all = append(all, s.Host)
	}
	if name := s.URL.HostName(); name != "" && name != s.Host {
		all = append(all, name)
	}
	return all
}

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/spf13/cobra"

	"spacehost/gradioapi"
	"spacehost/internal/console"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/web"
	"spacehost/server"
)

// atConsole is the place that the host's own links lead to.
const atConsole = "console"

// openSignIn lets people sign in with a browser: at the console, and from there at each Space.
func (h *Host) openSignIn() {
	h.links = people.NewCodes(people.LocalLife, nil)
	h.bearers = people.NewCodes(people.LocalLife, nil)
	h.signIn = console.NewSignIn(console.SignInConfig{
		People: h.people, Prove: h.prove, Enter: h.enter, Console: h.consoleFor, IsConsole: h.isConsole,
		Find: func(name string) (console.SignInSpace, bool) {
			s := h.find(name)
			if s == nil {
				return console.SignInSpace{}, false
			}
			return s.signInSpace(), true
		},
		Visible:  h.visibleTo,
		Insecure: h.settings.insecureLogin, Hub: h.settings.isHub(), Logger: h.log.Named("console"),
	})
}

// newLink is where the local visitor finds the console and is known there, once.
func (h *Host) newLink() string {
	return h.consoleURL() + "/#code=" + h.links.Give(atConsole, people.LocalProof())
}

// enter turns a link's code into a bearer that is good at the console alone.
func (h *Host) enter(code string) (bearer string, ok bool) {
	proof, ok := h.links.Take(atConsole, code)
	if !ok {
		return "", false
	}
	return people.TokenPrefix + h.bearers.Give(atConsole, proof), true
}

// prove says who asks at the console.
func (h *Host) prove(r *http.Request) (people.Proof, error) {
	token, ok := people.Bearer(r.Header)
	if !ok {
		return people.Proof{}, &people.UnknownTokenError{}
	}
	if proof, ok := h.bearers.Verify(atConsole, strings.TrimPrefix(token, people.TokenPrefix)); ok {
		return proof, nil
	}
	return h.people.ProofOf(r.Context(), token)
}

// identifyAtConsole is identify, and knows the bearers that the console's links give.
func (h *Host) identifyAtConsole(r *http.Request) (identity.Identity, error) {
	if token, ok := people.Bearer(r.Header); ok {
		if proof, ok := h.bearers.Verify(atConsole, strings.TrimPrefix(token, people.TokenPrefix)); ok {
			return h.withTier(proof.Who), nil
		}
	}
	return h.identify(r)
}

// withTier gives somebody who has signed in the tier of now.
func (h *Host) withTier(who identity.Identity) identity.Identity {
	if who.Kind == identity.Local {
		who.Tier = h.settings.localTier.value
		return who
	}
	who.Tier = h.knownTier(who.Tier).Name
	return who
}

// consoleURL is where browsers find the console, as far as this machine knows.
func (h *Host) consoleURL() string {
	return cmp.Or(h.settings.consoleURL, "http://"+visitable(h.console))
}

// consoleFor is where the browser of a request to a Space finds it.
//
//  1. Where the operator says.
//  2. A browser on this machine reaches whatever listens here.
//  3. Others reach a console that listens on every interface, by the name by which they have reached the Space; through a
//     proxy it may be anywhere.
func (h *Host) consoleFor(r *http.Request) (string, bool) {
	if h.settings.consoleURL != "" { // 1
		return h.settings.consoleURL, true
	}
	if who, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{}); err == nil && who.Kind == identity.Local { // 2
		return h.consoleURL(), true
	}
	conn := server.ConnOf(r.Context())
	if !h.console.Addr.IP.IsUnspecified() || conn == nil || web.Scheme(r) != "http" { // 3
		return "", false
	}
	return "http://" + net.JoinHostPort((&url.URL{Host: r.Host}).Hostname(), strconv.Itoa(h.console.Addr.Port)), true
}

func (h *Host) isConsole(origin string) bool {
	return h.settings.consoleURL != "" && origin == h.settings.consoleURL || server.Names(h.settings.hosts).IsOrigin(origin, h.console.Addr.Port)
}

// consoleNames are those by which browsers ask for the console.
func (h *Host) consoleNames() server.Names {
	names := server.Names(h.settings.hosts)
	if u, err := url.Parse(h.settings.consoleURL); err == nil && u.Host != "" {
		names = append(names[:len(names):len(names)], strings.ToLower(u.Hostname()))
	}
	return names
}

// visibleTo are the Spaces that somebody may see and know of.
func (h *Host) visibleTo(who identity.Identity) (visible []console.SignInSpace) {
	for _, s := range h.spaces {
		if s.settings.visibility == public || s.settings.visibility == private && s.isMember(who) {
			visible = append(visible, s.signInSpace())
		}
	}
	return visible
}

// signInSpace is the Space as the sign-in has to know it.
func (s *spaceRun) signInSpace() console.SignInSpace {
	return console.SignInSpace{
		Name: s.space.Name, URL: s.url(), Hidden: s.settings.visibility == private, IsOrigin: s.isOrigin,
		Sees: func(who identity.Identity) bool { return s.settings.visibility != private || s.isMember(who) },
		Who: func(r *http.Request) (identity.Identity, bool, error) {
			if _, signedIn, err := s.signedIn(r); err != nil || !signedIn {
				who, err := s.caller(r)
				return who, false, err
			}
			who, err := s.present(r)
			return who, err == nil, err
		},
	}
}

// isOrigin reports whether browsers reach the Space there. At a shared address it has one name.
func (s *spaceRun) isOrigin(origin string) bool {
	if s.settings.addr.value != "" {
		return server.Names(s.host.settings.names(s.settings)).IsOrigin(origin, s.site.Addr.Port)
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Hostname(), s.settings.host) && server.Names{s.settings.host}.IsOrigin(origin, s.site.Addr.Port)
}

// cookies are the host's own in the browsers of this Space's visitors.
func (s *spaceRun) cookies() web.Cookies { return web.Cookies{Space: s.space.Name} }

// signedIn is who has signed in at this Space with the browser of a request. It counts only for the Space's own pages,
// and for what no page has sent: else a page of another site could spend what is its visitor's.
func (s *spaceRun) signedIn(r *http.Request) (who identity.Identity, ok bool, err error) {
	text := s.cookies().SignIn(r)
	if text == "" || !server.IsOwnPage(r) {
		return identity.Identity{}, false, nil
	}
	who, ok, err = s.host.people.SignedIn(r.Context(), s.space.Name, text)
	return s.host.withTier(who), ok, err
}

// present is who is there, whoever pays: the person of a bearer token, or of a sign-in. Else it has no Kind.
func (s *spaceRun) present(r *http.Request) (identity.Identity, error) {
	if token, ok := people.Bearer(r.Header); ok {
		return s.host.people.ByToken(r.Context(), token)
	}
	who, ok, err := s.signedIn(r)
	if !ok {
		return identity.Identity{}, err
	}
	return who, err
}

// holder is whom a Session of this request's browser belongs to.
func (s *spaceRun) holder(r *http.Request) gradioapi.Holder {
	who, err := s.present(r)
	if err != nil { // caller has refused the request already
		who = identity.Identity{}
	}
	return gradioapi.Holder{Person: who.Key(), Visitor: s.cookies().Visitor(r)}
}

// promise gives a browser that has opened no page here a cookie with the answer to its first call.
func (s *spaceRun) promise(answer http.Header, r *http.Request) string {
	return s.cookies().SetVisitor(answer, r)
}

// knowVisitors gives a browser that opens a page of the Space a cookie by which it is known again.
func (s *spaceRun) knowVisitors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") && s.cookies().Visitor(r) == "" {
			s.cookies().SetVisitor(c.Response().Header(), r)
		}
		return next(c)
	}
}

// newLogin is the command for whoever has lost the link that `run` has printed.
func newLogin() *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:   "login",
		Short: "Print a link that signs this machine's user in at the console of a running host",
		Long: `Print a link to the console of the running host: whoever opens it is signed in there as the local visitor, and can
sign in to Spaces from there. It is good once, for twelve hours. People with a token of theirs need none.`,
		Args: usage(cobra.NoArgs),
	}
	addState(c, &state)
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := stateFolder(state)
		if err != nil {
			return err
		}
		body, err := tell(c.Context(), dir, order{http.MethodPost, "/login-link", nil})
		if err != nil {
			return err
		}
		var said struct{ URL string }
		if err := json.Unmarshal(body, &said); err != nil {
			return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
		}
		return say(c, "%s\n", said.URL)
	}
	return c
}

// giveLink answers it. In `serve` there is no local visitor.
func (h *Host) giveLink(c echo.Context) error {
	if h.settings.isServe() {
		return echo.NewHTTPError(http.StatusConflict, "Nobody is a local visitor of `spacehost serve`: people sign in at the console with a token of theirs (spacehost token create NAME).")
	}
	return c.JSON(http.StatusOK, map[string]string{"url": h.newLink()})
}

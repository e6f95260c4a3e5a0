// Package web reads and writes the parts of an HTTP request that identify its client.
//
// # Terms
//
//   - A trusted proxy is a reverse proxy in the host's configuration. Only its X-Forwarded-* headers are used.
//   - A visitor is the client in front of all trusted proxies.
//   - A sub-path is the path below which a reverse proxy serves a Space, such as /hello.
//   - A host cookie is a cookie whose name begins with "spacehost-". Spaces can neither read nor set host cookies.
//
// # Types
//
// Proxies finds the visitor of each request (Visitor, Scheme). The server calls it before all handlers. Cookies reads and
// sets the two host cookies of a Space: the sign-in and the visitor cookie. The proxy to a Space calls StripCookies and
// StripSetCookies. BelowSubPath and SubPath are for a Space with a sub-path. Address is the public address of a Space or of the
// console; AtAddress gives all other code the request that the browser has sent there. Attempts limits the rate of wrong codes, passwords and session hashes per address.
//
// # Failures
//
// A trusted proxy with an unreadable header is refused with a *ForwardedError: using the proxy's own address instead would
// silently make all its visitors share one account. An ambiguous cookie counts as absent.
package web

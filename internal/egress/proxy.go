package egress

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// maxConnectAnswer bounds the header of a proxy's answer, in bytes.
const maxConnectAnswer = 64 << 10

// Proxy chooses the operator's HTTP proxy for a destination. Use ProxyFromEnvironment. A Proxy may be used by many
// goroutines. Its credentials stay in the host.
type Proxy struct {
	choose func(*url.URL) (*url.URL, error)
}

// ProxyFromEnvironment returns the Proxy of HTTPS_PROXY (for port 443), HTTP_PROXY (for all other ports), ALL_PROXY (for
// what the other two leave open) and NO_PROXY. Spellings in lower case take precedence. It returns nil if no variable
// names a proxy. Only proxies with the scheme http are supported; an error names the variable and no credentials.
func ProxyFromEnvironment(getenv func(string) string) (*Proxy, error) {
	first := func(names ...string) (string, error) {
		for _, name := range names {
			for _, spelling := range []string{strings.ToLower(name), name} {
				if value := getenv(spelling); value != "" {
					return value, checkProxy(spelling, value)
				}
			}
		}
		return "", nil
	}
	https, err := first("HTTPS_PROXY", "ALL_PROXY")
	if err != nil {
		return nil, err
	}
	plain, err := first("HTTP_PROXY", "ALL_PROXY")
	if err != nil {
		return nil, err
	}
	if https == "" && plain == "" {
		return nil, nil
	}
	exceptions, _ := first("NO_PROXY") // the error is about an address; exceptions are no address
	config := httpproxy.Config{HTTPProxy: plain, HTTPSProxy: https, NoProxy: exceptions}
	return &Proxy{config.ProxyFunc()}, nil
}

// checkProxy accepts http://HOST:PORT with or without credentials, and HOST:PORT.
func checkProxy(variable, value string) error {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	address, err := url.Parse(value)
	if err != nil || address.Hostname() == "" { // the error of url.Parse contains the password
		return fmt.Errorf("%s: not an address of a proxy; use http://HOST:PORT", variable)
	}
	if address.Scheme != "http" {
		return fmt.Errorf("%s: proxies with the scheme %q are not supported; use http://HOST:PORT", variable, address.Scheme)
	}
	return nil
}

// proxyFor returns the proxy for a destination, or nil. Destinations in Reach and Services are dialled directly. NO_PROXY may name the
// destination by its name or by its address.
func (e *Egress) proxyFor(to Destination) *url.URL {
	if e.proxy == nil || e.policy.reaches(to.Addr) {
		return nil
	}
	scheme := "http"
	if to.Addr.Port() == 443 {
		scheme = "https"
	}
	var chosen *url.URL
	for _, host := range []string{to.Addr.Addr().String(), to.Name} {
		if host == "" {
			continue
		}
		proxy, err := e.proxy.choose(&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(to.Addr.Port())))})
		if err != nil || proxy == nil {
			return nil
		}
		chosen = proxy
	}
	return chosen
}

// connectBy opens a tunnel through a proxy (CONNECT, RFC 9110, section 9.3.6). The target is the remembered name, because
// proxies filter by name. early is what the destination sent together with the proxy's answer.
func (e *Egress) connectBy(ctx context.Context, proxy *url.URL, to Destination) (tunnel *net.TCPConn, early []byte, err error) {
	port := proxy.Port()
	if port == "" {
		port = "80"
	}
	tunnel, err = e.dialTCP(ctx, net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the proxy %s: %w", proxy.Host, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = tunnel.SetDeadline(time.Unix(1, 0)) }) // ends a read or write that waits
	early, err = requestTunnel(tunnel, proxy, to)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		reset(tunnel)
		return nil, nil, fmt.Errorf("tunnel through the proxy %s: %w", proxy.Host, err)
	}
	return tunnel, early, nil
}

func requestTunnel(tunnel *net.TCPConn, proxy *url.URL, to Destination) (early []byte, err error) {
	target := to.Addr.String()
	if to.Name != "" {
		target = net.JoinHostPort(to.Name, strconv.Itoa(int(to.Addr.Port())))
	}
	request := &http.Request{Method: http.MethodConnect, Host: target, URL: &url.URL{Opaque: target}, Header: http.Header{"User-Agent": {"spacehost"}}}
	if user := proxy.User; user != nil {
		password, _ := user.Password() // none is an empty one
		credentials := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	if err := request.Write(tunnel); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(io.LimitReader(tunnel, maxConnectAnswer))
	response, err := http.ReadResponse(reader, request) // its body is the tunnel and stays open
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("CONNECT %s: the proxy answered %s", target, response.Status)
	}
	return reader.Peek(reader.Buffered())
}

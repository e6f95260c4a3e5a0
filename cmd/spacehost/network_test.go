package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// startInNetwork starts a server at an address that Spaces can reach from their own network; see reachFlags.
func startInNetwork(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	l, err := net.Listen("tcp4", machineAddress(t)+":0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// machineAddress returns an address of this machine in a network, or the loopback address of a machine without one.
func machineAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if network, ok := a.(*net.IPNet); ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			return network.IP.String()
		}
	}
	return "127.0.0.1"
}

// reachFlags lets a Space reach a server of the test. A machine without a network has only the loopback address, which a Space
// has for itself: the Space then runs without isolation.
func reachFlags(server *httptest.Server) []string {
	address := server.Listener.Addr().String()
	if strings.HasPrefix(address, "127.") {
		return []string{"--isolation", "none"}
	}
	return []string{"--reach", address}
}

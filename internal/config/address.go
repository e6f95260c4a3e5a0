package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"spacehost/gpu/nvml"
)

// Loopback makes :0 mean this machine alone; who wants to be reached from outside says 0.0.0.0:7860.
func Loopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

// CheckAddress refuses what nobody can listen on.
func CheckAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%.60q is not an address such as 127.0.0.1:7860", text)
	}
	return nil
}

// Collide reports whether only one can listen on both. Port 0 is another one each time; who listens on all of this
// machine's addresses, listens on each.
func Collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	numberA, badA := strconv.Atoi(portA)
	numberB, badB := strconv.Atoi(portB)
	if errors.Join(errA, errB, badA, badB) != nil || numberA != numberB || numberA == 0 {
		return false
	}
	one, other := listened(hostA), listened(hostB)
	return one == other || isEverywhere(one) || isEverywhere(other)
}

// listened is a host as addresses are compared: a name but localhost is not looked up.
func listened(host string) string {
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func isEverywhere(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// CheckGPUs refuses what openInventory would, but for GPUs that there are not.
func CheckGPUs(text string) error {
	kind, machine, simulated := strings.Cut(text, ":")
	switch {
	case text == "auto", text == "none":
		return nil
	case kind == "mock" && simulated:
		inventory, err := nvml.Simulated(machine)
		if err == nil {
			_ = inventory.Close() // it was opened to be checked
		}
		return err
	}
	return fmt.Errorf("%.40q is not known here: say auto, none, or mock:2xH200", text)
}

var hostRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// ParseHostName is a host name as it is compared. An address needs no permission, and a port is none of a name's.
func ParseHostName(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > 253 || !hostRule.MatchString(name) || net.ParseIP(name) != nil {
		return "", fmt.Errorf("%.100q is not a host name such as demo.lab.example (no scheme, no port, no address)", text)
	}
	return name, nil
}

// ParseOrigin is where a browser finds something: scheme, name and port.
func ParseOrigin(text string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", fmt.Errorf("%.100q is not an address such as https://console.lab.example (no path)", text)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// StateFolder is the given folder, or the user's (XDG Base Directory Specification).
func StateFolder(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no home folder for the state: give --state DIR: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "spacehost"), nil
}

// NextPort is addr with its port raised by n; port 0 stays, and takes any free one each time.
func NextPort(addr string, n int) string {
	host, port, err := net.SplitHostPort(addr)
	number, bad := strconv.Atoi(port)
	if err != nil || bad != nil || number == 0 {
		return addr // Mount words what is wrong with it
	}
	return net.JoinHostPort(host, strconv.Itoa(number+n))
}

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/lazyregexp"
)

// Loopback adds 127.0.0.1 to an address without a host, such as :0. To listen for other machines, an address must name
// the host, such as 0.0.0.0:7860.
func Loopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

// CheckAddress refuses text that is not an address to listen on.
func CheckAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%.60q is not a valid address; give host:port, such as 127.0.0.1:7860", text)
	}
	return nil
}

// Collide reports whether two listeners on a and b would conflict. Port 0 never collides, because it selects another
// port each time. A wildcard address collides with every address of the same port.
func Collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	numberA, badA := strconv.Atoi(portA)
	numberB, badB := strconv.Atoi(portB)
	if errors.Join(errA, errB, badA, badB) != nil || numberA != numberB || numberA == 0 {
		return false
	}
	hostA, hostB = normalizeHost(hostA), normalizeHost(hostB)
	return hostA == hostB || isWildcard(hostA) || isWildcard(hostB)
}

// normalizeHost returns a host in the form that Collide compares. Names are not resolved, except localhost.
func normalizeHost(host string) string {
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func isWildcard(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// CheckGPUs refuses what the host refuses when it opens the GPUs, except GPUs that the machine does not have.
func CheckGPUs(text string) error {
	kind, machine, simulated := strings.Cut(text, ":")
	switch {
	case text == "auto", text == "none":
		return nil
	case kind == "mock" && simulated:
		inventory, err := nvml.Simulated(machine)
		if err == nil {
			_ = inventory.Close() // opened only to check it
		}
		return err
	}
	return fmt.Errorf("unknown GPUs %.40q; use auto, none, or simulated ones such as mock:2xH200", text)
}

// AgentGPUs reads --gpus of an agent: a word as for CheckGPUs, or a list of GPUs by index or UUID, which CUDA_VISIBLE_DEVICES of a batch job
// has as well. only is empty for all GPUs.
func AgentGPUs(text string) (word string, only []string, err error) {
	list := strings.Split(text, ",")
	if !slices.ContainsFunc(list, func(name string) bool { return gpu.CheckSelection(name) != nil }) {
		return "auto", list, nil
	}
	return text, nil, CheckGPUs(text)
}

var hostRule = lazyregexp.New(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// ParseHostName returns a host name in lower case, without a final dot. It refuses an IP address, because addresses are
// allowed without configuration, and a port, because host names are compared without it.
func ParseHostName(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > 253 || !hostRule.MatchString(name) || net.ParseIP(name) != nil {
		return "", fmt.Errorf("%.100q is not a host name; give one such as demo.lab.example, without scheme, port or IP address", text)
	}
	return name, nil
}

// StateFolder returns the absolute path of the given folder. Its default is the user's state folder (XDG Base Directory
// Specification).
func StateFolder(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a home folder for the state folder: %w; give a folder with --state DIR", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "spacehost"), nil
}

// NextPort returns addr with its port raised by n. Port 0 stays 0, which selects any free port each time.
func NextPort(addr string, n int) string {
	host, port, err := net.SplitHostPort(addr)
	number, bad := strconv.Atoi(port)
	if err != nil || bad != nil || number == 0 {
		return addr // server.Mount reports the invalid address
	}
	return net.JoinHostPort(host, strconv.Itoa(number+n))
}

package host

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/egress"
)

// buildNetwork is the network of a tool in a sandbox.
type buildNetwork struct {
	policy  egress.Policy
	sockets []insideSocket
	hosts   string // text of /etc/hosts
}

// Names that a build needs, whatever the egress of the Space: those of the public package indexes, of repositories, and of
// the Hub.
var (
	indexNames = []string{
		"pypi.org", "files.pythonhosted.org", "download.pytorch.org", "download-r2.pytorch.org", "pypi.nvidia.com",
		"github.com", "codeload.github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com",
	}
	hubNames = []string{"huggingface.co", "*.huggingface.co", "*.hf.co"}
)

// buildNetwork returns the network of a tool. A build reaches what the Space may reach when it runs, and the addresses of
// the operator that the tool names.
func (s *spaceRun) buildNetwork(ctx context.Context, tool build.Tool) (buildNetwork, error) {
	policy := s.buildPolicy(tool)
	n := buildNetwork{hosts: "127.0.0.1 localhost space\n"}
	for _, text := range tool.URLs {
		host, port, ok := hostPort(text)
		if !ok {
			continue
		}
		for _, a := range lookup(ctx, host) {
			if egress.IsPublic(a) && !s.isOwnAddress(a) && slices.Contains(policy.OpenPorts(), port) {
				continue // through the policy, and through the operator's proxy
			}
			policy.Services = append(policy.Services, netip.AddrPortFrom(a, port))
			if host != a.String() && host != "localhost" {
				n.hosts += a.String() + " " + host + "\n"
			}
		}
	}
	n.policy, n.sockets = policy, s.egressSockets(policy)
	return n, policy.Validate()
}

// buildPolicy widens the policy of the Space by the names that a build needs.
func (s *spaceRun) buildPolicy(tool build.Tool) egress.Policy {
	policy := s.policy()
	if policy.Mode == egress.ModeHub {
		return policy
	}
	names := append(slices.Clone(policy.Names), indexNames...)
	if tool.Models {
		names = append(names, hubNames...)
	}
	for _, text := range tool.URLs {
		if host, _, ok := hostPort(text); ok && strings.Contains(host, ".") && !isAddress(host) {
			names = append(names, host)
		}
	}
	return egress.Policy{Mode: egress.ModeNames, Names: names, Reach: policy.Reach}
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// hostPort returns the host of a URL and its port.
func hostPort(text string) (host string, port uint16, ok bool) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return "", 0, false
	}
	name := u.Port()
	if name == "" {
		name = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	number, err := strconv.ParseUint(name, 10, 16)
	return strings.ToLower(u.Hostname()), uint16(number), err == nil && number > 0
}

// lookup returns the IPv4 addresses of a host. Without an answer the tool itself reports that the host cannot be reached.
func lookup(ctx context.Context, host string) (all []netip.Addr) {
	found, _ := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	for _, a := range found {
		all = append(all, a.Unmap())
	}
	return all
}

// isOwnAddress reports whether an address belongs to this machine.
func (s *spaceRun) isOwnAddress(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(s.host.machineAddresses(), a.String())
}

// buildPorts lists the TCP ports that a tool at level files may connect to, at any address.
func (s *spaceRun) buildPorts(tool build.Tool) []uint16 {
	ports, _ := config.Egress{Mode: config.EgressHub}.EffectivePorts()
	ports = append(slices.Clone(ports), 53)
	addresses := slices.Clone(tool.URLs)
	for _, pair := range tool.Env {
		if name, value, _ := strings.Cut(pair, "="); slices.Contains(proxyVariables, name) {
			addresses = append(addresses, value)
		}
	}
	for _, text := range addresses {
		if _, port, ok := hostPort(text); ok {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

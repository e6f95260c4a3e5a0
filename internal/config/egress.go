package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"spacehost/internal/egress"
)

// EgressMode selects the public destinations of a Space. Private addresses are never among them; see
// IsolationSettings.Reach.
type EgressMode int

// The modes. The zero value is the Hub's rule.
const (
	EgressHub    EgressMode = iota // any public address, on egress.HubPorts
	EgressNone                     // no address, and no name is resolved
	EgressAll                      // any public address, on any port
	EgressListed                   // the Names and Ports of Egress
)

// Egress is the rule for connections of a Space to public addresses.
type Egress struct {
	Mode  EgressMode
	Names []string // if EgressListed: host names in lower case, also "*.hf.co"; nil: any public address
	Ports []uint16 // if EgressListed: sorted; nil: egress.HubPorts
}

// EffectivePorts returns the ports of allowed connections. all is true if every port is allowed.
func (e Egress) EffectivePorts() (ports []uint16, all bool) {
	switch {
	case e.Mode == EgressNone:
		return nil, false
	case e.Mode == EgressAll:
		return nil, true
	case e.Mode == EgressListed && e.Ports != nil:
		return slices.Clone(e.Ports), false
	}
	return slices.Clone(egress.HubPorts), false
}

// String returns the rule in the notation of --egress.
func (e Egress) String() string {
	if e.Mode != EgressListed {
		return []string{"hub", "none", "all"}[e.Mode]
	}
	items := slices.Clone(e.Names)
	for _, port := range e.Ports {
		items = append(items, fmt.Sprintf(":%d", port))
	}
	return strings.Join(items, ",")
}

// ParseEgress parses hub, none, all, or a list of host names and :ports, separated by commas.
func ParseEgress(text string) (e Egress, err error) {
	for _, mode := range []EgressMode{EgressHub, EgressNone, EgressAll} {
		if text == (Egress{Mode: mode}).String() {
			return Egress{Mode: mode}, nil
		}
	}
	for item := range strings.SplitSeq(text, ",") {
		if err := e.add(strings.TrimSpace(item)); err != nil {
			return Egress{}, err
		}
	}
	return e, nil
}

// add adds a host name or a :port.
func (e *Egress) add(item string) error {
	if port, isPort := strings.CutPrefix(item, ":"); isPort {
		return e.addPort(port)
	}
	name, err := parseEgressName(item)
	if err == nil {
		e.Mode = EgressListed
		e.Names = append(e.Names, name)
	}
	return err
}

func (e *Egress) addPort(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("port %.40q is not a whole number from 1 to 65535; give one such as 443", text)
	}
	e.Mode = EgressListed
	if at, found := slices.BinarySearch(e.Ports, uint16(port)); !found {
		e.Ports = slices.Insert(e.Ports, at, uint16(port))
	}
	return nil
}

// parseEgressName returns a host name, or *. and a host name, in lower case. A name has at least two labels, so that a
// misspelled mode is a mistake and no pattern covers a whole top-level domain.
func parseEgressName(text string) (string, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return "", fmt.Errorf("%.100q is an IP address, but rules contain host names; use `reach` for a private address, or `hub` for public ones", text)
	}
	base, isWildcard := strings.CutPrefix(text, "*.")
	name, err := ParseHostName(base)
	if err != nil || !strings.Contains(name, ".") {
		return "", fmt.Errorf("%.100q is neither hub, none, all nor a host name; give names such as huggingface.co or *.hf.co", text)
	}
	if isWildcard {
		name = "*." + name
	}
	return name, nil
}

// ParseReach parses the IP address and port of a private destination, such as 10.0.4.7:5432.
func ParseReach(text string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(text)
	if err != nil {
		return to, fmt.Errorf("%.100q is not IP:port; give an IP address and a port, such as 10.0.4.7:5432, because names are not resolved here", text)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	switch addr := to.Addr(); {
	case to.Port() == 0:
		return to, fmt.Errorf("%.100q has port 0; give the port of the service", text)
	case addr.IsLoopback():
		return to, fmt.Errorf("%.100q is a loopback address, which inside a Space is the Space itself; give this machine's address in its network", text)
	case addr.IsUnspecified(), addr.IsMulticast():
		return to, fmt.Errorf("%.100q is not the address of one machine; give one such as 10.0.4.7:5432", text)
	case !addr.Is4():
		return to, fmt.Errorf("%.100q is not an IPv4 address; give one, because a Space has no IPv6 network", text)
	}
	return to, nil
}

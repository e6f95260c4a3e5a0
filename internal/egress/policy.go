package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Mode is the kind of a Policy.
type Mode string

// The modes of a Policy.
const (
	ModeHub   Mode = "hub"   // public addresses at ports 80, 443 and 8080, as on the Hub
	ModeNone  Mode = "none"  // no destination except Reach
	ModeNames Mode = "names" // as hub, but only addresses of the names in Policy.Names
	ModeAll   Mode = "all"   // public addresses at the ports in Policy.Ports
)

// HubPorts are the ports that the Hub lets a Space reach (hub-docs, spaces-overview.md, "Networking").
var HubPorts = []uint16{80, 443, 8080}

// Policy is the rule for the egress of one Space. The zero value is ModeHub. A Policy must not change while an Egress
// uses it.
type Policy struct {
	// Mode is the kind of the Policy; "" is ModeHub.
	Mode Mode
	// Names are the allowed names of ModeNames. "*.hf.co" allows all names below hf.co, at any depth, but not hf.co.
	Names []string
	// Ports are the open ports of ModeAll, and of ModeNames unless there are none: then those of the Hub.
	Ports []uint16
	// Reach are destinations that are allowed in every mode, although they are private.
	Reach []netip.AddrPort
	// Services are further destinations like Reach, which may belong to this machine. The host chooses them for itself, for
	// example the package index of a build. No setting of a Space may add one.
	Services []netip.AddrPort
}

// Destination is what a process of a Space wants to reach.
type Destination struct {
	// Addr is the address and port.
	Addr netip.AddrPort
	// Name is the name for which the resolver returned the address, as long as that answer is valid, or "".
	Name string
	// Own reports whether the address belongs to this machine.
	Own bool
}

// Validate returns an error for a Policy that contradicts itself. The message names the value and the remedy.
func (p Policy) Validate() error {
	switch p.mode() {
	case ModeHub, ModeNone, ModeNames, ModeAll:
	default:
		return fmt.Errorf("unknown egress mode %q; use hub, none, all or a list of names", p.Mode)
	}
	if (p.mode() == ModeNames) != (len(p.Names) > 0) {
		return fmt.Errorf("egress %s with %d names; list names only for mode names, at least one", p.mode(), len(p.Names))
	}
	if p.mode() == ModeAll && len(p.Ports) == 0 || len(p.Ports) > 0 && p.mode() != ModeAll && p.mode() != ModeNames {
		return fmt.Errorf("egress %s with %d ports; list ports for mode all, at least one, or for a list of names", p.mode(), len(p.Ports))
	}
	if slices.Contains(p.Ports, 0) {
		return fmt.Errorf("egress port 0: not a port; use a number from 1 to 65535")
	}
	for _, name := range p.Names {
		if _, ok := hostName(strings.TrimPrefix(name, "*.")); !ok {
			return fmt.Errorf("egress name %q: not a name with a dot; use a name such as huggingface.co or *.hf.co", name)
		}
	}
	return p.validateReach()
}

// validateReach refuses loopback addresses: inside the Space's namespace they are the Space's own.
func (p Policy) validateReach() error {
	for _, to := range p.Reach {
		a := to.Addr().Unmap()
		if !a.Is4() {
			return fmt.Errorf("reach %s: only IPv4 addresses are supported; use ADDRESS:PORT with an IPv4 address", to)
		}
		if to.Port() == 0 {
			return fmt.Errorf("reach %s: port 0 is not a port; use a number from 1 to 65535", to)
		}
		if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a == broadcast {
			return fmt.Errorf("reach %s: a Space cannot reach this address outside of its namespace; use an address of the network", to)
		}
	}
	return nil
}

func (p Policy) mode() Mode {
	if p.Mode == "" {
		return ModeHub
	}
	return p.Mode
}

// OpenPorts returns the ports on which the Space's namespace needs a listener at 0.0.0.0, in ascending order: those of
// the mode, of Reach and of Services. The kernel refuses connections to all other ports.
func (p Policy) OpenPorts() []uint16 {
	ports := slices.Clone(p.modePorts())
	for _, to := range p.private() {
		ports = append(ports, to.Port())
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func (p Policy) modePorts() []uint16 {
	switch {
	case p.mode() == ModeNone:
		return nil
	case len(p.Ports) > 0:
		return p.Ports
	}
	return HubPorts
}

// Allows returns nil, or a *RefusedError with the reason. The rules, in order:
//
//  1. Destinations in Reach and Services are allowed.
//  2. ModeNone allows nothing else.
//  3. Only public addresses are allowed, and none of this machine.
//  4. The port must be open in the mode.
//  5. ModeNames needs a valid answer of the resolver for a listed name.
func (p Policy) Allows(to Destination) error {
	refused := func(reason Reason) error {
		return &RefusedError{Destination: to.Addr, Name: to.Name, Reason: reason}
	}
	if p.reaches(to.Addr) { // 1
		return nil
	}
	if p.mode() == ModeNone { // 2
		return refused(ReasonNone)
	}
	if reason := classify(to.Addr.Addr()); reason != "" { // 3
		return refused(reason)
	}
	if to.Own {
		return refused(ReasonOwn)
	}
	if !slices.Contains(p.modePorts(), to.Addr.Port()) { // 4
		return refused(ReasonPort)
	}
	if p.mode() == ModeNames && !p.lists(to.Name) { // 5
		return refused(ReasonName)
	}
	return nil
}

// AllowsName returns nil, or a *RefusedError, for a lookup of a name. The name is in lower case, without a final dot.
func (p Policy) AllowsName(name string) error {
	switch {
	case p.mode() == ModeNone:
		return &RefusedError{Name: name, Reason: ReasonNone}
	case p.mode() == ModeNames && !p.lists(name):
		return &RefusedError{Name: name, Reason: ReasonName}
	}
	return nil
}

// allowsAnswer returns the reason why the resolver must not return an address, or "". The port is not known yet, so
// an address of Reach or Services is returned for every port.
func (p Policy) allowsAnswer(a netip.Addr, own bool) Reason {
	if slices.ContainsFunc(p.private(), func(to netip.AddrPort) bool { return to.Addr().Unmap() == a.Unmap() }) {
		return ""
	}
	if reason := classify(a); reason != "" {
		return reason
	}
	if own {
		return ReasonOwn
	}
	return ""
}

func (p Policy) reaches(to netip.AddrPort) bool {
	return slices.ContainsFunc(p.private(), func(allowed netip.AddrPort) bool { return unmap(allowed) == unmap(to) })
}

// private lists the destinations that need not be public.
func (p Policy) private() []netip.AddrPort { return slices.Concat(p.Reach, p.Services) }

func unmap(to netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()) }

func (p Policy) lists(name string) bool {
	return name != "" && slices.ContainsFunc(p.Names, func(allowed string) bool {
		allowed = strings.ToLower(strings.TrimSuffix(allowed, "."))
		if below, ok := strings.CutPrefix(allowed, "*"); ok {
			return len(name) > len(below) && strings.HasSuffix(name, below)
		}
		return name == allowed
	})
}

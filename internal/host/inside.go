package host

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/egress"
	"spacehost/internal/sandbox"
	"spacehost/server"
	"spacehost/worker"
)

// insideSocket is a socket in the network of a Space, with the part of the host that serves it.
type insideSocket struct {
	sandbox.Socket
	serve func(n *insideNetwork, f *os.File) error
}

// insideNetwork is the host's side of the network of one start.
type insideNetwork struct {
	egress      *egress.Egress
	attachments []*server.Attachment
	listeners   []net.Listener // whose connections go to the front
	serving     sync.WaitGroup
}

// confineInSandbox implements worker.LocalConfig.Confine from level namespaces on: it describes what one start may see and
// reach.
func (s *spaceRun) confineInSandbox(start worker.StartInfo) (worker.Confinement, error) {
	mounts, err := s.sandboxView(start)
	if err != nil {
		return worker.Confinement{}, err
	}
	sockets := s.insideSockets(start)
	spec := &sandbox.Spec{Mounts: mounts, CatchAll: true, Processes: s.maxProcesses(), User: s.uid()}
	for _, one := range sockets {
		spec.Sockets = append(spec.Sockets, one.Socket)
	}
	return worker.Confinement{Sandbox: spec, Opened: func(files []*os.File) { s.socketsOpened(start.Instance, sockets, files) }}, nil
}

// defaultProcesses is the limit of processes and threads of a Space.
const defaultProcesses = 4096

// maxProcesses is the limit of processes and threads in one sandbox of the Space.
func (s *spaceRun) maxProcesses() uint64 {
	return cmp.Or(uint64(s.settings().Limits.Processes), defaultProcesses)
}

// insideSockets lists the sockets of a start. On a node, those of the host end at the front.
func (s *spaceRun) insideSockets(start worker.StartInfo) (all []insideSocket) {
	if s.onNode != nil {
		all = s.onNode.sockets(start.Instance)
	} else {
		for _, one := range s.siteSockets(start) {
			all = append(all, s.attached(one))
		}
	}
	return append(all, s.egressSockets(s.policy())...)
}

// siteSocket is a socket in the network of a Space at which a site of this host answers.
type siteSocket struct {
	sandbox.Socket
	site *echo.Echo
}

func newSiteSocket(name, address string, site *echo.Echo) siteSocket {
	return siteSocket{sandbox.Socket{Name: name, Network: "tcp4", Address: address}, site}
}

// deviceSocket is the name of the socket of the device API.
const deviceSocket = "device"

// siteSockets lists the addresses of this host that exist in the network of a start.
func (s *spaceRun) siteSockets(start worker.StartInfo) []siteSocket {
	all := []siteSocket{newSiteSocket(deviceSocket, fmt.Sprintf("127.0.0.1:%d", start.Device), s.deviceSite(start.Instance))}
	all = append(all, s.spaceSockets()...)
	for _, address := range s.host.addressesInside(s.host.console) {
		all = append(all, newSiteSocket("hub", address, s.host.hubSite))
	}
	return all
}

// egressSockets lists the sockets through which the processes of a sandbox reach other machines.
func (s *spaceRun) egressSockets(policy egress.Policy) (all []insideSocket) {
	all = append(all, insideSocket{sandbox.Socket{Name: "names", Network: "udp4", Address: "127.0.0.1:53"}, func(n *insideNetwork, f *os.File) error {
		conn, err := net.FilePacketConn(f)
		if err == nil {
			n.serving.Go(func() { s.logEnd("resolver", n.egress.ServeDNS(conn)) })
		}
		return err
	}})
	all = append(all, listening("names", "127.0.0.1:53", func(n *insideNetwork, l net.Listener) {
		n.serving.Go(func() { s.logEnd("resolver", n.egress.ServeDNSTCP(l)) })
	}))
	for _, port := range policy.OpenPorts() {
		all = append(all, listening("egress", fmt.Sprintf("0.0.0.0:%d", port), func(n *insideNetwork, l net.Listener) {
			n.serving.Go(func() { s.logEnd("egress", n.egress.ServeTCP(l)) })
		}))
	}
	return all
}

// spaceSockets lists the addresses of the Spaces that this one may call, its own included.
func (s *spaceRun) spaceSockets() (all []siteSocket) {
	routes := server.Routes{}
	var shared server.Site
	for _, other := range s.host.all() {
		if !s.mayCall(other) {
			continue
		}
		if other.settings().Addr.Value == "" {
			for _, route := range other.settings().Routes() {
				routes[route] = other.site().Echo
			}
			shared = other.site()
			continue
		}
		for _, address := range s.host.addressesInside(other.site()) {
			all = append(all, newSiteSocket("space", address, other.site().Echo))
		}
	}
	if len(routes) > 0 {
		front := s.host.server.NewShared(routes)
		for _, address := range s.host.addressesInside(shared) {
			all = append(all, newSiteSocket("space", address, front))
		}
	}
	return all
}

// mayCall reports whether the address of another Space exists in the network of this one. Whether a call is admitted is
// decided at that address, as for every visitor.
func (s *spaceRun) mayCall(other *spaceRun) bool {
	return s == other || s.settings().Calls == nil || slices.Contains(s.settings().Calls, other.space().Name)
}

// attached serves a socket. Its clients are processes of this Space.
func (s *spaceRun) attached(one siteSocket) insideSocket {
	return listening(one.Name, one.Address, func(n *insideNetwork, l net.Listener) {
		n.attachments = append(n.attachments, s.host.server.Attach(one.site, s.space().Name, l))
	})
}

func listening(name, address string, serve func(*insideNetwork, net.Listener)) insideSocket {
	return insideSocket{sandbox.Socket{Name: name, Network: "tcp4", Address: address}, func(n *insideNetwork, f *os.File) error {
		l, err := net.FileListener(f)
		if err == nil {
			serve(n, l)
		}
		return err
	}}
}

// addressesInside returns the IPv4 addresses at which clients on this machine reach a site. An address of the machine
// that exists only in IPv6 is not offered: a sandbox has no IPv6 route.
func (h *Host) addressesInside(site server.Site) (all []string) {
	port := strconv.Itoa(site.Addr.Port)
	if !site.Addr.IP.IsUnspecified() {
		if ip := site.Addr.IP.To4(); ip != nil {
			return []string{net.JoinHostPort(ip.String(), port)}
		}
		return nil
	}
	all = []string{net.JoinHostPort("127.0.0.1", port)}
	for _, ip := range h.machineAddresses() {
		all = append(all, net.JoinHostPort(ip, port))
	}
	return all
}

// machineAddresses lists the IPv4 addresses of this machine other than 127.0.0.1.
func (h *Host) machineAddresses() (all []string) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		h.log.Warn("read addresses of this machine", zap.Error(err))
	}
	for _, a := range addrs {
		if network, ok := a.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.String() != "127.0.0.1" {
			all = append(all, network.IP.String())
		}
	}
	return all
}

// hostsFile names this machine, the Space and the Spaces that it may call, which no resolver outside knows.
func (s *spaceRun) hostsFile(instance string) string {
	if s.onNode != nil {
		return s.onNode.launch(instance).Hosts
	}
	names := []string{"localhost", "space"}
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	lines := []string{"127.0.0.1 " + strings.Join(names, " ")}
	for _, other := range s.host.all() {
		if other.settings().Addr.Value != "" || !s.mayCall(other) {
			continue
		}
		ip := "127.0.0.1"
		if own := other.site().Addr.IP; !own.IsUnspecified() && own.To4() != nil {
			ip = own.String()
		}
		lines = append(lines, ip+" "+strings.Join(other.settings().PublicNames(), " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

// socketsOpened serves the sockets of a start until placeClosed. Without egress, the sockets are closed, and the Space's
// connections are refused.
func (s *spaceRun) socketsOpened(instance string, sockets []insideSocket, files []*os.File) {
	n := s.openNetwork(s.policy(), sockets, files)
	s.networkMu.Lock()
	defer s.networkMu.Unlock()
	if s.networks == nil {
		s.networks = map[string]*insideNetwork{}
	}
	s.networks[instance] = n
}

// openNetwork serves the sockets of a sandbox, in the order of its Spec.
func (s *spaceRun) openNetwork(policy egress.Policy, sockets []insideSocket, files []*os.File) *insideNetwork {
	n, err := &insideNetwork{}, error(nil)
	if n.egress, err = s.newEgress(policy); err != nil {
		s.logError("cannot open the network of a space", err)
	}
	for i, one := range sockets {
		if i >= len(files) {
			break
		}
		if n.egress != nil {
			if err := one.serve(n, files[i]); err != nil {
				s.logError("cannot serve socket "+one.Name, err)
			}
		}
		files[i].Close()
	}
	return n
}

// close ends the service of the sockets.
func (n *insideNetwork) close(s *server.Server) {
	s.Detach(n.attachments...)
	for _, l := range n.listeners {
		l.Close()
	}
	if n.egress != nil {
		_ = n.egress.Close() // never fails
	}
	n.serving.Wait()
}

// lastRefusal describes the last destination that the rules refused; "" if there is none.
func (n *insideNetwork) lastRefusal() string {
	if n == nil || n.egress == nil {
		return ""
	}
	refusal, ok := n.egress.LastRefusal()
	if !ok {
		return ""
	}
	return refusal.Error()
}

// currentNetwork returns the network of the current start, nil if it has none.
func (s *spaceRun) currentNetwork() *insideNetwork {
	instance := s.start()
	s.networkMu.Lock()
	defer s.networkMu.Unlock()
	return s.networks[instance]
}

// closeNetwork ends the host's side of the network of a start.
func (s *spaceRun) closeNetwork(instance string) {
	s.networkMu.Lock()
	n := s.networks[instance]
	delete(s.networks, instance)
	s.networkMu.Unlock()
	if n != nil {
		n.close(s.host.server)
	}
}

// deviceSite is the device API in the network of one start. Only the path of this start exists there.
func (s *spaceRun) deviceSite(instance string) *echo.Echo {
	e := s.host.server.NewSite()
	server.Gate(e, nil)
	s.host.device.RegisterFor(e, instance)
	return e
}

// connectionLimits returns the limits of connections that the settings name, by Space.
func (h *Host) connectionLimits() map[string]int {
	limits := map[string]int{}
	for _, s := range h.all() {
		if n := s.settings().Limits.Connections; n > 0 {
			limits[s.space().Name] = n
		}
	}
	return limits
}

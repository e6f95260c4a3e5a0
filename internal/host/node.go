package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/agent"
	"spacehost/internal/build"
	"spacehost/internal/bundle"
	"spacehost/internal/config"
	"spacehost/internal/link"
	"spacehost/internal/machine"
	"spacehost/internal/metrics"
	"spacehost/internal/sandbox"
	"spacehost/internal/shelf"
	"spacehost/internal/space"
	"spacehost/server"
	"spacehost/worker"
)

// node runs Spaces of a front on this machine: it builds their environments, starts their processes and has their files. It uses the
// code of the host for its own machine, without addresses of visitors, database and leases. Its methods may be called concurrently.
type node struct {
	host   *Host
	starts *agent.Starts
	store  *bundle.Store
	front  nodeFront

	mu       sync.Mutex
	spaces   map[string]*nodeSpace
	received map[string]string // folders of bundles, by Space (hold)
	starting int               // streams of starts that the front has not left
	isLeft   bool              // no further start

	probing sync.Mutex // held by probe
}

// nodeFront opens streams to the front of a node. Its error reports that the front cannot be reached.
type nodeFront interface {
	open(ctx context.Context, hello any) (net.Conn, error)
}

// NodeConfig describes a node.
type NodeConfig struct {
	Name     string // distinguishes its simulated GPUs from those of other nodes
	State    string
	GPUs     string    // auto, none or mock:...
	OnlyGPUs []string  // indexes or beginnings of UUIDs; nil: all
	Share    gpu.Share // of a Device that a call of size large gets
	Users    config.UIDs
	Logger   *zap.Logger
}

// nodeSpace is one Space on a node.
type nodeSpace struct {
	*spaceRun
	preparing sync.Mutex // one preparation at a time
}

// Operations between a front and a node that concern Spaces. Those of processes are in package agent.
const (
	opPrepare = "space/prepare"
	opForget  = "space/forget"
	opUsage   = "space/usage"
	opPrune   = "space/prune"

	streamLaunch = "space/launch"
	streamInside = "space/inside"
	streamBundle = "space/bundle"
	streamFiles  = "space/files"
)

// SpaceOrder is what a front demands before the first start of a Space, and whenever that changes.
type SpaceOrder struct {
	Settings  config.SpaceSettings
	Name      string
	Bundle    string // digest of its folder
	Variables map[string]string
}

// Prepared is the answer to a SpaceOrder.
type Prepared struct {
	Python, PythonVersion, Gradio, Spaces string
	Warnings                              []string
}

// BundleStream begins a stream to a node with the content of a Space's folder (package bundle).
type BundleStream struct{ Op, Space, Digest string }

// FilesStream begins a stream to a node for requests about files (package shelf).
type FilesStream struct{ Op string }

// LaunchOrder is what a front demands of one start.
type LaunchOrder struct {
	Op    string // streamLaunch
	Space string
	Spec  worker.Spec
	// Door is the path of the device API. Sockets are those of the sandbox that end at the front, and Hosts is the text of /etc/hosts.
	Door    string
	Device  int
	Sockets []sandbox.Socket
	Hosts   string
	// Likeness is the same for orders that differ only in their instance (worker.Kept).
	Likeness string
}

// InsideStream begins a stream to the front: a process of a sandbox has connected to one of its sockets.
type InsideStream struct {
	Op, Space, Instance string
	Socket              sandbox.Socket
}

// openNode opens what does not depend on a front. close releases it.
func openNode(c NodeConfig, devices *machine.Agent, front nodeFront) (*node, error) {
	settings := config.Settings{
		File:  "front", // it serves several people
		State: c.State, GPUs: config.Setting{Value: c.GPUs, Source: "--gpus"}, OnlyGPUs: c.OnlyGPUs, Share: c.Share,
		Hardware: config.Setting{Value: gpu.AutoHardware, Source: "--gpus"}, Users: c.Users,
	}
	h := newHost(settings, newScreen(true, io.Discard, io.Discard), nil)
	h.log, h.processes = c.Logger, devices.Processes()
	h.pool.Store(devices.Pool())
	h.metrics = metrics.New() // never read: the front counts uploads, too
	h.openSampler()
	n := &node{host: h, front: front, starts: agent.NewStarts(c.Logger), spaces: map[string]*nodeSpace{}, received: map[string]string{}}
	for _, step := range []func() error{h.openState, n.openStore, h.openNodeServer, h.endLeftStarts, h.removeBuildFolders, h.openEgress, h.showHardware} {
		if err := step(); err != nil {
			h.Close()
			return nil, err
		}
	}
	return n, nil
}

// openNodeServer prepares the sites inside of sandboxes. There is no address of this machine.
func (h *Host) openNodeServer() error {
	h.server = server.New(h.log.Named("server"))
	h.onClose(h.server.Close)
	return nil
}

// endLeftStarts ends what an agent that has crashed has left.
func (h *Host) endLeftStarts() error {
	folders, err := filepath.Glob(h.state.path("run", "*", markerFile))
	for _, marker := range folders {
		h.processes.EndOrphans(marker)
		if err := sandbox.RemoveLayer(filepath.Dir(marker)); err != nil {
			h.log.Warn("remove run folder", zap.Error(err))
		}
	}
	return err
}

// close ends all processes.
func (n *node) close() {
	n.starts.EndAll()
	n.host.Close()
}

// call answers a call of the front. known is false for an operation of another package.
func (n *node) call(ctx context.Context, op string, body json.RawMessage) (answer any, known bool, err error) {
	switch op {
	case opPrepare:
		var order SpaceOrder
		if err := json.Unmarshal(body, &order); err != nil {
			return nil, true, err
		}
		prepared, err := n.prepare(ctx, order)
		return prepared, true, toRemoteBuildError(err)
	case opForget:
		var name string
		err := json.Unmarshal(body, &name)
		n.forget(name)
		return nil, true, err
	case opUsage:
		return n.usage(), true, nil
	case opPrune:
		var order PruneOrder
		if err := json.Unmarshal(body, &order); err != nil {
			return nil, true, err
		}
		pruned, err := n.pruneState(ctx, order)
		return pruned, true, err
	}
	return n.starts.Call(ctx, op, body)
}

// stream serves a stream of the front. false: it belongs to another package.
func (n *node) stream(hello json.RawMessage, conn net.Conn) bool {
	var order LaunchOrder
	if err := json.Unmarshal(hello, &order); err != nil {
		return false
	}
	switch order.Op {
	case streamLaunch:
		n.launch(order, conn)
	case streamBundle:
		n.receive(order.Space, conn)
	case streamFiles:
		shelf.Serve(context.Background(), conn, n.shelfOf, n.host.log.Named("shelf"))
	default:
		return n.starts.Stream(hello, conn)
	}
	return true
}

// shelfOf returns the files of a Space, nil before its first preparation.
func (n *node) shelfOf(space string) *shelf.Shelf {
	_, files := n.opened(n.get(space))
	return files
}

// opened returns the Place and the files of a Space, nil before its first preparation. s may be nil.
func (n *node) opened(s *nodeSpace) (*worker.Local, *shelf.Shelf) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s == nil {
		return nil, nil
	}
	return s.place, s.shelf
}

// get returns a Space, nil before its first preparation.
func (n *node) get(name string) *nodeSpace {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.spaces[name]
}

// prepare builds the environment of a Space and what all its starts share.
func (n *node) prepare(ctx context.Context, order SpaceOrder) (p Prepared, err error) {
	settings := order.Settings
	digest, err := bundle.ParseSum(order.Bundle)
	if err != nil {
		return p, err
	}
	dir, ok := n.store.Has(digest) // receive may not have returned yet
	if !ok {
		return p, fmt.Errorf("the folder of the Space has not arrived here (bundle %s)", order.Bundle)
	}
	n.store.Release(dir) // receive holds it
	settings.Name, settings.Dir = order.Name, dir
	opened, err := settings.Open()
	if err != nil {
		return p, err
	}
	n.mu.Lock()
	s := n.spaces[order.Name]
	if s == nil {
		s = &nodeSpace{spaceRun: newSpaceRun(n.host, settings, opened)}
		s.onNode = &nodeSide{node: n, space: s}
		n.spaces[order.Name] = s
		all := append(slices.Clone(n.host.all()), s.spaceRun)
		n.host.spaces.Store(&all)
	}
	n.mu.Unlock()
	s.preparing.Lock()
	defer s.preparing.Unlock()
	s.change(func(state *spaceState) { state.settings, state.space = settings, opened })
	if err := n.open(s, order); err != nil {
		return p, err
	}
	if err := s.prepareMachine(ctx, order.Variables); err != nil {
		return p, err
	}
	n.pruneBundles()
	env := s.env()
	return Prepared{env.Python, env.PythonVersion, env.Gradio, env.Spaces, env.Warnings}, nil
}

// open selects the level of a Space, and opens its logs, its Place and its files.
func (n *node) open(s *nodeSpace, order SpaceOrder) error {
	h := n.host
	if err := n.probe(); err != nil {
		return err
	}
	if err := s.selectLevel(); err != nil {
		return err
	}
	if s.level() != config.IsolationNamespaces {
		return fmt.Errorf("a Space runs on a node at level namespaces only, not at %s", s.level())
	}
	if err := s.checkEgress(); err != nil {
		return err
	}
	if place, _ := n.opened(s); place == nil {
		s.openLogs()
		place := worker.NewLocal(s.placeConfig())
		files := shelf.New(shelf.Config{Space: order.Name, Storage: s.storage(), ReserveUpload: s.reserveUpload, Logger: h.log.Named("shelf")})
		n.mu.Lock()
		s.place, s.shelf = place, files
		n.mu.Unlock()
	}
	s.place.Configure(s.placeConfig())
	s.shelf.SetStorage(s.storage())
	return nil
}

// probe finds out which levels the machine offers, once. Several Spaces may be prepared at the same time.
func (n *node) probe() error {
	n.probing.Lock()
	defer n.probing.Unlock()
	if n.host.levels.tried {
		return nil
	}
	return n.host.probeLevels()
}

// codeBuild is the code of a build.Error that crosses a link.
const codeBuild = "build"

// toRemoteBuildError keeps the facts of a build.Error on its way to the front.
func toRemoteBuildError(err error) error {
	built := (*build.Error)(nil)
	if !errors.As(err, &built) {
		return err
	}
	sent := *built
	sent.Err = nil
	detail, encodeErr := json.Marshal(sent)
	if encodeErr != nil {
		return err
	}
	return &link.RemoteError{Code: codeBuild, Text: err.Error(), Detail: detail}
}

// fromRemoteBuildError returns the build.Error of toRemoteBuildError.
func fromRemoteBuildError(err error) error {
	remote := (*link.RemoteError)(nil)
	if !errors.As(err, &remote) || remote.Code != codeBuild {
		return err
	}
	built := &build.Error{}
	if json.Unmarshal(remote.Detail, built) != nil {
		return err
	}
	return built
}

// launch starts a process, and serves the stream until the front leaves it or the process has ended.
func (n *node) launch(order LaunchOrder, conn net.Conn) {
	defer conn.Close()
	may, done := n.beginStart()
	defer done()
	order.Spec.Simulated = n.host.simulated()
	instance := order.Spec.Instance
	s := n.get(order.Space)
	var started worker.Start
	n.starts.Launch(conn, func(to worker.Reporter) (worker.Kept, worker.LocalProcess, []*os.File, error) {
		if !may {
			return worker.Kept{}, nil, nil, errors.New(space.EndedByLeaving)
		}
		place, _ := n.opened(s)
		if place == nil {
			return worker.Kept{}, nil, nil, fmt.Errorf("the Space %s is not prepared on this node", order.Space)
		}
		s.onNode.launches.Store(instance, order)
		var err error
		if started, err = place.Start(context.Background(), order.Spec, to); err != nil {
			s.onNode.launches.Delete(instance)
			return worker.Kept{}, nil, nil, err
		}
		kept := worker.Kept{Facts: started.Facts(), Space: order.Space, Door: order.Door, Likeness: order.Likeness, Sockets: order.Sockets}
		return kept, started.(worker.LocalProcess), nil, nil
	}, func() {
		started.Close()
		s.onNode.launches.Delete(instance)
	})
}

// forget ends a Space that the front has moved or removed.
func (n *node) forget(name string) {
	n.starts.EndSpace(name)
	n.hold(name, "")
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.spaces[name]
	if s == nil {
		return
	}
	delete(n.spaces, name)
	all := slices.DeleteFunc(slices.Clone(n.host.all()), func(one *spaceRun) bool { return one == s.spaceRun })
	n.host.spaces.Store(&all)
	s.env().Release()
	s.closeLogs()
	n.host.sampler.forget(name)
}

// nodeSide is what a spaceRun asks on a node, where the host asks itself.
type nodeSide struct {
	node     *node
	space    *nodeSpace
	launches sync.Map // LaunchOrder, by instance
}

func (o *nodeSide) launch(instance string) LaunchOrder {
	order, _ := o.launches.Load(instance)
	found, _ := order.(LaunchOrder)
	return found
}

// sockets lists the sockets of a sandbox that end at the front.
func (o *nodeSide) sockets(instance string) (all []insideSocket) {
	for _, socket := range o.launch(instance).Sockets {
		all = append(all, insideSocket{socket, listening(socket.Name, socket.Address, func(n *insideNetwork, l net.Listener) {
			n.listeners = append(n.listeners, l)
			n.serving.Go(func() { o.tunnel(instance, socket, l) })
		}).serve})
	}
	return all
}

// tunnel passes the connections of a socket to the front.
func (o *nodeSide) tunnel(instance string, socket sandbox.Socket, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), frontTimeout)
			defer cancel()
			front, err := o.node.front.open(ctx, InsideStream{streamInside, o.space.space().Name, instance, socket})
			if err != nil {
				o.node.host.log.Warn("front not reached for a Space", zap.String("space", o.space.space().Name), zap.Error(err))
				return
			}
			defer front.Close()
			agent.Join(conn, front)
		}()
	}
}

// frontTimeout is how long a process of a Space waits for the front.
const frontTimeout = 10 * time.Second

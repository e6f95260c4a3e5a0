package host

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/control"
	"spacehost/internal/placement"
	"spacehost/internal/space"
	"spacehost/worker"
)

var _ control.Mover = (*Host)(nil)

// location is where a Space runs. The zero value: it has not run yet.
type location struct {
	changing sync.Mutex // held by a command until the Space has its new node
	mu       sync.Mutex
	last     string    // the node of the present start, or of the last one, where its files are
	next     string    // the node of the next start after a command; "": none has moved the Space
	why      string    // why no node may run the Space; "": it does not wait for one
	since    time.Time // since when it waits for one, if it does
	mover    string    // the operator of the last move, until the Space starts again
}

// get returns the node of the present or of the last start, and why the Space waits for one.
func (l *location) get() (last, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.why
}

// waiting returns the node of the last start, and since when the Space waits for another one.
func (l *location) waiting() (last string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.since
}

// set notes the result of placement.Choose at a time, and reports whether the node has to be stored. A Space that waits keeps its
// last node.
func (l *location) set(node, why string, now time.Time) (isNew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waited := l.why != ""
	if !waited {
		l.since = now
	}
	l.why = why
	if node != "" {
		isNew = waited || l.last != node // its node may have been forgotten meanwhile, and has joined again
		l.last, l.next = node, ""
	}
	return isNew
}

func (l *location) move(to, by string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next, l.mover = to, by
}

// target is the node that placement.Choose keeps, if it may run the Space.
func (l *location) target() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.next, l.last)
}

// nextNode returns the node to which a command moves the Space; "" if none does.
func (l *location) nextNode() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// takeMover returns the operator who has moved the Space since its last start; "" if none has.
func (l *location) takeMover() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := l.mover
	l.mover = ""
	return by
}

// nodeChanges wakes the Spaces that wait for a node. The zero value is ready.
type nodeChanges struct {
	mu       sync.Mutex
	next     chan struct{}
	handling bool
	after    chan struct{} // closed at the end of the next call; nil: none is asked for
}

// wait returns a channel that the next wake closes.
func (c *nodeChanges) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

// handle calls a function, or lets the call that runs now repeat it. done is closed at the end of a call that began after handle did.
func (c *nodeChanges) handle(call func()) (done <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after == nil {
		c.after = make(chan struct{})
	}
	done = c.after
	if c.handling {
		return done
	}
	c.handling = true
	for c.after != nil {
		after := c.after
		c.after = nil
		c.mu.Unlock()
		call()
		close(after)
		c.mu.Lock()
	}
	c.handling = false
	return done
}

func (c *nodeChanges) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}

// awaitNode chooses the node of the next start. It waits while no node may run the Space, and then returns true, also when ctx ends: the
// caller tries again. After false, the Space starts.
func (s *spaceRun) awaitNode(ctx context.Context) bool {
	changed := s.host.nodeChanges.wait() // before the choice, so that no change is missed
	node, why := s.chooseNode()
	if s.location.set(node, why, s.host.clock.Now()) {
		s.storeNode(ctx, node)
	}
	if node != "" {
		return false
	}
	s.supervisor.NotRunning(worker.StageChange{Stage: space.Building, Reason: placement.Waiting})
	s.note("waits for a machine: " + why + ".")
	s.markSettled()
	for ctx.Err() == nil {
		select {
		case <-changed:
			changed = s.host.nodeChanges.wait()
			node, again := s.chooseNode()
			if node != "" {
				return true
			}
			if again != why {
				why = again
				s.location.set("", why, s.host.clock.Now())
				s.note("still waits for a machine: " + why + ".")
			}
		case <-s.supervisor.Restarts(): // by command
			return true
		case <-ctx.Done():
		}
	}
	return true
}

// storeNode keeps the node of the Space for the next start of the host. Without the database, the Space starts all the same.
func (s *spaceRun) storeNode(ctx context.Context, node string) {
	if s.host.cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	if err := s.host.nodeStore.Place(ctx, s.space().Name, node); err != nil {
		s.logError("node of the space not stored", err)
	}
}

// loadNode reads the node of the last start from the database.
func (s *spaceRun) loadNode() error {
	if s.host.cluster == nil {
		return nil
	}
	node, err := s.host.nodeStore.PlaceOf(context.Background(), s.space().Name)
	s.location.set(node, "", s.host.clock.Now())
	return err
}

// chooseNode applies placement.Choose to the nodes of this moment. Whether the Space has GPU functions is known once it has run. Before,
// a node with a Device is preferred.
func (s *spaceRun) chooseNode() (node, why string) { return s.chooseFrom(s.host.machines) }

// chooseFrom is chooseNode with the machines of that function, which is called if the Space may run on a node.
func (s *spaceRun) chooseFrom(machines func() []placement.Node) (node, why string) {
	if !s.settings().MayRunOnNode() {
		return placement.Host, ""
	}
	last := s.location.target()
	wants, known := s.placementSpace()
	nodes := s.host.withSpaces(machines(), s)
	node, why = placement.Choose(wants, nodes, last)
	if node == "" && !known {
		wants.NeedsGPU = false
		node, why = placement.Choose(wants, nodes, last)
	}
	return node, why
}

// placementSpace returns the Space for package placement. known is false before its first start: its GPU functions are not known then.
func (s *spaceRun) placementSpace() (wants placement.Space, known bool) {
	manifest, attached := s.queue.Manifest()
	return placement.Space{Name: s.space().Name, On: s.settings().On, NeedsGPU: !attached || len(manifest.Tasks) > 0}, attached
}

// node returns where the Space runs; "" while it waits for a node or has not been placed yet.
func (s *spaceRun) node() string {
	last, why := s.location.get()
	if why != "" {
		return ""
	}
	return last
}

// nodeOrNext returns where the Space runs, or where it would start now; "" if no node may run it.
func (s *spaceRun) nodeOrNext() string {
	if node := s.node(); node != "" && s.settings().MayRunOnNode() {
		return node
	}
	node, _ := s.chooseNode()
	return node
}

// waitsForNode returns why no node may run the Space; "" if it does not wait for one. A paused Space waits for an operator.
func (s *spaceRun) waitsForNode() (why string) {
	if !s.isPaused() {
		_, why = s.location.get()
	}
	return why
}

func (s *spaceRun) isPaused() bool {
	paused, _ := s.paused.get()
	return paused != nil
}

// placementNodes returns this machine and the nodes that have joined, for the choice of a Space's node.
func (h *Host) placementNodes(of *spaceRun) []placement.Node { return h.withSpaces(h.machines(), of) }

// machines returns this machine and the nodes that have joined.
func (h *Host) machines() []placement.Node {
	nodes := []placement.Node{h.ownNode()}
	if h.joinedNodes != nil {
		nodes = append(nodes, h.joinedNodes()...)
	}
	return nodes
}

// withSpaces returns machines with the number of their Spaces beside one.
func (h *Host) withSpaces(machines []placement.Node, of *spaceRun) []placement.Node {
	nodes := slices.Clone(machines)
	placed := map[string]int{}
	for _, s := range h.all() {
		if s != of {
			placed[s.node()]++
		}
	}
	for i := range nodes {
		nodes[i].Spaces = placed[nodes[i].Name]
	}
	return nodes
}

// ownNode describes this machine.
func (h *Host) ownNode() placement.Node {
	n := placement.Node{Name: placement.Host, State: placement.Connected, Memory: freeMemory()}
	used := h.slotsOfNodes()[""]
	n.Devices, n.FreeSlots = used.devices, used.freeSlots
	return n
}

// freeMemory returns the unused memory of this machine in bytes.
func freeMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Freeram+info.Bufferram) * int64(info.Unit)
}

// NodesChanged is called after each change of a node: it has joined, left, become suspect or lost, or was drained or returned. Spaces that
// wait for a node are placed. A Space that may not stay on its node is ended after its running calls, and is placed again. It may be called
// concurrently: all changes during one call are handled together after it, because all nodes of a front connect in the same seconds after
// its restart. The channel is closed once the change is handled.
func (h *Host) NodesChanged() (handled <-chan struct{}) { return h.nodeChanges.handle(h.placeAgain) }

func (h *Host) placeAgain() {
	machines := sync.OnceValue(h.machines)
	for _, s := range h.all() {
		last := s.node()
		if last == "" || s.location.nextNode() != "" {
			continue
		}
		if node, reason := s.chooseFrom(machines); node != last {
			h.log.Info("space leaves its node", zap.String("space", s.space().Name), zap.String("node", last), zap.String("next", node), zap.String("why", reason))
			s.endAttempt(h.causeToLeave(last))
		}
	}
	h.nodeChanges.wake()
}

func moveCause(reason, by string, now bool) error {
	return &worker.StopCause{Reason: reason, Ledger: space.EndedByRestart + by, Again: true, Now: now, Cause: worker.CauseNode, By: by}
}

// MoveSpace implements control.Mover. The Space stays on its new node by rule 1 of package placement.
func (h *Host) MoveSpace(name, to, by string, now bool) (drain time.Duration, err error) {
	s := h.find(name)
	switch {
	case s == nil:
		return 0, fmt.Errorf("the Space %s was removed by a reload", name)
	case !h.settings().IsFront():
		return 0, &control.NoFrontError{}
	}
	s.location.changing.Lock()
	defer s.location.changing.Unlock()
	wants, known := s.placementSpace()
	wants.NeedsGPU = wants.NeedsGPU && known
	if err := placement.CheckMove(wants, h.placementNodes(s), cmp.Or(s.location.nextNode(), s.node()), to); err != nil {
		return 0, err
	}
	stage := s.supervisor.Status().Stage
	h.log.Info("space moves", zap.String("space", name), zap.String("to", to), zap.String("by", by))
	s.note(fmt.Sprintf("moves to %s at the request of %s.", to, by))
	s.location.move(to, by)
	s.endAttempt(moveCause("The operator moves this app to another machine, and it starts again.", by, now))
	if now { // also in a drain that has begun
		h.hurrySpace(s)
		return 0, nil
	}
	if stage == space.Running {
		drain = h.settings().Drain
	}
	return drain, nil
}

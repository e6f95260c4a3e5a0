package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"spacehost/internal/audit"
	"spacehost/internal/link"
	"spacehost/internal/machine"
	"spacehost/internal/nodes"
	"spacehost/internal/version"
	"spacehost/migrations"
	"spacehost/server"
)

// cluster is the part of a host that makes it a front: the listener for agents and their links. Its methods may be called concurrently.
type cluster struct {
	host      *Host
	authority *link.Authority
	listener  net.Listener
	server    *link.Server
	ctx       context.Context // of run
	opened    time.Time
	fleet     *machine.Fleet // the nodes as machines of the broker; it handles the messages of their links
	log       *zap.Logger
	ending    sync.WaitGroup // awaits the ends of links

	mu          sync.Mutex
	connections map[string]connection // by node
	gone        map[string]time.Time  // end of the last link, by node
	stored      []nodes.Node          // of the database, as they were read last
}

// clusterFolder is the folder of the state folder that has the key of the cluster's authority.
const clusterFolder = "cluster"

// listenForNodes takes the address for agents. Without one nothing is opened.
func (h *Host) listenForNodes() error {
	if !h.settings().IsFront() {
		return nil
	}
	listen := h.settings().Cluster.Listen
	listener, err := net.Listen("tcp", listen.Value)
	if err != nil {
		return &server.ListenError{Addr: listen.Value, Flag: listen.Source, Err: err}
	}
	h.onClose(func() { listener.Close() })
	h.cluster = &cluster{host: h, listener: listener, connections: map[string]connection{}, gone: map[string]time.Time{}, log: h.log.Named("cluster")}
	return nil
}

// openCluster follows wire, which creates the broker.
func (h *Host) openCluster() (err error) {
	c := h.cluster
	if c == nil {
		return nil
	}
	c.opened, c.fleet = time.Now(), machine.NewFleet(h.broker, c.log)
	if c.authority, err = link.OpenAuthority(h.state.path(clusterFolder)); err != nil {
		return err
	}
	c.server = &link.Server{CA: c.authority, Authorize: c.authorize, Redeem: c.redeem, Hello: c.hello, Handler: frontHandler{c.fleet, c.host}, Logger: c.log}
	h.joinedNodes = c.placementNodes
	return nil
}

// run serves the agents until ctx ends.
func (c *cluster) run(ctx context.Context) error {
	c.ctx = ctx
	c.log.Info("front listens for nodes", zap.String("address", c.listener.Addr().String()))
	defer c.ending.Wait() // of links, and of Serve
	done := make(chan error, 1)
	c.ending.Go(func() { done <- c.server.Serve(ctx, c.listener) })
	seen := time.NewTicker(seenInterval)
	defer seen.Stop()
	given := time.NewTimer(giveUpAfter)
	defer given.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-given.C: // the nodes that have not connected since the start
			c.host.NodesChanged()
		case <-seen.C:
			var names []string
			for _, n := range c.fleet.Nodes() {
				if n.State == machine.Connected {
					names = append(names, n.Name)
				}
			}
			c.noteSeen(c.host.clock.Now(), names...)
		}
	}
}

// seenInterval is how old the stored time of the last beat of a connected node is at most. It is all that a host knows after a crash.
const seenInterval = time.Minute

// dbTimeout bounds a write for an agent while another program has locked the database.
const dbTimeout = 10 * time.Second

// authorize implements link.Server.Authorize.
func (c *cluster) authorize(node string, key [32]byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), dbTimeout)
	defer cancel()
	err := c.host.nodeStore.Authorize(ctx, node, key)
	if refused := (*nodes.RefusedError)(nil); errors.As(err, &refused) {
		code := link.CodeRefused
		if !refused.Revoked.IsZero() {
			code = link.CodeRevoked
		}
		return &link.RemoteError{Code: code, Text: refused.Error()}
	}
	return err
}

// redeem implements link.Server.Redeem. Each join is in the audit log, also a refused one.
func (c *cluster) redeem(ctx context.Context, join link.JoinRequest) (link.JoinGrant, error) {
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	n, err := c.host.nodeStore.Redeem(ctx, join.SecretHash, join.Name, join.Key)
	if err == nil {
		c.note(join, n.JoinedBy, http.StatusOK, "")
		return link.JoinGrant{}, nil
	}
	refused, badName := (*nodes.JoinError)(nil), (*nodes.BadNameError)(nil)
	switch {
	case errors.As(err, &refused):
		err = &link.RemoteError{Code: string(refused.Code), Text: refused.Error()}
	case errors.As(err, &badName):
		err = &link.RemoteError{Code: link.CodeRefused, Text: badName.Error()}
	default:
		return link.JoinGrant{}, err
	}
	if refused != nil && refused.Code != nodes.TokenUnknown { // any client of the port can send a token that does not exist
		c.note(join, "", http.StatusForbidden, err.Error())
	}
	return link.JoinGrant{}, err
}

// note records a join in the audit log. by is the operator that created the token.
func (c *cluster) note(join link.JoinRequest, by string, status int, refusal string) {
	h := c.host
	fields := map[string]any{"token": join.TokenID, "address": join.Address.String()}
	if by != "" {
		fields["created_by"] = by
	}
	h.audit.Queue(audit.Record{
		At: h.clock.Now(), Actor: "node " + join.Name, Origin: audit.Node, Action: "node.join", Object: join.Name, Status: status, Detail: refusal,
		Fields: fields,
	}, func(err error) {
		c.log.Warn("audit entry of a join not stored", zap.String("node", join.Name), zap.Error(err))
	})
}

// connection is the present or the last connection of a node since the start of the host.
type connection struct {
	at      time.Time
	address string        // of the agent, as the front sees it
	skew    time.Duration // of the clock of the node, when it connected
	departs departure
	reports *rate.Limiter // of departs
}

// hello implements link.Server.Hello: a node has connected.
func (c *cluster) hello(l *link.Link, body json.RawMessage) (any, error) {
	var hello nodes.Hello
	if err := json.Unmarshal(body, &hello); err != nil {
		return nil, &link.RemoteError{Code: link.CodeProtocol, Text: fmt.Sprintf("the hello of the node is not understood: %v; install the version of the front on the node", err)}
	}
	if err := hello.Check(); err != nil {
		return nil, &link.RemoteError{Code: link.CodeProtocol, Text: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), dbTimeout)
	defer cancel()
	if err := c.host.nodeStore.Seen(ctx, l.Peer(), hello.Version, hello.Labels); err != nil {
		return nil, err
	}
	now := c.host.clock.Now()
	one := connection{now, l.Address().String(), time.UnixMilli(hello.WallMillis).Sub(now), departure{}, rate.NewLimiter(1, 10)} // an agent reports once in minutes
	if hello.Leaving != nil {
		one.departs = newDeparture(*hello.Leaving)
	}
	c.mu.Lock()
	c.connections[l.Peer()] = one
	c.mu.Unlock()
	devices, err := c.fleet.Hello(l, hello.Machine) // from now on it is connected
	if err != nil {
		return nil, err
	}
	c.host.metrics.NodeConnected(l.Peer())
	c.ending.Go(func() {
		c.host.nodeCame(l)
		<-l.Done()
		c.noteSeen(c.host.clock.Now().Add(-time.Since(l.Beat())), l.Peer())
	})
	go func() {
		<-l.Done()
		c.noteGone(l.Peer())
		c.host.nodeWent(c.ctx, l.Peer())
	}()
	c.log.Info("hello of node", zap.String("node", l.Peer()), zap.String("boot", hello.Boot), zap.String("version", hello.Version), zap.Duration("skew", one.skew))
	return nodes.Welcome{Version: version.Current(migrations.SQLiteVersion()).Version, Machine: devices}, nil
}

// connectionOf returns the zero connection for a node without any.
func (c *cluster) connectionOf(node string) connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connections[node]
}

// noteSeen stores that nodes were connected until then.
func (c *cluster) noteSeen(at time.Time, names ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), dbTimeout)
	defer cancel()
	if err := c.host.nodeStore.SeenAt(ctx, at, names...); err != nil {
		c.log.Warn("last beats of nodes not stored", zap.Strings("nodes", names), zap.Error(err))
	}
}

// forget ends the link of a node that Authorize refuses from now on, and removes its Devices from the broker.
func (c *cluster) forget(ctx context.Context, node string) {
	c.server.Revoke(node)
	ctx, cancel := context.WithTimeout(ctx, dbTimeout)
	defer cancel()
	if err := c.fleet.Forget(ctx, node); err != nil {
		c.log.Warn("node not removed from the broker yet", zap.String("node", node), zap.Error(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.connections, node)
	c.host.metrics.NodeForgotten(node)
}

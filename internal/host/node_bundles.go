package host

import (
	"context"
	"net"
	"path/filepath"

	"go.uber.org/zap"

	"spacehost/internal/bundle"
)

func (n *node) openStore() (err error) {
	if n.store, err = bundle.OpenStore(n.host.state.path("bundles")); err == nil {
		n.host.onClose(func() { _ = n.store.Close() })
	}
	return err
}

// receive receives the folder of a Space, and answers with nothing: the front prepares the Space next.
func (n *node) receive(space string, conn net.Conn) {
	dir, err := bundle.Receive(context.Background(), conn, n.store, bundle.Options{})
	if err != nil {
		n.host.log.Warn("bundle not received", zap.String("space", space), zap.Error(err))
		return
	}
	n.hold(space, dir)
}

// hold protects the folder that was received last for a Space from pruneBundles, and no longer the one before; "" protects none.
func (n *node) hold(space, dir string) {
	n.mu.Lock()
	before := n.received[space]
	if n.received[space] = dir; dir == "" {
		delete(n.received, space)
	}
	n.mu.Unlock()
	if before != "" {
		n.store.Release(before)
	}
}

// pruneBundles removes the bundles of which no Space and no process is left.
func (n *node) pruneBundles() {
	var keep []string
	for _, s := range n.host.all() {
		keep = append(keep, filepath.Base(s.space().Dir))
	}
	for _, kept := range n.starts.Kept() {
		keep = append(keep, filepath.Base(kept.Facts.Dir))
	}
	pruned, err := n.store.Prune(keep)
	if err != nil {
		n.host.log.Warn("old bundles not removed", zap.Error(err))
	} else if pruned.Trees > 0 {
		n.host.log.Info("old bundles removed", zap.Int("trees", pruned.Trees), zap.Int64("bytes", pruned.Bytes))
	}
}

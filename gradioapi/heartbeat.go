package gradioapi

import (
	"context"
	"strings"
	"time"

	"spacehost/queue"
)

// heartbeat streams the sign of life of the Space to a visitor. The Space is notified once, after the visitor has
// left (notifyUnload). Until then Gradio's own heartbeat has no effect but its connection.
func (h *Handler) heartbeat(c call) error {
	hash := queue.SessionHash(strings.TrimPrefix(strings.TrimSuffix(c.apiPath, "/"), "/heartbeat/"))
	if err := h.requireOwner(c, hash); err != nil {
		return err
	}
	endVisit := h.config.Queue.Visit(hash)
	s, err := h.openSSE(c)
	if err != nil {
		endVisit()
		return err
	}
	c.Context = c.Echo().NewContext(c.Request(), nil) // echo reuses the handler's context for the next request
	h.background.Go(func() {
		defer endVisit()
		h.sendHeartbeats(s, c)
	})
	return nil
}

func (h *Handler) sendHeartbeats(s *sse, c call) {
	ticker := time.NewTicker(h.config.Heartbeat)
	defer ticker.Stop()
	for s.write([]byte("data: ALIVE\n\n")) == nil {
		select {
		case <-ticker.C:
			continue
		case <-s.ctx.Done():
		}
		break
	}
	s.close()
	h.notifyUnload(c)
}

// Limits of the unload notifications to one Space. A thousand visitors may leave in the same second, and a Space that
// hangs receives few notifications.
const (
	maxUnloads     = 4 // at once
	unloadTimeout  = 10 * time.Second
	unloadSlotWait = time.Minute
)

// notifyUnload opens the visitor's heartbeat at the Space and ends it. Gradio then runs unload functions and ages
// gr.State (gradio/routes.py, heartbeat). A Space that is down has nothing to unload.
func (h *Handler) notifyUnload(c call) {
	waiting, cancel := context.WithTimeout(h.ctx, unloadSlotWait)
	defer cancel()
	select {
	case h.unloadSlots <- struct{}{}:
		defer func() { <-h.unloadSlots }()
	case <-waiting.Done():
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, unloadTimeout)
	defer cancel()
	response, err := h.fetch(ctx, c, c.Request().URL.Path)
	if err != nil {
		return
	}
	defer response.Body.Close()
	_, _ = response.Body.Read(make([]byte, 64)) // wait for the first beat: Gradio reacts to the end only after it
}

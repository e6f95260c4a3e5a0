package host

import (
	"fmt"
	"slices"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/web"
	"spacehost/server"
)

// listen opens the addresses before any long work, so that a used port is reported at once.
func (h *Host) listen() (err error) {
	h.server = server.New(h.log.Named("server"))
	h.onClose(h.server.Close)
	if len(h.settings().Proxies) > 0 {
		h.server.Visitor, h.server.TrustProxy = web.Proxies(h.settings().Proxies).Visitor, web.Proxies(h.settings().Proxies).Trust
	}
	if err := h.openTLS(); err != nil {
		return err
	}
	if err := h.listenForSpaces(); err != nil {
		return err
	}
	if h.console, err = h.server.Mount(h.settings().Console.Value, h.settings().Console.Source); err != nil {
		return err
	}
	h.shareConsole()
	if h.agent != nil {
		h.devices = h.server.MountListener(h.agent.Devices())
		return nil
	}
	h.devices, err = h.server.Mount("127.0.0.1:0", "nothing")
	return err
}

// listenForSpaces gives each Space its own address, or its host name at the shared address.
func (h *Host) listenForSpaces() error {
	for _, s := range h.all() {
		if err := h.listenFor(s); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) listenFor(s *spaceRun) (err error) {
	site := server.Site{}
	if own := s.settings().Addr; own.Value != "" {
		site, err = h.server.Mount(own.Value, own.Source)
	} else if err = h.openShared(h.settings()); err == nil {
		site = h.shared.Load().Site(s.settings().Routes(), h.server.NewSite())
	}
	s.change(func(state *spaceState) { state.site = site })
	return err
}

// openShared takes the shared address, once.
func (h *Host) openShared(s *config.Settings) (err error) {
	if h.shared.Load() != nil {
		return nil
	}
	opened, err := h.server.MountShared(s.Address.Value, s.Address.Source)
	if err == nil {
		h.shared.Store(&sharedAddress{opened, s.Address.Value})
	}
	return err
}

// sharedAddress is the address of the Spaces that have a host name and no address.
type sharedAddress struct {
	*server.Shared
	value string // of the configuration
}

// usesShared reports whether a Space answers at the shared address now, or will from its next start on.
func (s *spaceRun) usesShared() bool {
	return s.state.Load().settings.Addr.Value == "" || s.latest().settings.Addr.Value == ""
}

// releaseShared gives the shared address back once its last Space has left it, unless the console answers there too. It waits for a running reload, which may give
// the address to another Space.
func (h *Host) releaseShared() {
	h.reloading.Lock()
	defer h.reloading.Unlock()
	h.releaseSharedLocked()
}

// releaseSharedLocked is releaseShared for a caller that holds reloading.
func (h *Host) releaseSharedLocked() {
	shared := h.shared.Load()
	if shared == nil || h.consoleIsShared() || slices.ContainsFunc(h.all(), (*spaceRun).usesShared) {
		return
	}
	h.server.Unmount(shared.Front())
	h.shared.Store(nil)
	h.log.Info("shared address given back", zap.String("address", shared.value))
}

// leave gives up the address of a Space that has another one by now.
func (h *Host) leave(before, now *spaceState) {
	switch {
	case before.settings.Addr.Value != "" && before.site != now.site:
		h.server.Unmount(before.site)
	case before.settings.Addr.Value == "":
		left := slices.DeleteFunc(before.settings.Routes(), func(route string) bool {
			return now.settings.Addr.Value == "" && slices.Contains(now.settings.Routes(), route)
		})
		if shared := h.shared.Load(); shared != nil {
			shared.Remove(left, before.site.Echo)
		}
	}
}

// shareConsole lets the console answer at the shared address too, if its public address has a path: one host name then has the
// console beside Spaces.
func (h *Host) shareConsole() {
	if shared := h.shared.Load(); shared != nil && h.consoleIsShared() {
		shared.Site([]string{config.RouteOf(h.settings().ConsoleURL)}, h.console.Echo)
	}
}

// consoleIsShared reports whether the console answers at the shared address, if there is one.
func (h *Host) consoleIsShared() bool { return h.settings().ConsoleURL.Path != "" }

// dialAddr returns an address at which a client on this machine reaches a site. A listener on every interface is reached
// at 127.0.0.1.
func dialAddr(s server.Site) string {
	if s.Addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", s.Addr.Port)
	}
	return s.Addr.String()
}

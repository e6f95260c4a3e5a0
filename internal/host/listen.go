package host

import (
	"fmt"

	"spacehost/internal/config"
	"spacehost/internal/web"
	"spacehost/server"
)

// listen opens the addresses before any long work, so that a used port is reported at once.
func (h *Host) listen() (err error) {
	h.server = server.New(h.log.Named("server"))
	h.onClose(h.server.Close)
	if len(h.settings().Proxies) > 0 {
		h.server.Visitor = web.Proxies(h.settings().Proxies).Visitor
	}
	if err := h.listenForSpaces(); err != nil {
		return err
	}
	if h.console, err = h.server.Mount(h.settings().Console.Value, h.settings().Console.Source); err != nil {
		return err
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
		site = h.shared.Site(s.settings().Host, h.server.NewSite())
	}
	s.change(func(state *spaceState) { state.site = site })
	return err
}

// openShared takes the shared address, once.
func (h *Host) openShared(s *config.Settings) (err error) {
	if h.shared == nil {
		h.shared, err = h.server.MountShared(s.Address.Value, s.Address.Source)
	}
	return err
}

// leave gives up the address of a Space that has another one by now.
func (h *Host) leave(before, now *spaceState) {
	switch {
	case before.settings.Addr.Value != "" && before.site != now.site:
		h.server.Unmount(before.site)
	case before.settings.Addr.Value == "" && (now.settings.Addr.Value != "" || now.settings.Host != before.settings.Host):
		h.shared.Remove(before.settings.Host, before.site.Echo)
	}
}

// dialAddr returns an address at which a client on this machine reaches a site. A listener on every interface is reached
// at 127.0.0.1.
func dialAddr(s server.Site) string {
	if s.Addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", s.Addr.Port)
	}
	return s.Addr.String()
}

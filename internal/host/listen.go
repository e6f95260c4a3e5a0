package host

import (
	"fmt"

	"spacehost/internal/web"
	"spacehost/server"
)

// listen opens the addresses before any long work, so that a used port is reported at once.
func (h *Host) listen() (err error) {
	h.server = server.New(h.log.Named("server"))
	h.onClose(h.server.Close)
	if len(h.settings.Proxies) > 0 {
		h.server.Visitor = web.Proxies(h.settings.Proxies).Visitor
	}
	if err := h.listenForSpaces(); err != nil {
		return err
	}
	if h.console, err = h.server.Mount(h.settings.Console.Value, h.settings.Console.Source); err != nil {
		return err
	}
	h.devices, err = h.server.Mount("127.0.0.1:0", "nothing")
	return err
}

// listenForSpaces gives each Space its own address, or its host name at the shared address.
func (h *Host) listenForSpaces() (err error) {
	var shared *server.Shared
	for _, s := range h.spaces {
		if own := s.settings.Addr; own.Value != "" {
			if s.site, err = h.server.Mount(own.Value, own.Source); err != nil {
				return err
			}
			continue
		}
		if shared == nil {
			if shared, err = h.server.MountShared(h.settings.Address.Value, h.settings.Address.Source); err != nil {
				return err
			}
		}
		s.site = shared.Site(s.settings.Host)
	}
	return nil
}

// dialAddr returns an address at which a client on this machine reaches a site. A listener on every interface is reached
// at 127.0.0.1.
func dialAddr(s server.Site) string {
	if s.Addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", s.Addr.Port)
	}
	return s.Addr.String()
}

package egress

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// ownMaxAge is the age at which the own addresses are read again. Reading takes tens of microseconds.
const ownMaxAge = time.Second

// ownAddresses is a cache of this machine's addresses. It may be used by many goroutines.
type ownAddresses struct {
	read func() ([]netip.Addr, error)
	now  func() time.Time

	mu  sync.Mutex
	all map[netip.Addr]struct{}
	at  time.Time
}

func newOwnAddresses(read func() ([]netip.Addr, error), now func() time.Time) (*ownAddresses, error) {
	o := &ownAddresses{read: read, now: now}
	if err := o.refresh(); err != nil {
		return nil, fmt.Errorf("read the addresses of this machine: %w", err)
	}
	return o, nil
}

// contains reports whether an address, or the IPv4 address that it carries, belongs to this machine. If the addresses
// cannot be read again, the last known ones count.
func (o *ownAddresses) contains(a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if age := o.now().Sub(o.at); age >= ownMaxAge || age < 0 {
		_ = o.refresh() // on an error the last known addresses stay
	}
	_, own := o.all[carried(a)]
	return own
}

func (o *ownAddresses) refresh() error {
	all, err := o.read()
	if err != nil {
		return err
	}
	o.all = make(map[netip.Addr]struct{}, len(all))
	for _, a := range all {
		o.all[a.Unmap().WithZone("")] = struct{}{}
	}
	o.at = o.now()
	return nil
}

// interfaceAddresses returns the addresses of this machine's network interfaces.
func interfaceAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, one := range all {
		if prefix, err := netip.ParsePrefix(one.String()); err == nil {
			addrs = append(addrs, prefix.Addr())
		}
	}
	return addrs, nil
}

package egress

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxRemembered bounds the remembered addresses of one Space.
const maxRemembered = 4096

// nameMemory maps addresses to the names for which the resolver returned them. Use newNameMemory. It may be used by many
// goroutines.
type nameMemory struct {
	now func() time.Time

	mu    sync.Mutex
	names map[netip.Addr]rememberedName
}

type rememberedName struct {
	name  string
	until time.Time
}

func newNameMemory(now func() time.Time) *nameMemory {
	return &nameMemory{now: now, names: map[netip.Addr]rememberedName{}}
}

// remember keeps the name of an address for a duration. The latest name of an address replaces an earlier one. If the
// memory is full, the addresses that expire first are forgotten.
func (m *nameMemory) remember(a netip.Addr, name string, valid time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.names[a]; !known && len(m.names) >= maxRemembered {
		m.evict()
	}
	m.names[a] = rememberedName{name, m.now().Add(valid)}
}

// evict removes what has expired. If that is not enough, it removes the quarter that expires first, so that the cost
// per address stays small.
func (m *nameMemory) evict() {
	now := m.now()
	maps.DeleteFunc(m.names, func(_ netip.Addr, n rememberedName) bool { return !n.until.After(now) })
	if len(m.names) < maxRemembered {
		return
	}
	byExpiry := slices.SortedFunc(maps.Keys(m.names), func(a, b netip.Addr) int { return m.names[a].until.Compare(m.names[b].until) })
	for _, a := range byExpiry[:maxRemembered/4] {
		delete(m.names, a)
	}
}

// of returns the name of an address, or "" if no valid answer had it.
func (m *nameMemory) of(a netip.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, known := m.names[a.Unmap()]; known && n.until.After(m.now()) {
		return n.name
	}
	return ""
}

// hostName returns a name in lower case and without its final dot. ok is false unless the name has at least two labels
// of letters, digits, "-" and "_", and does not end in a number. The host's search list and its names without a dot are
// not for Spaces.
func hostName(text string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(text, "."))
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 {
		return "", false
	}
	for _, label := range labels {
		if len(label) == 0 || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", false
		}
	}
	return name, strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

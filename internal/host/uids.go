package host

import (
	"context"
	"errors"
	"maps"
	"os/user"
	"strconv"

	"spacehost/internal/config"
	"spacehost/internal/sandbox"
	"spacehost/internal/space"
)

// reserveUIDs gives each Space at level users its uid.
func (h *Host) reserveUIDs() error { return h.reserveUIDsOf(h.all()) }

func (h *Host) reserveUIDsOf(spaces []*spaceRun) error {
	var names []string
	for _, s := range spaces {
		if s.settings().Isolation == config.IsolationUsers {
			names = append(names, s.space().Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	uids, place := h.settings().Users, h.settings().UsersPlace
	reserved, err := space.ReserveUIDs(context.Background(), h.db, names, uids.First, uids.Last, h.clock.Now())
	if exhausted, ok := errors.AsType[*space.UIDsExhaustedError](err); ok {
		return place.Mistake("%w", exhausted)
	} else if err != nil {
		return err
	}
	for _, name := range names {
		if account, err := user.LookupId(strconv.Itoa(int(reserved[name]))); err == nil {
			return place.Mistake("the uid %s of the Space %s belongs to the account %s of this machine; choose a range that no account uses", account.Uid, name, account.Username)
		}
	}
	maps.Copy(reserved, *h.uids.Load())
	h.uids.Store(&reserved)
	return nil
}

// probeUsers tries level users as the first Space that demands it.
func (h *Host) probeUsers() error {
	for _, s := range h.all() {
		if s.uid() == 0 {
			continue
		}
		probe, err := sandbox.ProbeUser(h.state.path("run"), s.uid())
		h.levels.users, h.levels.usersOverlay, h.levels.usersTried = probe.Err, probe.Overlay, true
		return err
	}
	return nil
}

// uid returns the uid and gid of the Space at level users, 0 at the others: the Space runs as the host's user.
func (s *spaceRun) uid() uint32 { return (*s.host.uids.Load())[s.space().Name] }

package host

import (
	"context"
	"fmt"
	"math"
	"sync"

	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/internal/shelf"
)

// lackOfRoom refuses an upload for lack of disk. Its text is for the visitor.
type lackOfRoom struct {
	text   string
	above  int64       // bytes to free; 0: removing uploads is no way
	spaces []diskSpace // from which
}

func (e *lackOfRoom) Error() string { return e.text }

// uploadRoom implements shelf.Room: the bytes of an upload that have not come yet count as used.
type uploadRoom struct {
	space *spaceRun
	sized bool // its size was reserved at its beginning

	mu       sync.Mutex
	incoming int64
	received int64
	counted  bool // in the metrics: End may be called twice
}

var _ shelf.Room = (*uploadRoom)(nil)

// reserveUpload implements shelf.Config.ReserveUpload.
func (s *spaceRun) reserveUpload(size int64) (shelf.Room, error) {
	room := &uploadRoom{space: s, sized: size >= 0, incoming: max(size, 0)}
	if err := s.makeRoomFor(room.incoming); err != nil {
		s.refuseUpload(err)
		return nil, err
	}
	return room, nil
}

func (s *spaceRun) refuseUpload(why error) {
	s.room.refused.Do(func() { s.note("An upload was refused: " + why.Error()) })
}

// Received refuses the rest if other files have filled the disk meanwhile, or if an upload of unknown size has reached a limit.
func (r *uploadRoom) Received(n int64) error {
	s := r.space
	r.mu.Lock()
	known := min(n, r.incoming)
	r.incoming, r.received = r.incoming-known, r.received+n
	r.mu.Unlock()
	s.room.added.Add(n)
	s.room.incoming.Add(-known)
	var err error
	if !r.sized {
		err = s.makeRoomFor(0)
	} else if full := s.lowDisk(0); full != nil {
		err = full
	}
	if err != nil {
		s.refuseUpload(err)
	}
	return err
}

func (r *uploadRoom) End(stored bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.space.room.incoming.Add(-r.incoming)
	if !stored {
		r.space.room.added.Add(-r.received) // below 0 until the next measurement if the last one has seen the bytes
	} else if !r.counted {
		r.counted = true
		r.space.host.metrics.Uploaded(r.space.name(), r.received)
	}
	r.incoming, r.received = 0, 0
}

// makeRoomFor reserves the bytes of an upload, and removes old uploads where a limit needs it.
func (s *spaceRun) makeRoomFor(size int64) error {
	for again := true; ; again = false {
		lack := s.reserve(size)
		if lack == nil {
			return nil
		}
		if !again || lack.above == 0 ||
			s.host.diskWatch().makeRoom(context.Background(), lack.spaces, lack.above, "an upload to the Space "+s.name()+" needs the room") < lack.above {
			return lack
		}
	}
}

// reserve adds size to the incoming bytes of the Space unless a limit of disk, as measured last, is exceeded then. Uploads at the
// same time count each other. Those to a Space on a node fill the disk of that node, whose agent checks it.
func (s *spaceRun) reserve(size int64) *lackOfRoom {
	h := s.host
	h.uploadRoom.Lock()
	defer h.uploadRoom.Unlock()
	if lack := s.lowDisk(size); lack != nil {
		return lack
	}
	if limit := s.diskLimit(); limit > 0 {
		used := s.room.expected()
		if above := saturated(used, size) - limit; above > 0 {
			return &lackOfRoom{
				text:  fmt.Sprintf("This Space has no room for this upload: its limit is %s of disk, and %s are used.", proctree.FormatBytes(limit), proctree.FormatBytes(used)),
				above: above, spaces: []diskSpace{s},
			}
		}
	}
	if limit := h.settings().TotalLimits.Disk; limit > 0 && s.isHere() {
		var used int64
		for _, other := range h.all() {
			if other.isHere() {
				used += other.room.expected()
			}
		}
		if above := saturated(used, size) - limit; above > 0 {
			return &lackOfRoom{
				text:  fmt.Sprintf("This host has no room for this upload: its Spaces together may use %s of disk.", proctree.FormatBytes(limit)),
				above: above, spaces: h.diskWatch().spaces(),
			}
		}
	}
	s.room.incoming.Add(size)
	return nil
}

// lowDisk refuses size bytes more if less than minDisk would stay free after all uploads in flight. What is left is for the host.
func (s *spaceRun) lowDisk(size int64) *lackOfRoom {
	if !s.isHere() {
		return nil
	}
	free, err := lease.FreeAt(s.host.state.dir)()
	if err != nil {
		return nil // the disk does not report it
	}
	for _, other := range s.host.all() {
		if other.isHere() {
			size = saturated(size, other.room.incoming.Load())
		}
	}
	if int64(free)-size >= minDisk {
		return nil
	}
	return &lackOfRoom{text: "The disk of this host is nearly full, so it takes no upload of this size now. Try again later."}
}

// expected returns the bytes that a Space will use once its uploads have come.
func (r *roomState) expected() int64 { return r.used.Load() + r.added.Load() + r.incoming.Load() }

// saturated adds two sizes. A client states any size.
func saturated(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

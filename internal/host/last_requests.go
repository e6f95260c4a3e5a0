package host

import (
	"sync"

	"spacehost/internal/lease"
)

// lastRequests holds the last duration and size that each function of a Space requested, by taskId. They are more precise
// than the decorator where each call computes its own duration, and where `spaces` multiplies it
// (spaces/zero/configs.json, duration_factor).
type lastRequests struct {
	mu   sync.Mutex
	last map[string]lease.Request
}

// maxTasks bounds the memory that a Space can use up by inventing taskIds.
const maxTasks = 500

func (a *lastRequests) record(r lease.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[string]lease.Request{}
	}
	if _, known := a.last[r.Task]; known || len(a.last) < maxTasks {
		a.last[r.Task] = lease.Request{Declared: r.Declared, Size: r.Size}
	}
}

func (a *lastRequests) of(task string) (lease.Request, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.last[task]
	return r, ok
}

// RecordRequest implements deviceapi.Space: it records a request of the device API and returns the name of its function.
func (s *spaceRun) RecordRequest(r lease.Request) string {
	s.lastRequests.record(r)
	manifest, _ := s.queue.Manifest()
	return manifest.Tasks[r.Task].Name
}

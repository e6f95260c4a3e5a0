package host

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"spacehost/queue"
	"spacehost/worker"
)

// startupReports records the starts of a Space that have reported GPU functions. It is safe for concurrent use.
type startupReports struct {
	mu        sync.Mutex
	instances map[string]bool
}

func (r *startupReports) add(instance string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.instances == nil {
		r.instances = map[string]bool{}
	}
	r.instances[instance] = true
}

func (r *startupReports) has(instance string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[instance]
}

func (r *startupReports) forget(instance string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, instance)
}

// StartupReported implements deviceapi.Space.
func (s *spaceRun) StartupReported(instance string) { s.startupReports.add(instance) }

// noGPUFunction is the error of ZeroGPU for a Space that never called /startup-report. spaces calls it in the first
// launch(), if a function is decorated (spaces 0.51.3, zero/__init__.py).
const noGPUFunction = "No @spaces.GPU function detected during startup"

// checkStartupReport warns about an app that ZeroGPU stops, or refuses it with --strict. It implements
// worker.SupervisorConfig.Attached.
func (s *spaceRun) checkStartupReport(instance string, m queue.Manifest) error {
	if !s.host.zeroGPU() || s.startupReports.has(instance) {
		return nil
	}
	next := "Decorate a function with @spaces.GPU, or run the Space without ZeroGPU: choose CPU hardware on the Hub, and --gpus none here."
	if len(m.Tasks) > 0 {
		next = fmt.Sprintf("It has GPU functions (%s), but the spaces package reports them in launch() alone: start the app with launch(), "+
			"not with uvicorn.", strings.Join(taskNames(m), ", "))
	}
	if s.host.observe != nil {
		s.host.observe.noReport(taskNames(m))
		return nil
	}
	if s.host.settings().Strict {
		return &worker.RefusedError{Reason: noGPUFunction + ".", Next: next}
	}
	s.note(fmt.Sprintf("warning: ZeroGPU stops this Space with %q. %s", noGPUFunction, next))
	return nil
}

// maxShownTasks keeps the warning short.
const maxShownTasks = 3

func taskNames(m queue.Manifest) []string {
	names := map[string]bool{}
	for _, task := range m.Tasks {
		names[task.Name] = true
	}
	sorted := slices.Sorted(maps.Keys(names))
	if len(sorted) > maxShownTasks {
		return append(sorted[:maxShownTasks], "...")
	}
	return sorted
}

package host

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/control"
	"spacehost/internal/metrics"
	"spacehost/internal/proctree"
)

const (
	// sampleInterval is the interval of the samples. Without cgroups, a sample scans the processes of the machine.
	sampleInterval = 10 * time.Second
	// sampleTime is the time for which samples are kept.
	sampleTime = time.Hour
	// diskShare is the share of the time that walks through folders may take: after a walk of 1 s, the next follows 50 s later.
	diskShare    = 50
	diskInterval = time.Minute // at least, between two walks of a Space
	// measureAge is the age up to which a measurement of diskWatch replaces a walk.
	measureAge = 2 * usageInterval
)

// sampledSpace is a Space as sampler sees it. The methods may be called from any goroutine; all but name may take milliseconds, and
// measureDisk longer.
type sampledSpace interface {
	name() string
	// start returns the name of its current start; "" if it does not run.
	start() string
	memory(exact bool) int64
	threads(least int) int
	cpu() time.Duration
	// measureDisk returns the bytes of its folders. It stops when ctx ends.
	measureDisk(ctx context.Context) (int64, error)
	// watchedDisk returns what diskWatch has measured last of a Space that it measures every minute, and when; the zero time: nothing.
	watchedDisk() (bytes int64, at time.Time, err error)
}

// sampler measures all Spaces, once for the console, for Prometheus and for the command line. Its methods may be called concurrently.
type sampler struct {
	spaces func() []sampledSpace
	before func(ctx context.Context) // is called before each sample; nil: nothing is
	log    *zap.Logger

	mu   sync.Mutex
	used map[string]*usedBySpace
}

// usedBySpace is what one Space has used.
type usedBySpace struct {
	samples []control.UsageSample // the oldest first
	last    metrics.Usage
	start   string        // of the last sample
	cpu     time.Duration // of this start, at the last sample
}

func newSampler(spaces func() []sampledSpace, log *zap.Logger) *sampler {
	return &sampler{spaces: spaces, log: log, used: map[string]*usedBySpace{}}
}

// run measures until ctx ends. The walks through folders are a goroutine of their own: they may take longer than sampleInterval.
func (m *sampler) run(ctx context.Context) {
	var walks sync.WaitGroup
	walks.Go(func() { m.runWalks(ctx) })
	defer walks.Wait()
	again := time.NewTicker(sampleInterval)
	defer again.Stop()
	for {
		if m.before != nil {
			m.before(ctx)
		}
		m.sample(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

func (m *sampler) sample(now time.Time) {
	all := m.spaces()
	names := make([]string, 0, len(all))
	for _, s := range all {
		names = append(names, s.name())
		m.add(now, s)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.used {
		if !slices.Contains(names, name) { // removed by a reload
			delete(m.used, name)
		}
	}
}

// add measures one Space.
func (m *sampler) add(now time.Time, s sampledSpace) {
	start := s.start()
	one := control.UsageSample{At: now.UTC().Truncate(time.Millisecond)}
	var cpu time.Duration
	if start != "" {
		one.Memory, one.Processes, cpu = s.memory(false), s.threads(0), s.cpu()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.of(s.name())
	spent := cpu
	if start == u.start {
		spent -= u.cpu
	}
	spent = max(0, spent) // without a cgroup, the time of ended processes is lost
	if n := len(u.samples); n > 0 && start != "" {
		if passed := now.Sub(u.samples[n-1].At); passed > 0 {
			one.Cores = spent.Seconds() / passed.Seconds()
		}
	}
	u.start, u.cpu = start, cpu
	u.last.CPUSeconds += spent.Seconds()
	u.last.Memory, u.last.Processes = one.Memory, one.Processes
	if bytes, at, err := s.watchedDisk(); err == nil && now.Sub(at) < measureAge {
		u.last.Disk = bytes
	}
	one.Disk = u.last.Disk
	u.samples = append(slices.DeleteFunc(u.samples, func(old control.UsageSample) bool { return now.Sub(old.At) > sampleTime }), one)
}

// of returns what a Space has used. It is called with the lock held.
func (m *sampler) of(name string) *usedBySpace {
	if m.used[name] == nil {
		m.used[name] = &usedBySpace{last: metrics.Usage{Disk: -1}}
	}
	return m.used[name]
}

// runWalks measures the folders of one Space of this machine after the other until ctx ends. A Space with a limit is measured by diskWatch.
func (m *sampler) runWalks(ctx context.Context) {
	for ctx.Err() == nil {
		round, all := time.Now(), m.spaces()
		for _, s := range all {
			if _, far := s.(sampledOnNode); far {
				continue // its node walks, and add keeps the answer
			}
			began := time.Now()
			bytes, err := diskOf(ctx, s)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				m.log.Debug("usage of disk not measured", zap.String("space", s.name()), zap.Error(err))
				bytes = -1
			}
			m.mu.Lock()
			m.of(s.name()).last.Disk = bytes
			m.mu.Unlock()
			sleep(ctx, diskShare*time.Since(began))
		}
		if len(all) == 0 { // the first Space of a node is measured soon after its start
			sleep(ctx, sampleInterval)
			continue
		}
		sleep(ctx, diskInterval-time.Since(round))
	}
}

// lastDisk returns the bytes of a Space's folders; -1 if they were not measured yet.
func (m *sampler) lastDisk(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of(name).last.Disk
}

// forget drops what a Space has used. The next sample does the same for a Space that is not listed any more.
func (m *sampler) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.used, name)
}

// diskOf returns the bytes of a Space's folders. It walks through them only if diskWatch has not done so lately.
func diskOf(ctx context.Context, s sampledSpace) (int64, error) {
	if bytes, at, err := s.watchedDisk(); time.Since(at) < measureAge {
		return bytes, err
	}
	return s.measureDisk(ctx)
}

// sleep waits, at most until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(max(0, d)):
	}
}

// samplesOf returns the samples of a Space, the oldest first.
func (m *sampler) samplesOf(name string) []control.UsageSample {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.used[name]; u != nil {
		return slices.Clone(u.samples)
	}
	return nil
}

// UsageStats implements metrics.Spaces.
func (h *Host) UsageStats() map[string]metrics.Usage {
	m := h.sampler
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]metrics.Usage{}
	for name, u := range m.used {
		if len(u.samples) > 0 {
			all[name] = u.last
		}
	}
	return all
}

var _ sampledSpace = (*spaceRun)(nil)

func (s *spaceRun) cpu() time.Duration { return useOf(s, proctree.Tree.CPU) }

func (h *Host) openSampler() {
	h.sampler = newSampler(func() (all []sampledSpace) {
		for _, s := range h.all() {
			if s.isOnNode() {
				all = append(all, sampledOnNode{s, s.nodeUse()})
				continue
			}
			all = append(all, s)
		}
		return all
	}, h.log.Named("samples"))
	if h.settings().IsFront() {
		h.sampler.before = h.measureNodes
	}
}

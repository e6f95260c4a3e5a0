package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
	"spacehost/internal/shelf"
)

const (
	// minDisk is kept free for the host. Below it, the Space that has written most is ended. It is far above the 64 MB
	// below which no GPU call is admitted (internal/lease), so that the calls of other Spaces continue.
	minDisk = 1 << 30
	// minGrowth is the least that a Space must have written to be ended for lack of disk.
	minGrowth = 64 << 20

	freeInterval  = time.Second
	usageInterval = time.Minute
	// settleTime is the time for an ended Space to free what it had open, before another one is ended.
	settleTime = 10 * time.Second
)

// diskSpace is a Space as diskWatch sees it. The methods may be called from any goroutine.
type diskSpace interface {
	name() string
	// isHere reports whether its folders are on this machine.
	isHere() bool
	// diskLimit returns the bytes that its folders may have; 0: any number.
	diskLimit() int64
	// start returns the name of its current start; "" if it does not run.
	start() string
	// diskUsage returns the bytes of its folders and of its deleted open files. It reads folders, and stops when ctx ends.
	diskUsage(ctx context.Context) (int64, error)
	// endForDisk ends that start, and returns at once.
	endForDisk(start string, why diskShortage)
	// waitsForTotal reports whether it was ended for the limit of all Spaces, and may not start yet.
	waitsForTotal() bool
	// unreferenced returns the uploads that no open session refers to, the one that was used longest ago first.
	unreferenced() ([]shelf.Upload, error)
	// removeUpload removes one of them, unless it was used since. It returns the bytes that it has freed.
	removeUpload(one shelf.Upload) (freed int64, err error)
	// keepsUploads returns how long an upload stays that no open session refers to.
	keepsUploads() time.Duration
}

// diskShortage is the reason to end a Space, or not to start it.
type diskShortage struct {
	reason, next string
	above        int64 // bytes above the limit; 0: unknown
	low          bool  // the disk is nearly full; otherwise the Space exceeds its own limit
	total        bool  // all Spaces together exceed their limit
}

// diskWatch ends Spaces that exceed their limit of disk, or that fill the disk of the state folder.
type diskWatch struct {
	free   func() (uint64, error) // of the state folder
	spaces func() []diskSpace
	note   func(text string) // shows the operator a sentence
	// nearlyFull is called when the free space falls below minDisk, once until there is clearly more; nil: no call.
	nearlyFull func(free int64)
	log        *zap.Logger
	// total returns the limit of all Spaces together; 0 or nil: none. trimLogs may be nil.
	total    func() int64
	trimLogs func()

	mu    sync.Mutex
	bases map[string]int64 // usage at the beginning of each start

	low      bool      // as noted last
	reported bool      // by nearlyFull
	quiet    time.Time // until then no further Space is ended
	noRoom   time.Time // until then no uploads are looked for
	swept    time.Time // the last removal of old uploads
	warned   string    // state of the limit of all Spaces that the operator was last warned of; "": none
}

// run watches until ctx ends. The walks through folders are a goroutine of their own, because they may take longer than
// the interval of the look at the free space.
func (w *diskWatch) run(ctx context.Context) {
	var walks sync.WaitGroup
	walks.Go(func() { w.runWalks(ctx) })
	defer walks.Wait()
	again := time.NewTicker(freeInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			w.checkFree(ctx)
		}
	}
}

// runWalks measures each start once at its beginning, and each Space with a limit every minute.
func (w *diskWatch) runWalks(ctx context.Context) {
	again := time.NewTicker(freeInterval)
	defer again.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		w.setBases(ctx)
		if time.Since(last) < usageInterval {
			continue
		}
		last = time.Now()
		w.sweepUploads(ctx)
		w.checkLimits(ctx)
		w.checkTotal(ctx)
		if w.trimLogs != nil {
			w.trimLogs()
		}
	}
}

// setBases measures the starts that have none yet, and forgets those that are over.
func (w *diskWatch) setBases(ctx context.Context) {
	current := map[string]int64{}
	for _, s := range w.spaces() {
		start := s.start()
		if start == "" {
			continue
		}
		if base, known := w.base(start); known {
			current[start] = base
			continue
		}
		usage, err := s.diskUsage(ctx)
		if err != nil {
			w.log.Warn("usage of disk not measured", zap.String("space", s.name()), zap.Error(err))
		}
		current[start] = usage
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bases = current
}

func (w *diskWatch) base(start string) (base int64, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	base, known = w.bases[start]
	return base, known
}

// checkLimits ends the Spaces that exceed their own limit.
func (w *diskWatch) checkLimits(ctx context.Context) {
	for _, s := range w.spaces() {
		start := s.start()
		if start == "" || s.diskLimit() == 0 {
			continue
		}
		why := overLimit(ctx, s)
		if why != nil && why.above > 0 {
			if freed := w.makeRoom(ctx, []diskSpace{s}, why.above, "the Space "+s.name()+" exceeded its limit of disk"); freed > 0 {
				why = overLimit(ctx, s)
			}
		}
		if why != nil {
			w.end(s, start, *why)
		}
	}
}

// overLimit returns why a Space exceeds its own limit of disk; nil if it does not.
func overLimit(ctx context.Context, s diskSpace) *diskShortage {
	usage, err := s.diskUsage(ctx)
	limit := s.diskLimit()
	next := "Delete files of the Space, or raise limits.disk (--limit disk=SIZE)."
	if unmeasurable, ok := errors.AsType[*unmeasurableError](err); ok {
		return &diskShortage{reason: fmt.Sprintf("The Space has a limit of %s of disk, and %s.", proctree.FormatBytes(limit), unmeasurable), next: next}
	}
	if err != nil || usage <= limit {
		return nil // an error ends with the next walk
	}
	return &diskShortage{
		reason: fmt.Sprintf("The Space used %s of disk, more than its limit of %s.", proctree.FormatBytes(usage), proctree.FormatBytes(limit)), next: next, above: usage - limit,
	}
}

// checkFree ends the Space that has written most while the disk is nearly full.
func (w *diskWatch) checkFree(ctx context.Context) {
	free, err := w.free()
	if err == nil {
		w.reportFree(free)
	}
	if err != nil || free >= minDisk { // a disk that does not report its free space is not watched
		w.low = false
		return
	}
	if time.Now().Before(w.quiet) {
		return
	}
	if need := int64(minDisk - free); time.Now().After(w.noRoom) {
		if w.makeRoom(ctx, w.spaces(), need, fmt.Sprintf("the disk of the host had %s free", proctree.FormatBytes(int64(free)))) > 0 {
			return // the next look counts what is free now
		}
		w.noRoom = time.Now().Add(settleTime)
	}
	worst, start, growth := w.largestGrowth(ctx)
	if worst == nil {
		if !w.low {
			w.note(fmt.Sprintf("WARNING: the disk of the state folder has %s free, and no Space has written much since its start. Make room on it: "+
				"below 64 MB no GPU call is admitted.", proctree.FormatBytes(int64(free))))
		}
		w.low = true
		return
	}
	w.quiet = time.Now().Add(settleTime)
	w.end(worst, start, diskShortage{
		reason: fmt.Sprintf("The disk of the host was nearly full (%s free), and the Space %s.", proctree.FormatBytes(int64(free)), written(growth)),
		next:   "Make room on the disk of the state folder, or limit the Space with limits.disk (--limit disk=SIZE).", low: true,
	})
}

// reportFree calls nearlyFull. The second limit keeps a disk at the first one from being reported again and again.
func (w *diskWatch) reportFree(free uint64) {
	switch {
	case free >= minDisk+minDisk/4:
		w.reported = false
	case free < minDisk && !w.reported && w.nearlyFull != nil:
		w.reported = true
		w.nearlyFull(int64(free))
	}
}

// written describes the growth of a Space.
func written(growth int64) string {
	if growth == math.MaxInt64 {
		return "has folders whose size cannot be measured"
	}
	return "has written " + proctree.FormatBytes(growth) + " since its start, more than any other"
}

// largestGrowth returns the Space that has written most since its start, nil if none has written minGrowth. A Space that
// cannot be measured counts as that Space.
func (w *diskWatch) largestGrowth(ctx context.Context) (worst diskSpace, start string, growth int64) {
	growth = minGrowth - 1
	for _, s := range w.spaces() {
		began := s.start()
		base, known := w.base(began)
		if !known {
			continue
		}
		usage, err := s.diskUsage(ctx)
		grown := usage - base
		if errors.As(err, new(*unmeasurableError)) {
			grown = math.MaxInt64
		} else if err != nil {
			continue
		}
		if grown > growth {
			worst, start, growth = s, began, grown
		}
	}
	return worst, start, growth
}

func (w *diskWatch) end(s diskSpace, start string, why diskShortage) {
	w.log.Warn("space ended for its use of disk", zap.String("space", s.name()), zap.String("reason", why.reason))
	s.endForDisk(start, why)
}

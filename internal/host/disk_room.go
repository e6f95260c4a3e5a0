package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"spacehost/internal/proctree"
	"spacehost/internal/shelf"
)

const (
	// uploadGrace is the time after the last use of an upload for which it stays even on a full disk: a client uploads a file,
	// and then calls.
	uploadGrace = time.Minute
	// sweepInterval is the interval at which old uploads are removed.
	sweepInterval = 10 * time.Minute
)

// owned is an upload with its Space.
type owned struct {
	shelf.Upload
	space diskSpace
}

// unreferencedIn lists the uploads of Spaces that no open session refers to, the one that was used longest ago first.
func (w *diskWatch) unreferencedIn(spaces []diskSpace) (all []owned) {
	for _, s := range spaces {
		uploads, err := s.unreferenced()
		if err != nil {
			w.log.Warn("uploads not listed", zap.String("space", s.name()), zap.Error(err))
		}
		for _, one := range uploads {
			all = append(all, owned{one, s})
		}
	}
	slices.SortStableFunc(all, func(a, b owned) int { return a.Used.Compare(b.Used) })
	return all
}

// makeRoom removes the oldest uploads of Spaces that no open session refers to, until it has freed need bytes or none is left. cause
// is a clause for the operator.
func (w *diskWatch) makeRoom(ctx context.Context, spaces []diskSpace, need int64, cause string) (freed int64) {
	var removed []owned
	here := slices.DeleteFunc(slices.Clone(spaces), func(s diskSpace) bool { return !s.isHere() })
	for _, one := range w.unreferencedIn(here) {
		if freed >= need || ctx.Err() != nil || time.Since(one.Used) < uploadGrace {
			break
		}
		freed += w.remove(one, &removed)
	}
	if len(removed) > 0 {
		w.note(fmt.Sprintf("Removed %s (%s), because %s: those used longest ago, which no open session refers to.",
			counted(len(removed), "upload"), proctree.FormatBytes(freed), cause))
	}
	return freed
}

// remove removes an upload and appends it to removed. It returns the bytes that it has freed.
func (w *diskWatch) remove(one owned, removed *[]owned) int64 {
	freed, err := one.space.removeUpload(one.Upload)
	if err != nil {
		w.log.Warn("upload not removed", zap.String("space", one.space.name()), zap.Error(err))
	}
	if freed > 0 {
		*removed = append(*removed, one)
		w.log.Info("upload removed", zap.String("space", one.space.name()), zap.String("upload", one.Name[:min(8, len(one.Name))]), zap.Time("used", one.Used), zap.Int64("bytes", freed))
	}
	return freed
}

// sweepUploads removes the uploads that no open session refers to, and that were used longer ago than their Space keeps them.
func (w *diskWatch) sweepUploads(ctx context.Context) {
	if time.Since(w.swept) < sweepInterval {
		return
	}
	w.swept = time.Now()
	var removed []owned
	for _, one := range w.unreferencedIn(w.spaces()) {
		if ctx.Err() == nil && time.Since(one.Used) > one.space.keepsUploads() {
			w.remove(one, &removed)
		}
	}
}

// checkTotal ends the Space that has written most while all Spaces together exceed their limit of disk. A Space whose use cannot be
// measured is ended without any effect on the others. No further Space is ended while those that were ended hold the excess.
func (w *diskWatch) checkTotal(ctx context.Context) {
	use := w.totalUse(ctx)
	if w.endHidden(use.hidden) {
		return // the next look measures what is left
	}
	candidates := w.spaces()
	if use.waitingBytes >= use.above {
		candidates = use.waiting
	}
	if use.above > 0 && w.makeRoom(ctx, candidates, use.above, "all Spaces together exceeded total_limits.disk") > 0 {
		use = w.totalUse(ctx)
	}
	if use.above <= 0 {
		w.warned = ""
		return
	}
	excess := fmt.Sprintf("WARNING: all Spaces together use %s more disk than total_limits.disk=%s", proctree.FormatBytes(use.above), proctree.FormatBytes(w.total()))
	if use.waitingBytes >= use.above {
		names := make([]string, 0, len(use.waiting))
		for _, s := range use.waiting {
			names = append(names, s.name())
		}
		list := strings.Join(names, ", ")
		w.warnOnce(list, fmt.Sprintf("%s. Ended for it, and not started before there is room: %s. Delete files of ended Spaces, or raise the limit.", excess, list))
		return
	}
	worst, start, growth := w.largestGrowth(ctx)
	if worst == nil {
		w.warnOnce("-", excess+", and no Space has written much since its start. Delete files of Spaces, or raise the limit.")
		return
	}
	w.warned = ""
	w.end(worst, start, w.totalShortage(use.above, written(growth)))
}

// endHidden ends the Spaces that run and cannot be measured.
func (w *diskWatch) endHidden(hidden map[diskSpace]error) (ended bool) {
	for s, err := range hidden {
		if start := s.start(); start != "" {
			w.end(s, start, w.hiddenShortage(err))
			ended = true
		}
	}
	return ended
}

// warnOnce shows the operator a text, unless the state is that of the last text.
func (w *diskWatch) warnOnce(state, text string) {
	if w.warned != state {
		w.note(text)
	}
	w.warned = state
}

func (w *diskWatch) totalShortage(above int64, written string) diskShortage {
	limit := w.total()
	return diskShortage{
		reason: fmt.Sprintf("All Spaces together used %s of disk, more than their limit of %s, and the Space %s.", proctree.FormatBytes(limit+above), proctree.FormatBytes(limit), written),
		next:   "Delete files of Spaces, or raise total_limits.disk.", above: above, total: true,
	}
}

func (w *diskWatch) hiddenShortage(err error) diskShortage {
	return diskShortage{
		reason: fmt.Sprintf("All Spaces together have a limit of %s of disk, and %s.", proctree.FormatBytes(w.total()), err),
		next:   "Delete files of the Space, or remove total_limits.disk.", total: true,
	}
}

// totalUse is what all Spaces together use of their limit of disk.
type totalUse struct {
	above        int64               // bytes above the limit; 0 or less: none
	hidden       map[diskSpace]error // Spaces that cannot be measured, of which above counts what was read
	waiting      []diskSpace         // that were ended for the limit and may not start yet
	waitingBytes int64
}

func (w *diskWatch) totalUse(ctx context.Context) (use totalUse) {
	if w.total == nil || w.total() == 0 {
		return use
	}
	use.above, use.hidden = -w.total(), map[diskSpace]error{}
	for _, s := range w.spaces() {
		usage, err := s.diskUsage(ctx)
		if unmeasurable, ok := errors.AsType[*unmeasurableError](err); ok {
			use.hidden[s] = unmeasurable
		}
		use.above += usage // another error ends with the next walk
		if s.waitsForTotal() {
			use.waiting, use.waitingBytes = append(use.waiting, s), use.waitingBytes+usage
		}
	}
	return use
}

// overTotal returns why a Space that was ended for the limit of all Spaces must wait; nil if they are within it.
func (w *diskWatch) overTotal(ctx context.Context, s diskSpace) *diskShortage {
	use := w.totalUse(ctx)
	if err := use.hidden[s]; err != nil {
		return new(w.hiddenShortage(err))
	}
	if use.above <= 0 {
		return nil
	}
	return new(w.totalShortage(use.above, "had written more than any other"))
}

// stillOver returns why a stopped Space must wait, after its old files have made room; nil if it need not.
func (w *diskWatch) stillOver(ctx context.Context, s diskSpace, over func(context.Context, diskSpace) *diskShortage) *diskShortage {
	why := over(ctx, s)
	if why != nil && why.above > 0 && w.makeRoom(ctx, []diskSpace{s}, why.above, "the Space "+s.name()+" needs the room to start") > 0 {
		why = over(ctx, s)
	}
	return why
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// roomState is what a Space uses of the disk. Its fields may be used from any goroutine.
type roomState struct {
	used     atomic.Int64   // as measured last
	added    atomic.Int64   // by uploads since then
	incoming atomic.Int64   // bytes of uploads that have not come yet; written under Host.uploadRoom
	refused  rate.Sometimes // notes of refused uploads
}

func (s *spaceRun) keepsUploads() time.Duration { return s.settings().Limits.KeepsUploads() }

func (s *spaceRun) unreferenced() ([]shelf.Upload, error) {
	return s.api.Unreferenced(s.start() == "") // without a start, no code refers to any file
}

func (s *spaceRun) removeUpload(one shelf.Upload) (freed int64, err error) {
	if one.ByApp && s.start() != "" {
		return 0, nil // it has started since it was listed
	}
	size, err := usageOf(context.Background(), filepath.Join(s.storage().Uploads, one.Name))
	if err != nil {
		return 0, err
	}
	removed, err := s.api.RemoveUpload(one)
	if !removed {
		return 0, err
	}
	s.room.used.Add(-size)
	return max(size, 1), err // an empty file is removed, too
}

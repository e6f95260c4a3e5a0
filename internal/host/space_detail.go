package host

import (
	"context"
	"fmt"

	"spacehost/internal/control"
	"spacehost/internal/spacelog"
)

// SpaceDetail implements control.Host.
func (h *Host) SpaceDetail(ctx context.Context, name string, limit int) (detail control.SpaceDetail, err error) {
	s := h.find(name)
	if s == nil {
		return detail, fmt.Errorf("the Space %s was removed by a reload", name)
	}
	detail.Space = s.operatorView()
	limits := s.settings().Limits
	detail.Limits = control.SpaceLimits{Memory: limits.Memory, Disk: limits.Disk, Processes: int(s.maxProcesses()), CPU: limits.CPU}
	detail.Usage = h.sampler.samplesOf(name)
	detail.Stages, err = h.stages.List(ctx, name, limit)
	return detail, err
}

// SpaceLog implements control.Host.
func (h *Host) SpaceLog(name string, kind spacelog.Kind, q spacelog.Query) (spacelog.Page, error) {
	folder := h.state.dir
	if kind == spacelog.Build {
		folder = h.kept
	}
	return spacelog.ReadPage(folder, name, kind, q)
}

package host

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// RescanGPUs implements control.Host. The driver is closed before it is opened again: a GPU that was reset, or that is new, is
// seen only by a library that nobody has open. Checks that fall in between fail and are repeated by the broker. It does not end with ctx,
// because no GPU could be lent then.
func (h *Host) RescanGPUs(ctx context.Context, simulate string) (control.RescanAnswer, error) {
	h.rescanning.Lock()
	defer h.rescanning.Unlock()
	spec, err := h.rescanSpec(simulate)
	if err != nil {
		return control.RescanAnswer{}, err
	}
	before := h.pool.Load()
	if err := before.Inventory().Close(); err != nil { // it hangs, and stays loaded
		h.log.Warn("driver not closed before a rescan", zap.Error(err))
	}
	renewed, err := h.renewPool(context.WithoutCancel(ctx), before, spec)
	if err != nil {
		return control.RescanAnswer{}, fmt.Errorf("read the GPUs again: %w; no GPU is lent until `spacehost gpu rescan` succeeds or the host starts again", err)
	}
	h.pool.Store(renewed)
	h.gpuSpec = spec
	if err := h.broker.Join(h.machine(nil), lease.MachineReport{}); err != nil {
		return control.RescanAnswer{}, err
	}
	return changedDevices(before.Devices(), renewed.Devices()), nil
}

// rescanSpec returns what to open. Errors: *control.RescanRefusedError.
func (h *Host) rescanSpec(simulate string) (spec string, err error) {
	switch {
	case !h.zeroGPU():
		return "", &control.RescanRefusedError{Why: "this host lends no GPU (`gpus: none`); set `gpus` and start it again"}
	case h.nodes != nil:
		return "", &control.RescanRefusedError{Why: "a Space has `gpu_nodes: lease`, whose device nodes are prepared at the start of the host; start the host again"}
	case simulate != "" && !h.simulated():
		return "", &control.RescanRefusedError{Why: "GPUs can be simulated only on a host that simulates GPUs; leave out --simulate"}
	case simulate == "":
		return h.gpuSpec, nil
	}
	spec = "mock:" + simulate
	inventory, err := openInventory(spec) // before anything is closed
	if err != nil {
		return "", &control.RescanRefusedError{Why: err.Error()}
	}
	return spec, inventory.Close()
}

func (h *Host) renewPool(ctx context.Context, before *gpu.Pool, spec string) (*gpu.Pool, error) {
	inventory, err := openInventory(spec)
	if err != nil {
		return nil, err
	}
	renewed, err := before.Renew(ctx, inventory, h.settings().Share, h.settings().OnlyGPUs...)
	if err != nil {
		_ = inventory.Close()
	}
	return renewed, err
}

func changedDevices(before, after []gpu.Device) control.RescanAnswer {
	has := func(all []gpu.Device, d gpu.Device) bool {
		return slices.ContainsFunc(all, func(o gpu.Device) bool { return o.UUID == d.UUID })
	}
	answer := control.RescanAnswer{Joined: []gpu.Device{}, Left: []gpu.Device{}}
	for _, d := range after {
		if has(before, d) {
			answer.Stayed++
		} else {
			answer.Joined = append(answer.Joined, d)
		}
	}
	for _, d := range before {
		if !has(after, d) {
			answer.Left = append(answer.Left, d)
		}
	}
	return answer
}

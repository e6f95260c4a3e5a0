package machine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/lease"
	"spacehost/internal/proctree"
)

// OpenConfig describes the Devices that an agent lends to its front.
type OpenConfig struct {
	GPUs  string    // auto, none, mock:2xH200 or mock:2xH200-MIG-3g.71gb
	Share gpu.Share // of a Device that a Lease of size large gets; 0: the whole Device
	Only  []string  // indexes of the driver or beginnings of UUIDs; nil: all Devices
	// Machine distinguishes the simulated GPUs of this machine from those of others.
	Machine string
	Info    func(pid int) lease.ProcessInfo // lease.Local.Info
	Logger  *zap.Logger                     // nil: no log
}

// Agent is a Node of this machine, with its driver and its processes. It implements nodeagent.Service.
type Agent struct {
	*Node
	config    OpenConfig
	processes *proctree.Processes

	rescanning sync.Mutex
	pool       *gpu.Pool
}

// Open opens the GPUs of this machine, and may block as gpu.NewPool does. The caller closes the Agent. The errors are sentences that
// name the flag --gpus.
func Open(ctx context.Context, config OpenConfig) (*Agent, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	a := &Agent{config: config, processes: &proctree.Processes{Logger: config.Logger.Named("processes")}}
	config.Logger.Info("containment", zap.String("by", a.processes.Contain()))
	var err error
	if a.pool, err = a.openPool(ctx, nil); err != nil {
		return nil, err
	}
	a.Node, err = NewNode(NodeConfig{Local: lease.Local{Pool: a.pool, Processes: a.processes, Info: config.Info}, Logger: config.Logger})
	if err != nil {
		return nil, errors.Join(err, a.pool.Inventory().Close())
	}
	return a, nil
}

// openPool opens the driver. before is the Pool of the same machine until now, or nil.
func (a *Agent) openPool(ctx context.Context, before *gpu.Pool) (*gpu.Pool, error) {
	inventory, err := nvml.OpenSpec(a.config.GPUs, a.config.Machine)
	if errors.As(err, new(*nvml.NoGPUError)) {
		return nil, fmt.Errorf("--gpus %s: no NVIDIA GPU was found on this machine; run `spacehost doctor` to see what is missing, or set --gpus mock:1xH200 to simulate a GPU, or --gpus none to lend none", a.config.GPUs)
	}
	if err != nil {
		return nil, fmt.Errorf("--gpus %s: %w", a.config.GPUs, err)
	}
	var pool *gpu.Pool
	if before != nil {
		pool, err = before.Renew(ctx, inventory, a.config.Share, a.config.Only...)
	} else {
		pool, err = gpu.NewPool(ctx, inventory, a.config.Share, a.config.Only...)
	}
	if err != nil {
		return nil, fmt.Errorf("--gpus %s: %w", a.config.GPUs, errors.Join(err, inventory.Close()))
	}
	return pool, nil
}

// Pool returns the GPUs of this machine as they are now.
func (a *Agent) Pool() *gpu.Pool {
	a.rescanning.Lock()
	defer a.rescanning.Unlock()
	return a.pool
}

// Processes returns the processes of this machine, among which those of Spaces are registered.
func (a *Agent) Processes() *proctree.Processes { return a.processes }

// Rescan reads the GPUs of the machine again, and reports them to the front. The driver is closed first: a GPU that was reset, or that is
// new, is seen only by a library that no process has open. After an error no GPU is lent until Rescan succeeds. It may be called
// concurrently.
func (a *Agent) Rescan(ctx context.Context) error {
	a.rescanning.Lock()
	defer a.rescanning.Unlock()
	if err := a.pool.Inventory().Close(); err != nil { // it hangs, and stays loaded
		a.log.Warn("driver not closed before a rescan", zap.Error(err))
	}
	pool, err := a.openPool(context.WithoutCancel(ctx), a.pool)
	if err != nil {
		return err
	}
	a.pool = pool
	a.Renew(pool)
	return nil
}

// Run watches the Devices and processes until ctx ends. Then it leaves the workers.
func (a *Agent) Run(ctx context.Context) error {
	a.log.Info("lends GPUs", zap.String("gpus", a.config.GPUs), zap.Int("slots", len(a.machine().Slots())))
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = a.processes.Run(ctx) }) // ends with ctx
	return a.Node.Run(ctx)
}

// Close closes the driver. Run has returned before.
func (a *Agent) Close() error {
	a.rescanning.Lock()
	defer a.rescanning.Unlock()
	return a.pool.Inventory().Close()
}

package host

import (
	"context"
	"io/fs"
	"os"
	"slices"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/doctor"
	"spacehost/internal/lease"
	"spacehost/internal/version"
	"spacehost/internal/views"
	"spacehost/migrations"
)

// Info implements control.Host.
func (h *Host) Info() control.HostInfo {
	s := h.settings()
	info := control.HostInfo{
		Build: version.Current(migrations.SQLiteVersion()), Command: "run", File: s.File, Digest: config.Digest(*s, *h.tiers.Load()), PID: os.Getpid(),
		User: UserName(uint32(os.Geteuid())), StartedAt: h.opened.UTC(), Now: h.clock.Now().UTC(), State: h.state.dir,
	}
	if s.IsServe() {
		info.Command = "serve"
	}
	info.Machine, _ = os.Hostname()
	info.FreeBytes, _ = lease.FreeAt(h.state.dir)() // 0: not known
	for _, name := range []string{"spacehost.db", "spacehost.db-wal"} {
		if file, err := os.Stat(h.state.path(name)); err == nil {
			info.Database += file.Size()
		}
	}
	return info
}

// ConfigValues implements control.Host.
func (h *Host) ConfigValues() []control.ConfigValue {
	return views.Each(config.Values(*h.settings(), *h.tiers.Load()), func(v config.Value) control.ConfigValue {
		return control.ConfigValue{Subject: v.Subject, Name: v.Name, Key: v.Key, Value: v.Text, Hidden: v.Hidden}
	})
}

// Doctor implements control.Host. The addresses are not checked, because this host uses them.
func (h *Host) Doctor(ctx context.Context) ([]doctor.Finding, error) {
	if err := h.examining.take(ctx); err != nil {
		return nil, err
	}
	defer h.examining.free()
	s := h.settings()
	found := doctor.Run(ctx, doctor.Checks(doctor.Config{
		State: h.state.dir, Environments: EnvironmentsIn(h.state.dir), UV: PackagedUV(), SpacesAreRoot: s.SpacesAreRoot(), Demands: DemandsOf(*s),
		GPUs: func(ctx context.Context) ([]gpu.DeviceStatus, error) {
			return append(h.pool.Load().Status(ctx), h.nodeDevices()...), nil
		},
	}))
	return found, ctx.Err()
}

// nodeDevices returns the last readings of the Devices of nodes.
func (h *Host) nodeDevices() []gpu.DeviceStatus {
	rows, _ := h.broker.Sampler().Latest()
	return slices.DeleteFunc(slices.Clone(rows), func(d gpu.DeviceStatus) bool { return d.Node == "" })
}

// DemandsOf lists the levels of isolation that a file demands, each with its first place.
func DemandsOf(s config.Settings) (all []doctor.Demand) {
	for _, one := range s.Spaces {
		level := one.Isolation
		if level == config.IsolationAuto {
			level = one.Least()
		}
		demand := doctor.Demand{Where: one.Places["isolation"].String(), Level: level.String()}
		if !slices.Contains(all, demand) {
			all = append(all, demand)
		}
	}
	return all
}

// StateSizes implements control.Host.
func (h *Host) StateSizes(ctx context.Context) ([]control.FolderSize, error) {
	if err := h.examining.take(ctx); err != nil {
		return nil, err
	}
	defer h.examining.free()
	entries, err := os.ReadDir(h.state.dir)
	if err != nil {
		return nil, err
	}
	all := []control.FolderSize{}
	for _, entry := range entries {
		one := control.FolderSize{Name: entry.Name(), Path: h.state.path(entry.Name())}
		switch {
		case entry.IsDir():
			one.Bytes, err = usageOf(ctx, one.Path)
		case entry.Type().IsRegular():
			one.Bytes, err = sizeOf(entry)
		default: // a socket
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			one.Error = err.Error()
		}
		all = append(all, one)
	}
	return all, nil
}

func sizeOf(entry fs.DirEntry) (int64, error) {
	info, err := entry.Info()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// turn lets one caller work at a time. Use make(turn, 1).
type turn chan struct{}

// take waits until no other caller works, or ctx ends.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) free() { <-t }

package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
)

var lateGPU = Finding{
	Level: Problem, Text: "The NVIDIA driver did not answer within 35s: `spacehost run` would not start with its GPUs",
	Do: "Look for Xid in `dmesg`; a reboot may be needed. If the driver only initializes its GPUs slowly, enable the persistence daemon " +
		"(`sudo nvidia-smi -pm 1`). Until then, `spacehost run --gpus mock:1xH200` simulates a GPU",
}

func (c Config) devices(ctx context.Context) []Finding {
	rows, err := c.GPUs(ctx)
	if err != nil {
		return c.machine.withoutGPUs(err)
	}
	if len(rows) == 0 {
		return []Finding{{
			Level: Problem, Text: "The NVIDIA driver answers but lists no GPU: `spacehost run` would have no GPU",
			Do: "In a container, start it with --gpus all; else check `nvidia-smi -L` and `dmesg`. `--gpus mock:1xH200` simulates a GPU",
		}}
	}
	var found []Finding
	for _, row := range rows {
		found = append(found, device(row))
	}
	return append(found, c.machine.deviceFiles()...)
}

// withoutGPUs explains why there are no GPUs. A cause for which `spacehost run` simulates GPUs is not a problem; a
// cause that stops it is.
func (m machine) withoutGPUs(err error) []Finding {
	var noLibrary *gpu.NoLibraryError
	var noDriver *gpu.NoDriverError
	var noPermission *gpu.NoPermissionError
	var mismatch *gpu.VersionMismatchError
	switch {
	case errors.As(err, &noLibrary):
		return []Finding{m.withoutLibrary()}
	case errors.As(err, &noDriver):
		return []Finding{m.withoutDriver("The NVIDIA library is installed")}
	case errors.As(err, &noPermission):
		return append([]Finding{{
			Level: Problem, Text: "This user may not access the NVIDIA driver: `spacehost run` does not start with its GPUs",
			Do: "Check `ls -l /dev/nvidia*`, and add this user to the group that owns these files (`sudo usermod -aG video $USER`, then log in again)",
		}}, m.deviceFiles()...)
	case errors.As(err, &mismatch):
		return []Finding{{
			Level: Problem, Text: "NVIDIA's library and the loaded driver have different versions, as after an update: `spacehost run` does not start with its GPUs",
			Do: "Reboot, or unload and load the nvidia kernel modules",
		}}
	}
	if missing, ok := errors.AsType[*gpu.MissingError](err); ok {
		return allMissing(missing)
	}
	return []Finding{{
		Level: Problem, Text: fmt.Sprintf("The GPUs cannot be read, so `spacehost run` does not start with them: %v", err),
		Do: "Check `nvidia-smi` and `dmesg`; a reboot may be needed. `--gpus mock:1xH200` simulates a GPU",
	}}
}

// allMissing returns one Finding per GPU: a GPU in MIG mode without instances needs setup, not repair.
func allMissing(missing *gpu.MissingError) (found []Finding) {
	for _, index := range slices.Sorted(maps.Keys(missing.Reasons)) {
		why := missing.Reasons[index]
		found = append(found, device(gpu.DeviceStatus{Device: gpu.Device{Index: index}, Error: why.Error(), Cause: why}))
	}
	return found
}

const simulated = "GPUs are simulated: GPU functions run on the CPU"

func (m machine) withoutLibrary() Finding {
	if version := m.read("proc/driver/nvidia/version"); version != "" {
		return Finding{
			Level: Warning, Text: "NVIDIA's driver is loaded, but its library libnvidia-ml.so.1 is not found; " + simulated,
			Do: "Install the driver's libraries (Debian: libnvidia-ml1); in a container, start it with --gpus all (NVIDIA Container Toolkit)",
		}
	}
	return m.withoutDriver("NVIDIA's library is not installed")
}

// withoutDriver returns a warning only if the machine has a GPU that could be used.
func (m machine) withoutDriver(library string) Finding {
	where := m.nvidiaOnPCI()
	if where == "" {
		return Finding{
			Level: Note, Text: "No NVIDIA GPU was found; " + simulated,
			Do: "Nothing, to try out Spaces; `--gpus mock:2xH200` selects other simulated GPUs",
		}
	}
	return Finding{
		Level: Warning, Text: fmt.Sprintf("This machine has an NVIDIA GPU (PCI %s) that cannot be used. %s, and the driver does not answer; %s", where, library, simulated),
		Do: "Install the NVIDIA driver, or `sudo modprobe nvidia` if it is installed (if that fails, check `dmesg`); in a container, start it with --gpus all",
	}
}

// nvidiaOnPCI returns the address of the first display controller (class 03) of NVIDIA (vendor 10de).
func (m machine) nvidiaOnPCI() string {
	for _, dir := range m.glob("sys/bus/pci/devices/*") {
		name := filepath.Base(dir)
		at := "sys/bus/pci/devices/" + name + "/"
		if m.read(at+"vendor") == "0x10de" && strings.HasPrefix(m.read(at+"class"), "0x03") {
			return name
		}
	}
	return ""
}

// deviceTitle names a Device, and its machine if that is not this one.
func deviceTitle(d gpu.DeviceStatus) string {
	if d.Node != "" {
		return fmt.Sprintf("GPU %d of node %s", d.Index, d.Node)
	}
	return fmt.Sprintf("GPU %d", d.Index)
}

func device(d gpu.DeviceStatus) Finding {
	if noInstance, ok := errors.AsType[*gpu.NoInstanceError](d.Cause); ok {
		return Finding{
			Level: Problem, Text: deviceTitle(d) + " is in MIG mode without an instance: it cannot be used",
			Do: fmt.Sprintf("Create an instance: `nvidia-smi mig -i %d -lgip` lists the sizes, `sudo nvidia-smi mig -i %d -cgi SIZE -C` creates one; or turn MIG mode off with `sudo nvidia-smi -i %d -mig 0`",
				noInstance.Index, noInstance.Index, noInstance.Index),
		}
	}
	if d.Error != "" && d.Node != "" {
		return Finding{
			Level: Warning, Text: strings.TrimSpace(deviceTitle(d)+" "+d.Name) + " cannot be used: " + d.Error,
			Do: "On node " + d.Node + ", check that the agent runs and reaches this host, and look for Xid in `dmesg`. This host goes on without it",
		}
	}
	if d.Error != "" {
		return Finding{
			Level: Problem, Text: strings.TrimSpace(deviceTitle(d)+" "+d.Name) + " cannot be used: " + d.Error,
			Do: "Look for Xid in `dmesg`; reset it (`sudo nvidia-smi -r -i " + strconv.Itoa(d.Index) + "`) or reboot. The other GPUs remain usable",
		}
	}
	name := fmt.Sprintf("%s %s, %s", deviceTitle(d), d.Name, size(d.MemoryTotal))
	if len(d.Processes) == 0 {
		return ok("%s: no process is on it (%s)", name, d.UUID)
	}
	pids := make([]string, len(d.Processes))
	for i, p := range d.Processes {
		pids[i] = strconv.Itoa(p.PID)
	}
	return Finding{
		Level: Note, Text: fmt.Sprintf("%s: pid %s on it, %s in use. It can be leased when these processes have exited", name, strings.Join(pids, ", "), size(d.MemoryUsed)),
		Do: "Nothing if they are workers of a spacehost (`spacehost gpu` shows this); end other processes yourself, spacehost never does",
	}
}

// deviceFiles lists the driver's files that a Space could not open. WSL has none: there all access goes through
// /dev/dxg.
func (m machine) deviceFiles() []Finding {
	if m.has("dev/dxg") {
		return nil
	}
	var denied []string
	for _, path := range append(m.glob("dev/nvidia[0-9]*"), m.path("dev/nvidiactl"), m.path("dev/nvidia-uvm")) {
		if err := m.access(path, unix.R_OK|unix.W_OK); err != nil && !os.IsNotExist(err) {
			denied = append(denied, m.shown(path))
		}
	}
	var found []Finding
	if len(denied) > 0 {
		found = append(found, Finding{
			Level: Problem, Text: fmt.Sprintf("This user may not open %s: CUDA fails in every Space", strings.Join(denied, ", ")),
			Do: "Add this user to the group that owns these files (`ls -l /dev/nvidia*`; `sudo usermod -aG video $USER`, then log in again)",
		})
	}
	if !m.has("dev/nvidia-uvm") {
		found = append(found, Finding{
			Level: Note, Text: "/dev/nvidia-uvm does not exist: CUDA creates it at its first use if nvidia-modprobe is installed, and otherwise fails with \"unknown error\"",
			Do: "If CUDA fails: `sudo nvidia-modprobe -u -c=0`; for a container, run this on the machine outside",
		})
	}
	return found
}

// size formats bytes for display: GiB from 1 GiB on, else MiB.
func size(bytes uint64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(bytes)/(1<<30)), ".0") + " GiB"
}

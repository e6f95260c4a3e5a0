package host

import (
	"slices"

	"golang.org/x/sys/unix"

	"spacehost/internal/config"
	"spacehost/internal/sandbox"
	"spacehost/worker"
)

// harmlessDevices are the devices that a program needs. Shared memory and terminals are those of the machine at level files.
var harmlessDevices = append(slices.Clone(sandbox.StandardDevices), "/dev/shm", "/dev/ptmx", "/dev/pts")

// systemRead lists what every process at level files may read of the machine.
func systemRead() []string { return append(slices.Clone(systemFolders), "/etc") }

// confineFiles implements worker.LocalConfig.Confine at level files: it lists what a start may read, write and connect to.
// Landlock gives no view of its own: all paths are those of the machine, and layers do not exist.
func (s *spaceRun) confineFiles(start worker.StartInfo) (worker.Confinement, error) {
	v := &view{}
	v.fresh(s.layer("tmp"))
	writable := []string{s.home(), s.layer("tmp"), s.layer("hf")}
	v.make(writable...)
	if v.err != nil {
		return worker.Confinement{}, v.err
	}
	rules := sandbox.FileRules{
		Read:  slices.Concat(systemRead(), []string{start.Runner, start.RunDir, start.Python}, s.interpreterFolders, certificatePaths()),
		Write: slices.Concat(writable, harmlessDevices),
		Bind:  []uint16{uint16(start.Port)},
	}
	if mode := s.settings().SourceAt(s.level(), s.host.settings().IsServe()); mode == config.SourceReadOnly {
		rules.Read = append(rules.Read, s.space().Dir)
	} else {
		rules.Write = append(rules.Write, s.space().Dir)
	}
	for _, m := range s.settings().Mounts {
		if m.Write {
			rules.Write = append(rules.Write, m.Path)
		} else {
			rules.Read = append(rules.Read, m.Path)
		}
	}
	if s.host.simulated() {
		rules.Read = append(rules.Read, "/proc")
	} else { // CUDA writes its thread names to /proc
		rules.Write = append(rules.Write, "/proc")
		rules.Write = append(rules.Write, gpuNodes()...)
	}
	rules.Connect = s.connectPorts(start)
	return worker.Confinement{Files: &sandbox.FilesSpec{FileRules: rules, Limits: s.processLimits()}}, nil
}

// connectPorts lists the TCP ports that a start at level files may connect to, at any address.
func (s *spaceRun) connectPorts(start worker.StartInfo) []uint16 {
	ports, _ := s.settings().Egress.EffectivePorts()
	ports = append(ports, uint16(start.Device), uint16(start.Port), uint16(s.host.console.Addr.Port), 53)
	for _, other := range s.host.all() {
		ports = append(ports, uint16(other.site().Addr.Port))
	}
	for _, reach := range s.settings().Reach {
		ports = append(ports, reach.Port())
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// processLimits limits the processes of the Space's user only if the settings do: below level namespaces, the kernel counts
// all processes of the host's user.
func (s *spaceRun) processLimits() []sandbox.Limit {
	n := uint64(s.settings().Limits.Processes)
	if n == 0 {
		return nil
	}
	return []sandbox.Limit{{Resource: unix.RLIMIT_NPROC, Soft: n, Hard: n}}
}

// isolatedVariables changes the environment of a Space for its level.
func (s *spaceRun) isolatedVariables(vars []string) []string {
	switch s.level() {
	case config.IsolationNamespaces, config.IsolationUsers:
		return withoutProxies(vars)
	case config.IsolationFiles:
		// The Hub's client writes into its cache, so a shared one would have to be writable (huggingface_hub#2797).
		return append(without(vars, "HF_HOME", "TMPDIR"), "HF_HOME="+s.layer("hf"), "TMPDIR="+s.layer("tmp"))
	}
	return vars
}

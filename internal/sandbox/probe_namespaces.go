package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"spacehost/internal/feature"
	"spacehost/internal/removal"
)

// NamespacesProbe is what this machine offers for level `namespaces`.
type NamespacesProbe struct {
	Err     error // why the level is not available, usually a *StepError; nil if it is
	Overlay bool  // an overlay can be mounted with its layer in the folder
}

// Probe starts a sandbox without an interpreter, with a layer below dir, which it creates. It takes about 20 ms. The error
// reports that dir cannot be used. Probe honours feature.Variable.
func Probe(dir string) (NamespacesProbe, error) { return probe(dir, 0) }

// ProbeUser is like Probe for a sandbox with a Spec.User. It also needs a file system with idmapped mounts at dir.
func ProbeUser(dir string, user uint32) (NamespacesProbe, error) { return probe(dir, user) }

func probe(dir string, user uint32) (NamespacesProbe, error) {
	for _, name := range []string{feature.Userns, feature.Seccomp} {
		if feature.Disabled(name) {
			return NamespacesProbe{Err: fmt.Errorf("%s is disabled by %s", name, feature.Variable)}, nil
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return NamespacesProbe{}, err
	}
	folder, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return NamespacesProbe{}, err
	}
	defer func() { _ = removal.Tree(folder) }() // a folder that stays is empty but for empty folders
	path := func(name string) string { return filepath.Join(folder, name) }
	for _, name := range []string{"root", "own", "lower", "upper", "work"} {
		if err := os.Mkdir(path(name), 0o700); err != nil {
			return NamespacesProbe{}, err
		}
	}
	spec := Spec{Root: path("root"), User: user, CatchAll: true, Sockets: []Socket{{"egress", "tcp4", "0.0.0.0:443"}, {"names", "udp4", "127.0.0.1:53"}}}
	spec.Mounts = []Mount{{Kind: ReadWrite, Source: path("own"), Target: "/own"}}
	layered := spec
	layered.Mounts = []Mount{spec.Mounts[0], {Kind: Overlay, Source: path("lower"), Target: "/layered", Upper: path("upper"), Work: path("work")}}
	err = try(layered)
	if err == nil {
		return NamespacesProbe{Overlay: true}, nil
	}
	if step, ok := errors.AsType[*StepError](err); ok && step.Step == StepView {
		err = try(spec)
	}
	return NamespacesProbe{Err: err}, nil
}

// try performs the steps of init and reports the first that fails.
func try(spec Spec) error {
	null, err := os.Open(os.DevNull) // in place of the channel
	if err != nil {
		return err
	}
	defer null.Close()
	s, err := New(spec, null)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Cmd.Start(); err != nil {
		return &StepError{StepClone, err}
	}
	sockets, err := s.Begin()
	closeAll(sockets)
	s.Close()
	_ = s.Cmd.Process.Kill() // not reaped yet
	_ = s.Cmd.Wait()         // Begin has reported the failure
	return err
}

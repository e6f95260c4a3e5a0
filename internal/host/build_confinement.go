package host

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/sandbox"
)

// confineBuild returns what build.Config.Confine needs: tools that run code of the Space are confined at the level of the
// Space. It returns nil at level none.
func (s *spaceRun) confineBuild() func() build.Confinement {
	if s.level() == config.IsolationNone {
		return nil
	}
	return func() build.Confinement { return &buildConfinement{space: s} }
}

// buildConfinement implements build.Confinement. Its folder is removed at the end of the build, and with it everything
// that the tools have written outside of the environment.
type buildConfinement struct {
	space  *spaceRun
	folder string // "" before the first tool
}

var _ build.Confinement = (*buildConfinement)(nil)

// buildPrefix begins the names of the folders of builds, which are beside those of starts.
const buildPrefix = "build-"

// Run implements build.Confinement.
func (c *buildConfinement) Run(ctx context.Context, tool build.Tool) error {
	if err := c.makeFolder(tool.Home); err != nil {
		return err
	}
	tool.Env = append(tool.Env, "HOME="+c.path("home"), "TMPDIR="+c.path("tmp"))
	if c.space.isSandboxed() {
		return c.runSandboxed(ctx, tool)
	}
	return c.runAtFiles(ctx, tool)
}

// Close implements build.Confinement.
func (c *buildConfinement) Close() {
	if c.folder == "" {
		return
	}
	if err := sandbox.RemoveLayer(c.folder); err != nil {
		c.space.logError("cannot remove the folder of a build", err)
	}
}

func (c *buildConfinement) path(name string) string { return filepath.Join(c.folder, name) }

// makeFolder creates the folders that the tools of one build share. The settings are written once: later a tool could have
// put a link in their place.
func (c *buildConfinement) makeFolder(settings map[string]string) (err error) {
	if c.folder != "" {
		return nil
	}
	run := c.space.host.state.path("run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		return fmt.Errorf("make the folder of the build: %w", err)
	}
	if c.folder, err = os.MkdirTemp(run, buildPrefix); err != nil {
		return fmt.Errorf("make the folder of the build: %w", err)
	}
	for _, name := range []string{"root", "home", "tmp", "cache"} {
		if err := os.Mkdir(c.path(name), 0o700); err != nil {
			return fmt.Errorf("make the folder of the build: %w", err)
		}
	}
	for name, text := range settings {
		path := filepath.Join(c.path("home"), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("write the settings of the build: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the settings of the build: %w", err)
		}
	}
	return nil
}

// removeBuildFolders removes the folders of builds that a crash of the host has ended.
func (h *Host) removeBuildFolders() error {
	left, _ := filepath.Glob(h.state.path("run", buildPrefix+"*")) // the pattern is well formed
	for _, folder := range left {
		if err := sandbox.RemoveLayer(folder); err != nil {
			return err
		}
	}
	return nil
}

// killTime bounds the wait for the output of a tool that has exited.
const killTime = 2 * time.Second

// runSandboxed runs a tool in a sandbox of its own, which ends with the tool, with ctx and with the host.
func (c *buildConfinement) runSandboxed(ctx context.Context, tool build.Tool) error {
	s := c.space
	network, err := s.buildNetwork(ctx, tool)
	if err != nil {
		return err
	}
	spec, err := c.sandboxSpec(tool, network)
	if err != nil {
		return err
	}
	kept, err := keptOpen(tool.Held)
	if err != nil {
		return err
	}
	defer kept.Close()
	box, err := sandbox.New(spec, kept)
	if err != nil {
		return err
	}
	defer box.Close()
	box.Cmd.Stdout, box.Cmd.Stderr, box.Cmd.WaitDelay = tool.Stdout, tool.Stderr, killTime
	if err := box.Cmd.Start(); err != nil {
		return fmt.Errorf("start a sandbox: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = box.Cmd.Process.Kill() }) // it may have exited; the kernel ends the rest
	defer stop()
	files, err := box.Begin()
	if err != nil {
		_ = box.Cmd.Process.Kill() // it is not reaped yet
		_ = box.Cmd.Wait()         // the error reports our signal
		return err
	}
	open := s.openNetwork(network.policy, network.sockets, files)
	err = box.Cmd.Wait()
	open.close(s.host.server)
	if refusal := open.lastRefusal(); err != nil && refusal != "" {
		fmt.Fprintf(tool.Stderr, "%s%s\n", build.RefusedConnection, refusal)
	}
	return err
}

// keptOpen returns a descriptor that the tool inherits: that of the lock, or of nothing.
func keptOpen(lock *os.File) (*os.File, error) {
	if lock == nil {
		return os.Open(os.DevNull)
	}
	fd, err := syscall.Dup(int(lock.Fd()))
	if err != nil {
		return nil, fmt.Errorf("pass on the lock of the environment: %w", err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), lock.Name()), nil
}

// sandboxSpec describes the sandbox of a tool.
func (c *buildConfinement) sandboxSpec(tool build.Tool, network buildNetwork) (sandbox.Spec, error) {
	v := &view{}
	v.system()
	v.etc(c.path("home"), network.hosts)
	v.writable(c.path("home"), c.path("home"))
	v.writable(c.path("tmp"), "/tmp")
	for _, path := range tool.Read {
		if !isBelow(path, "/usr") {
			v.same(sandbox.ReadOnly, path)
		}
	}
	for _, folder := range tool.Write {
		v.same(sandbox.ReadWrite, folder)
	}
	cache := v.changeable(c, tool)
	if tool.Models {
		v.hubCache(c.space)
	}
	env := append(withoutProxies(tool.Env), "UV_CACHE_DIR="+cache, "TMPDIR=/tmp")
	spec := sandbox.Spec{
		Argv: slices.Clone(tool.Argv), Env: lastValues(env), Dir: tool.Dir, Root: c.path("root"), Mounts: v.mounts, CatchAll: true,
		Processes: c.space.maxProcesses(),
	}
	for _, one := range network.sockets {
		spec.Sockets = append(spec.Sockets, one.Socket)
	}
	return spec, v.err
}

// changeable mounts what a tool may change although the changes are dropped: uv's cache, whose path it returns, and the
// folder of the Space.
func (v *view) changeable(c *buildConfinement, tool build.Tool) (cache string) {
	layers := c.space.host.levels.overlay
	if layers && tool.Cache != "" {
		cache = tool.Cache
		v.overlay(c.space, cache, c.path("cache-layer"))
	} else {
		cache = c.path("cache")
		v.writable(cache, cache)
	}
	switch {
	case tool.Source == "":
	case layers:
		v.overlay(c.space, tool.Source, c.path("source"))
	default:
		v.copied(tool.Source, c.path("source"))
	}
	return cache
}

// lastValues keeps the last of several values of a variable.
func lastValues(env []string) []string { return (&exec.Cmd{Env: env}).Environ() }

// copied mounts a copy of a folder, which is made once. setuptools writes into the folder of a package that it builds.
func (v *view) copied(folder, to string) {
	if _, err := os.Stat(to); err != nil {
		if err := os.CopyFS(to, os.DirFS(folder)); err != nil && v.err == nil {
			v.err = fmt.Errorf("copy the Space's folder for its build: %w", err)
		}
	}
	v.add(sandbox.Mount{Kind: sandbox.ReadWrite, Source: to, Target: folder})
}

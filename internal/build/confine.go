package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lazyregexp"
)

// Confinement runs the tools of one job that execute code of a Space: setup.py, build backends, and the Python of an
// environment in which the Space's packages are installed. Its methods are called one after the other.
type Confinement interface {
	// Run runs a tool until it has exited, or kills it with everything it has started when ctx ends. The tool has access
	// to the system's programs and to what Tool names, and to nothing else of the machine. An exit status other than 0 is
	// an *exec.ExitError; any other error means that the tool has not run.
	Run(ctx context.Context, tool Tool) error
	// Close removes the temporary files. It may be called without a Run.
	Close()
}

// Tool is one command for a Confinement. Paths are those of the machine.
type Tool struct {
	Argv           []string
	Env            []string // without HOME, TMPDIR and UV_CACHE_DIR, which the Confinement adds
	Dir            string
	Stdout, Stderr io.Writer

	Read   []string // files and folders that the tool may read and execute
	Write  []string // folders that the tool may change
	Source string   // the Space's folder: the tool may change its view of it; "": none
	Cache  string   // uv's shared cache, which the tool must not change; "": none
	Models bool     // the tool downloads into the Space's cache of models

	Home map[string]string // text files of its home folder, by relative path
	URLs []string          // addresses of the operator to which the tool connects: package indexes, the Hub

	Held *os.File // stays open while a process of the tool exists; nil: none
}

// access is what a tool may do to the machine.
type access int

const (
	asHost  access = iota // everything that the host may do: the tool runs no code of the Space
	resolve               // read the environment
	install               // change the environment
	preload               // read the environment, and download into the cache of models
)

// confinedLimit bounds the time that code of a Space may take in one build, downloads included.
const confinedLimit = 30 * time.Minute

var errTimeLimit = errors.New("the time limit of the build has passed")

// runConfined runs a tool in the job's Confinement.
func (j *job) runConfined(ctx context.Context, as access, tool Tool) error {
	if err := j.grant(ctx, as, &tool); err != nil {
		return err
	}
	if as != preload {
		began := time.Now()
		defer func() { j.confinedTime += time.Since(began) }()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, j.timeLimit()-j.confinedTime, errTimeLimit)
		defer cancel()
	}
	err := j.confinement.Run(ctx, tool)
	if _, exited := errors.AsType[*exec.ExitError](err); err == nil || exited && ctx.Err() == nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &Error{Step: "isolating the build", Problem: fmt.Sprintf("the build cannot be isolated: %v", err), Hint: "run `spacehost doctor`", LogPath: j.output.path, Err: err}
}

func (j *job) timeLimit() time.Duration { return cmp.Or(j.config.TimeLimit, confinedLimit) }

// grant adds what a tool needs.
func (j *job) grant(ctx context.Context, as access, tool *Tool) (err error) {
	tool.Env = append(confinedEnv(os.Environ()), j.variables...)
	tool.Home, tool.URLs = indexSettings()
	tool.Read = namedPaths()
	if as == preload {
		tool.Models, tool.Dir = true, "/"
		tool.URLs = append(tool.URLs, urls(j.variables)...)
		tool.Read = append(tool.Read, j.folders...)
		return nil
	}
	if len(j.locks) > 0 {
		tool.Held = j.locks[len(j.locks)-1].file
	}
	if j.folders == nil {
		if j.folders, err = foldersOf(ctx, j.python.Path); err != nil {
			return err
		}
	}
	tool.Read = append(append(tool.Read, j.folders...), j.tool.program...)
	if j.inputs.installed == nil {
		tool.Source = j.spec.Dir
	}
	if tool.Cache = j.cacheDir(); tool.Cache != "" {
		if err := os.MkdirAll(tool.Cache, 0o755); err != nil {
			return err
		}
	}
	if as == resolve {
		tool.Read = append(tool.Read, j.home)
	} else {
		tool.Write = append(tool.Write, j.home)
	}
	return nil
}

// cacheDir returns the folder of uv's cache. With a Confinement it is not that of the host's user, which may contain
// private packages: tools that run code of Spaces can read it. Only tools that run no such code write to it.
func (j *job) cacheDir() string {
	if j.confinement == nil {
		return ""
	}
	if own := os.Getenv("UV_CACHE_DIR"); filepath.IsAbs(own) {
		return own
	}
	return filepath.Join(j.dir, "cache", "uv")
}

// close releases what newJob has opened.
func (j *job) close() {
	if j.confinement != nil {
		j.confinement.Close()
	}
	j.output.Close()
}

// installWith installs packages of the Space. The rules, in order:
//
//  1. Without a Confinement the tool runs as the host.
//  2. Packages by name alone are installed from wheels where possible. Wheels run no code when they are installed.
//  3. Everything else is installed in the Confinement.
func (j *job) installWith(ctx context.Context, tool installer, what ...string) error {
	argv := j.installCommand(tool, what...)
	if j.confinement == nil { // 1
		return j.run(ctx, argv...)
	}
	if tool.uv && !j.touched && j.inputs.installed != nil { // 2
		if done, err := j.installWheels(ctx, argv); done || err != nil {
			return err
		}
	}
	j.touched = true
	_, err := j.runTo(ctx, install, io.Discard, argv...) // 3
	return err
}

// installWheels installs the packages as the host, and so into the shared cache, if all of them have wheels. With
// --only-binary alone, uv would choose an older release that has a wheel over the newest one. Therefore the Confinement
// first resolves the requirements, sources included, and the result is pinned. It cannot change the environment, whose
// Python runs as the host afterwards for the last time.
func (j *job) installWheels(ctx context.Context, argv []string) (done bool, err error) {
	plan, err := j.runTo(ctx, resolve, io.Discard, append(slices.Clone(argv), "--dry-run")...)
	if err != nil && needsLock.MatchString(plan) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pins := filepath.Join(j.home, "pins.txt")
	if err := os.WriteFile(pins, pinsOf(plan), 0o644); err != nil {
		return false, err
	}
	j.touched = true
	_, err = j.runTo(ctx, asHost, io.Discard, append(slices.Clone(argv), "--only-binary", ":all:", "--constraint", pins)...)
	if err == nil || ctx.Err() != nil {
		return err == nil, err
	}
	fmt.Fprintf(j.output, "not all packages can be installed from wheels, continuing with sources in isolation\n")
	j.log.Debug("no wheels", zap.String("space", j.space), zap.Error(err))
	return false, nil
}

// needsLock matches the error of old releases of uv that resolve only in an environment to which they can write: 0.5.0
// does, 0.7.22 does not.
var needsLock = lazyregexp.New(`failed to (?:create|open) file .*\.lock`)

// pinsOf returns the packages that uv would install, according to the output of a dry run. Code of a Space may have
// written to the output, so only lines of the exact form count.
func pinsOf(plan string) (pins []byte) {
	for _, found := range planned.FindAllStringSubmatch(plan, -1) {
		pins = append(append(pins, found[1]...), '\n')
	}
	return pins
}

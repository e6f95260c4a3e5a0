package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Names under which the program starts itself (os.Args[0]). No command line that a user types begins with one of them.
const (
	filesName = "spacehost: level files"
	probeName = "spacehost: probe of level files"
)

// MaybeRun runs the helper process that this program was started as: init, the holder of a user namespace, the helper
// of level files or its probe. It does not return then. Otherwise it returns at once. Call it first in main, and in TestMain of packages that use this package.
func MaybeRun() {
	switch os.Args[0] {
	case filesName:
		runFiles(os.Args[1:])
	case probeName:
		runProbe()
	case initName:
		runInit()
	case mapName:
		runMap()
	}
}

// FilesSpec describes one start at level `files`.
type FilesSpec struct {
	FileRules
	// Limits are resource limits of the process, which its children inherit.
	Limits []Limit
}

// Limit is a resource limit (setrlimit).
type Limit struct {
	Resource   int // unix.RLIMIT_*
	Soft, Hard uint64
}

// startLimit bounds the time from the start of the helper until the program replaces it.
const startLimit = 10 * time.Second

// report is what the helper writes before the program replaces it: first Left, and after a failure Error.
type report struct {
	Left  []string `json:",omitempty"`
	Error string   `json:",omitempty"`
}

// filesStart is what the helper needs to know.
type filesStart struct {
	FilesSpec
	Path      string
	Args, Env []string
}

// Confine changes a command that has not started: this program is started in its place, confines itself, and is then
// replaced by the command's program (execve), so that the pid stays. Path, Args, Env, Dir and ExtraFiles must be final.
// Rules, command line and environment are passed in a sealed memory file:
//
//   - Command lines are public.
//   - A Space's LD_PRELOAD would run its code in the helper before any rule is in force.
//
// Two descriptors after cmd.ExtraFiles are used and closed again.
//
// Call started exactly once after cmd.Start, whatever that returned. It returns when the program has replaced the
// helper, within 10 s. left names the restrictions that this kernel lacks. The error names the step that failed. After
// an error the process has exited or is about to: the caller kills it and waits for it. It never runs unconfined.
func (s FilesSpec) Confine(cmd *exec.Cmd) (started func() (left []string, err error), err error) {
	file, err := memoryFile("files", filesStart{s, cmd.Path, cmd.Args, cmd.Environ()})
	if err != nil {
		return nil, fmt.Errorf("pass the rules of level files: %w", err)
	}
	reports, theirs, err := os.Pipe()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("pass the rules of level files: %w", err)
	}
	first := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(slices.Clone(cmd.ExtraFiles), file, theirs)
	cmd.Path = "/proc/self/exe"
	cmd.Args = []string{filesName, strconv.Itoa(first), strconv.Itoa(first + 1)}
	cmd.Env = []string{}
	return func() ([]string, error) {
		file.Close()
		theirs.Close()
		defer reports.Close()
		return readReports(reports)
	}, nil
}

// Start confines a command and starts it. After an error it does not run, and needs no Wait.
func (s FilesSpec) Start(cmd *exec.Cmd) error {
	started, err := s.Confine(cmd)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		_, _ = started() // reports the same failure
		return err
	}
	if _, err := started(); err != nil {
		_ = cmd.Process.Kill() // it is not reaped yet
		_ = cmd.Wait()         // the error reports our signal
		return err
	}
	return nil
}

// memoryFile returns a value as JSON in a file in memory that cannot be changed. Its offset is 0.
func memoryFile(name string, value any) (*os.File, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.WriteAt(text, 0); err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// readReports reads until execve has closed the other end.
func readReports(from *os.File) (left []string, err error) {
	_ = from.SetReadDeadline(time.Now().Add(startLimit))
	var confined, failed report
	reports := json.NewDecoder(from)
	err = reports.Decode(&confined)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("level files: the process ended before it was confined")
	case err != nil:
		return nil, fmt.Errorf("level files: no report of the process: %w", err)
	case confined.Error != "":
		return nil, fmt.Errorf("level files: %s", confined.Error)
	}
	switch err := reports.Decode(&failed); {
	case errors.Is(err, io.EOF):
		return confined.Left, nil
	case err != nil:
		return nil, fmt.Errorf("level files: no report of the process: %w", err)
	}
	return nil, fmt.Errorf("level files: %s", failed.Error)
}

// exitConfinement is the exit code of a helper that could not confine itself. Programs such as env and nohup use it for
// their own failures too.
const exitConfinement = 125

// runFiles confines the thread and replaces the process by the program. The arguments are the descriptors of the memory
// file and of the reports.
func runFiles(args []string) {
	runtime.LockOSThread()
	if len(args) != 2 {
		os.Exit(exitConfinement)
	}
	fileFD, errFile := strconv.Atoi(args[0])
	reportFD, errReport := strconv.Atoi(args[1])
	if errFile != nil || errReport != nil {
		os.Exit(exitConfinement)
	}
	reports := json.NewEncoder(os.NewFile(uintptr(reportFD), "reports"))
	err := closeOnExec(min(fileFD, reportFD))
	if err == nil {
		err = become(os.NewFile(uintptr(fileFD), "files"), reports)
	}
	_ = reports.Encode(report{Error: err.Error()}) // if that fails too, the host sees the end of the process
	os.Exit(exitConfinement)
}

// closeOnExec closes the descriptors from first on at execve. Landlock does not restrict open descriptors, so the
// program gets those of its command, and none that this program has inherited from its own parent.
func closeOnExec(first int) error {
	if err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("descriptors: %w", err)
	}
	return nil
}

// become confines the thread, reports it, and replaces the process by the program. It returns only errors.
func become(file io.ReaderAt, reports *json.Encoder) error {
	var start filesStart
	if err := json.NewDecoder(io.NewSectionReader(file, 0, math.MaxInt64)).Decode(&start); err != nil {
		return fmt.Errorf("read the rules: %w", err)
	}
	left, err := start.confineThread()
	if err != nil {
		return err
	}
	if err := reports.Encode(report{Left: left}); err != nil {
		return err // the host is gone
	}
	return fmt.Errorf("execute %s: %w", start.Path, syscall.Exec(start.Path, start.Args, start.Env))
}

// confineThread takes all steps of level `files` in order. The caller is locked to its thread. An error names the step;
// the caller then exits.
func (s FilesSpec) confineThread() (left []string, err error) {
	steps := []struct {
		name string
		take func() error
	}{
		{"limits", func() error { return applyLimits(s.Limits) }},
		{"kernel settings", protectKernelSettings},
		{"capabilities", dropCapabilities},
		{"landlock", func() (err error) { left, err = applyLandlock(s.FileRules); return err }},
		{"seccomp", applySeccomp},
	}
	for _, step := range steps {
		if err := step.take(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return left, nil
}

func applyLimits(limits []Limit) error {
	for _, l := range limits {
		if err := unix.Setrlimit(l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", l.Resource, l.Soft, err)
		}
	}
	return nil
}

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/migrations"
	"spacehost/server"
)

// MachineError lists what a start of the host on this machine would fail with, although the configuration is right.
type MachineError struct {
	File     string
	Problems []string
}

func (e *MachineError) Error() string {
	if len(e.Problems) == 1 {
		return e.File + ": " + e.Problems[0]
	}
	return fmt.Sprintf("%s cannot be served on this machine, problems: %d\n  %s", e.File, len(e.Problems), strings.Join(e.Problems, "\n  "))
}

// preflightLimit bounds the checks of one interpreter: importing gradio takes seconds.
const preflightLimit = 2 * time.Minute

// Preflight finds what a start of the host with a checked configuration would fail with: an unusable state folder, addresses in use,
// interpreters without gradio or spaces. It changes nothing. What a running host of the same state folder holds is no problem.
// Errors: *MachineError.
func Preflight(ctx context.Context, checked config.Checked) error {
	p := &preflight{settings: &checked.Settings}
	p.stateFolder(ctx)
	p.addresses()
	p.interpreters(ctx, checked.Spaces)
	if len(p.problems) == 0 {
		return nil
	}
	return &MachineError{p.settings.File, p.problems}
}

// PreflightState finds what a host or an agent could not use of a state folder. It changes nothing, and a running host of the same
// folder is no problem. Errors: one sentence with the next step.
func PreflightState(ctx context.Context, state string) error {
	p := &preflight{settings: &config.Settings{State: state}}
	if p.stateFolder(ctx); len(p.problems) > 0 {
		return errors.New(p.problems[0]) // it reports the first one only
	}
	return nil
}

// preflight is one call of Preflight.
type preflight struct {
	settings *config.Settings
	problems []string
}

func (p *preflight) fail(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// stateFolder checks that the folder can be created or written, and that the database can be opened.
func (p *preflight) stateFolder(ctx context.Context) {
	state := p.settings.State
	existing := state
	for {
		info, err := os.Stat(existing)
		if err == nil && !info.IsDir() {
			p.fail("state folder %s: %s is not a folder; choose another with --state or the key `state`", state, existing)
			return
		}
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || existing == filepath.Dir(existing) {
			p.fail("state folder %s: %v; choose another with --state or the key `state`", state, err)
			return
		}
		existing = filepath.Dir(existing)
	}
	if err := unix.Access(existing, unix.W_OK|unix.X_OK); err != nil { // it reports a read-only file system too
		p.fail("state folder %s: %s cannot be written: %v; make it writable for this user, or choose another folder with --state or the key `state`", state, existing, err)
		return
	}
	if err := migrations.Usable(ctx, filepath.Join(existing, "spacehost.db")); err != nil {
		p.fail("state folder %s: %v", state, err)
	}
}

// addresses tries all addresses of the configuration.
func (p *preflight) addresses() {
	all := []config.Setting{p.settings.Console, p.settings.Cluster.Listen}
	for _, s := range p.settings.Spaces {
		all = append(all, s.Addr)
		if s.Addr.Value == "" {
			all = append(all, p.settings.Address)
		}
	}
	host := runningHost(p.settings.State)
	var tried []string
	for _, address := range all {
		if address.Value == "" || slices.Contains(tried, address.Value) {
			continue
		}
		tried = append(tried, address.Value)
		listener, err := net.Listen("tcp", address.Value)
		if err == nil {
			listener.Close()
			continue
		}
		failed := &server.ListenError{Addr: address.Value, Flag: address.Source, Err: err}
		if errors.Is(err, syscall.EADDRINUSE) {
			holders := proctree.Listening(portOf(address.Value))
			if host != 0 && (len(holders) == 0 || slices.Contains(holders, host)) { // of another user, the holder cannot be seen
				continue
			}
			failed.Holder = programs(holders)
		}
		text := failed.Error()
		if strings.HasPrefix(failed.Holder, "spacehost ") {
			text += "; if it serves this file, name its state folder with --state"
		}
		p.fail("%s", text)
	}
}

// programs names processes; "" if there are none.
func programs(pids []int) string {
	var all []string
	for _, pid := range pids {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			name = []byte("a process") // it has exited
		}
		all = append(all, fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid))
	}
	return strings.Join(all, " and ")
}

func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	number, _ := strconv.Atoi(port) // a name of a port has no holder here
	return number
}

// runningHost returns the process of the host that runs on a state folder; 0: none.
func runningHost(state string) int {
	lock, err := os.Open(filepath.Join(state, "lock"))
	if err != nil {
		return 0
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0
	}
	text, _ := io.ReadAll(lock)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 for a host that is just starting
	return pid
}

// interpreters checks each interpreter that the configuration names, once for all its Spaces.
func (p *preflight) interpreters(ctx context.Context, spaces []*space.Space) {
	ctx, cancel := context.WithTimeout(ctx, preflightLimit)
	defer cancel()
	checked := map[string][]string{}
	var order []string
	for i, s := range p.settings.Spaces {
		if s.Python != "" {
			if checked[s.Python] == nil {
				order = append(order, s.Python)
			}
			checked[s.Python] = append(checked[s.Python], spaces[i].Name)
		}
	}
	for _, python := range order {
		builder := build.New(build.Config{Dir: EnvironmentsIn(p.settings.State), Interpreter: python, Log: io.Discard})
		if err := builder.CheckInterpreter(ctx); err != nil {
			p.fail("python of %s: %v", strings.Join(checked[python], ", "), err)
		}
	}
}

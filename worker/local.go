package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
)

// Local is the Place of a Space on the host's own machine. It is safe for concurrent use.
type Local struct {
	mu        sync.Mutex
	config    LocalConfig
	installed Installation
	slots     map[string]int         // of the starts that are not closed, by instance
	starts    map[string]*localStart // likewise, without those that Start prepares
}

// LocalConfig is what starts of a Space share on this machine.
type LocalConfig struct {
	Dir    string // folder of the Space
	RunDir string // parent of the run folders of all starts
	// OpenDoor opens the path at which `spaces` of a start finds the device API. CloseDoor closes it, once no process of the
	// start is left.
	OpenDoor  func(instance string) (url string, port int)
	CloseDoor func(instance string)
	Processes *proctree.Processes
	// Confine returns how a start is confined. Its error ends the start. nil: no start is.
	Confine func(StartInfo) (Confinement, error)
	// IsHostPort reports a loopback port at which this host listens: no Space may name it as its own. nil: none.
	IsHostPort func(port int) bool
	// Closed is called once for each instance for which OpenDoor was called. It removes what Confine has made, and the run
	// folder. nil: no call.
	Closed func(instance string)
	// Keeper starts the processes and keeps them when the host ends; nil: they are children of this program, and end with it.
	Keeper Keeper
	// Settings identify what a start depends on beside its Spec and its Installation: an adopted start has the same. Reopen opens the
	// door of an adopted start again, at the address that OpenDoor has returned, and serves the sockets of its sandbox
	// (Confinement.Opened), in the order of Kept.Sockets. Left frees what the host holds for a start that it leaves. They are needed with a Keeper only.
	Settings func() string
	Reopen   func(kept Kept, sockets []*os.File) error
	Left     func(instance string)
	Shield   bool        // ProcessConfig.Shield
	Logger   *zap.Logger // nil: no log
}

// Keeper starts processes that outlast the host (package agent).
type Keeper interface {
	// Launch is StartProcess for a process that is kept.
	Launch(config ProcessConfig, kept Kept) (LocalProcess, error)
	// Kept lists the processes of a Space that an earlier host has left and that this one has not taken.
	Kept(space string) []Kept
	// Take takes one of them over. Of config it uses Reporter, Opened, IsHostPort, CloseDoor and Logger.
	Take(kept Kept, config ProcessConfig) (LocalProcess, error)
	// End ends one of them, and returns when all its processes have exited.
	End(kept Kept)
}

// LocalProcess is the process of a start on this machine. *Process is one.
type LocalProcess interface {
	Running
	// Tree returns the processes of the start.
	Tree() proctree.Tree
	// Show makes exactly these device nodes visible, of those that the sandbox has on demand (sandbox.Sandbox.Show). Without a
	// sandbox it does nothing.
	Show(ctx context.Context, targets []string) error
}

// Kept is what a Keeper stores about a start for the next host.
type Kept struct {
	Facts Facts
	Space string
	Door  string // URL of the device API
	Slot  int    // StartInfo.Slot
	// Likeness is the same for starts that differ only in their instance.
	Likeness string
	Standby  bool
	Cgroup   string           // of the start; "": none
	Sockets  []sandbox.Socket // of its sandbox. They need not be those of a new start: other Spaces come and go.
}

// Tree returns the processes of the start, as long as no host has taken it: pids of its sandbox are not translated.
func (k Kept) Tree() proctree.Tree {
	t := proctree.Tree{Root: proctree.Process{PID: k.Facts.PID, Start: k.Facts.Start}, Marker: k.Facts.Marker, Cgroup: k.Cgroup}
	if k.Facts.Runner != k.Facts.PID {
		runner, _ := proctree.ReadStat(k.Facts.Runner) // zero if it has exited
		t.Runner = runner.Process
	}
	return t
}

// Installation is what a build has prepared on this machine for the starts of a Space.
type Installation struct {
	Python string // the interpreter
	Runner string // folder with sitecustomize.py (InstallRunner)
	// Environ returns the whole environment of a start with these Variables.
	Environ func(variables map[string]string) []string
}

// Confinement is how one start is confined. At most one of Sandbox and Files is set.
type Confinement struct {
	// Sandbox is what the start sees of the machine; nil: everything. Start completes it with the command.
	Sandbox *sandbox.Spec
	// Opened receives the sockets of the Sandbox, in its order, before the app's first line runs. It closes them.
	Opened func(sockets []*os.File) `json:"-"`
	// Files are the rules of level files; nil: none.
	Files *sandbox.FilesSpec
}

// StartInfo is what a sandbox must contain for one start.
type StartInfo struct {
	Instance string
	RunDir   string // of this start
	Runner   string // folder of the runner's modules
	Python   string
	Port     int // of the Space's own server
	Device   int // port of the device API
	// Slot is 0 or 1. Two starts that exist at a time, the current one and its standby, have different ones.
	Slot int
}

var (
	_ Place = (*Local)(nil)
	_ Start = (*localStart)(nil)
)

// NewLocal returns a Place without starts. Call Install before the first Start.
func NewLocal(config LocalConfig) *Local {
	l := &Local{slots: map[string]int{}, starts: map[string]*localStart{}}
	l.Configure(config)
	return l
}

// Configure replaces the configuration, for later starts.
func (l *Local) Configure(config LocalConfig) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config = config
}

// Install sets what the starts of the next Supervisor.Run execute.
func (l *Local) Install(i Installation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.installed = i
}

// localStart is one start on this machine.
type localStart struct {
	LocalProcess
	space     string
	instance  string // facts.Instance, which the end of the process reads while launch sets the other facts
	place     *Local
	machine   LocalConfig // when the start began, and likewise installed
	installed Installation
	slot      int
	facts     Facts
}

// Start implements Place.
func (l *Local) Start(_ context.Context, spec Spec, to Reporter) (Start, error) {
	s, err := l.reserve(spec.Space, spec.Instance)
	if err != nil {
		return nil, err
	}
	if err := s.launch(spec, to); err != nil {
		s.shutDoor()
		s.Close()
		return nil, err
	}
	if spec.Standby {
		s.machine.Processes.RegisterStandby(spec.Space, spec.Instance, s.Tree())
	} else {
		s.machine.Processes.Register(spec.Space, spec.Instance, s.Tree())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.starts[spec.Instance] = s
	return s, nil
}

// reserve returns a start that has a slot, and no process yet.
func (l *Local) reserve(space, instance string) (*localStart, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.slots[instance]; known {
		return nil, fmt.Errorf("start instance %s: it exists already; choose another name", instance)
	}
	s := &localStart{space: space, instance: instance, place: l, machine: l.config, installed: l.installed, facts: Facts{Instance: instance, Dir: l.config.Dir, Key: hex.EncodeToString(random(16))}}
	for _, taken := range l.slots {
		if taken == 0 {
			s.slot = 1
		}
	}
	l.slots[instance] = s.slot
	return s, nil
}

// launch opens the door and starts the process.
func (s *localStart) launch(spec Spec, to Reporter) (err error) {
	url, device := s.machine.OpenDoor(spec.Instance)
	if s.facts.Port, err = freePort(); err != nil {
		return err
	}
	info := StartInfo{
		Instance: spec.Instance, RunDir: filepath.Join(s.machine.RunDir, spec.Instance), Runner: s.installed.Runner, Python: s.installed.Python,
		Port: s.facts.Port, Device: device, Slot: s.slot,
	}
	config := s.processConfig(spec, info, url)
	if s.machine.Confine != nil {
		if config.Confinement, err = s.machine.Confine(info); err != nil {
			return err
		}
	}
	config.Reporter = to
	if s.machine.Keeper != nil {
		kept := Kept{Facts: s.facts, Space: spec.Space, Door: url, Slot: s.slot, Likeness: s.likeness(spec), Standby: spec.Standby}
		if config.Sandbox != nil {
			kept.Sockets = config.Sandbox.Sockets
		}
		s.LocalProcess, err = s.machine.Keeper.Launch(config, kept)
	} else {
		s.LocalProcess, err = StartProcess(config)
	}
	if err != nil {
		return err
	}
	s.facts = s.facts.Of(s.Tree())
	return nil
}

// Of returns the Facts with what the processes of the start tell.
func (f Facts) Of(t proctree.Tree) Facts {
	f.Marker, f.PID, f.Start, f.Runner = t.Marker, t.Root.PID, t.Root.Start, t.Interpreter().PID
	return f
}

// Adopt implements Place. Starts that are not taken over are ended, all at the same time.
func (l *Local) Adopt(_ context.Context, spec Spec, to Reporter) (Start, []string) {
	l.mu.Lock()
	config := l.config
	l.mu.Unlock()
	if config.Keeper == nil {
		return nil, nil
	}
	var adopted *localStart
	var ended []string
	var ending sync.WaitGroup
	for _, kept := range config.Keeper.Kept(spec.Space) {
		if adopted == nil {
			if adopted = l.take(kept, spec, to); adopted != nil {
				continue
			}
		}
		ended = append(ended, kept.Facts.Instance)
		ending.Go(func() {
			config.Keeper.End(kept)
			config.CloseDoor(kept.Facts.Instance)
			config.Closed(kept.Facts.Instance)
		})
	}
	ending.Wait()
	if adopted == nil {
		return nil, ended
	}
	return adopted, ended
}

// take returns nil for a start that differs from what Start would begin, and for one that cannot be taken over.
func (l *Local) take(kept Kept, spec Spec, to Reporter) *localStart {
	s, err := l.reserve(spec.Space, kept.Facts.Instance)
	if err != nil {
		return nil
	}
	s.facts, s.slot = kept.Facts, kept.Slot
	if err = s.takeOver(kept, spec, to); err != nil {
		s.machine.Logger.Warn("start of an earlier host not taken over", zap.String("instance", kept.Facts.Instance), zap.Error(err))
		s.forget()
		return nil
	}
	s.machine.Processes.Register(spec.Space, s.facts.Instance, s.Tree())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots[s.facts.Instance], l.starts[s.facts.Instance] = s.slot, s
	return s
}

func (s *localStart) takeOver(kept Kept, spec Spec, to Reporter) (err error) {
	if kept.Standby || kept.Likeness != s.likeness(spec) {
		return errors.New("the settings, the environment or the version differ")
	}
	config := ProcessConfig{Reporter: to, IsHostPort: s.machine.IsHostPort, CloseDoor: s.shutDoor, Logger: s.machine.Logger}
	reopened := error(nil)
	config.Opened = func(sockets []*os.File) { reopened = s.machine.Reopen(kept, sockets) }
	if s.LocalProcess, err = s.machine.Keeper.Take(kept, config); err != nil {
		return err
	}
	if reopened != nil {
		s.LocalProcess.Leave()
	}
	return reopened
}

// likeness identifies what a start depends on, without its instance.
func (s *localStart) likeness(spec Spec) string {
	spec.Instance, spec.Standby = "", false
	env := s.installed.Environ(spec.Variables)
	slices.Sort(env)
	data, err := json.Marshal(struct {
		Protocol              int
		Spec                  Spec
		Python, Dir, Settings string
		Environment           []string
	}{protocol, spec, s.installed.Python, s.machine.Dir, s.machine.Settings(), env})
	if err != nil {
		panic(err) // a Spec is plain data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (l *Local) get(instance string) *localStart {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.starts[instance]
}

// processConfig returns the configuration of the Process, without what can fail.
func (s *localStart) processConfig(spec Spec, info StartInfo, doorURL string) ProcessConfig {
	secrets := map[string]string{"SPACES_ZERO_DEVICE_API_URL": doorURL}
	maps.Copy(secrets, spec.Secrets)
	config := ProcessConfig{
		Space: spec.Space, Dir: s.machine.Dir, AppFile: spec.AppFile, Python: info.Python, Runner: info.Runner, RunDir: info.RunDir, Env: s.installed.Environ(spec.Variables),
		Secrets: secrets, Port: info.Port, Key: s.facts.Key, Public: spec.PublicURL, Local: spec.LocalURL, Device: info.Device,
		Simulated: spec.Simulated, Strict: spec.Strict, Storage: spec.Storage, Standby: spec.Standby, OutputRate: spec.OutputRate, Limits: spec.Limits, Shield: s.machine.Shield,
		Logger: s.machine.Logger, Cgroups: s.machine.Processes.Cgroups(), IsHostPort: s.machine.IsHostPort, CloseDoor: s.shutDoor,
	}
	if spec.Observe {
		config.Observe = &observeOrder{Limit: spec.StartupTimeout.Seconds(), Calls: spec.ObserveCalls}
	}
	return config
}

func (s *localStart) shutDoor() {
	if s.machine.CloseDoor != nil {
		s.machine.CloseDoor(s.instance)
	}
}

// Facts implements Start.
func (s *localStart) Facts() Facts { return s.facts }

// Begin implements Start.
func (s *localStart) Begin() {
	s.machine.Processes.Register(s.space, s.instance, s.Tree())
	s.LocalProcess.Begin()
}

// Leave implements Start.
func (s *localStart) Leave() {
	s.LocalProcess.Leave()
	if s.machine.Left != nil {
		s.machine.Left(s.instance)
	}
	s.forget()
}

// Close implements Start.
func (s *localStart) Close() {
	if s.machine.Closed != nil {
		s.machine.Closed(s.instance)
	}
	s.forget()
}

func (s *localStart) forget() {
	s.place.mu.Lock()
	defer s.place.mu.Unlock()
	delete(s.place.slots, s.instance)
	delete(s.place.starts, s.instance)
}

// ShowNodes makes exactly these device nodes visible to the processes of a start, of those that its sandbox has on demand
// (sandbox.Sandbox.Show). It does nothing without such a start, or without a sandbox.
func (l *Local) ShowNodes(ctx context.Context, instance string, targets []string) error {
	if s := l.get(instance); s != nil {
		return s.Show(ctx, targets)
	}
	return nil
}

// freePort returns a port that is free now. The app's server binds it a moment later.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

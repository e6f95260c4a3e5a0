package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// options are the flags of `spacehost run`.
type options struct {
	dirs           []string
	addr           string
	consoleAddr    string
	hosts          []string
	gpus           string
	hardware       string
	large          string
	share          gpu.Share // parsed from large
	perSpace       int
	python         string
	state          string
	tier           string
	tierGiven      bool
	quota          string
	variables      []string
	secrets        []string
	envFiles       []string
	fromFiles      map[string]string // Secrets, read from envFiles
	rebuild        bool
	readyJSON      bool
	bar            bool
	watch          bool
	strict         bool
	queueTimeout   time.Duration
	warmFor        time.Duration
	admission      string
	byName         bool
	identity       string
	consoleURL     string
	insecure       bool
	livenessFlags  []string
	liveness       config.Liveness // parsed from livenessFlags
	isolationFlags config.IsolationFlags
	isolation      config.IsolationSettings // parsed from isolationFlags
	warnings       []string
	notes          []string // about the command line, for stderr
}

func newRun() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "run [DIR|SPACE...]",
		Short: "Start the Space in DIR (default: the current folder) and serve it until Ctrl-C",
		Long: `Start the Space in DIR and serve it until Ctrl-C. Further folders are further Spaces of the same host, at the next
ports; callers, quota and GPUs are common to all.

Instead of a folder, SPACE names a Space of the Hub: owner/space, its address there or at hf.space, or the URL of a git
repository. git clones it into the state folder (clones/OWNER/SPACE), and updates it at the next start unless it was changed
there. HF_TOKEN gives access to private Spaces, and HF_ENDPOINT names another Hub.

The front matter of README.md defines what to install; the environment is built once and kept. Each call of a GPU function
(@spaces.GPU) gets a GPU for at most its declared duration, and the seconds are charged to the caller's account. A caller
on this machine is a "free" user unless --tier names another tier. Without --tier, the number of
runs refuses no call of that caller: one line reports that it would.

Exit codes, with the stage that the Hub would show: 1 the host failed (state folder, address, database, GPUs), 2 wrong
usage, 3 the Space's README.md or app_file is wrong (CONFIG_ERROR, NO_APP_FILE), 4 its environment could not be built
(BUILD_ERROR), 5 its app ended before it answered (RUNTIME_ERROR).`,
		Example: `  spacehost run                                     the Space in this folder
  spacehost run --gpus mock:2xH200 examples/hello-zerogpu
  spacehost run space-a space-b                     two Spaces, at :7860 and :7861
  spacehost run --tier pro --quota 2026-04 .        as a PRO user, with the numbers of April 2026
  spacehost run --tier free .                       refuses the ninth call in 24 hours, as ZeroGPU does
  spacehost run owner/space                         a Space of the Hub
  spacehost run --watch .                           while you write it: restart when its files change
  spacehost run --addr :0 --ready-json . | jq -r .url   for scripts: any free port, one JSON line`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if o.dirs = args; len(args) == 0 {
				o.dirs = []string{"."}
			}
			o.tierGiven = c.Flags().Changed("tier")
			if err := o.check(); err != nil {
				return usage.Wrap(c, err)
			}
			if err := fetchSpaces(c, o.state, o.dirs); err != nil {
				return err
			}
			printWarnings(c, o.warnings)
			for _, note := range o.notes {
				fmt.Fprintln(c.ErrOrStderr(), "note:", note)
			}
			return runHost(c, o.settings())
		},
	}
	o.flags(c)
	return c
}

// runHost runs one Host from its start to its end. A SIGHUP ends `run`, whose terminal has closed, and reloads the
// configuration of `serve`.
func runHost(c *cobra.Command, s config.Settings) error {
	ctx, stop := context.WithCancelCause(context.WithoutCancel(c.Context())) // ends after Main's, with the host's cause
	defer stop(nil)
	ends := make(chan os.Signal, 2) // those that Main receives, too
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(ends)
	hangups := make(chan os.Signal, 1)
	if s.IsServe() || !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	h, err := host.New(s, c.OutOrStdout(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer h.Close()
	ended := make(chan struct{})
	terminals := openTerminals()
	var handling sync.WaitGroup
	handling.Go(func() {
		if first, ok := awaitEnd(c.Context(), ends, ended); ok {
			stop(h.CauseOfSignal(first))
			hurryAtNext(ends, ended, h.Hurry)
		}
	})
	handling.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			}
			if !s.IsServe() || terminals.closed() {
				stop(nil)
				return
			}
			_, _ = h.ReloadBy(ctx, "SIGHUP") // it reports its errors
		}
	})
	defer handling.Wait()
	defer close(ended)
	defer stop(nil)
	return h.Run(ctx)
}

// awaitEnd waits for the signal that ends the host. ctx ends at the same signal, or for a caller without signals. false: the host has
// ended by itself.
func awaitEnd(ctx context.Context, signals <-chan os.Signal, ended <-chan struct{}) (os.Signal, bool) {
	select {
	case s := <-signals:
		return s, true
	case <-ended:
		return nil, false
	case <-ctx.Done():
	}
	select {
	case s := <-signals:
		return s, true
	case <-time.After(signalPause):
		return os.Interrupt, true
	}
}

// signalPause is ample for the runtime to deliver one signal to all its receivers.
const signalPause = 100 * time.Millisecond

// hurryAtNext calls hurry at the next signal. A further one has its default effect.
func hurryAtNext(signals chan os.Signal, ended <-chan struct{}, hurry func()) {
	select {
	case <-signals:
	case <-ended:
		return
	}
	signal.Stop(signals)
	hurry()
}

// terminals are the descriptors of this process that were a terminal at its start. When a terminal closes, the kernel sends
// SIGHUP too.
type terminals []int

func openTerminals() (all terminals) {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			all = append(all, fd)
		}
	}
	return all
}

func (t terminals) closed() bool {
	return slices.ContainsFunc(t, func(fd int) bool {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		return errors.Is(err, unix.EIO)
	})
}

func (o *options) flags(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.addr, "addr", "127.0.0.1:7860", "address of the (first) Space; :0 takes any free port of this machine")
	f.StringVar(&o.consoleAddr, "console-addr", "127.0.0.1:7870", "address of the console and the quota API")
	f.StringArrayVar(&o.hosts, "host", nil, "further name by which visitors reach this host, beside localhost, IP addresses and its own name; may be repeated")
	f.StringVar(&o.identity, "identity", "direct", "whether a browser's sign-in counts: direct, always; hub, only where it would reach the Space on the Hub, to find what a custom frontend loses")
	f.StringVar(&o.consoleURL, "console-url", "", "address of the console for browsers, such as https://console.example (default: where it listens)")
	f.BoolVar(&o.insecure, "insecure-login", false, "allow sign-in over plain http from other machines, where the connection can be intercepted")
	f.StringVar(&o.gpus, "gpus", "auto", "GPUs to lend: auto (NVIDIA GPUs, else a simulated RTX PRO 6000), none, mock:2xH200, or mock:2xH200-MIG-3g.71gb for MIG instances")
	f.StringVar(&o.hardware, "hardware", gpu.AutoHardware, "GPU that torch shows outside of GPU functions: h200, rtx-pro-6000 (charges 1.5 x the seconds), or auto for this machine's")
	f.StringVar(&o.large, "large", "1", "share of a GPU for a call of size large: 1, 1/2 ... 1/8; xlarge gets a whole GPU")
	f.IntVar(&o.perSpace, "per-space", 0, "maximum calls of one Space that hold a GPU at a time (default 0: as many as there are GPUs)")
	f.StringVar(&o.python, "python", "", "Python interpreter with gradio and spaces, used as it is; builds no environment")
	addState(c, &o.state)
	f.StringArrayVar(&o.variables, "variable", nil, "Space Variable, NAME=VALUE; may be repeated")
	f.StringArrayVar(&o.secrets, "secret", nil, "Space Secret, NAME=VALUE, or NAME to take it from the environment; may be repeated")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "dotenv file whose values become Secrets, such as .env; --secret has precedence; may be repeated")
	f.BoolVar(&o.rebuild, "rebuild", false, "rebuild the environment from scratch (factory rebuild)")
	f.StringVar(&o.tier, "tier", "free", "tier of the local visitor: unauthenticated, free, pro ... or unlimited")
	f.StringVar(&o.quota, "quota", config.DefaultPreset, "preset of tiers: 2026-04, 2026-08 or 2026-10, with Hugging Face's numbers of that month, or a file with your own (docs/operator-guide.md)")
	f.DurationVar(&o.queueTimeout, "queue-timeout", 60*time.Second, "maximum wait of a call for a GPU")
	f.DurationVar(&o.warmFor, "warm", 5*time.Minute, "time that an idle worker keeps its GPU for the next call of its function; 0 ends it at once")
	f.StringVar(&o.admission, "admission", "native", "component that admits calls to the queue: native, the host where it can; space, always the Space's own Gradio (for comparison)")
	f.StringVar(&o.isolationFlags.Isolation, "isolation", "auto", "level of isolation of Spaces from this machine: none, files, namespaces, or auto for the highest that it offers (docs/isolation.md)")
	f.StringVar(&o.isolationFlags.Egress, "egress", "hub", "public addresses that Spaces reach: hub (ports 80, 443, 8080), none, or host names and :ports, such as pypi.org,*.hf.co or :443,:5432")
	f.StringArrayVar(&o.isolationFlags.Reach, "reach", nil, "private destination that Spaces reach in addition, IP:PORT, such as a database of this network; may be repeated")
	f.StringArrayVar(&o.isolationFlags.Mounts, "mount", nil, "file or folder of this machine that Spaces see at the same path, read-only; PATH:rw allows writes; may be repeated")
	f.StringVar(&o.isolationFlags.Data, "data", "", "folder that Spaces see at /data and that outlasts restarts: DIR, or true for one in the state folder (default: none)")
	f.StringArrayVar(&o.livenessFlags, "liveness", nil, "times of a Space that does not answer, KEY=VALUE: after=30s until it is UNRESPONSIVE, then restart_after=2m, or never; may be repeated")
	f.StringArrayVar(&o.isolationFlags.Limits, "limit", nil, "limit of each Space, KEY=VALUE: memory=8GiB, processes=2000, cpu=4, disk=50GiB, connections=256, output=1MB/s, upload_size=200MB, upload_keep=24h, log_size=80MiB; may be repeated")
	f.BoolVar(&o.byName, "by-name", false, "let Spaces reach each other as Client(\"owner/space\"): sets HF_ENDPOINT in them to this host, which has no models or files (docs/operator-guide.md)")
	f.BoolVar(&o.strict, "strict", false, "stop a Space that ZeroGPU would stop, instead of printing a warning (docs/operator-guide.md)")
	f.BoolVar(&o.watch, "watch", false, "restart the Space when its .py, .html, .css or .js files change, and rebuild its environment when its requirements do; after an error, wait for the next change")
	f.BoolVar(&o.bar, "bar", false, "add the bar that visitors of serve see to the Space's pages: account, GPU time left, place in the line")
	f.BoolVar(&o.readyJSON, "ready-json", false, "print one JSON line on stdout once the Space answers; everything else goes to stderr")
}

func addState(c *cobra.Command, state *string) {
	c.Flags().StringVar(state, "state", "", "folder for database, environments and logs (default $XDG_STATE_HOME/spacehost)")
}

// check finds mistakes before anything starts, and fills in parsed values.
func (o *options) check() error {
	for _, step := range []func() error{o.checkWords, o.checkVariables, o.readEnvFiles, o.checkQuota, o.checkGPUs, o.checkHosts, o.checkAddresses, o.findState, o.checkIsolation, o.checkLiveness} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checkWords checks the flags that take a word or a bounded number.
func (o *options) checkWords() error {
	switch {
	case o.queueTimeout < time.Second:
		return fmt.Errorf("--queue-timeout %s is below 1s", o.queueTimeout)
	case o.perSpace < 0:
		return fmt.Errorf("--per-space %d is below 0", o.perSpace)
	case o.warmFor < 0:
		return fmt.Errorf("--warm %s is below 0", o.warmFor)
	case o.admission != "native" && o.admission != "space":
		return fmt.Errorf("--admission %q is unknown; use native or space", o.admission)
	case o.identity != "direct" && o.identity != "hub":
		return fmt.Errorf("--identity %q is unknown; use direct or hub", o.identity)
	}
	return nil
}

func (o *options) checkVariables() error {
	for _, pair := range o.variables {
		name, _, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return fmt.Errorf("--variable %q is not NAME=VALUE", pair)
		}
		if err := config.CheckVariable(name); err != nil {
			return fmt.Errorf("--variable %.70q %w", name, err)
		}
		if note := config.VariableNote(name); note != "" {
			o.notes = append(o.notes, "--variable "+note)
		}
	}
	for _, pair := range o.secrets {
		name, _, ok := strings.Cut(pair, "=")
		if _, set := os.LookupEnv(name); name == "" || !ok && !set {
			return errors.New("--secret requires NAME=VALUE, or the name of a variable that is set here")
		}
		if err := config.CheckVariable(name); err != nil {
			return fmt.Errorf("--secret: the text before the = %w", err) // not shown: it may be the secret
		}
	}
	return nil
}

// readEnvFiles reads the Secrets of --env-file. Without the flag, a .env in the folder of a Space has no effect, which
// surprises its author.
func (o *options) readEnvFiles() error {
	o.fromFiles = map[string]string{}
	for _, path := range o.envFiles {
		values, err := config.ReadEnvFile(path)
		if err != nil {
			return fmt.Errorf("--env-file: %w", err)
		}
		maps.Copy(o.fromFiles, values)
	}
	if len(o.envFiles) > 0 {
		return nil
	}
	for _, dir := range o.dirs {
		if note := config.EnvFileNote(dir); note != "" {
			o.notes = append(o.notes, note)
		}
	}
	return nil
}

func (o *options) checkQuota() error { return config.CheckTiers(o.quota, o.tier) }

func (o *options) checkGPUs() (err error) {
	if err := gpu.CheckHardware(o.hardware); err != nil {
		return fmt.Errorf("--hardware: %w", err)
	}
	if err := config.CheckGPUs(o.gpus); err != nil {
		return fmt.Errorf("--gpus: %w", err)
	}
	if o.share, err = gpu.ParseShare(o.large); err != nil {
		return fmt.Errorf("--large: %w", err)
	}
	return nil
}

func (o *options) checkHosts() (err error) {
	for i, name := range o.hosts {
		if o.hosts[i], err = config.ParseHostName(name); err != nil {
			return fmt.Errorf("--host: %w", err)
		}
	}
	if err := new(config.Settings).SetConsoleURL(o.consoleURL); err != nil {
		return fmt.Errorf("--console-url: %w", err)
	}
	return nil
}

func (o *options) checkAddresses() error {
	o.addr, o.consoleAddr = config.Loopback(o.addr), config.Loopback(o.consoleAddr)
	if err := config.CheckAddress(o.addr); err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	if err := config.CheckAddress(o.consoleAddr); err != nil {
		return fmt.Errorf("--console-addr: %w", err)
	}
	for i, dir := range o.dirs {
		if addr := config.NextPort(o.addr, i); config.Collide(addr, o.consoleAddr) {
			return fmt.Errorf("the Space in %s would listen on %s, and the console on %s; choose another port with --addr or --console-addr", dir, addr, o.consoleAddr)
		}
	}
	return nil
}

func (o *options) findState() (err error) {
	o.state, err = config.StateFolder(o.state)
	return err
}

// checkIsolation parses the isolation flags. It follows findState, because no mount may show the state folder.
func (o *options) checkIsolation() (err error) {
	o.isolation, o.warnings, err = o.isolationFlags.Parse(o.state)
	return err
}

func (o *options) checkLiveness() (err error) {
	o.liveness, err = config.ParseLiveness(o.livenessFlags)
	return err
}

// settings returns the settings that the flags select. The first Space gets --addr, the others get the next ports.
func (o *options) settings() config.Settings {
	s := config.Settings{
		State: o.state, Console: config.Setting{Value: o.consoleAddr, Source: "--console-addr"},
		GPUs: config.Setting{Value: o.gpus, Source: "--gpus"}, Hardware: config.Setting{Value: o.hardware, Source: "--hardware"},
		Preset: config.Setting{Value: o.quota, Source: "--quota"}, LocalTier: config.Setting{Value: o.tier, Source: "--tier"}, AdvisoryRuns: !o.tierGiven,
		Share: o.share, PerSpace: o.perSpace, QueueTimeout: o.queueTimeout, WarmFor: o.warmFor, Keep: config.DefaultKeep,
		AdmitBySpace: o.admission == "space", ByName: o.byName, Hosts: o.hosts, Rebuild: o.rebuild, ReadyJSON: o.readyJSON, WatchSource: o.watch, Strict: o.strict,
		IdentityMode: o.identity, InsecureLogin: o.insecure,
	}
	_ = s.SetConsoleURL(o.consoleURL) // checkHosts has checked it
	variables, secrets := o.environment()
	for i, dir := range o.dirs {
		s.Spaces = append(s.Spaces, config.SpaceSettings{
			Dir: dir, Addr: config.Setting{Value: config.NextPort(o.addr, i), Source: "--addr"}, Visibility: config.Public,
			Python: o.python, Variables: variables, Secrets: secrets, Liveness: o.liveness, Bar: o.bar, IsolationSettings: o.isolation,
		})
	}
	return s
}

// environment returns the Variables and Secrets of the flags, after readEnvFiles.
func (o *options) environment() (variables, secrets map[string]string) {
	secrets = maps.Clone(o.fromFiles)
	maps.Copy(secrets, pairs(o.secrets))
	return pairs(o.variables), secrets
}

// pairs parses NAME=VALUE. A NAME alone takes its value from the environment.
func pairs(all []string) map[string]string {
	m := map[string]string{}
	for _, pair := range all {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			value = os.Getenv(name)
		}
		m[name] = value
	}
	return m
}

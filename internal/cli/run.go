package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/internal/config"
	"spacehost/internal/host"
)

// options are the flags of `spacehost run`.
type options struct {
	dirs         []string
	addr         string
	consoleAddr  string
	hosts        []string
	gpus         string
	hardware     string
	large        string
	share        gpu.Share // what large says
	perSpace     int
	python       string
	state        string
	tier         string
	quota        string
	variables    []string
	secrets      []string
	rebuild      bool
	readyJSON    bool
	queueTimeout time.Duration
	warmFor      time.Duration
	admission    string
	byName       bool
	identity     string
	consoleURL   string
	insecure     bool
}

func newRun() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "run [DIR...]",
		Short: "Start the Space in DIR (default: the current folder) and serve it until Ctrl-C",
		Long: `Start the Space in DIR and serve it until Ctrl-C. Further folders are further Spaces of the same host, at
the ports after the first one's; callers, quota and GPUs are common to all.

The README.md's front matter says what to install; the environment is made once and kept. GPU functions
(@spaces.GPU) get a GPU for at most the seconds that they declare, and the seconds are recorded against
the caller: you, on this machine, are a "free" user unless --tier says otherwise.

Exit codes, with the stage that the Hub would show: 1 the host could not run (state folder, address,
database, GPUs), 2 wrong usage, 3 the Space's README.md or app_file is wrong (CONFIG_ERROR,
NO_APP_FILE), 4 its environment could not be built (BUILD_ERROR), 5 its app ended before it
answered (RUNTIME_ERROR).`,
		Example: `  spacehost run                                     the Space in this folder
  spacehost run --gpus mock:2xH200 examples/hello-zerogpu
  spacehost run space-a space-b                     two Spaces, at :7860 and :7861
  spacehost run --tier pro --quota 2026-08 .        as a PRO user, by the numbers of August 2026
  spacehost run --addr :0 --ready-json . | jq -r .url   for scripts: any free port, one JSON line`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if o.dirs = args; len(args) == 0 {
				o.dirs = []string{"."}
			}
			if err := o.check(); err != nil {
				return &usageError{c, err}
			}
			return runHost(c, o.settings())
		},
	}
	o.flags(c)
	return c
}

// runHost is one Host from its start to its end.
func runHost(c *cobra.Command, s config.Settings) error {
	h, err := host.New(s, c.OutOrStdout(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Run(c.Context())
}

func (o *options) flags(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.addr, "addr", "127.0.0.1:7860", "address of the (first) Space; :0 takes any free port of this machine")
	f.StringVar(&o.consoleAddr, "console-addr", "127.0.0.1:7870", "address of the console and the quota API")
	f.StringArrayVar(&o.hosts, "host", nil, "a name by which visitors reach this host, beside localhost, addresses and its own; may be repeated")
	f.StringVar(&o.identity, "identity", "direct", "whom a browser's call counts for: direct, always whoever signed in; hub, only as on the Hub, to find what a custom frontend loses")
	f.StringVar(&o.consoleURL, "console-url", "", "where browsers find the console, if not where it listens (https://console.example)")
	f.BoolVar(&o.insecure, "insecure-login", false, "let people sign in over plain http from other machines, where others may listen")
	f.StringVar(&o.gpus, "gpus", "auto", "auto: NVIDIA GPUs, simulated ones if there are none; none; mock:2xH200; mock:2xH200-MIG-3g.71gb for MIG instances")
	f.StringVar(&o.hardware, "hardware", config.AutoHardware, "the GPU that torch shows outside of GPU functions: h200, rtx-pro-6000 (it asks for 1.5 x the seconds), auto: this machine's")
	f.StringVar(&o.large, "large", "1", "share of a GPU that a call of size large gets: 1, 1/2 ... 1/8; xlarge gets a whole one")
	f.IntVar(&o.perSpace, "per-space", 0, "how many calls of one Space may have a GPU at once; 0: as many as there are GPUs")
	f.StringVar(&o.python, "python", "", "use this interpreter as it is (with gradio and spaces in it), build nothing")
	addState(c, &o.state)
	f.StringArrayVar(&o.variables, "variable", nil, "a Space Variable, NAME=VALUE; may be repeated")
	f.StringArrayVar(&o.secrets, "secret", nil, "a Space Secret, NAME=VALUE, or NAME to take it from the environment; may be repeated")
	f.BoolVar(&o.rebuild, "rebuild", false, "make the environment anew (factory rebuild)")
	f.StringVar(&o.tier, "tier", "free", "the local visitor's tier: unauthenticated, free, pro ... or unlimited")
	f.StringVar(&o.quota, "quota", "2026-04", "the tiers: 2026-04 or 2026-08, as Hugging Face had them then, or a file with your own (docs/operator-guide.md)")
	f.DurationVar(&o.queueTimeout, "queue-timeout", 60*time.Second, "how long a call waits for a GPU")
	f.DurationVar(&o.warmFor, "warm", 5*time.Minute, "how long an idle worker stays on its GPU for the next call of its function; 0 ends it at once")
	f.StringVar(&o.admission, "admission", "native", "who admits a call to the queue: native, the host where it can; space, always the Space's own Gradio (to compare)")
	f.BoolVar(&o.byName, "by-name", false, "Spaces reach each other as Client(\"owner/space\"): HF_ENDPOINT in them is this host, which has no models or files (docs/operator-guide.md)")
	f.BoolVar(&o.readyJSON, "ready-json", false, "print one JSON line on stdout once the Space answers; all else goes to stderr")
}

func addState(c *cobra.Command, state *string) {
	c.Flags().StringVar(state, "state", "", "folder for database, environments, logs (default $XDG_STATE_HOME/spacehost)")
}

// check finds mistakes before anything is started, and fills in defaults.
func (o *options) check() (err error) {
	if o.queueTimeout < time.Second {
		return fmt.Errorf("--queue-timeout %s is below 1s", o.queueTimeout)
	}
	if err := config.CheckHardware(o.hardware); err != nil {
		return fmt.Errorf("--hardware: %w", err)
	}
	if o.perSpace < 0 {
		return fmt.Errorf("--per-space %d is below 0", o.perSpace)
	}
	if o.warmFor < 0 {
		return fmt.Errorf("--warm %s is below 0", o.warmFor)
	}
	if o.admission != "native" && o.admission != "space" {
		return fmt.Errorf("--admission %q: say native or space", o.admission)
	}
	if o.identity != "direct" && o.identity != "hub" {
		return fmt.Errorf("--identity %q: say direct or hub", o.identity)
	}
	if o.consoleURL != "" {
		if o.consoleURL, err = config.ParseOrigin(o.consoleURL); err != nil {
			return fmt.Errorf("--console-url: %w", err)
		}
	}
	for _, pair := range o.variables {
		name, _, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return fmt.Errorf("--variable %q is not NAME=VALUE", pair)
		}
		if err := config.CheckVariable(name); err != nil {
			return fmt.Errorf("--variable %.70q %w", name, err)
		}
	}
	for _, pair := range o.secrets {
		name, _, ok := strings.Cut(pair, "=")
		if _, set := os.LookupEnv(name); name == "" || !ok && !set {
			return fmt.Errorf("--secret: give NAME=VALUE, or the name of a variable that is set here")
		}
		if err := config.CheckVariable(name); err != nil {
			return fmt.Errorf("--secret: what stands before the = %w", err) // and is not shown: it may be the secret
		}
	}
	if err := config.CheckTiers(o.quota, o.tier); err != nil {
		return err
	}
	if err := config.CheckGPUs(o.gpus); err != nil {
		return fmt.Errorf("--gpus: %w", err)
	}
	if o.share, err = gpu.ParseShare(o.large); err != nil {
		return fmt.Errorf("--large: %w", err)
	}
	for i, host := range o.hosts {
		if o.hosts[i], err = config.ParseHostName(host); err != nil {
			return fmt.Errorf("--host: %w", err)
		}
	}
	if err := o.checkAddresses(); err != nil {
		return err
	}
	o.state, err = config.StateFolder(o.state)
	return err
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
			return fmt.Errorf("the Space in %s would be at %s, and the console at %s: give one of them another port with --addr or --console-addr", dir, addr, o.consoleAddr)
		}
	}
	return nil
}

// settings are those that the flags ask for: the first Space gets --addr, the others the ports after it.
func (o *options) settings() config.Settings {
	s := config.Settings{
		State: o.state, Console: config.Setting{Value: o.consoleAddr, Source: "--console-addr"}, GPUs: config.Setting{Value: o.gpus, Source: "--gpus"}, Hardware: config.Setting{Value: o.hardware, Source: "--hardware"},
		Preset: config.Setting{Value: o.quota, Source: "--quota"}, LocalTier: config.Setting{Value: o.tier, Source: "--tier"}, QueueTimeout: o.queueTimeout,
		Share: o.share, PerSpace: o.perSpace, AdmitBySpace: o.admission == "space", ByName: o.byName, WarmFor: o.warmFor, Keep: config.DefaultKeep, Hosts: o.hosts, Rebuild: o.rebuild, ReadyJSON: o.readyJSON,
		IdentityMode: o.identity, ConsoleURL: o.consoleURL, InsecureLogin: o.insecure,
	}
	variables, secrets := pairs(o.variables), pairs(o.secrets)
	for i, dir := range o.dirs {
		s.Spaces = append(s.Spaces, config.SpaceSettings{
			Dir: dir, Addr: config.Setting{Value: config.NextPort(o.addr, i), Source: "--addr"}, Visibility: config.Public,
			Python: o.python, Variables: variables, Secrets: secrets,
		})
	}
	return s
}

// pairs are NAME=VALUE; a NAME alone is taken from the environment.
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

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
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
func runHost(c *cobra.Command, s settings) error {
	host, err := newHost(s, c.OutOrStdout(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer host.Close()
	return host.Run(c.Context())
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
	f.StringVar(&o.hardware, "hardware", autoHardware, "the GPU that torch shows outside of GPU functions: h200, rtx-pro-6000 (it asks for 1.5 x the seconds), auto: this machine's")
	f.StringVar(&o.large, "large", "1", "share of a GPU that a call of size large gets: 1, 1/2 ... 1/8; xlarge gets a whole one")
	f.IntVar(&o.perSpace, "per-space", 0, "how many calls of one Space may have a GPU at once; 0: as many as there are GPUs")
	f.StringVar(&o.python, "python", "", "use this interpreter as it is (with gradio and spaces in it), build nothing")
	addState(c, &o.state)
	f.StringArrayVar(&o.variables, "variable", nil, "a Space Variable, NAME=VALUE; may be repeated")
	f.StringArrayVar(&o.secrets, "secret", nil, "a Space Secret, NAME=VALUE, or NAME to take it from the environment; may be repeated")
	f.BoolVar(&o.rebuild, "rebuild", false, "make the environment anew (factory rebuild)")
	f.StringVar(&o.tier, "tier", "free", "the local visitor's tier: unauthenticated, free, pro ... or unlimited")
	f.StringVar(&o.quota, "quota", "2026-04", "the tiers: 2026-04 or 2026-08, as Hugging Face had them then, or a file with your own (docs/quota.md)")
	f.DurationVar(&o.queueTimeout, "queue-timeout", 60*time.Second, "how long a call waits for a GPU")
	f.DurationVar(&o.warmFor, "warm", 5*time.Minute, "how long an idle worker stays on its GPU for the next call of its function; 0 ends it at once")
	f.StringVar(&o.admission, "admission", "native", "who admits a call to the queue: native, the host where it can; space, always the Space's own Gradio (to compare)")
	f.BoolVar(&o.byName, "by-name", false, "Spaces reach each other as Client(\"owner/space\"): HF_ENDPOINT in them is this host, which has no models or files (docs/by-name.md)")
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
	if err := checkHardware(o.hardware); err != nil {
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
		if o.consoleURL, err = originOf(o.consoleURL); err != nil {
			return fmt.Errorf("--console-url: %w", err)
		}
	}
	for _, pair := range o.variables {
		name, _, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return fmt.Errorf("--variable %q is not NAME=VALUE", pair)
		}
		if err := checkVariable(name); err != nil {
			return fmt.Errorf("--variable %.70q %w", name, err)
		}
	}
	for _, pair := range o.secrets {
		name, _, ok := strings.Cut(pair, "=")
		if _, set := os.LookupEnv(name); name == "" || !ok && !set {
			return fmt.Errorf("--secret: give NAME=VALUE, or the name of a variable that is set here")
		}
		if err := checkVariable(name); err != nil {
			return fmt.Errorf("--secret: what stands before the = %w", err) // and is not shown: it may be the secret
		}
	}
	if err := checkQuota(o.quota, o.tier); err != nil {
		return err
	}
	if err := checkGPUs(o.gpus); err != nil {
		return fmt.Errorf("--gpus: %w", err)
	}
	if o.share, err = gpu.ParseShare(o.large); err != nil {
		return fmt.Errorf("--large: %w", err)
	}
	for i, host := range o.hosts {
		if o.hosts[i], err = hostOf(host); err != nil {
			return fmt.Errorf("--host: %w", err)
		}
	}
	if err := o.checkAddresses(); err != nil {
		return err
	}
	o.state, err = stateFolder(o.state)
	return err
}

func (o *options) checkAddresses() error {
	o.addr, o.consoleAddr = loopback(o.addr), loopback(o.consoleAddr)
	if err := checkAddress(o.addr); err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	if err := checkAddress(o.consoleAddr); err != nil {
		return fmt.Errorf("--console-addr: %w", err)
	}
	for i, dir := range o.dirs {
		if addr := nextPort(o.addr, i); collide(addr, o.consoleAddr) {
			return fmt.Errorf("the Space in %s would be at %s, and the console at %s: give one of them another port with --addr or --console-addr", dir, addr, o.consoleAddr)
		}
	}
	return nil
}

// loopback makes :0 mean this machine alone; who wants to be reached from outside says 0.0.0.0:7860.
func loopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

// checkAddress refuses what nobody can listen on.
func checkAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%.60q is not an address such as 127.0.0.1:7860", text)
	}
	return nil
}

// collide reports whether only one can listen on both. Port 0 is another one each time; who listens on all of this
// machine's addresses, listens on each.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	numberA, badA := strconv.Atoi(portA)
	numberB, badB := strconv.Atoi(portB)
	if errors.Join(errA, errB, badA, badB) != nil || numberA != numberB || numberA == 0 {
		return false
	}
	one, other := listened(hostA), listened(hostB)
	return one == other || isEverywhere(one) || isEverywhere(other)
}

// listened is a host as addresses are compared: a name but localhost is not looked up.
func listened(host string) string {
	if host = strings.ToLower(host); host == "localhost" {
		return "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func isEverywhere(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// checkGPUs refuses what openInventory would, but for GPUs that there are not.
func checkGPUs(text string) error {
	kind, machine, simulated := strings.Cut(text, ":")
	switch {
	case text == "auto", text == "none":
		return nil
	case kind == "mock" && simulated:
		inventory, err := nvml.Simulated(machine)
		if err == nil {
			_ = inventory.Close() // it was opened to be checked
		}
		return err
	}
	return fmt.Errorf("%.40q is not known here: say auto, none, or mock:2xH200", text)
}

// settings are those that the flags ask for: the first Space gets --addr, the others the ports after it.
func (o *options) settings() settings {
	s := settings{
		state: o.state, console: setting{o.consoleAddr, "--console-addr"}, gpus: setting{o.gpus, "--gpus"}, hardware: setting{o.hardware, "--hardware"},
		preset: setting{o.quota, "--quota"}, localTier: setting{o.tier, "--tier"}, queueTimeout: o.queueTimeout,
		share: o.share, perSpace: o.perSpace, bySpace: o.admission == "space", byName: o.byName, warmFor: o.warmFor, keep: usualKeep, hosts: o.hosts, rebuild: o.rebuild, readyJSON: o.readyJSON,
		mode: o.identity, consoleURL: o.consoleURL, insecureLogin: o.insecure,
	}
	variables, secrets := pairs(o.variables), pairs(o.secrets)
	for i, dir := range o.dirs {
		s.spaces = append(s.spaces, spaceSettings{
			dir: dir, addr: setting{nextPort(o.addr, i), "--addr"}, visibility: public,
			python: o.python, variables: variables, secrets: secrets,
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

var hostRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// hostOf is a host name as it is compared. An address needs no permission, and a port is none of a name's.
func hostOf(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > 253 || !hostRule.MatchString(name) || net.ParseIP(name) != nil {
		return "", fmt.Errorf("%.100q is not a host name such as demo.lab.example (no scheme, no port, no address)", text)
	}
	return name, nil
}

// originOf is where a browser finds something: scheme, name and port.
func originOf(text string) (string, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", fmt.Errorf("%.100q is not an address such as https://console.lab.example (no path)", text)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// stateFolder is the given folder, or the user's (XDG Base Directory Specification).
func stateFolder(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no home folder for the state: give --state DIR: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "spacehost"), nil
}

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// serveOptions are the flags of `spacehost serve`.
type serveOptions struct {
	config    string
	state     string
	check     bool
	watch     bool
	asJSON    bool
	rebuild   bool
	readyJSON bool
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve the Spaces of a configuration file to several people, until Ctrl-C",
		Long: `Serve the Spaces of a configuration file to several people, until Ctrl-C. The YAML file lists the Spaces with their
addresses and visibility, the people with their tiers and tokens, and the trusted reverse proxies.
docs/operator-guide.md explains each key; start from examples/lab.yaml.

A call without a person's token is charged to its address, at tier "unauthenticated"; a call from this machine is
charged to the account "local", at the same tier. All mistakes of the file are printed at once, as
FILE:LINE: KEY: MISTAKE, before anything starts. "spacehost reload", SIGHUP and --watch-config apply a change of the
file while the host runs, or refuse it as a whole.

A Space that cannot be read, built or started does not affect the others. Its address answers 503 with the reason, which
"spacehost space list" shows too. The host retries it; "spacehost space restart NAME" retries it at once.

With --check the host does not start. The file is checked, and so are the README.md of its Spaces, the state folder with its
database, all addresses, and each interpreter of a key "python". Addresses of a host that runs on the state folder are right.

Exit codes: 1 the host could not run (state folder, address, database, GPUs, people), 2 wrong usage,
3 with --check, a Space's README.md or app_file is wrong, 6 the configuration file is wrong.`,
		Example: `  spacehost serve --config lab.yaml
  spacehost serve --config lab.yaml --check         only check the file
  spacehost serve --config lab.yaml --watch-config  apply each change of the file
  spacehost token hash --new                        create a token and its line for the file`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.config, "config", "", "path of the configuration file")
	f.BoolVar(&o.check, "check", false, "check the file, the README.md of its Spaces, and what they need of this machine; start nothing")
	f.BoolVar(&o.asJSON, "json", false, "with --check: print the findings as JSON")
	f.BoolVar(&o.watch, "watch-config", false, "apply the file again when it changes, or a file that it names")
	f.StringVar(&o.state, "state", "", "folder for database, environments and logs; overrides the file's")
	f.BoolVar(&o.rebuild, "rebuild", false, "rebuild the environments from scratch (factory rebuild)")
	f.BoolVar(&o.readyJSON, "ready-json", false, "print one JSON line on stdout once every Space answers or has failed; everything else goes to stderr")
	return c
}

func (o *serveOptions) run(c *cobra.Command) error {
	switch {
	case o.config == "":
		return usage.Wrap(c, errors.New("--config FILE is required"))
	case o.asJSON && !o.check:
		return usage.Wrap(c, errors.New("--json requires --check"))
	case o.check:
		return o.onlyCheck(c)
	}
	state, err := o.stateFlag(c)
	if err != nil {
		return err
	}
	s, warnings, err := config.Load(o.config, state)
	printWarnings(c, warnings)
	if err != nil {
		return err
	}
	if s.State == "" {
		if s.State, err = config.StateFolder(""); err != nil {
			return usage.Wrap(c, err)
		}
	}
	s.Rebuild, s.ReadyJSON, s.WatchConfig = o.rebuild, o.readyJSON, o.watch
	return runHost(c, s)
}

// stateFlag returns the absolute path of --state, "" if it is not given.
func (o *serveOptions) stateFlag(c *cobra.Command) (state string, err error) {
	if o.state == "" {
		return "", nil
	}
	if state, err = config.StateFolder(o.state); err != nil {
		err = usage.Wrap(c, err)
	}
	return state, err
}

func printWarnings(c *cobra.Command, warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", warning)
	}
}

// checked is the answer of --check --json.
type checked struct {
	OK       bool             `json:"ok"`
	File     string           `json:"file"`
	Digest   string           `json:"digest"` // of the configuration, as a host's log shows it; empty after a mistake
	Spaces   []string         `json:"spaces"`
	People   []string         `json:"people"`
	Warnings []string         `json:"warnings"`
	Problems []config.Problem `json:"problems"`
	Machine  []string         `json:"machine"`         // what a start on this machine would fail with
	Error    string           `json:"error,omitempty"` // in the README.md of a Space
}

// onlyCheck reports what a start would refuse, as far as it can be found without one.
func (o *serveOptions) onlyCheck(c *cobra.Command) error {
	state, err := o.stateFlag(c)
	if err != nil {
		return err
	}
	file, err := config.Check(o.config, state)
	if err == nil && file.Settings.State == "" {
		file.Settings.State, err = config.StateFolder("")
	}
	if err == nil {
		err = host.Preflight(c.Context(), file)
	}
	found := checked{File: o.config, Spaces: []string{}, People: []string{}, Warnings: append([]string{}, file.Warnings...), Problems: []config.Problem{}, Machine: []string{}}
	for _, one := range file.Spaces {
		found.Spaces = append(found.Spaces, one.Name)
	}
	for _, p := range file.Settings.People {
		found.People = append(found.People, p.Name)
	}
	if found.OK = err == nil; found.OK {
		found.Digest, err = digestOf(file.Settings)
	}
	if o.asJSON {
		return o.print(c, found, err)
	}
	printWarnings(c, found.Warnings)
	if err != nil {
		return err
	}
	return printf(c, "%s is valid: %d Spaces (%s), %d people, configuration %s.", o.config, len(found.Spaces), strings.Join(found.Spaces, ", "), len(found.People), found.Digest)
}

// digestOf returns the digest that a host with these settings has.
func digestOf(s config.Settings) (string, error) {
	var err error
	if s.State == "" {
		if s.State, err = config.StateFolder(""); err != nil {
			return "", err
		}
	}
	tiers, err := s.Tiers()
	return config.Digest(s, tiers), err
}

// print prints the findings as JSON. Run prints the error itself on stderr.
func (o *serveOptions) print(c *cobra.Command, found checked, err error) error {
	if wrong, ok := errors.AsType[*config.FileError](err); ok {
		found.Problems = wrong.Problems
	} else if machine, ok := errors.AsType[*host.MachineError](err); ok {
		found.Machine = machine.Problems
	} else if err != nil {
		found.Error = err.Error()
	}
	text, _ := json.MarshalIndent(found, "", "  ") // plain strings
	if printErr := printf(c, "%s", text); printErr != nil {
		return printErr
	}
	return err
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/config"
	"spacehost/internal/doctor"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// doctorOptions are the flags of `spacehost doctor`.
type doctorOptions struct {
	state, config    string
	asJSON, apparmor bool
}

func newDoctor() *cobra.Command {
	var o doctorOptions
	c := &cobra.Command{
		Use: "doctor", Short: "Check this machine: what is missing, what that means, and what to do",
		Long: `Check this machine for what spacehost uses: NVIDIA driver, devices and their permissions, Python and uv, cgroups, the
levels of isolation of Spaces, limits on files, processes and memory, proxies and tokens in the environment, disks,
containers, ports. Each level of isolation is tried in a process of its own. No host needs to run. The command installs
and changes nothing.

Each line has one of four levels; the next step follows below it, after an arrow:

  ✓ ok        as it should be
  · note      worth knowing; everything works
  ! warning   works, but something will be worse than expected
  ✗ problem   something does not work until it is fixed

The check takes a few seconds; a driver that does not answer times out after 35 s.

Exit codes: 0 no problem, 1 at least one problem, 2 wrong usage, 6 the file of --config is wrong.`,
		Example: `  spacehost doctor
  spacehost doctor --config lab.yaml            also whether this machine offers the isolation that the file demands
  spacehost doctor --state /srv/spacehost       with the state folder that "run" will use
  spacehost doctor --json | jq -r '.[] | select(.level == "problem") | .do'
  spacehost doctor --apparmor | sudo tee /etc/apparmor.d/spacehost && sudo systemctl reload apparmor`,
		Args: usage.Args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	c.Flags().BoolVar(&o.asJSON, "json", false, "print the findings as JSON: a list of {check, level, text, do}")
	c.Flags().BoolVar(&o.apparmor, "apparmor", false, "print an AppArmor profile that gives this program user namespaces, and check nothing")
	c.Flags().StringVar(&o.config, "config", "", "path of a configuration file of \"serve\", whose state folder, addresses and isolation are checked")
	addState(c, &o.state)
	return c
}

func (o doctorOptions) run(c *cobra.Command) error {
	if o.apparmor {
		if o.asJSON || o.config != "" {
			return usage.Wrap(c, errors.New("--apparmor prints a profile only; remove --json and --config"))
		}
		return printProfile(c)
	}
	what, err := o.target()
	if err != nil {
		return err
	}
	found := doctor.Run(c.Context(), doctor.Checks(what))
	if err := context.Cause(c.Context()); err != nil { // Ctrl-C: not every check has run
		return fmt.Errorf("check this machine: %w", err)
	}
	if err := showFindings(c.OutOrStdout(), found, o.asJSON); err != nil {
		return err
	}
	return verdict(found)
}

// target describes what a host with this file, or `spacehost run`, would use.
func (o doctorOptions) target() (doctor.Config, error) {
	what := doctor.Config{Addresses: defaultAddresses(), SpacesAreRoot: config.Settings{}.SpacesAreRoot(), GPUs: readGPUs}
	state := o.state
	if o.config != "" {
		if state != "" {
			var err error
			if state, err = config.StateFolder(state); err != nil {
				return what, err
			}
		}
		s, _, err := config.Load(o.config, state)
		if err != nil {
			return what, err
		}
		state, what.Addresses, what.Demands = s.State, addressesOf(s), host.DemandsOf(s)
	}
	var err error
	what.State, err = config.StateFolder(state)
	what.Environments, what.UV = host.EnvironmentsIn(what.State), host.PackagedUV()
	return what, err
}

// addressesOf lists the addresses on which a host with these settings listens.
func addressesOf(s config.Settings) []string {
	all := []string{s.Console.Value}
	for _, one := range s.Spaces {
		all = append(all, cmp.Or(one.Addr.Value, s.Address.Value))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// printProfile prints the AppArmor profile of this program. A warning goes to stderr, because stdout is the profile.
func printProfile(c *cobra.Command) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the path of this program: %w", err)
	}
	profile, err := doctor.AppArmorProfile(program)
	if err != nil {
		return err
	}
	if strings.HasPrefix(program, filepath.Join(os.TempDir(), "go-build")) {
		fmt.Fprintf(c.ErrOrStderr(), "warning: `go run` deletes %s when it ends; build spacehost first: go build -o spacehost ./cmd/spacehost\n", program)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), profile)
	return err
}

// defaultAddresses are the addresses of `spacehost run` without flags.
func defaultAddresses() []string {
	flags := newRun().Flags()
	return []string{flags.Lookup("addr").DefValue, flags.Lookup("console-addr").DefValue}
}

func readGPUs(ctx context.Context) ([]gpu.DeviceStatus, error) {
	inventory, err := nvml.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = inventory.Close() }() // fails only if a Device hangs, which its row shows
	pool, err := gpu.NewPool(ctx, inventory, 1)
	if err != nil {
		return nil, err
	}
	return pool.Status(ctx), nil
}

func showFindings(out io.Writer, found []doctor.Finding, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	for _, f := range found {
		showFinding(out, f)
	}
	_, err := fmt.Fprintf(out, "\n%d ok, %s, %s, %s\n", count(found, doctor.OK),
		plural(count(found, doctor.Note), "note"), plural(count(found, doctor.Warning), "warning"), plural(count(found, doctor.Problem), "problem"))
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

var signs = map[doctor.Level]string{doctor.OK: "✓", doctor.Note: "·", doctor.Warning: "!", doctor.Problem: "✗"}

// showFinding prints one row. Its last column is wrapped, because the sentences are long.
func showFinding(out io.Writer, f doctor.Finding) {
	head := fmt.Sprintf("%s %-7s  %-11s  ", signs[f.Level], f.Level, f.Check)
	margin := strings.Repeat(" ", len([]rune(head)))
	for _, line := range wrap(f.Text) {
		fmt.Fprintln(out, head+line)
		head = margin
	}
	arrow := "→ "
	for _, line := range wrap(f.Do) {
		fmt.Fprintln(out, margin+arrow+line)
		arrow = "  "
	}
}

const textWidth = 90

// wrap breaks text at spaces. A word longer than a line, such as a path, stays whole.
func wrap(text string) (lines []string) {
	for _, word := range strings.Fields(text) {
		last := len(lines) - 1
		if last >= 0 && len([]rune(lines[last]))+1+len([]rune(word)) <= textWidth {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

func count(found []doctor.Finding, level doctor.Level) (n int) {
	for _, f := range found {
		if f.Level == level {
			n++
		}
	}
	return n
}

// verdict returns an error if there is a problem, for the exit code.
func verdict(found []doctor.Finding) error {
	at := slices.IndexFunc(found, func(f doctor.Finding) bool { return f.Level == doctor.Problem })
	if at < 0 {
		return nil
	}
	if n := count(found, doctor.Problem); n > 1 {
		return fmt.Errorf("%d problems were found on this machine, see above", n)
	}
	return fmt.Errorf("a problem was found on this machine (%s), see above", found[at].Check)
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/check"
	"spacehost/internal/config"
	"spacehost/internal/host"
)

func newDoctor() *cobra.Command {
	var folder string
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check this machine: what is missing, what that means, and what to do",
		Long: `Check this machine for what spacehost uses: NVIDIA driver, devices and their permissions, Python and uv, cgroups and
the limits that they can enforce on a Space, limits on files, processes and memory, proxies and tokens in the
environment, disks, containers, ports. No host needs to run. The command installs and changes nothing.

Each line has one of four levels; the next step follows below it, after an arrow:

  ✓ ok        as it should be
  · note      worth knowing; everything works
  ! warning   works, but something will be worse than expected
  ✗ problem   something does not work until it is fixed

The check takes a few seconds; a driver that does not answer times out after 35 s.

Exit codes: 0 no problem, 1 at least one problem, 2 wrong usage.`,
		Example: `  spacehost doctor
  spacehost doctor --state /srv/spacehost       with the state folder that "run" will use
  spacehost doctor --json | jq -r '.[] | select(.level == "problem") | .do'`,
		Args: usage(cobra.NoArgs),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON: a list of {check, level, text, do}")
	addState(c, &folder)
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := config.StateFolder(folder)
		if err != nil {
			return err
		}
		found := check.Run(c.Context(), check.Checks(check.Config{
			State: dir, Environments: host.EnvironmentsIn(dir), Addresses: defaultAddresses(), SpacesAreRoot: config.Settings{}.SpacesAreRoot(), GPUs: readGPUs,
		}))
		if err := context.Cause(c.Context()); err != nil { // Ctrl-C: not every check has run
			return fmt.Errorf("check this machine: %w", err)
		}
		if err := showFindings(c.OutOrStdout(), found, asJSON); err != nil {
			return err
		}
		return verdict(found)
	}
	return c
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

func showFindings(out io.Writer, found []check.Finding, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	for _, f := range found {
		showFinding(out, f)
	}
	_, err := fmt.Fprintf(out, "\n%d ok, %s, %s, %s\n", count(found, check.OK),
		plural(count(found, check.Note), "note"), plural(count(found, check.Warning), "warning"), plural(count(found, check.Problem), "problem"))
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

var signs = map[check.Level]string{check.OK: "✓", check.Note: "·", check.Warning: "!", check.Problem: "✗"}

// showFinding prints one row. Its last column is wrapped, because the sentences are long.
func showFinding(out io.Writer, f check.Finding) {
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

func count(found []check.Finding, level check.Level) (n int) {
	for _, f := range found {
		if f.Level == level {
			n++
		}
	}
	return n
}

// verdict returns an error if there is a problem, for the exit code.
func verdict(found []check.Finding) error {
	at := slices.IndexFunc(found, func(f check.Finding) bool { return f.Level == check.Problem })
	if at < 0 {
		return nil
	}
	if n := count(found, check.Problem); n > 1 {
		return fmt.Errorf("%d problems were found on this machine, see above", n)
	}
	return fmt.Errorf("a problem was found on this machine (%s), see above", found[at].Check)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/control"
	"spacehost/internal/lease"
)

// ask gets the JSON of path from the host that runs on the state folder.
func ask(ctx context.Context, state, path string) ([]byte, error) {
	return exchange(ctx, state, http.MethodGet, path, nil)
}

// exchange is one request to the host that runs on the state folder. Errors: *refusedError, or no answer.
func exchange(ctx context.Context, state, method, path string, order io.Reader) ([]byte, error) {
	client := controlClient(state)
	client.Timeout = 30 * time.Second
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://spacehost"+path, order)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return nil, unanswered(state, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the host on %s: %w", state, err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return nil, &refusedError{state, answer.StatusCode, body}
	}
	return body, nil
}

// controlClient speaks to the socket of the host that runs on the state folder.
func controlClient(state string) *http.Client {
	socket := filepath.Join(state, "control.sock")
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// unanswered says what to do where no host answers.
func unanswered(state string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no spacehost runs on the state folder %s: start one with `spacehost run`, or name its folder with --state", state)
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("the state folder %s belongs to %s, and so does the host on it: run this as that user, or name a folder of your own with --state", state, ownerOf(state))
	}
	return fmt.Errorf("ask the host on %s: %w", state, err)
}

// ownerOf names whose a folder is, as far as that can be seen.
func ownerOf(folder string) string {
	info, err := os.Stat(folder)
	if err != nil {
		return "another user"
	}
	return userName(info.Sys().(*syscall.Stat_t).Uid)
}

// refusedError is a host that answered, and not what was wanted.
type refusedError struct {
	state  string
	status int
	body   []byte
}

// Error is the host's own sentence where it has one for people. A host that fails has told its log.
func (e *refusedError) Error() string {
	var said struct{ Detail string }
	if json.Unmarshal(e.body, &said) != nil || said.Detail == "" || e.status >= http.StatusInternalServerError {
		return fmt.Sprintf("the host on %s answered %d %s: see %s", e.state, e.status, http.StatusText(e.status), filepath.Join(e.state, "logs", "spacehost.log"))
	}
	return said.Detail
}

// question is a subcommand that shows what a running host answers.
type question[T any] struct {
	use, short, long, example string
	path                      func(args []string, limit int) string
	limit                     int // usual number of rows; 0: the command has no --limit
	args                      cobra.PositionalArgs
	table                     func(w io.Writer, answer T, args []string)
	watch                     func(ctx context.Context, state string, asJSON bool, out io.Writer) error // nil: the command has no --watch
}

func (q question[T]) command() *cobra.Command {
	var state string
	var asJSON bool
	limit := q.limit
	c := &cobra.Command{Use: q.use, Short: q.short, Long: q.long, Example: q.example, Args: usage(q.args)}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	if q.limit > 0 {
		c.Flags().IntVar(&limit, "limit", q.limit, "how many past rows to show")
	}
	watch := false
	if q.watch != nil {
		c.Flags().BoolVar(&watch, "watch", false, "go on printing each change, until Ctrl-C")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if q.limit > 0 && limit < 1 {
			return &usageError{c, fmt.Errorf("--limit %d is below 1", limit)}
		}
		dir, err := stateFolder(state)
		if err != nil {
			return err
		}
		if watch {
			return q.watch(c.Context(), dir, asJSON, c.OutOrStdout())
		}
		body, err := ask(c.Context(), dir, q.path(args, limit))
		if err != nil {
			return err
		}
		if asJSON {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", trimNewline(body))
			return err
		}
		return q.show(c.OutOrStdout(), body, args)
	}
	return c
}

// usage makes a wrong number of arguments a usage error, with its exit code.
func usage(args cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := args(c, given); err != nil {
			return &usageError{c, err}
		}
		return nil
	}
}

func trimNewline(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}

func (q question[T]) show(out io.Writer, body []byte, args []string) error {
	var answer T
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the host's answer is not understood (another version?): %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	q.table(w, answer, args)
	return w.Flush()
}

func newGPU() *cobra.Command {
	return question[[]control.GPU]{
		use: "gpu", short: "List the GPUs of a running host, and who is on them",
		long:    "List the GPUs of the host that runs on the state folder: memory, processes, and what each Slot is doing.",
		example: "  spacehost gpu\n  spacehost gpu --json | jq '.[].processes'",
		path:    func([]string, int) string { return control.ListGPUs.Path }, args: cobra.NoArgs,
		table: func(w io.Writer, gpus []control.GPU, _ []string) {
			fmt.Fprintln(w, "SLOT\tNAME\tUUID\tMEMORY\tPROCESSES\tSTATE")
			for _, g := range gpus {
				row := fmt.Sprintf("%s\t%s\t%d/%d MiB\t%d", label(g), g.UUID, g.MemoryUsed>>20, g.MemoryTotal>>20, len(g.Processes))
				if len(g.Slots) == 0 {
					fmt.Fprintf(w, "-\t%s\t%s\n", row, troubles(g, g.Error))
				}
				for _, slot := range g.Slots {
					fmt.Fprintf(w, "%d\t%s\t%s\n", slot.Slot, row, gpuState(g, slot))
				}
			}
		},
	}.command()
}

func label(g control.GPU) string {
	if g.Simulated {
		return g.Name + " (simulated)"
	}
	return g.Name
}

// gpuState is what the Slot does, what is wrong with the Device, and whether somebody wished it so.
func gpuState(g control.GPU, slot lease.SlotView) string {
	state := slotState(slot)
	if g.Drained != nil && slot.Phase != "drained" {
		state += ", then drained: " + g.Drained.Reason
	}
	if g.Error != "" && slot.Reason != g.Error {
		state += ", and " + g.Error
	}
	return troubles(g, state)
}

func troubles(g control.GPU, state string) string {
	for _, u := range g.Uninvited {
		state += fmt.Sprintf(" [uninvited: pid %d, %s]", u.PID, whose(u))
	}
	var given []string
	for _, f := range g.Faults {
		given = append(given, f.String())
	}
	if len(given) > 0 {
		state += fmt.Sprintf(" [simulated fault: %s]", strings.Join(given, ", "))
	}
	return state
}

func whose(u lease.Uninvited) string {
	if u.Space == "" {
		return "no Space's"
	}
	return "Space " + u.Space
}

func slotState(s lease.SlotView) string {
	switch {
	case s.Worker != 0:
		return fmt.Sprintf("%s for %s (worker %d)", s.Phase, s.Space, s.Worker)
	case s.Lease != "":
		return fmt.Sprintf("%s by %s (lease %s)", s.Phase, s.Space, s.Lease)
	case s.Reason != "":
		return s.Phase + ": " + s.Reason
	}
	return s.Phase
}

func newLease() *cobra.Command {
	return question[control.Leases]{
		use: "lease", short: "List who waits for a GPU, who holds one until when, and what ended last",
		long: `List the open leases of the running host, then those that ended last with what they were charged. Of each that
waits: its number in line, when it starts if all before it take the seconds that they declared and nobody comes who
goes first, and whether it waits for a GPU or for other calls of its Space or of its visitor (see --per-space).
With --watch, print a line for each open lease, then one for each change of a lease (with --json: an object).`,
		example: "  spacehost lease\n  spacehost lease --limit 100 --json\n  spacehost lease --watch --json | jq -c 'select(.state == \"expired\")'", limit: 10, watch: watchLeases,
		path: func(_ []string, limit int) string { return control.ListLeases.Path + "?limit=" + strconv.Itoa(limit) }, args: cobra.NoArgs,
		table: func(w io.Writer, leases control.Leases, _ []string) {
			fmt.Fprintln(w, "LEASE\tSTATE\tSPACE\tIDENTITY\tDECLARED\tUSED\tCHARGED\tWORKER\tSINCE\tWHY")
			for _, l := range leases.Open {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t%.1f s\t\t%s\t%s\t%s\n",
					l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.UsedSeconds, pidOf(l.Worker), ago(l.Admitted, leases.Now), expects(l.Forecast, leases.Now))
			}
			for _, l := range leases.Ended {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%g s\t\t%.3f s\t\t%s\t%s\n",
					l.Lease, l.State, l.Space, l.Identity, l.DeclaredSeconds, l.ChargedSeconds, ago(l.Ended, leases.Now), l.Reason)
			}
		},
	}.command()
}

// expects is what one who waits may expect, nothing for who waits no more.
func expects(f *lease.Forecast, now time.Time) string {
	if f == nil {
		return ""
	}
	text := fmt.Sprintf("number %d in line", f.Rank+1)
	switch f.Limit {
	case lease.OfSpace:
		text += ", after other calls of its Space"
	case lease.OfIdentity:
		text += ", after other calls of theirs"
	}
	switch {
	case f.Start == nil:
		text += "; no GPU is in sight"
	case f.Start.After(f.GivesUp):
		text += "; would start in " + inSeconds(f.Start.Sub(now)) + ", but waits no longer than " + inSeconds(f.GivesUp.Sub(now))
	default:
		text += "; starts in " + inSeconds(f.Start.Sub(now))
	}
	return text
}

// inSeconds is rounded up: a start is said not to be sooner than it can be.
func inSeconds(d time.Duration) string {
	return (max(0, d) + time.Second - 1).Truncate(time.Second).String()
}

func pidOf(pid int) string {
	if pid == 0 {
		return "-"
	}
	return strconv.Itoa(pid)
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/usage"
)

// clientCommand is a subcommand that sends one request to a running host and prints the answer.
type clientCommand[T any] struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	complete                  cobra.CompletionFunc // of the first argument; nil: none
	limit                     int                  // default of --limit; 0: the command has no such flag
	flags                     func(*cobra.Command) // adds flags of this command; may be nil
	// request builds the request from the arguments and flags. Its errors are wrong usage.
	request func(args []string, limit int) (control.Request, error)
	// show prints the answer for a person; --json prints it as it came.
	show  func(c *cobra.Command, answer T, args []string) error
	fails func(answer T) error                                                      // the error of an answer that was printed; nil: none
	watch func(ctx context.Context, state string, asJSON bool, out io.Writer) error // nil: no --watch
}

func (d clientCommand[T]) command() *cobra.Command {
	var state string
	var asJSON, watch bool
	limit := d.limit
	c := &cobra.Command{Use: d.use, Short: d.short, Long: d.long, Example: d.example, Args: usage.Args(d.args), ValidArgsFunction: d.complete}
	if d.complete == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	if d.flags != nil {
		d.flags(c)
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	if d.limit > 0 {
		c.Flags().IntVar(&limit, "limit", d.limit, "maximum number of past rows")
	}
	if d.watch != nil {
		c.Flags().BoolVar(&watch, "watch", false, "print each change as it happens, until Ctrl-C")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if d.limit > 0 && limit < 1 {
			return usage.Wrap(c, fmt.Errorf("--limit %d is below 1", limit))
		}
		request, err := d.request(args, limit)
		if err != nil {
			return usage.Wrap(c, err)
		}
		dir, err := config.StateFolder(state)
		if err != nil {
			return err
		}
		if watch {
			return d.watch(c.Context(), dir, asJSON, c.OutOrStdout())
		}
		body, err := send(c.Context(), dir, request)
		if err != nil {
			return asUsage(c, err)
		}
		var answer T
		if asJSON {
			err = printf(c, "%s", bytes.TrimRight(body, "\n"))
		} else if err = decode(body, &answer); err == nil {
			err = d.show(c, answer, args)
		}
		if err != nil || d.fails == nil {
			return err
		}
		if err := decode(body, &answer); err != nil {
			return err
		}
		return d.fails(answer)
	}
	return c
}

// fixed is the request of a command without arguments and flags.
func fixed(r control.Request) func([]string, int) (control.Request, error) {
	return func([]string, int) (control.Request, error) { return r, nil }
}

// asUsage turns a request that the host refuses with status 400 into wrong usage: its values come from the command line.
func asUsage(c *cobra.Command, err error) error {
	var refused *refusedError
	if errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return usage.Wrap(c, err)
	}
	return err
}

func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the host's answer is not understood (another version of spacehost?): %w", err)
	}
	return nil
}

// answerOf sends one request to the host that runs on a state folder, and decodes the answer. Errors: those of send and decode.
func answerOf[T any](ctx context.Context, state string, request control.Request) (answer T, err error) {
	body, err := send(ctx, state, request)
	if err != nil {
		return answer, err
	}
	return answer, decode(body, &answer)
}

// send sends one request to the host that runs on a state folder, and returns the body of its answer. Errors:
// *refusedError, or an error that the host cannot be reached.
func send(ctx context.Context, state string, request control.Request) ([]byte, error) {
	return sendWithin(ctx, state, request, 30*time.Second)
}

// sendWithin is send with another limit of the time until the answer; 0: none.
func sendWithin(ctx context.Context, state string, request control.Request, limit time.Duration) ([]byte, error) {
	var body io.Reader
	if request.Body != nil {
		text, err := json.Marshal(request.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	client := controlClient(state)
	client.Timeout = limit
	defer client.CloseIdleConnections()
	r, err := controlRequest(ctx, state, request.Method, request.Path, body)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, unreachable(state, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of the host on %s: %w", state, err)
	}
	if answer.StatusCode >= http.StatusBadRequest {
		return nil, &refusedError{state, answer.StatusCode, text}
	}
	return text, nil
}

// controlRequest returns a request with the key of the host that runs on a state folder.
func controlRequest(ctx context.Context, state, method, path string, body io.Reader) (*http.Request, error) {
	key, err := control.ReadKey(state)
	if err != nil {
		return nil, unreachable(state, err)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://spacehost"+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set(control.KeyHeader, key)
	}
	return r, nil
}

// controlClient connects to the control socket of the host that runs on a state folder.
func controlClient(state string) *http.Client {
	socket := filepath.Join(state, "control.sock")
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// closedEarly reports a connection that was closed before the request was written. net/http has no exported value for this
// error (errServerClosedIdle).
func closedEarly(err error) bool {
	return strings.HasSuffix(err.Error(), "http: server closed idle connection")
}

// unreachable explains why no host answers on a state folder, with the next step.
func unreachable(state string, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no spacehost runs on the state folder %s: start one with `spacehost run`, or name its folder with --state", state)
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("the state folder %s and its host belong to %s: run this command as that user, or name a folder of your own with --state", state, ownerOf(state))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || closedEarly(err) {
		return fmt.Errorf("the host on %s closed the connection: it accepts no commands of processes that it or a Space has started; run this command in a shell of your own", state)
	}
	return fmt.Errorf("connect to the host on %s: %w", state, err)
}

// ownerOf returns the login name of a folder's owner.
func ownerOf(folder string) string {
	info, err := os.Stat(folder)
	if err != nil {
		return "another user"
	}
	return host.UserName(info.Sys().(*syscall.Stat_t).Uid)
}

// refusedError is a host's refusal of a request.
type refusedError struct {
	state  string
	status int
	body   []byte
}

// Error is the host's own sentence, if it has one for the operator. The details of an internal error are in its log.
func (e *refusedError) Error() string {
	var answer struct{ Detail string }
	if json.Unmarshal(e.body, &answer) != nil || answer.Detail == "" || e.status == http.StatusInternalServerError {
		return fmt.Sprintf("the host on %s answered %d %s: see %s", e.state, e.status, http.StatusText(e.status), filepath.Join(e.state, "logs", "spacehost.log"))
	}
	return answer.Detail
}

// printTable prints a header and one row for each value, aligned at the tabs.
func printTable[T any](c *cobra.Command, header string, all []T, row func(T) string) error {
	return aligned(c, func(w io.Writer) {
		fmt.Fprintln(w, header)
		for _, v := range all {
			fmt.Fprintln(w, row(v))
		}
	})
}

// aligned prints what write writes, aligned at the tabs.
func aligned(c *cobra.Command, write func(io.Writer)) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	write(w)
	return w.Flush()
}

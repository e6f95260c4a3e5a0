package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"spacehost/internal/audit"
	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/placement"
	"spacehost/internal/views"
	"spacehost/migrations"
	"spacehost/quota"
	"spacehost/server"
)

// testHost is a state folder with a control socket that answers the commands for people and delegations, as a running host
// does.
type testHost struct {
	t      *testing.T
	state  string
	people *people.Store
	denied *people.DelegationDenyList
	audit  *audit.Log
	nodes  *stubNodes
}

func newTestHost(t *testing.T) *testHost {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	state, err := os.MkdirTemp("", "host") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	db, err := migrations.Open(t.Context(), filepath.Join(state, "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h := &testHost{t: t, state: state, people: people.NewStore(db), audit: audit.New(db, db), nodes: &stubNodes{}}
	if h.denied, err = people.OpenDelegationDenyList(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	h.serve()
	return h
}

// stubHost implements the part of control.Host that the commands for people and delegations use.
type stubHost struct {
	control.Host
	tiers quota.Tiers
}

func (s stubHost) CheckTier(name string) error { _, err := s.tiers.Get(name); return err }

func (stubHost) Standing(string) control.Standing { return control.Standing{} }

func (stubHost) Operator(context.Context) string { return "root" }

func (stubHost) SpaceNames(*identity.Identity) []string { return []string{"demo", "other"} }

func (stubHost) SpaceViews() []views.Space { return []views.Space{{Name: "demo", Stage: "RUNNING"}} }

func (stubHost) MoveSpace(_, to, _ string, now bool) (time.Duration, error) {
	switch {
	case to != "gpu2":
		return 0, &placement.MoveError{Why: "no node is named " + to}
	case now:
		return 0, nil
	}
	return time.Minute, nil
}

func (h *testHost) serve() {
	h.t.Helper()
	tiers, err := quota.Presets("2026-04")
	if err != nil {
		h.t.Fatal(err)
	}
	s := server.New(nil)
	site, err := s.MountSocket(filepath.Join(h.state, "control.sock"), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := control.CreateKey(h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	site.Pre(control.RequireKey(h.state, key))
	site.Use(control.Audit(stubHost{}.Operator, func(a control.Action) {
		if err := h.audit.Add(context.Background(), a.Record(time.Now())); err != nil {
			h.t.Errorf("audit: %v", err)
		}
	}))
	control.New(control.Config{Host: stubHost{tiers: tiers}, People: h.people, Delegations: h.denied, Audit: h.audit, Nodes: h.nodes, Now: time.Now}).Register(site.Echo)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	h.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			h.t.Errorf("server: %v", err)
		}
	})
}

// result is the output and the exit code of a command.
type result struct {
	out, err string
	code     int
}

// spacehost runs a command line on the host's state folder.
func (h *testHost) spacehost(args ...string) result {
	return spacehostOn(h.t.Context(), h.state, args...)
}

// spacehostOn runs a command line on a state folder, or without --state if it is "".
func spacehostOn(ctx context.Context, state string, args ...string) result {
	if state != "" {
		args = append(args, "--state", state)
	}
	root := NewRoot()
	var out, errout bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errout)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(&errout, "spacehost:", err)
	}
	return result{out.String(), errout.String(), exitCode(err)}
}

// wantOutput runs a command that must succeed, and matches its output with a pattern.
func (h *testHost) wantOutput(pattern string, args ...string) result {
	h.t.Helper()
	got := h.spacehost(args...)
	if got.code != 0 || !regexp.MustCompile(pattern).MatchString(got.out) {
		h.t.Errorf("%q: got %+v, want %s", args, got, pattern)
	}
	return got
}

func TestPeopleByCommandLine(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`^No people yet\. Next: spacehost user add NAME\n$`, "user", "list")
	h.wantOutput(`^No tokens yet\. Next: spacehost token create NAME\n$`, "token", "list")
	h.wantOutput(`^ada is added, as "pro"\. Next: spacehost token create ada\n$`, "user", "add", "ada", "--tier", "pro")
	h.wantOutput(`^ben is added, as "free"\.`, "user", "add", "ben")
	h.wantOutput(`^ben is "pro" from the next call on\.\n$`, "user", "tier", "ben", "pro")
	h.wantOutput(`^NAME +TIER +SINCE +ADDED BY +OVERRIDES\nada +pro +20..-..-.. ..:.. +root +-\nben +pro .*\n$`, "user", "list")

	made := h.wantOutput(`^sph_[0-9a-f]{64}\n$`, "token", "create", "ada", "--label", "laptop")
	token := strings.TrimSpace(made.out)
	if strings.Count(made.err, "\n") != 1 || !strings.Contains(made.err, `Client(url, headers={"Authorization": "Bearer sph_..."})`) ||
		!strings.Contains(made.err, "HF_TOKEN=sph_...") || strings.Contains(made.err, token) {
		t.Errorf("stderr with the token: got %q, want one line of instructions", made.err)
	}
	id := regexp.MustCompile(`ID ([a-z2-7]+)`).FindStringSubmatch(made.err)[1]
	h.wantOutput(`^ID +PERSON +LABEL +SCOPE +CREATED +EXPIRES +LAST USED +REVOKED\n`+id+` +ada +laptop +all +20..-..-.. ..:.. +never +never +no\n$`, "token", "list")
	bearer, _ := people.Bearer(http.Header{"Authorization": {"Bearer " + token}})
	if owner, err := h.people.ByToken(t.Context(), bearer); err != nil || owner.Key() != "user:ada" || owner.Tier != "pro" {
		t.Errorf("the token identifies %s of tier %q (%v), want user:ada of tier pro", owner, owner.Tier, err)
	}
	used := regexp.MustCompile(`\n` + id + ` +ada +laptop +all +20..-..-.. ..:.. +never +20..-..-.. ..:.. +no\n$`)
	// The use is written in the background.
	for end := time.Now().Add(30 * time.Second); !used.MatchString(h.wantOutput("", "token", "list", "ada").out); {
		if time.Now().After(end) {
			t.Fatalf("the use is not in the list: %s", h.wantOutput("", "token", "list", "ada").out)
		}
	}
	h.wantOutput(`^No tokens yet`, "token", "list", "ben")
	h.wantOutput(`^The token `+id+` of ada is revoked\.\n$`, "token", "revoke", id)
	h.wantOutput(`\n`+id+` +ada +laptop .* +20..-..-.. ..:..\n$`, "token", "list")
	if _, err := h.people.ByToken(t.Context(), token); !errors.As(err, new(*people.UnknownTokenError)) {
		t.Errorf("revoked token: got %v, want *people.UnknownTokenError", err)
	}
}

func TestPeopleAsJSON(t *testing.T) {
	h := newTestHost(t)
	for _, row := range []struct {
		args  []string
		field string // a required field; "": the answer is an empty list
	}{
		{[]string{"user", "list"}, ""},
		{[]string{"token", "list"}, ""},
		{[]string{"user", "add", "ada"}, "createdBy"},
		{[]string{"user", "tier", "ada", "pro"}, "tier"},
		{[]string{"token", "create", "ada"}, "token"},
	} {
		got := h.spacehost(append(row.args, "--json")...)
		var fields map[string]any
		err := json.Unmarshal([]byte(got.out), &fields)
		if row.field == "" && got.out == "[]\n" {
			continue
		}
		if _, ok := fields[row.field]; err != nil || !ok || got.code != 0 || got.err != "" || strings.Count(got.out, "\n") != 1 {
			t.Errorf("%q: got %+v (%v), want one line of JSON with %q", row.args, got, err, row.field)
		}
	}
}

func TestPeopleCommandErrors(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`added`, "user", "add", "ada")
	token := strings.TrimSpace(h.wantOutput(`^sph_`, "token", "create", "ada").out)
	for _, row := range []struct {
		args string
		code int
		want string // on stderr
	}{
		{"user add", ExitUsage, "accepts 1 arg(s), received 0; see `spacehost user add --help`"},
		{"user add a b", ExitUsage, "see `spacehost user add --help`"},
		{"user add Ada", ExitUsage, "\"Ada\" cannot be a name: give 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit; see `spacehost user add --help`"},
		{"user add ben --tier gold", ExitUsage, "no tier \"gold\" in quota 2026-04, which has: unauthenticated, free, pro, unlimited; see"},
		{"user add ada", ExitHost, "user ada already exists: `spacehost user tier ada TIER`"},
		{"user tier ada", ExitUsage, "accepts 2 arg(s)"},
		{"user tier ada gold", ExitUsage, "which has: unauthenticated, free, pro, unlimited"},
		{"user tier adda pro", ExitHost, `unknown user "adda"; did you mean ada?`},
		{"user tier a/../b pro", ExitHost, "unknown user"},
		{"user list ada", ExitUsage, "see `spacehost user list --help`"},
		{"user add --teir pro ben", ExitUsage, "unknown flag: --teir; see `spacehost user add --help`"},
		{"token create ben", ExitHost, `unknown user "ben"; ` + "`spacehost user list`"},
		{"token create ada --label " + token, ExitUsage, `"sph_..." cannot be a label`},
		{"token create ada --scope root", ExitUsage, `unknown scope "root"; give call, read or all`},
		{"token create ada --space nowhere --scope call", ExitUsage, `unknown Space "nowhere"; Spaces for which a token can be created: demo, other`},
		{"token create ada --space demo", ExitUsage, "a token that is limited to Spaces cannot have scope all; give call or read"},
		{"token create ada --expires soon", ExitUsage, "--expires \"soon\" is not a time from 1s; give one such as 12h or 30d"},
		{"token create ada --expires 99999d", ExitUsage, "a token cannot expire in"},
		{"audit --since soon", ExitUsage, "--since \"soon\" is neither a duration"},
		{"token list ben", ExitHost, `unknown user "ben"`},
		{"token revoke", ExitUsage, "accepts 1 arg(s)"},
		{"token revoke abc", ExitHost, "no token has the ID \"abc\"; `spacehost token list` shows the IDs"},
		{"token revoke " + token, ExitHost, `no token has the ID "sph_..."`},
	} {
		got := h.spacehost(strings.Fields(row.args)...)
		if got.code != row.code || !strings.Contains(got.err, row.want) || strings.Contains(got.out+got.err, token[4:]) {
			t.Errorf("%s: got %+v, want exit code %d and %q", row.args, got, row.code, row.want)
		}
		if got.out != "" {
			t.Errorf("%s: stdout has %q, want nothing", row.args, got.out)
		}
	}
}

func TestPeopleNeedARunningHost(t *testing.T) {
	empty := t.TempDir()
	for _, state := range []string{empty, newStaleSocket(t)} {
		for _, args := range [][]string{{"user", "list"}, {"user", "add", "ada"}, {"token", "revoke", "abc"}} {
			got := spacehostOn(t.Context(), state, args...)
			if want := "spacehost: no spacehost runs on the state folder " + state + ": start one with `spacehost run`, or name its folder with --state\n"; got.code != ExitHost || got.err != want {
				t.Errorf("%q: got %+v, want %s", args, got, want)
			}
		}
	}
}

// The error for a folder of another user names that user.
func TestHostOfAnotherUser(t *testing.T) {
	denied := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	for folder, owner := range map[string]string{t.TempDir(): host.UserName(uint32(os.Getuid())), "/nowhere/at/all": "another user"} {
		want := "the state folder " + folder + " and its host belong to " + owner + ": run this command as that user, or name a folder of your own with --state"
		if err := unreachable(folder, denied); err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// newStaleSocket returns a state folder with the socket of a host that was killed.
func newStaleSocket(t *testing.T) string {
	t.Helper()
	state, err := os.MkdirTemp("", "stale")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(state, "control.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	return state
}

// An internal error, or an answer of another version, is not mistaken for a refusal.
func TestUnexpectedHostAnswers(t *testing.T) {
	for _, row := range []struct {
		status int
		body   string
		code   int
		want   string
	}{
		{500, `{"detail":"Internal Server Error"}`, ExitHost, "answered 500 Internal Server Error: see "},
		{404, `Not Found`, ExitHost, "answered 404 Not Found: see "},
		{200, `<html>`, ExitHost, "is not understood (another version of spacehost?)"},
		{418, `{"detail":"I am a teapot."}`, ExitHost, "I am a teapot."},
	} {
		state := newStaleSocket(t)
		s := server.New(nil)
		site, err := s.MountSocket(filepath.Join(state, "control.sock"), nil)
		if err != nil {
			t.Fatal(err)
		}
		site.Any("/*", func(c echo.Context) error { return c.String(row.status, row.body) })
		ctx, stop := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Run(ctx) })
		got := spacehostOn(t.Context(), state, "user", "list")
		stop()
		serving.Wait()
		if got.code != row.code || !strings.Contains(got.err, row.want) {
			t.Errorf("%d %s: got %+v, want %q", row.status, row.body, got, row.want)
		}
	}
}

func TestHelpContents(t *testing.T) {
	for args, words := range map[string][]string{
		"user --help":         {"add", "list", "tier", "spacehost token create ada"},
		"user add --help":     {"1 to 64 of a-z", "--tier", "--json", "--state", "spacehost user add ada --tier pro"},
		"user":                {"add", "list", "tier", "spacehost token create ada"},
		"token --help":        {"create", "list", "revoke", "shown once"},
		"token create --help": {`Client(url, headers={"Authorization": "Bearer sph_..."})`, "HF_TOKEN", "curl", "--label"},
		"token list --help":   {"list [NAME]", "--json"},
	} {
		got := spacehostOn(t.Context(), "", strings.Fields(args)...)
		for _, word := range words {
			if got.code != 0 || !strings.Contains(got.out, word) {
				t.Errorf("%s: got %+v, want it to contain %q", args, got, word)
			}
		}
	}
}

func TestUnknownSubcommandsAreWrongUsage(t *testing.T) {
	for args, want := range map[string]string{
		"user ad ben":     "did you mean add?; see `spacehost user --help`",
		"token revok abc": "did you mean revoke?; see `spacehost token --help`",
		"token xyz":       "unknown command \"xyz\" for \"spacehost token\"; see `spacehost token --help`",
		"nonsense":        "spacehost: unknown command \"nonsense\" for \"spacehost\"; see `spacehost --help`\n",
		"quotta local":    "did you mean quota?; see `spacehost --help`",
		"gpu bogus":       "unknown command \"bogus\" for \"spacehost gpu\"; see `spacehost gpu --help`",
	} {
		got := spacehostOn(t.Context(), "", strings.Fields(args)...)
		if got.code != ExitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

// Errors about flags and times do not quote Go's parsers.
func TestInvalidValuesAreWrongUsage(t *testing.T) {
	for args, want := range map[string]string{
		"quota grant ada -5s":       "-5s: negative values are not allowed; see `spacehost quota grant --help`",
		"quota grant ada -- -5s":    `"-5s" cannot be granted; give a time such as 120s, 5m, or a number of seconds: it must be one second at least`,
		"quota grant ada":           "nothing to grant; give a time such as 120s, or --runs N; see `spacehost quota grant --help`",
		"quota grant ada --runs=-3": "--runs -3",
		"quota credit ada soon":     `"soon" cannot be credited; give a time such as 120s, 5m, or a number of seconds`,
		"user set ada --runs many":  `--runs "many" is neither a value nor "tier"`,
		"clock advance -1h":         "-1h: negative values are not allowed",
		"clock advance -x":          "unknown shorthand flag: 'x' in -x; see `spacehost clock advance --help`",
		"run --per-space x":         `--per-space "x" is not a whole number; see`,
		"ledger ada --limit 0":      "--limit 0 is below 1; see `spacehost ledger --help`",
		"lease --limit -1":          "--limit -1 is below 1; see `spacehost lease --help`",
		"ledger ada --limit 1e3":    `--limit "1e3" is not a whole number; see`,
		"run --warm soon":           `--warm "soon" is not a duration; use a value such as 90s, 5m or 1h; see`,
		"run --queue-timeout 60":    `--queue-timeout "60" is not a duration`,
		"run --rebuild=maybe":       "--rebuild=maybe: use --rebuild alone, or --rebuild=false; see",
		"gpu drain GPU-a --reason":  "flag needs an argument: --reason; see",
		"explain ada --size xlarge": "--size requires --seconds; see `spacehost explain --help`",
	} {
		got := spacehostOn(t.Context(), "", strings.Fields(args)...) // refused before a request is sent
		if got.code != ExitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

// pflag takes text between backticks in a usage as the name of the value, so no usage may contain them.
func TestFlagValueNamesAreOneWord(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); strings.ContainsAny(name, " .") || strings.Contains(f.Usage, "`") {
				t.Errorf("%s --%s %s: %s", c.CommandPath(), f.Name, name, f.Usage)
			}
		})
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(NewRoot())
}

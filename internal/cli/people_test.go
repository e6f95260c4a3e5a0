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

	"github.com/labstack/echo/v4"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/migrations"
	"spacehost/quota"
	"spacehost/server"
)

// desk is a state folder whose socket is answered as a running host would answer people's commands.
type desk struct {
	t      *testing.T
	state  string
	people *people.Store
	stops  *people.DelegationDenyList
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	state, err := os.MkdirTemp("", "desk") // t.TempDir() is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	db, err := migrations.Open(t.Context(), filepath.Join(state, "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{t: t, state: state, people: people.NewStore(db)}
	if d.stops, err = people.OpenDelegationDenyList(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	d.serve()
	return d
}

// deskHost is what People and delegations ask of a host.
type deskHost struct {
	control.Host
	tiers quota.Tiers
}

func (h deskHost) CheckTier(name string) error { _, err := h.tiers.Get(name); return err }

func (deskHost) SpaceNames(*identity.Identity) []string { return []string{"demo", "other"} }

func (d *desk) serve() {
	d.t.Helper()
	tiers, err := quota.Presets("2026-04")
	if err != nil {
		d.t.Fatal(err)
	}
	s := server.New(nil)
	site, err := s.MountSocket(filepath.Join(d.state, "control.sock"), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	control.New(control.Config{Host: deskHost{tiers: tiers}, People: d.people, Delegations: d.stops}).Register(site.Echo)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	d.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			d.t.Errorf("server: %v", err)
		}
	})
}

// said is what a command printed, and how it ended.
type said struct {
	out, err string
	code     int
}

// spacehost runs a command line on the desk's state folder.
func (d *desk) spacehost(args ...string) said {
	return spacehostOn(d.t.Context(), d.state, args...)
}

// spacehostOn gives no --state if there is none.
func spacehostOn(ctx context.Context, state string, args ...string) said {
	if state != "" {
		args = append(args, "--state", state)
	}
	root := NewRoot()
	if found, _, _ := root.Find([]string{"user"}); found == root { // until main.go has them
		root.AddCommand(newUser(), newToken())
	}
	var out, complaint bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&complaint)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(&complaint, "spacehost:", err)
	}
	return said{out.String(), complaint.String(), exitCode(err)}
}

// wantSaid runs a command that must succeed and print what the pattern describes.
func (d *desk) wantSaid(pattern string, args ...string) said {
	d.t.Helper()
	got := d.spacehost(args...)
	if got.code != 0 || !regexp.MustCompile(pattern).MatchString(got.out) {
		d.t.Errorf("%q: got %+v, want %s", args, got, pattern)
	}
	return got
}

func TestPeopleByCommandLine(t *testing.T) {
	d := newDesk(t)
	d.wantSaid(`^No people yet\. Next: spacehost user add NAME\n$`, "user", "list")
	d.wantSaid(`^No tokens yet\. Next: spacehost token create NAME\n$`, "token", "list")
	d.wantSaid(`^ada is added, as "pro"\. Next: spacehost token create ada\n$`, "user", "add", "ada", "--tier", "pro")
	d.wantSaid(`^ben is added, as "free"\.`, "user", "add", "ben")
	d.wantSaid(`^ben is "pro" from the next call on\.\n$`, "user", "tier", "ben", "pro")
	d.wantSaid(`^NAME +TIER +SINCE +ADDED BY +OVERRIDES\nada +pro +20..-..-.. ..:.. +operator +-\nben +pro .*\n$`, "user", "list")

	made := d.wantSaid(`^sph_[0-9a-f]{64}\n$`, "token", "create", "ada", "--label", "laptop")
	token := strings.TrimSpace(made.out)
	if strings.Count(made.err, "\n") != 1 || !strings.Contains(made.err, `Client(url, headers={"Authorization": "Bearer sph_..."})`) ||
		!strings.Contains(made.err, "HF_TOKEN=sph_...") || strings.Contains(made.err, token) {
		t.Errorf("beside the token: got %q, want one line that says how to use it", made.err)
	}
	id := regexp.MustCompile(`ID ([a-z2-7]+)`).FindStringSubmatch(made.err)[1]
	d.wantSaid(`^ID +PERSON +LABEL +CREATED +LAST USED +REVOKED\n`+id+` +ada +laptop +20..-..-.. ..:.. +never +no\n$`, "token", "list")
	h := http.Header{"Authorization": {"Bearer " + token}}
	brought, _ := people.Bearer(h)
	if who, err := d.people.ByToken(t.Context(), brought); err != nil || who.Key() != "user:ada" || who.Tier != "pro" {
		t.Errorf("the token speaks for %s of tier %q (%v)", who, who.Tier, err)
	}
	d.wantSaid(`\n`+id+` +ada +laptop +20..-..-.. ..:.. +20..-..-.. ..:.. +no\n$`, "token", "list", "ada")
	d.wantSaid(`^No tokens yet`, "token", "list", "ben")
	d.wantSaid(`^The token `+id+` of ada is revoked\.\n$`, "token", "revoke", id)
	d.wantSaid(`\n`+id+` +ada +laptop .* +20..-..-.. ..:..\n$`, "token", "list")
	if _, err := d.people.ByToken(t.Context(), token); !errors.As(err, new(*people.UnknownTokenError)) {
		t.Errorf("revoked: got %v", err)
	}
}

func TestPeopleAsJSON(t *testing.T) {
	d := newDesk(t)
	for _, row := range []struct {
		args  []string
		field string // which must be there; "": an empty list
	}{
		{[]string{"user", "list"}, ""},
		{[]string{"token", "list"}, ""},
		{[]string{"user", "add", "ada"}, "createdBy"},
		{[]string{"user", "tier", "ada", "pro"}, "tier"},
		{[]string{"token", "create", "ada"}, "token"},
	} {
		got := d.spacehost(append(row.args, "--json")...)
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

func TestMistakesInPeoplesCommands(t *testing.T) {
	d := newDesk(t)
	d.wantSaid(`added`, "user", "add", "ada")
	token := strings.TrimSpace(d.wantSaid(`^sph_`, "token", "create", "ada").out)
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
		{"token list ben", ExitHost, `unknown user "ben"`},
		{"token revoke", ExitUsage, "accepts 1 arg(s)"},
		{"token revoke abc", ExitHost, "no token has the ID \"abc\"; `spacehost token list` shows the IDs"},
		{"token revoke " + token, ExitHost, `no token has the ID "sph_..."`},
	} {
		got := d.spacehost(strings.Fields(row.args)...)
		if got.code != row.code || !strings.Contains(got.err, row.want) || strings.Contains(got.out+got.err, token[4:]) {
			t.Errorf("%s: got %+v, want exit code %d and %q", row.args, got, row.code, row.want)
		}
		if got.out != "" {
			t.Errorf("%s: stdout has %q", row.args, got.out)
		}
	}
}

func TestPeopleNeedARunningHost(t *testing.T) {
	empty := t.TempDir()
	for _, state := range []string{empty, newDeadSocket(t)} {
		for _, args := range [][]string{{"user", "list"}, {"user", "add", "ada"}, {"token", "revoke", "abc"}} {
			got := spacehostOn(t.Context(), state, args...)
			if want := "spacehost: no spacehost runs on the state folder " + state + ": start one with `spacehost run`, or name its folder with --state\n"; got.code != ExitHost || got.err != want {
				t.Errorf("%q: got %+v, want %s", args, got, want)
			}
		}
	}
}

// The folder of another user is named as theirs.
func TestTheHostOfAnotherUser(t *testing.T) {
	denied := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	for folder, owner := range map[string]string{t.TempDir(): host.UserName(uint32(os.Getuid())), "/nowhere/at/all": "another user"} {
		want := "the state folder " + folder + " and its host belong to " + owner + ": run this command as that user, or name a folder of your own with --state"
		if err := unreachable(folder, denied); err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// newDeadSocket is a state folder with the socket of a host that was killed.
func newDeadSocket(t *testing.T) string {
	t.Helper()
	state, err := os.MkdirTemp("", "dead")
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

// A host that fails, or that is of another version, is told from one that says no.
func TestAnAnswerThatIsNoAnswer(t *testing.T) {
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
		state := newDeadSocket(t)
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

func TestHelpTeaches(t *testing.T) {
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
				t.Errorf("%s: got %+v, want %q in it", args, got, word)
			}
		}
	}
}

func TestWhatTheyDoNotHaveIsWrongUsage(t *testing.T) {
	for args, want := range map[string]string{
		"user ad ben":     "did you mean add?; see `spacehost user --help`",
		"token revok abc": "did you mean revoke?; see `spacehost token --help`",
		"token xyz":       "unknown command \"xyz\" for \"spacehost token\"; see `spacehost token --help`",
		"bogus":           "spacehost: unknown command \"bogus\" for \"spacehost\"; see `spacehost --help`\n",
		"quotta local":    "did you mean quota?; see `spacehost --help`",
		"gpu bogus":       "unknown command \"bogus\" for \"spacehost gpu\"; see `spacehost gpu --help`",
	} {
		got := spacehostOn(t.Context(), "", strings.Fields(args)...)
		if got.code != ExitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

// Flags and times that cannot be are refused in words, and not in those of Go's parsers.
func TestWrongValuesAreWrongUsage(t *testing.T) {
	for args, want := range map[string]string{
		"quota grant ada -5s":       "-5s: negative values are not allowed; see `spacehost quota grant --help`",
		"quota grant ada -- -5s":    `"-5s" cannot be granted; give a time such as 120s, 5m, or a number of seconds: it must be one second at least`,
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
		got := spacehostOn(t.Context(), "", strings.Fields(args)...) // refused before a host is asked
		if got.code != ExitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

// Of a usage with backticks pflag takes what is between them for the value's name.
func TestFlagsHaveValuesOfOneWord(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); strings.ContainsAny(name, " .") || strings.Contains(f.Usage, "`") {
				t.Errorf("%s --%s %s: %s", c.CommandPath(), f.Name, name, f.Usage)
			}
		})
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(NewRoot())
}

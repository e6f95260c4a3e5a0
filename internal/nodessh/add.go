package nodessh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/nodes"
	"spacehost/internal/printable"
	"spacehost/internal/version"
)

// Front is the front that the node joins.
type Front interface {
	// State returns the state of a node; "": no node has that name.
	State(ctx context.Context, name string) (nodes.State, error)
	// Token creates a join token for one node of that name, and returns the address HOST:PORT of the front as its configuration has it.
	Token(ctx context.Context, name string) (token, address string, err error)
}

// Config is what Add needs. All fields without a default are required.
type Config struct {
	Host    string   // as ssh(1) takes it
	Options []string // values of -o of ssh(1); nil: none
	SSH     string   // the program; "": ssh on PATH
	Name    string   // of the node; "": the first part of the machine's host name
	Labels  []string // nil: none
	GPUs    string   // as the agent takes it
	Address string   // of the front as the node reaches it; "": as the front reports it
	State   string   // state folder on the node, for a process; "": the unit if possible, else a folder in the home of the user of ssh
	Copy    string   // program to copy if the machine has no spacehost of this version; "": none
	Build   version.Build
	Timeout time.Duration // until the node is connected
	Front   Front
	Report  func(step string) // called with a sentence at each step
}

// Result is a node that is connected.
type Result struct {
	Name    string `json:"name"`
	Program string `json:"program"`         // path on the node
	Unit    string `json:"unit,omitempty"`  // name of the systemd unit; absent: the agent is a process of the user of ssh
	State   string `json:"state,omitempty"` // state folder of such a process, with node.log and node.pid
}

// unitName is the unit of the packages.
const unitName = "spacehost-node.service"

// layout has the paths on a node on which the packages depend. Tests have others.
type layout struct{ program, unit, systemd, settings, token string }

var packaged = layout{
	program: "/usr/bin/spacehost", unit: "/usr/lib/systemd/system/" + unitName, systemd: "/run/systemd/system",
	settings: "/etc/spacehost/node.env", token: "/etc/spacehost/node.token",
}

// UsageError is a value of Config that cannot be used.
type UsageError struct{ Why string }

func (e *UsageError) Error() string { return e.Why }

// safeWord matches values that a shell, systemd and sudo pass on as they are.
var safeWord = lazyregexp.New(`^[A-Za-z0-9._:,/=@%+\[\]-]*$`)

func (c Config) check() error {
	if c.Host == "" || strings.HasPrefix(c.Host, "-") {
		return &UsageError{fmt.Sprintf("%.60q is not the name of a machine; give it as ssh takes it, such as gpu2 or ada@gpu2.lab.example", c.Host)}
	}
	for _, word := range append([]string{c.Name, c.GPUs, c.Address, c.State}, c.Labels...) {
		if !safeWord.MatchString(word) {
			return &UsageError{fmt.Sprintf("%.60q has a character that the command line of the agent cannot have", word)}
		}
	}
	if c.State != "" && !path.IsAbs(c.State) {
		return &UsageError{fmt.Sprintf("the state folder %.60q on the node is not an absolute path", c.State)}
	}
	if c.Name != "" {
		return nodes.CheckName(c.Name)
	}
	return nil
}

// Add sets up the agent of a node and waits until the front reports it as connected. Errors: *UsageError, *nodes.BadNameError, those of the
// Front, or a sentence with the next step.
func Add(ctx context.Context, c Config) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	a := adder{Config: c, layout: packaged, on: machine{c.Host, c.Options, cmp.Or(c.SSH, "ssh")}}
	return a.add(ctx)
}

// adder is one call of Add.
type adder struct {
	Config
	layout
	on  runner
	pid string // of an agent that is a process
}

func (a *adder) add(ctx context.Context) (Result, error) {
	a.Report(fmt.Sprintf("connecting to %s", a.Host))
	found, err := a.probe(ctx)
	if err != nil {
		return Result{}, err
	}
	r := Result{Name: cmp.Or(a.Name, found.name)}
	if err := nodes.CheckName(r.Name); err != nil {
		return r, fmt.Errorf("the host name of %s: %w; give one with --name", a.Host, err)
	}
	known, err := a.Front.State(ctx, r.Name)
	if err != nil {
		return r, err
	}
	if err := refuse(known, r.Name); err != nil {
		return r, err
	}
	if r.Program, err = a.findProgram(ctx, found); err != nil {
		return r, err
	}
	if r.Program == a.layout.program && found.sudo && a.State == "" {
		r.Unit = unitName
	} else {
		r.State = cmp.Or(a.State, path.Join(found.state, "spacehost-"+r.Name))
	}
	token, front := "", a.Address
	if known == "" || front == "" { // a node that has joined needs the address only, and its token is discarded
		if token, front, err = a.Front.Token(ctx, r.Name); err != nil {
			return r, err
		}
		front = cmp.Or(a.Address, front)
	}
	if known != "" {
		token = ""
	}
	if host, _, err := net.SplitHostPort(front); a.Address == "" && err == nil && net.ParseIP(host).IsLoopback() {
		a.Report(fmt.Sprintf("note: %s is an address of the node itself there; give the front's with --address, or keep a tunnel open with ssh -R", front))
	}
	if err := a.start(ctx, r, token, front); err != nil {
		return r, err
	}
	return r, a.await(ctx, r, known)
}

// refuse names what hinders a name that the front knows. A node that is not connected may start its agent again.
func refuse(known nodes.State, name string) error {
	switch known {
	case nodes.Connected, nodes.Suspect:
		return fmt.Errorf("node %s is connected already; choose another name with --name, or run `spacehost node forget %[1]s` after you have ended its agent", name)
	case nodes.Revoked:
		return fmt.Errorf("node %s is revoked; run `spacehost node forget %[1]s` first if its machine may join again", name)
	}
	return nil
}

// found is what the probe has found on the machine.
type found struct {
	system, name, state, copyTo string
	programs                    []program
	sudo                        bool // the unit exists, and sudo needs no password
}

type program struct {
	path  string
	build version.Build
}

func (a *adder) probe(ctx context.Context) (f found, err error) {
	out, err := a.on.run(ctx, nil, probeScript, a.unit, a.systemd, a.layout.program)
	if err != nil {
		return f, err
	}
	for _, line := range markedLines(out) {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "system":
			f.system = value
		case "name":
			f.name, _, _ = strings.Cut(strings.ToLower(value), ".")
		case "state":
			f.state = value
		case "copy":
			f.copyTo = value
		case "program":
			f.programs = append(f.programs, readProgram(value))
		case "sudo":
			f.sudo = true
		}
	}
	if f.system == "" || f.copyTo == "" {
		return f, fmt.Errorf("%s: the shell there prints %q; its user needs a login shell that runs `sh -c`", a.Host, lastLines(out, 3))
	}
	return f, nil
}

// markedLines returns the lines of a script for Add, without their mark.
func markedLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line, isOurs := strings.CutPrefix(line, mark); isOurs {
			lines = append(lines, strings.TrimSpace(printable.Text(line)))
		}
	}
	return lines
}

// readProgram reads "PATH {json}". A program that prints no version has none.
func readProgram(line string) (p program) {
	at := strings.Index(line, " {")
	if at < 0 {
		return program{path: line}
	}
	p.path = line[:at]
	if json.Unmarshal([]byte(line[at:]), &p.build) != nil {
		p.build = version.Build{}
	}
	return p
}

// sameBuild reports whether two programs are of one version. Commits distinguish builds without a version.
func sameBuild(a, b version.Build) bool {
	return a.Version == b.Version && (a.Commit == b.Commit || a.Commit == "" || b.Commit == "")
}

// findProgram returns the path of a program of this version on the machine, and copies it there if that is wanted.
func (a *adder) findProgram(ctx context.Context, f found) (string, error) {
	var others []string
	for _, p := range f.programs {
		if sameBuild(p.build, a.Build) {
			return p.path, nil
		}
		others = append(others, fmt.Sprintf("%s at %s", cmp.Or(buildName(p.build), "an unknown version"), p.path))
	}
	if a.Copy == "" {
		has := "no spacehost"
		if len(others) > 0 {
			has = "spacehost " + strings.Join(others, ", ")
		}
		return "", fmt.Errorf("%s has %s, and the node needs %s; install that version there, or copy this program with --copy", a.Host, has, buildName(a.Build))
	}
	if want := "Linux " + machineName(); f.system != want {
		return "", fmt.Errorf("%s is a machine %s, and this program is for %s; install spacehost %s there", a.Host, f.system, want, buildName(a.Build))
	}
	file, err := os.Open(a.Copy)
	if err != nil {
		return "", fmt.Errorf("copy the program: %w", err)
	}
	defer file.Close()
	a.Report(fmt.Sprintf("copying %s to %s:%s", a.Copy, a.Host, f.copyTo))
	out, err := a.on.run(ctx, file, copyScript, f.copyTo)
	if err != nil {
		return "", fmt.Errorf("copy the program: %w; install spacehost %s there", err, buildName(a.Build))
	}
	for _, line := range markedLines(out) {
		if p := readProgram(strings.TrimPrefix(line, "program ")); sameBuild(p.build, a.Build) {
			return p.path, nil
		}
	}
	return "", fmt.Errorf("the copy of %s on %s has another version; copy a program of version %s", a.Copy, a.Host, buildName(a.Build))
}

// buildName names a version, for builds without one with the commit.
func buildName(b version.Build) string {
	if b.Version != "dev" || b.Commit == "" {
		return b.Version
	}
	return "dev, commit " + b.Commit[:min(len(b.Commit), 12)]
}

// machineName is this machine's name in `uname -m`.
func machineName() string {
	if name, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// start writes the token and starts the agent.
func (a *adder) start(ctx context.Context, r Result, token, front string) (err error) {
	flags := []string{"--name", r.Name, "--gpus", a.GPUs}
	for _, label := range a.Labels {
		flags = append(flags, "--label", label)
	}
	stdin := io.Reader(strings.NewReader(token))
	var out string
	if r.Unit != "" {
		a.Report(fmt.Sprintf("starting %s on %s", r.Unit, a.Host))
		_, err = a.on.run(ctx, stdin, serviceScript, a.settings, a.token, front, strings.Join(flags, " "))
	} else {
		a.Report(fmt.Sprintf("starting the agent on %s as a process; its log is %s", a.Host, path.Join(r.State, "node.log")))
		args := append([]string{r.State, r.Program, "agent", "--join", front, "--state", r.State}, flags...)
		if token != "" {
			args = append(args, "--token-file", path.Join(r.State, "node.token"))
		}
		out, err = a.on.run(ctx, stdin, processScript, args...)
	}
	if failed := (*scriptError)(nil); errors.As(err, &failed) && failed.code == alreadyRuns {
		return fmt.Errorf("an agent runs already on %s (%s); end it first, or leave it", a.Host, cmp.Or(r.Unit, "state folder "+r.State))
	}
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	for _, line := range markedLines(out) {
		a.pid = strings.TrimPrefix(line, "pid ")
	}
	return nil
}

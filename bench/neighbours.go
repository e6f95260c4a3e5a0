package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// fault is what the neighbour of a measured Space does, with the sentence that the operator then reads.
type fault struct {
	name, text string
	data       string // argument of the call, as JSON
	says       string // in `spacehost logs`
	ends       bool   // the host ends the neighbour
}

// calm is the fault of a neighbour that does nothing.
const calm = "calm"

// faults are in the order of the measurement. A Space that has filled its disk does not start again, so that is the last one.
// The first one shows what the measurement varies by without a fault.
var faults = []fault{
	{calm, "does nothing", "", "", false},
	{"log", "writes 1 GB of log", "[1000]", "lines were left out: the Space prints more than", false},
	{"leak", "leaks memory", "[]", "more than its limit of 1 GiB", true},
	{"fork", "forks without end", "[]", "its limit of 400", true},
	{"fill", "fills its disk share", "[3000]", "of disk, more than its limit of 500 MiB", true},
}

const (
	// neighbourLimits are ample for Gradio itself.
	neighbourLimits = "{memory: 1GiB, processes: 400, disk: 500MiB}"
	// beforeFault and duringFault are the spans of the measurements. A fault may end earlier.
	beforeFault = 8 * time.Second
	duringFault = 15 * time.Second
	// reactionTime is the time in which the host acts: disk is measured every minute.
	reactionTime = 100 * time.Second
)

// neighbourStep measures one Space while another one uses up what it can get. Plain Gradio has no neighbours.
func neighbourStep() step {
	s := step{name: "neighbours", about: "a Space under steady calls, while another one under the same host uses up what it can get", alone: true, measure: neighbours}
	for _, f := range faults {
		text := "neighbour " + f.text + ", no-op of the other Space, "
		s.lines = append(s.lines,
			line{key: f.name + "_before_ms", text: text + "p99 before, ms", format: "%.2f", oursOnly: true},
			line{key: f.name + "_during_ms", text: text + "p99 meanwhile, ms", format: "%.2f", oursOnly: true},
			line{key: f.name + "_x", text: text + "p99 meanwhile / before", format: "%.2f", goal: "<= 2", oursOnly: true})
	}
	return s
}

// neighbourhood is a host with two Spaces.
type neighbourhood struct {
	*target
	bench       *bench
	quiet, loud *client
	console     string
	state       string
}

func neighbours(ctx context.Context, b *bench, s *target) (values, error) {
	if s.name == stock {
		return values{}, nil
	}
	n, err := b.startNeighbours(ctx)
	if err != nil {
		return nil, err
	}
	defer n.stop()
	v := values{}
	var failed []error
	for _, f := range faults {
		before, during, err := n.measure(ctx, f)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", f.text, err))
		}
		v[f.name+"_before_ms"], v[f.name+"_during_ms"], v[f.name+"_x"] = percentile(before, 99), percentile(during, 99), percentile(during, 99)/max(0.001, percentile(before, 99))
		b.printf("neighbour %s: %d calls before, p50 %.2f ms, p99 %.2f ms; %d meanwhile, p50 %.2f ms, p99 %.2f ms, worst %.1f ms", f.text,
			len(before), percentile(before, 50), percentile(before, 99), len(during), percentile(during, 50), percentile(during, 99), percentile(during, 100))
	}
	return v, errors.Join(failed...)
}

// startNeighbours starts a host with the Space of the benchmark and its neighbour.
func (b *bench) startNeighbours(ctx context.Context) (n *neighbourhood, err error) {
	if os.Geteuid() == 0 { // the kernel does not limit the processes of root
		n, err = b.startNeighboursAt(ctx, "isolation: users\nusers: 210000-210009")
	}
	if n == nil {
		if err != nil {
			b.printf("level users is not available: %v", err)
		}
		n, err = b.startNeighboursAt(ctx, "isolation: auto")
	}
	return n, err
}

// startNeighboursAt sets lines of the configuration.
func (b *bench) startNeighboursAt(ctx context.Context, level string) (*neighbourhood, error) {
	home, err := os.MkdirTemp(b.scratch, "neighbours-")
	if err != nil {
		return nil, err
	}
	var addrs [3]string
	for i := range addrs {
		if addrs[i], err = freeAddr(); err != nil {
			return nil, err
		}
	}
	n := &neighbourhood{bench: b, console: "http://" + addrs[0], state: filepath.Join(home, "state"),
		target: &target{name: ours, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}}
	config := filepath.Join(home, "lab.yaml")
	text := fmt.Sprintf("state: %s\ngpus: mock:1xH200\nconsole: %q\n%s\nspaces:\n"+
		"- {folder: %s, name: quiet, address: %q, python: %s}\n- {folder: %s, name: loud, address: %q, python: %[6]s, limits: %[9]s}\n",
		n.state, addrs[0], level, b.app, addrs[1], b.env.Python, filepath.Join(b.root, "bench", "neighbour"), addrs[2], neighbourLimits)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n.cmd = exec.Command(b.spacehost, "serve", "--config", config)
	n.cmd.Env = plainEnv(home)
	if _, err := n.launch(nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for i, into := range []**client{&n.quiet, &n.loud} {
		url := "http://" + addrs[1+i]
		err := n.await(ctx, func() bool { return answers(ctx, url+"/config") })
		if err == nil {
			*into, err = newClient(ctx, url, 1)
		}
		if err != nil {
			err = fmt.Errorf("start neighbours: %w\n%s", err, n.lastOutput())
			n.stop()
			return nil, err
		}
	}
	return n, nil
}

// measure returns the times of the quiet Space before and during a fault of its neighbour, and waits for the sentence.
func (n *neighbourhood) measure(ctx context.Context, f fault) (before, during []time.Duration, err error) {
	waiting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := n.await(waiting, func() bool { return n.isRunning(ctx) }); err != nil {
		return nil, nil, fmt.Errorf("the neighbour does not run: %w", err)
	}
	calm := n.probe(ctx, beforeFault)
	if calm.err != nil {
		return calm.took, nil, calm.err
	}
	over := make(chan struct{})
	go func() { defer close(over); n.trigger(ctx, f) }()
	var calls error
	began := time.Now()
	for time.Since(began) < duringFault && ctx.Err() == nil {
		r := n.probe(ctx, 500*time.Millisecond)
		during, calls = append(during, r.took...), errors.Join(calls, r.err)
		if f.ends && !n.isRunning(ctx) {
			break
		}
	}
	slices.Sort(during)
	n.bench.printf("neighbour %s: measured for %.1f s", f.text, time.Since(began).Seconds())
	if !n.says(ctx, f) {
		calls = errors.Join(calls, fmt.Errorf("the operator does not read %q within %s\n%s", f.says, reactionTime, n.log(ctx)))
	}
	n.bench.printf("neighbour %s: the operator reads it after %.1f s", f.text, time.Since(began).Seconds())
	<-over // or the next measurement would begin with this fault
	return calm.took, during, calls
}

// probe calls the quiet Space for a while, in one session.
func (n *neighbourhood) probe(ctx context.Context, span time.Duration) rate {
	t := &target{client: n.quiet}
	return events(ctx, t, "noop", 1, span)
}

// says reports whether the operator reads of a fault in time.
func (n *neighbourhood) says(ctx context.Context, f fault) bool {
	for began := time.Now(); time.Since(began) < reactionTime && ctx.Err() == nil; {
		if strings.Contains(n.log(ctx), f.says) {
			return true
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return false
}

// trigger calls the function of a fault, and returns when the call has ended, by itself or with the neighbour. measure reports it if
// nothing has happened.
func (n *neighbourhood) trigger(ctx context.Context, f fault) {
	ctx, cancel := context.WithTimeout(ctx, reactionTime)
	defer cancel()
	if f.name != calm {
		_, _, _ = n.loud.call(ctx, newHash(), f.name, f.data, "")
	}
}

// isRunning reports whether the neighbour runs.
func (n *neighbourhood) isRunning(ctx context.Context) bool {
	var health struct {
		Spaces []struct{ Name, Stage string }
	}
	if json.Unmarshal([]byte(body(ctx, n.console+"/healthz")), &health) != nil {
		return false
	}
	for _, one := range health.Spaces {
		if one.Name == "loud" {
			return one.Stage == "RUNNING"
		}
	}
	return false
}

// log returns what the operator reads of the neighbour.
func (n *neighbourhood) log(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, n.bench.spacehost, "logs", "loud", "--lines", "0", "--state", n.state).CombinedOutput() // an error is no text
	var own strings.Builder
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, " stdout ") {
			own.WriteString(line)
		}
	}
	return own.String()
}

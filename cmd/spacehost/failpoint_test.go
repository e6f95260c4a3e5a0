package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/failpoint"
	"spacehost/migrations"
)

// killAt names the variable with the number of the failpoint at which a host kills itself.
const killAt = "SPACEHOST_TEST_DIE_AT"

// armFailpoints runs only in the test binary that acts as the product.
func armFailpoints() {
	last, err := strconv.ParseInt(os.Getenv(killAt), 10, 64)
	if err != nil {
		return
	}
	var passed atomic.Int64
	failpoint.Hook = func(point string) {
		if passed.Add(1) != last {
			return
		}
		fmt.Fprintf(os.Stderr, "killed at %s\n", point)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}

// TestHostIsKilledAnywhere kills the host at random points before and after its writes and responses, including those of its
// recovery, and restarts it on the same state. In the end no orphan is left, each hold is settled once, and a bystander process
// whose pid is in the database is still running.
func TestHostIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	crashes := 20
	if fire {
		crashes = 200
	}
	c := &crashing{t: t, state: t.TempDir(), points: map[string]int{}}
	c.startBystander()
	for n := range crashes {
		c.restart(1 + rand.IntN(80))
		if t.Failed() {
			t.Fatalf("after %d crashes", n)
		}
		c.plantPID(n%3 == 2)
	}
	c.recover()
	t.Logf("FIRE %d crashes of the host %v, %d orphans gone, at the latest %s after the next start; %d times a pid in the database was a bystander's",
		crashes, c.points, c.ended, c.slowest.Round(time.Millisecond), c.planted)
	if c.ended == 0 || c.planted == 0 || len(c.runs) == 0 {
		t.Errorf("the crashes left %d orphans and %d runs, and %d bystander pids were planted; want some of each", c.ended, len(c.runs), c.planted)
	}
}

// crashing runs hosts on one state folder and tracks the processes that they leave.
type crashing struct {
	t         *testing.T
	state     string
	bystander *exec.Cmd
	start     string         // of the bystander, in ticks since boot
	orphans   map[int]string // of killed hosts
	points    map[string]int
	runs      map[string]int64 // the counted runs of leases, and their times

	ended, planted int
	slowest        time.Duration
}

func (c *crashing) startBystander() {
	c.bystander = exec.Command("sleep", "3600")
	if err := c.bystander.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = c.bystander.Process.Kill(); _ = c.bystander.Wait() })
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.bystander.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	c.start = strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))[19]
}

// host starts a host. Its Space never becomes ready.
func (c *crashing) host(ctx context.Context, env ...string) (*exec.Cmd, *bytes.Buffer) {
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, "run", "testdata/spaces/crash", "--addr", ":0", "--console-addr", ":0", "--state", c.state,
		"--python", environment(c.t), "--gpus", "mock:4xH200", "--ready-json")
	output := &bytes.Buffer{}
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = append(productEnv(c.t), env...), output, output, 100*time.Millisecond
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return cmd, output
}

// restart runs a host until its n-th failpoint kills it.
func (c *crashing) restart(n int) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	began := time.Now()
	cmd, output := c.host(ctx, fmt.Sprintf("%s=%d", killAt, n))
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	c.watchOrphans(began, exited)
	<-exited
	_, point, found := strings.Cut(output.String(), "killed at ")
	if !found || ctx.Err() != nil {
		c.t.Fatalf("the host was not killed at failpoint %d (%v):\n%s", n, ctx.Err(), output)
	}
	point, _, _ = strings.Cut(point, "\n")
	c.points[point]++
	left := processesOf(c.state)
	maps.Copy(left, c.orphans)
	c.orphans = left
	c.checkRuns()
}

// checkRuns compares the runs with those at the last kill: none is lost, and none has another time. A lease has one run at most,
// because it is the key of the table.
func (c *crashing) checkRuns() {
	db, err := migrations.Open(c.t.Context(), filepath.Join(c.state, "spacehost.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(c.t.Context(), `SELECT lease_id, at FROM runs WHERE at IS NOT NULL`)
	if err != nil {
		c.t.Fatal(err)
	}
	defer rows.Close()
	runs := map[string]int64{}
	for rows.Next() {
		var lease string
		var at int64
		if err := rows.Scan(&lease, &at); err != nil {
			c.t.Fatal(err)
		}
		runs[lease] = at
	}
	for lease, at := range c.runs {
		if runs[lease] != at {
			c.t.Errorf("the run of lease %s counted from %d, and counts from %d after a crash (0: not at all)", lease, at, runs[lease])
		}
	}
	c.runs = runs
}

// orphansGone is the time limit for ending orphans after a restart. It is longer on a machine that runs other tests, too.
func orphansGone() time.Duration {
	if fire {
		return 5 * time.Second
	}
	return patience
}

// watchOrphans checks the limit for the orphans of earlier hosts while the present host is running.
func (c *crashing) watchOrphans(began time.Time, exited <-chan struct{}) {
	for look := time.NewTicker(5 * time.Millisecond); ; {
		for pid := range c.orphans {
			if !alive(pid) {
				delete(c.orphans, pid)
				c.ended, c.slowest = c.ended+1, max(c.slowest, time.Since(began))
			}
		}
		if len(c.orphans) == 0 {
			return
		}
		if time.Since(began) > orphansGone() {
			c.t.Errorf("%s after the restart, orphans are still running: %v", orphansGone(), c.orphans)
			return
		}
		select {
		case <-exited:
			return
		case <-look.C:
		}
	}
}

// plantPID replaces a worker's pid in the database by the bystander's: with another start time, as if the pid had been reused,
// or with another boot id, because after a reboot the start time may be identical.
func (c *crashing) plantPID(rebooted bool) {
	db, err := migrations.Open(c.t.Context(), filepath.Join(c.state, "spacehost.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	query, start := `UPDATE leases SET worker_pid = ?, worker_start = ? + 1 WHERE ended_at IS NULL AND active_at IS NOT NULL`, c.start
	if rebooted {
		query = `UPDATE leases SET worker_pid = ?, worker_start = ?, boot_id = 'another boot' WHERE ended_at IS NULL AND active_at IS NOT NULL`
	}
	done, err := db.ExecContext(c.t.Context(), query, c.bystander.Process.Pid, start)
	if err != nil {
		c.t.Fatal(err)
	}
	n, _ := done.RowsAffected() // SQLite supports it
	c.planted += int(n)
}

// recover starts the last host and shuts it down gracefully.
func (c *crashing) recover() {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	began := time.Now()
	cmd, output := c.host(ctx)
	exited := make(chan struct{})
	go func() { defer close(exited); _ = cmd.Wait() }()
	c.watchOrphans(began, exited)
	eventually(c.t, "the Space is running again", patience, func() bool { return len(processesOf(c.state)) > 0 })
	_ = cmd.Process.Signal(syscall.SIGINT)
	<-exited
	if left := processesOf(c.state); len(left) > 0 || ctx.Err() != nil {
		c.t.Errorf("processes left after the last shutdown: %v (%v)\n%s", left, ctx.Err(), output)
	}
	if !alive(c.bystander.Process.Pid) {
		c.t.Error("the bystander process was killed")
	}
	if left := slices.Collect(maps.Values(c.orphans)); len(left) > 0 {
		c.t.Errorf("orphans of earlier hosts are still running: %v", left)
	}
	wantExactLedger(c.t, filepath.Join(c.state, "spacehost.db"), 0)
}

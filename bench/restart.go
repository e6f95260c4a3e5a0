package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// restarts is the number of measured starts of one round.
const restarts = 3

// restartPoll is the interval of the requests of a visitor.
const restartPoll = 50 * time.Millisecond

// restartHost measures how long visitors wait while a host with an unchanged Space is stopped and started: spacehost serve, at the level
// of isolation that it chooses, with the environment that it has built before. For plain Gradio it is the Space's own start.
func restartHost(ctx context.Context, b *bench, s *target) (values, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*startTimeout)
	defer cancel()
	home, err := os.MkdirTemp(b.scratch, "restart-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(home, "lab.yaml")
	text := fmt.Sprintf("gpus: mock:1xH200\nconsole: 127.0.0.1:0\nspaces:\n- {folder: %s, address: %q}\n", b.app, addr)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	starting := func() *target {
		t := &target{name: s.name, url: "http://" + addr, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
		t.cmd = exec.Command(b.spacehost, "serve", "--config", file, "--state", filepath.Join(home, "state"))
		if s.name == stock {
			t.cmd = exec.Command(b.env.Python, "app.py")
			t.cmd.Dir = b.app
		}
		_, port, _ := net.SplitHostPort(addr)
		t.cmd.Env = append(plainEnv(home), "GRADIO_SERVER_PORT="+port, "GRADIO_SERVER_NAME=127.0.0.1", "SPACEHOST_ENVIRONMENTS="+b.environments)
		return t
	}
	times := restarts
	if b.short {
		times = 1
	}
	var took, above []time.Duration
	running := starting()
	defer func() { running.stop() }()
	for n := range times + 1 {
		began := time.Now()
		if n > 0 && s.name == stock {
			running.stop()
			running, began = starting(), time.Now()
		} else if n > 0 {
			_ = running.cmd.Process.Signal(syscall.SIGTERM) // as systemctl stop; it may have exited
			<-running.ended
			running = starting()
		}
		if _, err := running.launch(nil); err != nil {
			return nil, err
		}
		// A host answers from its start on, so that frequent requests would slow the start of its Space.
		var last time.Time
		err := running.await(ctx, func() bool {
			if time.Since(last) < restartPoll {
				return false
			}
			last = time.Now()
			return answers(ctx, running.url+"/config")
		})
		if err != nil {
			return nil, fmt.Errorf("%w\n%s", err, running.lastOutput())
		}
		if n > 0 { // the first start may build the environment
			took = append(took, time.Since(began))
		}
		if n > 0 && s.name == ours {
			own, err := ownStart(filepath.Join(home, "state", "logs", "run-app.log"))
			if err != nil {
				return nil, err
			}
			above = append(above, took[len(took)-1]-own)
		}
	}
	slices.Sort(took)
	v := values{"p50_s": took[len(took)/2].Seconds()}
	if s.name == ours {
		slices.Sort(above)
		v["above_s"] = above[len(above)/2].Seconds()
	}
	return v, nil
}

// ownStart returns how long the latest start of the Space took, from its process to its first answer, according to the log of its
// runs. Other load of the machine slows it as it slows a start of plain Gradio, so that the rest of a restart is comparable.
func ownStart(log string) (time.Duration, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return 0, err
	}
	var began, ready time.Time
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		switch at, _ := time.Parse(time.RFC3339Nano, words[0]); words[2] {
		case "Starting":
			began = at
		case "RUNNING":
			ready = at
		}
	}
	if !ready.After(began) || began.IsZero() {
		return 0, fmt.Errorf("%s does not show a start", log)
	}
	return ready.Sub(began), nil
}

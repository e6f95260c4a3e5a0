package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// hostile is a host with the Space testdata/spaces/hostile, which attacks it at the test's request.
type hostile struct {
	*attacker
	address [2]any // of the Space's visitors, as the Space receives it
	fds     int    // open descriptors of the host before the attack
}

func newHostile(t *testing.T, args ...string) *hostile {
	t.Helper()
	args = append(args, "--liveness", "after=never") // an answer of the runner to a probe would come between the parts of a frame
	p := runProduct(t, "testdata/spaces/hostile", args...)
	h := &hostile{attacker: &attacker{t: t, p: p, host: strings.TrimPrefix(p.URL, "http://"), hits: &atomic.Int64{}}}
	_, number, err := net.SplitHostPort(h.host)
	if err != nil {
		t.Fatal(err)
	}
	h.address = [2]any{"127.0.0.1", json.Number(number)}
	h.attack("/close", nil) // what a first request allocates is no growth
	h.fds, h.memory = h.descriptors(), h.residentMiB()
	return h
}

// attack lets the Space do what path names, and decodes its answer into result.
func (h *hostile) attack(path string, result any, arguments ...any) {
	h.t.Helper()
	status, answer := request(h.t, http.MethodPost, h.p.URL+path, h.body(arguments), nil)
	if status != http.StatusOK {
		h.t.Fatalf("%s: %d %s", path, status, answer)
	}
	if result != nil {
		if err := json.Unmarshal([]byte(answer), result); err != nil {
			h.t.Fatalf("%s: %v in %s", path, err, answer)
		}
	}
}

func (h *hostile) body(arguments []any) string {
	h.t.Helper()
	body, err := json.Marshal(append([]any{}, arguments...)) // nil would be null
	if err != nil {
		h.t.Fatal(err)
	}
	return string(body)
}

// attackToTheEnd is attack for an attack that ends the Space.
func (h *hostile) attackToTheEnd(path string, arguments ...any) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.p.URL+path, strings.NewReader(h.body(arguments)))
	if err != nil {
		h.t.Fatal(err)
	}
	if answer, err := http.DefaultClient.Do(r); err == nil { // its content depends on the moment of the end
		answer.Body.Close()
	}
}

// Growth that an attack may cause. The race detector keeps some 250 kB for each of a thousand concurrent goroutines.
const (
	allowedFDs      = 50
	allowedGrowth   = 32 // MiB
	allowedWithRace = 512
)

// wantNoGrowth checks that the attack costs the host neither descriptors, beyond those of more connections, nor memory.
func (h *hostile) wantNoGrowth(more int) {
	h.t.Helper()
	if now := h.descriptors(); now > h.fds+more+allowedFDs {
		h.t.Errorf("the host has %d open descriptors, %d before the attack, want at most %d more", now, h.fds, more+allowedFDs)
	}
	allowed := allowedGrowth
	if withRace() {
		allowed = allowedWithRace
	}
	if now := h.residentMiB(); now > h.memory+allowed {
		h.t.Errorf("the host has %d MiB of memory, %d before the attack, want at most %d more", now, h.memory, allowed)
	}
}

// withRace reports whether the race detector, which needs several times the memory, is part of this binary.
func withRace() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// peak calls sample until the returned function is called, which returns the highest sample.
func peak(sample func() int) (stop func() int) {
	ended, result := make(chan struct{}), make(chan int)
	go func() {
		highest := 0
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			highest = max(highest, sample())
			select {
			case <-tick.C:
			case <-ended:
				result <- highest
				return
			}
		}
	}()
	return func() int { close(ended); return <-result }
}

// TestLoop: a Space names an address of the host as its own server, the address of another program, or a relay to the
// host. Neither sends a visitor's request around in circles, or to the other program.
func TestLoop(t *testing.T) {
	for _, row := range []struct {
		name   string
		port   func(h *hostile) any
		status int
	}{
		{"the Space's own address", func(h *hostile) any { return h.address[1] }, http.StatusServiceUnavailable},
		{"the console", func(h *hostile) any { return json.Number(port(h.p.Console)) }, http.StatusServiceUnavailable},
		{"another program", func(h *hostile) any { return h.port }, http.StatusServiceUnavailable},
		{"a relay", func(h *hostile) (relay any) { h.attack("/relay", &relay, h.address); return relay }, http.StatusLoopDetected},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := newHostile(t)
			h.listen()
			at := row.port(h)
			h.attack("/frames", nil, []any{map[string]any{"op": "server", "port": at}})
			highest := peak(h.descriptors)
			eventually(t, "the host uses the port", patience, func() bool { return statusOfRequest(t, http.MethodGet, h.p.URL+"/any", nil) == row.status })
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if status, answer := request(t, http.MethodGet, h.p.URL+"/any", "", nil); status != row.status {
						t.Errorf("a visitor gets %d %.200s, want %d", status, answer, row.status)
					}
				})
			}
			all.Wait()
			if most := highest(); most > h.fds+allowedFDs {
				t.Errorf("the host had %d open descriptors, %d before the attack", most, h.fds)
			}
			h.wantNoGrowth(0)
			if hits := h.hits.Load(); hits != 0 {
				t.Errorf("%d requests of visitors reached another program", hits)
			}
			hidden := row.name == "another program" && h.p.Spaces[0].Level == "namespaces" // the port does not exist in the Space's network
			if output := h.p.text(); row.status == http.StatusServiceUnavailable && !hidden && strings.Count(output, fmt.Sprintf("port %v, which the Space has named", at)) != 1 {
				t.Errorf("the operator does not read the cause once:\n%s", output)
			}
		})
	}
}

// TestManifestFlood sends 400 manifests of 0.9 MB. The host ends the Space.
func TestManifestFlood(t *testing.T) {
	h := newHostile(t)
	files := make([]string, 9)
	for i := range files {
		files[i] = strings.Repeat("x", 100_000)
	}
	h.attackToTheEnd("/frames", []any{map[string]any{
		"op": "manifest", "times": 400, "gradio": "6.31.0", "port": 1, "max_threads": 1, "files": map[string]any{"allowed": files},
	}})
	eventually(t, "the host ends the Space", patience, func() bool {
		return strings.Contains(h.p.text(), "violated the frame protocol: manifests of more than 64 MiB")
	})
	h.wantNoGrowth(0)
}

// TestEscapes: nothing that a Space prints or claims writes over the operator's terminal, or over that of the log's reader.
func TestEscapes(t *testing.T) {
	h := newHostile(t)
	const escapes = "\x1b[2J\u009b2J\x1b]0;owned\x07\x08\x7f\u0085"
	h.attack("/write", nil, escapes+"printed\n") // in latin-1: raw bytes from 0x80 to 0x9f
	h.attack("/frames", nil, []any{map[string]any{
		"op": "unknown", "gradio": escapes + "claimed", "reason": escapes + "\nspacehost: forged" + strings.Repeat("x", 100_000), "port": 1,
	}})
	eventually(t, "the host has shown both", patience, func() bool {
		return strings.Contains(h.p.text(), "printed") && strings.Contains(h.p.text(), "claimed") && strings.Contains(h.p.log(), "claimed")
	})
	for name, text := range map[string]string{"screen": h.p.text(), "log": h.p.log()} {
		control := strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' })
		if control >= 0 || !utf8.ValidString(text) {
			t.Errorf("the %s has a control character: %.200q", name, text[max(0, control-50):])
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "spacehost: forged") || len(line) > 2000 {
				t.Errorf("the %s has the line %.200q of %d bytes", name, line, len(line))
			}
		}
	}
}

// TestOutputFlood prints 100 MB, or 200 MB with `make attacks`. The screen shows the burst and a megabyte per second, and the number of other lines.
func TestOutputFlood(t *testing.T) {
	h := newHostile(t)
	began := time.Now()
	flood := 100 << 20
	if allAttacks() {
		flood = 200 << 20
	}
	h.attack("/print", nil, flood)
	if rate := float64(flood>>20) / time.Since(began).Seconds(); rate > 2 { // a loaded machine may print more slowly than the screen shows
		eventually(t, "the host reports what it has left out", patience, func() bool {
			return strings.Contains(h.p.text(), "lines were left out: the Space prints more than 1 MB per second")
		})
	} else {
		t.Logf("the Space has printed %.1f MB per second, so the host may have shown all of it", rate)
	}
	// 4 MB at once, then 1 MB per second. The screen adds the Space's name to each line, which is a tenth of it.
	size, most := len(h.p.text())>>20, 1+int(1.15*(4+time.Since(began).Seconds()))
	if size > most {
		t.Errorf("the screen shows %d MB, want at most %d", size, most)
	}
	h.wantNoGrowth(0)
}

// TestConnectionFlood opens 1,200 connections from a Space. 256 stay. Visitors are not limited, and everything is released when
// the Space closes them.
func TestConnectionFlood(t *testing.T) {
	h := newHostile(t)
	h.visit(600) // the memory that visitors need anyway
	h.memory = h.residentMiB()
	highest, kept := peak(h.descriptors), 0
	h.attack("/connections", &kept, 1200, h.address)
	if most := highest(); kept < 250 || kept > 256 {
		t.Errorf("%d connections of the Space stay (at most %d open descriptors), want 256", kept, most)
	}
	h.wantNoGrowth(256)
	h.visit(600)
	if log := h.p.log(); strings.Count(log, "connections of a space refused") != 1 {
		t.Error("the log does not report the refusals once")
	}
	h.attack("/close", nil)
	eventually(t, "the host's descriptors are those of before", patience, func() bool { return h.descriptors() <= h.fds+allowedFDs })
	h.wantNoGrowth(0)
}

// visit opens connections of visitors on this machine, all of which the host serves, and closes them.
func (h *hostile) visit(number int) {
	h.t.Helper()
	open := make([]net.Conn, number)
	for i := range open {
		open[i] = h.dial()
		defer open[i].Close()
		_ = open[i].SetDeadline(time.Now().Add(patience))                                        // reached only by a hang
		fmt.Fprintf(open[i], "GET / HTTP/1.1\r\nHost: %s\r\nX-Spacehost-Hop: 1\r\n\r\n", h.host) // answered without the Space
	}
	for i, conn := range open {
		answer := make([]byte, 64)
		if n, err := io.ReadAtLeast(conn, answer, 12); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 508") {
			h.t.Fatalf("visitor %d gets %q (%v)", i, answer[:n], err)
		}
	}
}

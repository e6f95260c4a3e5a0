package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/cli"
)

const memoryApp = `import os
import gradio as gr

def eat():
    return len(b"x" * (2 << 30))

if os.environ.get("EAT"):
    eat()
gr.Interface(eat, None, "number", api_name="eat").launch()
`

// TestKilledForMemory lets the real kernel kill the Space in a cgroup that is too small for it: once at its start, once during a
// call. The interpreter is a script that moves itself to that cgroup, which it could not see in a sandbox.
func TestKilledForMemory(t *testing.T) {
	python := pythonIn(t, smallCgroup(t, 512<<20))
	dir := filepath.Join(t.TempDir(), "hungry")
	for name, text := range map[string]string{"README.md": "---\nsdk: gradio\nsdk_version: 6.31.0\n---\n", "app.py": memoryApp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const sentence = "it was killed by the kernel's out-of-memory killer: the limit of its cgroup is 512 MiB."

	p := startProduct(t, t.TempDir(), dir, "--isolation", "none", "--python", python, "--variable", "EAT=1")
	<-p.ended
	if code, output := p.cmd.ProcessState.ExitCode(), p.text(); code != cli.ExitRuntime ||
		!strings.Contains(output, "spacehost: RUNTIME_ERROR: The Space's process ended: "+sentence) || !strings.Contains(output, "give the Space more memory") {
		t.Errorf("exit code %d, want %d with the reason and the next step", code, cli.ExitRuntime)
	}

	p = runProduct(t, dir, "--isolation", "none", "--python", python)
	pid := spacePID(t, p)
	if r := p.client().call("/eat"); !strings.Contains(r.Err, sentence) {
		t.Errorf("the visitor reads %q, value %s", r.Err, r.Value)
	}
	eventually(t, "the Space is running again", patience, func() bool {
		s := p.health().Spaces[0]
		return s.Stage == "RUNNING" && s.PID != pid
	})
	if output := p.text(); !strings.Contains(output, "hungry: RUNTIME_ERROR: The Space's process ended: "+sentence+" It is started again.") {
		t.Errorf("the output does not name the cause and the restart")
	}
}

// smallCgroup creates a cgroup with a memory limit in bytes. It skips the test if this machine does not allow it.
func smallCgroup(t *testing.T, limit int) (dir string) {
	t.Helper()
	own, _ := os.ReadFile("/proc/self/cgroup")
	var troubles []string
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, files := "", []string(nil)
		switch {
		case parts[1] == "memory":
			mount, files = "/sys/fs/cgroup/memory", []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
		case parts[1] == "":
			mount, files = "/sys/fs/cgroup", []string{"memory.max", "memory.swap.max"}
		default:
			continue
		}
		dir := filepath.Join(mount, parts[2], fmt.Sprintf("spacehost-test-%d", os.Getpid()))
		if parts[1] == "" { // a child of this process's cgroup has no memory controller while this process is in the parent
			dir = filepath.Join(mount, fmt.Sprintf("spacehost-test-%d", os.Getpid()))
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			troubles = append(troubles, err.Error())
			continue
		}
		t.Cleanup(func() {
			eventually(t, "the cgroup is empty and removed", patience, func() bool { err := os.Remove(dir); return err == nil || os.IsNotExist(err) })
		})
		if err := setLimit(filepath.Join(dir, files[0]), fmt.Sprint(limit)); err != nil {
			troubles = append(troubles, err.Error())
			continue
		}
		swap := fmt.Sprint(limit)
		if parts[1] == "" {
			swap = "0"
		}
		_ = setLimit(filepath.Join(dir, files[1]), swap) // absent on a kernel without swap accounting
		return dir
	}
	t.Skipf("SKIPPED: this machine allows no memory cgroup (%s); a real lack of memory was not tested", strings.Join(troubles, "; "))
	return ""
}

// setLimit writes to a file of the kernel; it does not create files.
func setLimit(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString(value)
	return err
}

// pythonIn returns an interpreter that moves itself into that cgroup.
func pythonIn(t *testing.T, cgroup string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	text := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs && exec %s \"$@\"\n", cgroup, environment(t))
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

package check

import (
	"context"
	"strings"
)

func (c Config) container(context.Context) []Finding {
	sign := c.machine.containerSign()
	if sign == "" {
		return []Finding{ok("Not in a container")}
	}
	return []Finding{c.machine.pidNamespace(sign), {
		Level: Note,
		Text:  "Visitors reach a container through its engine or a reverse proxy, and then may all come from one address: they share one quota",
		Do: "Run with `--addr 0.0.0.0:7860` (127.0.0.1 of a container cannot be published). For addresses of their own, use the machine's network " +
			"(Docker: --network host); behind a reverse proxy, use `spacehost serve` with the proxy's network under trusted_proxies",
	}}
}

// containerSign says by what a container is known, if this is one.
func (m machine) containerSign() string {
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if m.has(file) {
			return file
		}
	}
	for _, name := range []string{"docker", "kubepods", "containerd", "libpod", "lxc"} {
		if strings.Contains(m.read("proc/self/cgroup"), name) {
			return "/proc/self/cgroup says " + name
		}
	}
	for _, name := range []string{"KUBERNETES_SERVICE_HOST", "container"} { // systemd.io/CONTAINER_INTERFACE
		if m.variable(name) != "" {
			return "$" + name
		}
	}
	return ""
}

// pidNamespace knows the machine's own processes by the second: a kernel thread that no other namespace shows.
func (m machine) pidNamespace(sign string) Finding {
	if m.read("proc/2/comm") == "kthreadd" {
		return ok("In a container (%s) that sees the processes of the machine", sign)
	}
	return Finding{
		Level: Note,
		Text: "In a container (" + sign + ") with pids of its own: NVML tells the machine's, if any, so who sits on a GPU cannot be named. " +
			"Whether a GPU is free is then judged by its memory",
		Do: "Nothing with one spacehost per GPU; else start the container with --pid=host",
	}
}

package doctor

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
		Text:  "Visitors reach a container through its engine or a reverse proxy, so they may all have one address: then they share one quota",
		Do: "Run with `--addr 0.0.0.0:7860` (127.0.0.1 of a container cannot be published). To keep the visitors' addresses, use the machine's network " +
			"(Docker: --network host); behind a reverse proxy, use `spacehost serve` with the proxy's network under trusted_proxies",
	}}
}

// containerSign returns the evidence that this is a container, or "".
func (m machine) containerSign() string {
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if m.has(file) {
			return file
		}
	}
	for _, name := range []string{"docker", "kubepods", "containerd", "libpod", "lxc"} {
		if strings.Contains(m.read("proc/self/cgroup"), name) {
			return "/proc/self/cgroup contains " + name
		}
	}
	for _, name := range []string{"KUBERNETES_SERVICE_HOST", "container"} { // systemd.io/CONTAINER_INTERFACE
		if m.variable(name) != "" {
			return "$" + name
		}
	}
	return ""
}

// pidNamespace recognizes the machine's own pid namespace by process 2: a kernel thread that no other namespace
// shows.
func (m machine) pidNamespace(sign string) Finding {
	if m.read("proc/2/comm") == "kthreadd" {
		return ok("In a container (%s) with the pid namespace of the machine", sign)
	}
	return Finding{
		Level: Note,
		Text: "In a container (" + sign + ") with its own pid namespace: NVML reports the machine's pids, if any, so the processes on a GPU cannot be identified. " +
			"A GPU then counts as free when its memory is free",
		Do: "Nothing if only one spacehost uses each GPU; else start the container with --pid=host",
	}
}

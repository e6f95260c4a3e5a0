package doctor

import (
	"net"
	"testing"
)

func TestContainer(t *testing.T) {
	const visitors = "note | share one quota | trusted_proxies"
	rows := []struct {
		name    string
		files   map[string]string
		environ []string
		want    []string
	}{
		{"none", map[string]string{"proc/self/cgroup": "0::/user.slice\n", "proc/2/comm": "kthreadd\n"}, nil, []string{"ok | Not in a container"}},
		{"Docker", map[string]string{".dockerenv": "", "proc/2/comm": "python\n"}, nil, []string{"note | (/.dockerenv) with its own pid namespace | --pid=host", visitors}},
		{"Docker with --pid=host", map[string]string{".dockerenv": "", "proc/2/comm": "kthreadd\n"}, nil, []string{"ok | with the pid namespace of the machine", visitors}},
		{"Podman", map[string]string{"run/.containerenv": ""}, nil, []string{"note | (/run/.containerenv)", visitors}},
		{"Kubernetes by cgroup", map[string]string{"proc/self/cgroup": "0::/kubepods/pod1\n"}, nil, []string{"note | contains kubepods", visitors}},
		{"Kubernetes by environment", nil, []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}, []string{"note | ($KUBERNETES_SERVICE_HOST)", visitors}},
		{"nspawn", nil, []string{"container=systemd-nspawn"}, []string{"note | ($container)", visitors}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			expect(t, Config{machine: fake(t, row.files, row.environ...)}.container(t.Context()), row.want...)
		})
	}
}

func TestProcessOne(t *testing.T) {
	rows := []struct {
		name, comm string
		pid        int
		want       string
	}{
		{"good", "systemd\n", 4242, "ok | Process 1 is systemd"},
		{"spacehost", "spacehost\n", 1, "warning | spacehost is process 1 here | --init"},
		{"spacehost under another name", "host\n", 1, "warning | zombie | tini"},
		{"other spacehost process", "spacehost\n", 12, "warning | zombie | init: true"},
		{"no proc", "", 12, "note | cannot be read | Mount /proc"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := fake(t, map[string]string{"proc/1/comm": row.comm})
			m.pid = row.pid
			expect(t, Config{machine: m}.processOne(t.Context()), row.want)
		})
	}
}

func TestPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	used := listener.Addr().String()
	expect(t, Config{Addresses: []string{used, "127.0.0.1:0", "192.0.2.1:7860"}}.ports(t.Context()),
		"note | "+used+" is already in use | --addr", "ok | 127.0.0.1:0 is free", "note | 192.0.2.1:7860 cannot be used | --addr")
	listener.Close()
	expect(t, Config{Addresses: []string{used}}.ports(t.Context()), "ok | "+used+" is free")
}

package main

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/control"
	"spacehost/internal/doctor"
	"spacehost/internal/nodes"
)

// TestGPUsOfNode shows the GPUs of a node wherever the front shows its own: while the node is connected, late and lost.
func TestGPUsOfNode(t *testing.T) {
	t.Parallel()
	front := serveFront(t, t.TempDir(), "127.0.0.1:0")
	gpus := func() []control.GPU { return controlJSON[[]control.GPU](t, front, control.ListGPUs.Path) }
	awaitGPU := func(what string, is func(control.GPU) bool) {
		t.Helper()
		eventually(t, what, patience, func() bool {
			all := gpus()
			return len(all) == 3 && !slices.ContainsFunc(all[1:], func(g control.GPU) bool { return !is(g) })
		})
	}
	if out := front.must("gpu"); !strings.HasPrefix(out, "SLOT  NAME") || strings.Contains(out, "NODE") {
		t.Errorf("without nodes, spacehost gpu prints\n%s", out)
	}
	agent := startAgent(t, front.Cluster, t.TempDir(), "--token-file", front.joinToken("--name", "gpu2"), "--name", "gpu2", "--large", "1/2")
	awaitGPU("the GPUs of the node are free", func(g control.GPU) bool {
		return g.Node == "gpu2" && g.Error == "" && len(g.Slots) == 2 && g.Slots[0].Machine == "gpu2" && g.Slots[0].Phase == "free"
	})
	if out := front.must("gpu"); !strings.HasPrefix(out, "NODE  SLOT  NAME") || strings.Count(out, "\ngpu2  ") != 4 || strings.Count(out, "\n-     0") != 1 {
		t.Errorf("spacehost gpu prints\n%s", out)
	}
	uuid := string(gpus()[1].UUID)
	if out := front.must("gpu", "drain", uuid[:12], "--reason", "new fan"); !strings.HasPrefix(out, uuid+" (slots 0, 1 of node gpu2) is drained") {
		t.Errorf("spacehost gpu drain prints\n%s", out)
	}
	eventually(t, "the slots are drained", patience, func() bool { return gpus()[1].Slots[1].Phase == "drained" && gpus()[2].Slots[1].Phase == "free" })
	front.must("gpu", "return", uuid)
	eventually(t, "the metrics count the slots of both machines", patience, func() bool {
		all := front.metrics()
		return all[`spacehost_slots{node="gpu2",phase="free"}`] == 4 && all[`spacehost_slots{phase="free"}`] == 1 &&
			all[`spacehost_device_healthy{name="NVIDIA H200",node="gpu2",simulated="yes",uuid="`+uuid+`"}`] == 1
	})
	named := func(level doctor.Level) (n int) {
		for _, f := range controlJSON[[]doctor.Finding](t, front, control.RunDoctor.Path) {
			if f.Level == level && strings.Contains(f.Text, "of node gpu2 NVIDIA H200") {
				n++
			}
		}
		return n
	}
	if named(doctor.OK) != 2 {
		t.Error("the doctor does not name the GPUs of the node")
	}

	agent.signal(syscall.SIGSTOP)
	awaitGPU("the GPUs of a late node have no readings", func(g control.GPU) bool { return strings.Contains(g.Error, "node gpu2 cannot be reached") })
	agent.signal(syscall.SIGCONT)
	awaitGPU("the GPUs are read again", func(g control.GPU) bool { return g.Error == "" && g.Slots[0].Phase == "free" })

	agent.kill()
	front.awaitNode("gpu2", nodes.Lost)
	awaitGPU("the slots of a lost node are busy", func(g control.GPU) bool { return g.Slots[0].Phase == "busy" && g.Slots[0].Reason == g.Error })
	if named(doctor.Warning) != 2 {
		t.Error("the doctor does not warn of the lost GPUs")
	}
	if health := get(t, front.Console+"/healthz"); strings.Contains(health, "gpu2") || strings.Contains(health, "No GPU") {
		t.Errorf("the health of the front is %s", health)
	}
	front.must("node", "forget", "gpu2")
	eventually(t, "the GPUs of a forgotten node are gone", patience, func() bool { return len(gpus()) == 1 })
}

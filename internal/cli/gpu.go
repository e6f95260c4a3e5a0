package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/internal/control"
	"spacehost/internal/lease"
)

func newGPU() *cobra.Command {
	return clientCommand[[]control.GPU]{
		use: "gpu", short: "List the GPUs of a running host and the state of their slots",
		long:    "List the GPUs of the host that runs on the state folder: memory, processes, and the state of each slot.",
		example: "  spacehost gpu\n  spacehost gpu --json | jq '.[].processes'",
		args:    cobra.NoArgs, request: fixed(control.ListGPUs.Request(control.NoBody{})),
		show: func(c *cobra.Command, gpus []control.GPU, _ []string) error {
			return aligned(c, func(w io.Writer) { showGPUs(w, gpus) })
		},
	}.command()
}

func showGPUs(w io.Writer, gpus []control.GPU) {
	hasNodes := slices.ContainsFunc(gpus, func(g control.GPU) bool { return g.Node != "" })
	fmt.Fprintln(w, nodeColumn(hasNodes, "NODE")+"SLOT\tNAME\tUUID\tMEMORY\tPROCESSES\tSTATE")
	for _, g := range gpus {
		node := nodeColumn(hasNodes, g.Node)
		row := fmt.Sprintf("%s\t%s\t%d/%d MiB\t%d", gpuName(g), g.UUID, g.MemoryUsed>>20, g.MemoryTotal>>20, len(g.Processes))
		if len(g.Slots) == 0 {
			fmt.Fprintf(w, "%s-\t%s\t%s\n", node, row, withTroubles(g, g.Error))
		}
		for _, slot := range g.Slots {
			fmt.Fprintf(w, "%s%d\t%s\t%s\n", node, slot.Slot, row, gpuState(g, slot))
		}
	}
}

// nodeColumn is the first cell of a row, in a list that has nodes. Without nodes, a list has no such column.
func nodeColumn(hasNodes bool, node string) string {
	if !hasNodes {
		return ""
	}
	return cmp.Or(node, "-") + "\t"
}

// nodeSuffix follows the name of what is on another machine than the host's own.
func nodeSuffix(node string) string {
	if node == "" {
		return ""
	}
	return " of node " + node
}

func gpuName(g control.GPU) string {
	if g.Simulated {
		return g.Name + " (simulated)"
	}
	return g.Name
}

// gpuState describes the slot, the trouble of its Device, and whether an operator drained it.
func gpuState(g control.GPU, slot lease.SlotView) string {
	state := slotState(slot)
	if g.Drained != nil && slot.Phase != "drained" {
		state += ", then drained: " + g.Drained.Reason
	}
	if g.Drained != nil && !g.Drained.Until.IsZero() {
		state += " (until " + formatMinute(&g.Drained.Until, "") + ")"
	}
	if g.Planned != nil {
		state += fmt.Sprintf(", drained from %s", formatMinute(&g.Planned.From, ""))
		if !g.Planned.Until.IsZero() {
			state += " until " + formatMinute(&g.Planned.Until, "")
		}
		state += ": " + g.Planned.Reason
	}
	if g.Error != "" && slot.Reason != g.Error {
		state += ", and " + g.Error
	}
	return withTroubles(g, state)
}

func withTroubles(g control.GPU, state string) string {
	for _, u := range g.Uninvited {
		state += fmt.Sprintf(" [without a lease: pid %d, %s]", u.PID, ownerName(u))
	}
	var faults []string
	for _, f := range g.Faults {
		faults = append(faults, f.String())
	}
	if len(faults) > 0 {
		state += fmt.Sprintf(" [simulated fault: %s]", strings.Join(faults, ", "))
	}
	return state
}

func ownerName(u lease.Unleased) string {
	if u.Space == "" {
		return "not of a Space"
	}
	return "Space " + u.Space
}

func slotState(s lease.SlotView) string {
	switch {
	case s.Worker != 0:
		return fmt.Sprintf("%s for %s (worker %d)", s.Phase, s.Space, s.Worker)
	case s.Lease != "":
		return fmt.Sprintf("%s by %s (lease %s)", s.Phase, s.Space, s.Lease)
	case s.Reason != "":
		return s.Phase + ": " + s.Reason
	}
	return s.Phase
}

func newDrain() *cobra.Command {
	var request control.DrainRequest
	return clientCommand[control.DrainAnswer]{
		use: "drain SLOT|UUID", short: "Stop lending a GPU of a running host, at once or at a time; running calls finish",
		complete: completeGPU,
		long: `Take a GPU out of service: calls that run on it finish, idle workers leave it, and no new call gets it. The GPU is named
by the number of one of its slots, by its UUID, or by the beginning of its UUID; all of its slots are drained. A GPU of a node is named
by its UUID.
` + "`spacehost gpu`" + ` shows the reason. The drain lasts until the time of --until, else until ` + "`spacehost gpu return`" + `, across
starts of the host.

With --from, the drain begins at that time. Until then, the GPU takes only calls that end before it by their declared
duration. While every GPU is drained, visitors read the reason and the time.

Times are of the host's time zone: 14:00 is the next 14:00, today or tomorrow. "2026-12-01 14:00" and RFC 3339 are
accepted too. Another drain of the same GPU replaces its times, and ` + "`spacehost gpu return`" + ` cancels it.

A GPU that is lost to the driver, hangs, or does not free its memory is not lent either, without a command. It is lent
again once it answers and its memory is free. A GPU with a hardware error reported by the driver (Xid) is drained until
` + "`spacehost gpu return`" + ` or the next start.`,
		example: `  spacehost gpu drain 2 --from 14:00 --until 17:00 --reason "new fan"
  spacehost gpu drain GPU-9a4c6130 --reason "until the new fan has arrived"
  spacehost gpu --json | jq '.[] | select(.drained) | {uuid, drained}'`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&request.Reason, "reason", "", "reason that \"spacehost gpu\" and visitors read")
			c.Flags().StringVar(&request.From, "from", "", "time at which the drain begins, such as 14:00 (default: now)")
			c.Flags().StringVar(&request.Until, "until", "", "time at which the GPU is lent again, such as 17:00 (default: at \"spacehost gpu return\")")
		},
		request: func(args []string, _ int) (control.Request, error) {
			request.UUID = gpu.DeviceUUID(args[0])
			return control.DrainGPU.Request(request), nil
		},
		show: func(c *cobra.Command, a control.DrainAnswer, _ []string) error {
			name, end := deviceName(a), "`spacehost gpu return "+string(a.UUID)+"`"
			if !a.Until.IsZero() {
				end = formatMinute(&a.Until, "") + ", or " + end
			}
			if a.From.IsZero() {
				return printf(c, "%s is drained: no new call gets it until %s", name, end)
			}
			return printf(c, "%s will be drained from %s until %s. Until then it takes only calls that end before.", name, formatMinute(&a.From, ""), end)
		},
	}.command()
}

// deviceName names the Device of an answer, and its slots.
func deviceName(a control.DrainAnswer) string {
	slots, where := make([]string, len(a.Slots)), nodeSuffix(a.Node)
	for i, n := range a.Slots {
		slots[i] = strconv.Itoa(n)
	}
	if len(slots) == 1 {
		return fmt.Sprintf("%s (slot %s%s)", a.UUID, slots[0], where)
	}
	return fmt.Sprintf("%s (slots %s%s)", a.UUID, strings.Join(slots, ", "), where)
}

func newReturn() *cobra.Command {
	return clientCommand[control.DrainAnswer]{
		use: "return SLOT|UUID", short: "Put a drained GPU of a running host back into service",
		complete: completeGPU,
		long: `Put a drained GPU back into service, whether a command or a hardware error reported by the driver drained it. A drain that
begins later is cancelled. The GPU is named by the number of a slot, by its UUID, or by the beginning of its UUID.`,
		example: "  spacehost gpu return 2\n  spacehost gpu return GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd",
		args:    cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.ReturnGPU.Request(control.DrainRequest{UUID: gpu.DeviceUUID(args[0])}), nil
		},
		show: func(c *cobra.Command, a control.DrainAnswer, _ []string) error {
			return printf(c, "%s is back in service", deviceName(a))
		},
	}.command()
}

func newRescan() *cobra.Command {
	var request control.RescanRequest
	return clientCommand[control.RescanAnswer]{
		use: "rescan", short: "Read the GPUs of a running host's machine again",
		long: `Read the GPUs of the machine again, without a restart of the host: after a GPU was reset or has come back, or after MIG
instances were created or deleted. New GPUs are lent at once, under new slot numbers. GPUs that have left get no new calls, and their
running calls finish. The others keep their slots, calls and idle workers; a drained GPU stays drained.

While the driver is opened again, which may take some seconds, no GPU is granted. A Space at isolation level namespaces sees the
device nodes of a new GPU after its next start (` + "`spacehost space restart`" + `). With ` + "`gpu_nodes: lease`" + ` or
` + "`gpus: none`" + ` the command is refused.`,
		example: "  spacehost gpu rescan\n  spacehost gpu rescan --simulate 2xH200-MIG-3g.71gb",
		args:    cobra.NoArgs,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&request.Simulate, "simulate", "", "GPUs that replace those of a host with simulated GPUs, such as 2xH200-MIG-3g.71gb (default: the same)")
		},
		request: func([]string, int) (control.Request, error) { return control.RescanGPUs.Request(request), nil },
		show: func(c *cobra.Command, a control.RescanAnswer, _ []string) error {
			for _, d := range a.Joined {
				if err := printf(c, "joined  %s  %s", d.UUID, d.Name); err != nil {
					return err
				}
			}
			for _, d := range a.Left {
				if err := printf(c, "left    %s  %s; its running calls finish", d.UUID, d.Name); err != nil {
					return err
				}
			}
			return printf(c, "%d joined, %d left, %d unchanged", len(a.Joined), len(a.Left), a.Stayed)
		},
	}.command()
}

func newFault() *cobra.Command {
	return clientCommand[control.DeviceFaults]{
		use: "fault SLOT|UUID lost|hang|memory-stuck|xid=N|process=PID|clear", short: "Inject a fault into a simulated GPU of a running host, or clear it",
		complete: completeGPU,
		long: `Inject a fault into a simulated GPU of the running host, to test how a Space and its visitors handle it:

  lost          the GPU has fallen off the bus: NVML reports it as lost
  hang          NVML does not answer for it
  memory-stuck  the memory of workers that end from now on stays in use
  xid=N         the driver reports error N. A hardware error (such as 79) drains the GPU until ` + "`spacehost gpu return`" + `.
                An application error (13, 31, 43, 45, 68, 109) is shown, and the GPU stays in service.
                For a MIG instance, 79 is reported of its whole GPU, which drains all instances of it.
  process=PID   a running process uses the GPU outside any lease, as a driver would list it
  clear         remove all faults

A GPU that is lost, hangs, or has stuck memory is not lent: calls wait for another GPU, or fail because none was
available. A GPU has one of these three faults at a time; the last one injected counts. ` + "`spacehost gpu`" + ` lists the
UUIDs and shows the reason. Real GPUs are refused.`,
		example: `  spacehost gpu fault $(spacehost gpu --json | jq -r '.[0].uuid') lost
  spacehost gpu fault GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd clear`,
		args: cobra.ExactArgs(2),
		request: func(args []string, _ int) (control.Request, error) {
			fault, err := gpu.ParseFault(args[1])
			return control.FaultGPU.Request(control.FaultRequest{UUID: gpu.DeviceUUID(args[0]), Fault: fault}), err
		},
		show: showFaults,
	}.command()
}

func showFaults(c *cobra.Command, now control.DeviceFaults, _ []string) error {
	if len(now.Faults) == 0 {
		return printf(c, "%s: no fault", now.UUID)
	}
	var words []string
	for _, f := range now.Faults {
		words = append(words, f.String())
	}
	return printf(c, "%s: %s", now.UUID, strings.Join(words, ", "))
}

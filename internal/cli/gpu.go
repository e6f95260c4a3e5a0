package cli

import (
	"fmt"
	"io"
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
	fmt.Fprintln(w, "SLOT\tNAME\tUUID\tMEMORY\tPROCESSES\tSTATE")
	for _, g := range gpus {
		row := fmt.Sprintf("%s\t%s\t%d/%d MiB\t%d", gpuName(g), g.UUID, g.MemoryUsed>>20, g.MemoryTotal>>20, len(g.Processes))
		if len(g.Slots) == 0 {
			fmt.Fprintf(w, "-\t%s\t%s\n", row, withTroubles(g, g.Error))
		}
		for _, slot := range g.Slots {
			fmt.Fprintf(w, "%d\t%s\t%s\n", slot.Slot, row, gpuState(g, slot))
		}
	}
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
	var reason string
	return clientCommand[control.DrainRequest]{
		use: "drain UUID", short: "Stop lending a GPU of a running host; running calls finish",
		complete: completeGPU,
		long: `Take a GPU out of service: calls that run on it finish, idle workers leave it, and no new call gets it.
` + "`spacehost gpu`" + ` shows the reason. The drain lasts until ` + "`spacehost gpu return`" + `, across starts of the host.

A GPU that is lost to the driver, hangs, or does not free its memory is not lent either, without a command. It is lent
again once it answers and its memory is free. A GPU with a hardware error reported by the driver (Xid) is drained until
` + "`spacehost gpu return`" + ` or the next start.`,
		example: `  spacehost gpu drain GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd --reason "new fan on Monday"
  spacehost gpu --json | jq '.[] | select(.drained) | {uuid, drained}'`,
		args: cobra.ExactArgs(1),
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&reason, "reason", "", "reason that \"spacehost gpu\" shows")
		},
		request: func(args []string, _ int) (control.Request, error) {
			return control.DrainGPU.Request(control.DrainRequest{UUID: gpu.DeviceUUID(args[0]), Reason: reason}), nil
		},
		show: func(c *cobra.Command, _ control.DrainRequest, args []string) error {
			return printf(c, "%s is drained: no new call gets it until `spacehost gpu return %s`", args[0], args[0])
		},
	}.command()
}

func newReturn() *cobra.Command {
	return clientCommand[control.DrainRequest]{
		use: "return UUID", short: "Put a drained GPU of a running host back into service",
		complete: completeGPU,
		long:     "Put a drained GPU back into service, whether a command or a hardware error reported by the driver drained it.",
		example:  "  spacehost gpu return GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd",
		args:     cobra.ExactArgs(1),
		request: func(args []string, _ int) (control.Request, error) {
			return control.ReturnGPU.Request(control.DrainRequest{UUID: gpu.DeviceUUID(args[0])}), nil
		},
		show: func(c *cobra.Command, _ control.DrainRequest, args []string) error {
			return printf(c, "%s is back in service", args[0])
		},
	}.command()
}

func newFault() *cobra.Command {
	return clientCommand[control.DeviceFaults]{
		use: "fault UUID lost|hang|memory-stuck|xid=N|process=PID|clear", short: "Inject a fault into a simulated GPU of a running host, or clear it",
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

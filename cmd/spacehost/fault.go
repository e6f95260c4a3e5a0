package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spacehost/gpu"
	"spacehost/internal/control"
)

func newFault() *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "fault UUID lost|hang|memory-stuck|xid=N|process=PID|clear",
		Short: "Break a simulated GPU of a running host, or repair it",
		Long: `Give a simulated GPU of the running host a trouble, to see what a Space and its visitors make of it:

  lost          the GPU has fallen off the bus: NVML answers that it is lost
  hang          NVML does not answer about it
  memory-stuck  the memory of a worker that ends from now on stays in use
  xid=N         the driver reports error N: one of the hardware (such as 79) drains the GPU until ` + "`spacehost gpu return`" + `,
                one of an application (13, 31, 43, 45, 68, 109) is shown, and the GPU works on
                (of a MIG instance, 79 is reported of its whole GPU: all instances of it are drained)
  process=PID   a living process sits on it outside any lease, as a driver would list it
  clear         no trouble any more

A GPU that is lost, hangs, or whose memory is stuck is not lent: calls wait for another, or read that no GPU was
available. Of these three a GPU has one, the last given. ` + "`spacehost gpu`" + ` lists UUIDs and shows the reason.
True GPUs are refused.`,
		Example: `  spacehost gpu fault $(spacehost gpu --json | jq -r '.[0].uuid') lost
  spacehost gpu fault GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd clear`,
		Args: usage(cobra.ExactArgs(2)),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	addState(c, &state)
	c.RunE = func(c *cobra.Command, args []string) error {
		fault, err := gpu.ParseFault(args[1])
		if err != nil {
			return &usageError{c, err}
		}
		dir, err := stateFolder(state)
		if err != nil {
			return err
		}
		body, err := tell(c.Context(), dir, control.FaultGPU.Request(control.FaultRequest{UUID: gpu.DeviceUUID(args[0]), Fault: fault}))
		if err != nil {
			return err
		}
		text := string(trimNewline(body))
		if !asJSON {
			text, err = faulted(body)
		}
		fmt.Fprintln(c.OutOrStdout(), text)
		return err
	}
	return c
}

// faulted says in words what the Device has now.
func faulted(body []byte) (string, error) {
	var now control.DeviceFaults
	if err := json.Unmarshal(body, &now); err != nil {
		return "", fmt.Errorf("the host's answer is not understood (another version?): %w", err)
	}
	if len(now.Faults) == 0 {
		return string(now.UUID) + ": no fault", nil
	}
	var words []string
	for _, f := range now.Faults {
		words = append(words, f.String())
	}
	return string(now.UUID) + ": " + strings.Join(words, ", "), nil
}

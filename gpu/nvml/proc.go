package nvml

import (
	"fmt"
	"strconv"
	"strings"

	"spacehost/internal/kernelfile"
)

// statReader returns the text of /proc/<pid>/stat.
type statReader func(pid int) ([]byte, error)

func procStat(pid int) ([]byte, error) {
	return kernelfile.Read(fmt.Sprintf("/proc/%d/stat", pid), make([]byte, 1<<10))
}

// startTime returns when the process started, in ticks since boot. A zombie counts as gone: it has no memory left.
func startTime(stat statReader, pid int) (uint64, error) {
	text, err := stat(pid)
	if err != nil {
		return 0, fmt.Errorf("process %d is gone: %w", pid, err)
	}
	// The name is in parentheses and may contain any character, so count from the last one: state is field 3, start
	// time field 22.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: short line %q", pid, text)
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return 0, fmt.Errorf("process %d is gone: its state is %s", pid, state)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return start, nil
}

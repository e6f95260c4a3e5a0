package nvml

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/gpu/gputest"
)

func simulated(t *testing.T, spec string) *Simulation {
	t.Helper()
	s, err := Simulated(spec)
	if err != nil {
		t.Fatalf("Simulated(%q): %v", spec, err)
	}
	t.Cleanup(func() { mustClose(t, s.Inventory) })
	return s
}

func devicesOf(t *testing.T, inv gpu.Inventory) []gpu.Device {
	t.Helper()
	devices, err := inv.Devices(t.Context())
	if err != nil {
		t.Fatalf("Devices: %v", err)
	}
	return devices
}

func TestSimulatedInventory(t *testing.T) {
	for _, spec := range []string{"2xH200", "3xH200-MIG-3g.71gb"} {
		t.Run(spec, func(t *testing.T) {
			gputest.TestInventory(t, func(t *testing.T) gpu.Inventory { return simulated(t, spec) })
		})
	}
}

func TestOnlySimulationIsSimulator(t *testing.T) {
	if _, ok := any(&Inventory{}).(gpu.Simulator); ok {
		t.Error("a real Inventory is a gpu.Simulator: the host must not call Occupy for real GPUs")
	}
}

func TestSpec(t *testing.T) {
	tests := []struct {
		spec  string
		count int
		name  string
	}{
		{"2xH200", 2, "NVIDIA H200"},
		{"H200", 1, "NVIDIA H200"},
		{"1xRTX-PRO-6000", 1, "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
		{"RTX-PRO-6000", 1, "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
		{"4xa100", 4, "NVIDIA A100-SXM4-80GB"},
		{"64xT4", 64, "Tesla T4"},
		{"H200-MIG-3g.71gb", 1, "NVIDIA H200 MIG 3g.71gb"},
		{"9xh100-mig-1G.10GB", 9, "NVIDIA H100 80GB HBM3 MIG 1g.10gb"},
	}
	for _, tt := range tests {
		devices := devicesOf(t, simulated(t, tt.spec))
		if len(devices) != tt.count || devices[0].Name != tt.name || !devices[0].Simulated {
			t.Errorf("Simulated(%q) has %d of %+v; want %d simulated %s", tt.spec, len(devices), devices[0], tt.count, tt.name)
		}
	}
}

func TestBadSpec(t *testing.T) {
	const known = "the models are A100, A10G, B200, H100, H200, L4, L40S, RTX-4090, RTX-5090, RTX-PRO-6000, T4"
	tests := []struct{ spec, want string }{
		{"", known},
		{"2x", known},
		{"2", known},
		{"2xH300", known},
		{"2 x H200", known},
		{"-1xH200", known},
		{"2xx", known},
		{"2xH200-MIG-9g.1gb", "the instance sizes of that model are 1g.18gb, 2g.35gb, 3g.71gb, 4g.71gb"},
		{"H200-MIG-", "the instance sizes of that model are"},
		{"T4-MIG-1g.5gb", "MIG instances can be simulated for A100, H100, H200; example"},
		{"0xH200-MIG-3g.71gb", "the count must be 1 to 64 devices"},
		{"0xH200", "the count must be 1 to 64 devices"},
		{"65xH200", "the count must be 1 to 64 devices"},
		{"99999999999999999999xH200", "the count must be 1 to 64 devices"},
	}
	for _, tt := range tests {
		_, err := Simulated(tt.spec)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", tt.spec)) {
			t.Errorf("Simulated(%q) fails with %v; want the spec and %q", tt.spec, err, tt.want)
		}
	}
}

func TestUUIDsAreStable(t *testing.T) {
	form := regexp.MustCompile(`^GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	one, two := devicesOf(t, simulated(t, "1xH200")), devicesOf(t, simulated(t, "2xH200"))
	if one[0] != two[0] || !form.MatchString(string(two[1].UUID)) {
		t.Errorf("first devices are %+v and %+v, the second %+v; want the same value twice, and the form of a UUID", one[0], two[0], two[1])
	}
	// State on disk names Devices by UUID, so this one must stay what it is in releases to come.
	if want := gpu.DeviceUUID("GPU-9a4c6130-2ca6-3cc7-d783-bedc05ddacdd"); one[0].UUID != want {
		t.Errorf("first H200 is %s; want %s", one[0].UUID, want)
	}
	if other := devicesOf(t, simulated(t, "1xH100")); other[0].UUID == one[0].UUID {
		t.Errorf("an H100 and an H200 have the same UUID %s", other[0].UUID)
	}
}

// TestOccupantEndsWithItsProcess follows a real process: listed while it runs, but not as a zombie nor after it is
// reaped.
func TestOccupantEndsWithItsProcess(t *testing.T) {
	s := simulated(t, "1xH200")
	uuid := devicesOf(t, s)[0].UUID
	pool, err := gpu.NewPool(t.Context(), s, 1)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	pid := child.Process.Pid
	if err := s.Occupy(uuid, pid); err != nil {
		t.Fatalf("Occupy: %v", err)
	}
	mustList(t, s, uuid, "while it runs", pid)
	want := fmt.Sprintf("pid %d on it, 1536 MiB in use", pid)
	if err := pool.Clear(t.Context(), uuid, gpu.Neighbours{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Clear = %v; want %q", err, want)
	}

	child.Process.Kill()
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil { // exited, but not reaped: a zombie
		t.Fatal(err)
	}
	mustList(t, s, uuid, "of a zombie")
	if err := s.Occupy(uuid, pid); err == nil {
		t.Error("Occupy accepts a zombie")
	}
	child.Wait()
	mustList(t, s, uuid, "after it was reaped")
	if err := s.Occupy(uuid, pid); err == nil {
		t.Error("Occupy accepts an exited process")
	}
	if err := pool.Clear(t.Context(), uuid, gpu.Neighbours{}); err != nil {
		t.Errorf("Clear = %v; want nil", err)
	}
}

func mustList(t *testing.T, inv gpu.Inventory, uuid gpu.DeviceUUID, when string, pids ...int) {
	t.Helper()
	var want []gpu.Process
	for _, pid := range pids {
		want = append(want, gpu.Process{PID: pid, Memory: occupantMemory})
	}
	got, _, err := inv.Usage(t.Context(), uuid)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Processes %s = %v, %v; want %v", when, got, err, want)
	}
}

func TestReusedPidIsNotTheOccupant(t *testing.T) {
	stats := map[int]string{7: statLine("python", "S", 1000), 8: statLine("python", "S", 1000)}
	s, err := simulate(2, "T4", func(pid int) ([]byte, error) {
		if line, ok := stats[pid]; ok {
			return []byte(line), nil
		}
		return nil, os.ErrNotExist
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s.Inventory)
	for _, pid := range []int{7, 8} {
		if err := s.Occupy(t4[0], pid); err != nil {
			t.Fatal(err)
		}
	}
	mustList(t, s, t4[0], "at first", 7, 8)
	mustList(t, s, t4[1], "on the other device")

	stats[7] = statLine("other", "R", 1001)
	mustList(t, s, t4[0], "after pid 7 became another process", 8)
	stats[7] = statLine("python", "S", 1000)
	mustList(t, s, t4[0], "even if the start time goes back", 8)
}

func TestMemoryNeverExceedsTheDevice(t *testing.T) {
	s, err := simulate(1, "T4", func(int) ([]byte, error) { return []byte(statLine("python", "S", 1)), nil })
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, s.Inventory)
	for pid := 1; pid <= 20; pid++ {
		if err := s.Occupy(t4[0], pid); err != nil {
			t.Fatal(err)
		}
	}
	total := models["T4"].mib << 20
	if got, err := s.Memory(t.Context(), t4[0]); err != nil || got != (gpu.Memory{Total: total, Used: total}) {
		t.Errorf("Memory with 20 occupants = %+v, %v; want all %d in use", got, err, total)
	}
}

func statLine(name, state string, start uint64) string {
	return fmt.Sprintf("7 (%s) %s 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", name, state, start)
}

func TestStartTime(t *testing.T) {
	tests := []struct {
		line string
		want uint64
		ok   bool
	}{
		{statLine("python", "S", 42), 42, true},
		{statLine("a) Z 1 (b c", "D", 43), 43, true},
		{statLine("python", "T", 44), 44, true},
		{statLine("python", "Z", 42), 0, false},
		{statLine("python", "X", 42), 0, false},
		{"7 (python) S 1 7", 0, false},
		{"", 0, false},
		{strings.Replace(statLine("python", "S", 42), " 42 ", " x ", 1), 0, false},
	}
	for _, tt := range tests {
		got, err := startTime(func(int) ([]byte, error) { return []byte(tt.line), nil }, 7)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("startTime of %q = %d, %v; want %d, fine: %t", tt.line, got, err, tt.want, tt.ok)
		}
	}
}

func TestStartTimeOfRealProcess(t *testing.T) {
	one, err := startTime(procStat, os.Getpid())
	two, _ := startTime(procStat, os.Getpid())
	if err != nil || one == 0 || one != two {
		t.Errorf("start time of this test = %d then %d, %v; want the same value twice", one, two, err)
	}
}

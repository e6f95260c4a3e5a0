package worker

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// printing returns an output and the lines that it has shown.
func printing() (o *output, shown func() []string) {
	var lines []string
	o = newOutput(func(_, line string) { lines = append(lines, line) }, 0)
	return o, func() []string { o.mu.Lock(); defer o.mu.Unlock(); return lines }
}

// TestOutputFlood prints 100 MB in 10 s: the burst and a megabyte per second are shown, and one line for each passage that
// is left out.
func TestOutputFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, shown := printing()
		line := strings.Repeat("x", 1023)
		for range 10 {
			for range 10 << 10 {
				o.print(Stdout, line)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		size, notices, left := 0, 0, 0
		for _, text := range shown() {
			var n int
			if _, err := fmt.Sscanf(text, "… %d lines were left out", &n); err == nil {
				notices, left = notices+1, left+n
				continue
			}
			size += len(text) + 1
		}
		if most := (outputBurst * outputRate) + 10*outputRate; size > most || size < most-2*outputRate {
			t.Errorf("%d bytes are shown, want about %d", size, most)
		}
		if notices != 10 || left+size>>10 != 100<<10 {
			t.Errorf("%d notices of %d lines, and %d lines are shown; want 10 notices and %d lines in all", notices, left, size>>10, 100<<10)
		}
	})
}

// TestFloodWaits reads 100 MB: a second's worth at once, and the rest at the rate of the host.
func TestFloodWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			perSecond int64
			want      time.Duration
		}{{0, 11500 * time.Millisecond}, {50 << 20, 0}} {
			o := newOutput(func(string, string) {}, row.perSecond)
			began := time.Now()
			for range 100 << 10 {
				o.slowDown(1024)
			}
			if took := time.Since(began); took < row.want-2*readPause || took > row.want+2*readPause {
				t.Errorf("limit %d: 100 MB took %s, want %s", row.perSecond, took, row.want)
			}
		}
	})
}

// TestOutputRecovers: a Space below the limit is not affected. After a flood the notice appears although nothing more is printed.
func TestOutputRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, shown := printing()
		for range 20 {
			for range 1000 {
				o.print(Stdout, strings.Repeat("x", 999))
			}
			time.Sleep(time.Second)
		}
		if got := len(shown()); got != 20_000 {
			t.Errorf("%d lines at the limit are shown, want 20000", got)
		}
		time.Sleep(time.Minute)
		o.print(Stdout, strings.Repeat("x", (outputBurst*outputRate)+1))
		o.print(Stdout, "left out, too")
		time.Sleep(outputPause - time.Nanosecond)
		if got := len(shown()); got != 20_000 {
			t.Errorf("%d lines are shown before the pause is over", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		o.print(Stdout, "back")
		got := shown()[20_000:]
		if want := []string{"… 2 lines were left out: the Space prints more than 1 MB per second", "back"}; strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got %.200q, want %q", got, want)
		}
		o.flush()
		o.print(Stdout, strings.Repeat("x", (outputBurst*outputRate)+1))
		o.flush() // at the exit
		time.Sleep(time.Minute)
		if got := shown(); len(got) != 20_003 || got[20_002] != "… 1 line was left out: the Space prints more than 1 MB per second" {
			t.Errorf("at the exit: got %d lines, %.100q", len(got), got[len(got)-1])
		}
	})
}

// TestTailOfAFlood: the report about an exit has the last lines, whatever was left out before.
func TestTailOfAFlood(t *testing.T) {
	p, r := startFake(t, "prints", "80000 200")
	within(t, patient, "the Process is done", p.Done())
	tail, lines := p.Tail(), r.printed()
	if tail[tailLines-1] != "last" || tail[tailLines-2] != fmt.Sprintf("%0200d", 79_999) {
		t.Errorf("the tail ends with %q (%v)", tail[tailLines-2:], p.Err())
	}
	size, notices := 0, 0
	for _, line := range lines {
		if size += len(line) + 1; strings.HasPrefix(line, "… ") {
			notices++
		}
	}
	if size > (outputBurst*outputRate)+int(patient.Seconds())*outputRate || notices == 0 || !strings.HasPrefix(lines[len(lines)-1], "… ") && lines[len(lines)-1] != "last" {
		t.Errorf("%d bytes and %d notices are shown, the last line is %.60q", size, notices, lines[len(lines)-1])
	}
}

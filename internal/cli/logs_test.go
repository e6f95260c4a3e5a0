package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"spacehost/internal/spacelog"
)

func TestLogs(t *testing.T) {
	state := t.TempDir()
	now := time.Now().Add(-time.Hour)
	for _, name := range []string{"old", "demo"} {
		w := spacelog.NewWriter(state, name, spacelog.Run, func() time.Time { now = now.Add(20 * time.Minute); return now })
		w.Print("stdout", name+" first")
		w.Print("stderr", name+" last")
		w.Close()
	}
	for _, c := range []struct {
		args, out, errText string
		code               int
	}{
		{"logs demo --lines 1", "stderr demo last\n", "", 0},
		{"logs ./demo", "demo first", "", 0},
		{"logs old --since 25m", "stderr old last\n", "", 0},
		{"logs old --json --lines 1", `"stream":"stderr","text":"old last"}`, "", 0},
		{"logs nosuch", "", `Space "nosuch" has no run log in this state folder: `, 1},
		{"logs demo --build", "", `Space "demo" has no build log`, 1},
		{"logs demo --since yesterday", "", `--since "yesterday" is neither a duration`, 2},
		{"logs demo --lines -1", "", "--lines -1 is below 0", 2},
	} {
		var out, errText bytes.Buffer
		code := Run(t.Context(), append(strings.Fields(c.args), "--state", state), &out, &errText)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(errText.String(), c.errText) || c.errText == "" && errText.Len() > 0 {
			t.Errorf("%s: got %d, %q and %q, want %d, %q and %q", c.args, code, &out, &errText, c.code, c.out, c.errText)
		}
	}
}

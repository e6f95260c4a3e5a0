package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"spacehost/internal/views"
)

// TestSpaceListWithNodes: the column NODE is only there on a host with nodes.
func TestSpaceListWithNodes(t *testing.T) {
	table := func(spaces ...views.Space) string {
		var out bytes.Buffer
		c := &cobra.Command{}
		c.SetOut(&out)
		if err := showSpaces(c, views.Health{Spaces: spaces}, nil); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	one := views.Space{Name: "one", Stage: "RUNNING", URL: "http://h:1", Gradio: "6.31.0", Isolation: "none", PID: 7}
	if got, want := table(one), "SPACE STAGE URL GRADIO ISOLATION PID WAITING WHY one RUNNING http://h:1 6.31.0 none 7 0"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	one.Node = "host"
	far := views.Space{Name: "far", Stage: "BUILDING", URL: "http://h:2", Isolation: "none", WaitsForNode: true, Reason: "It waits for a machine: no node has the name or label h200; nodes: gpu1."}
	const want = "SPACE STAGE NODE URL GRADIO ISOLATION PID WAITING WHY one RUNNING host http://h:1 6.31.0 none 7 0 far BUILDING - http://h:2 - none - 0 It waits for a machine: no node has the name or label h200; nodes: gpu1."
	if got := table(one, far); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestSpaceMove(t *testing.T) {
	h := newTestHost(t)
	h.wantOutput(`^demo starts on gpu2 once its running calls have ended, within 1 min 0 s at most\. `, "space", "move", "demo", "--to", "gpu2")
	h.wantOutput(`^demo starts on gpu2\. `, "space", "move", "demo", "--to", "gpu2", "--now")
	h.wantOutput(`^{"space":"demo","node":"gpu2","drainSeconds":60}\n$`, "space", "move", "demo", "--to", "gpu2", "--json")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"demo"}, "no node given; name it with --to"},
		{[]string{"dmo", "--to", "gpu2"}, `unknown Space "dmo"`},
		{[]string{"demo", "--to", "gpu9"}, "no node is named gpu9"},
	} {
		got := h.spacehost(append([]string{"space", "move"}, row.args...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, row.want) {
			t.Errorf("%q: got %+v, want wrong usage: %s", row.args, got, row.want)
		}
	}
}

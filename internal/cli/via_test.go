package cli

import (
	"strings"
	"testing"
)

func TestViaCommand(t *testing.T) {
	h := newTestHost(t)
	const nothing = `^Nothing is forbidden: `
	h.wantOutput(nothing, "space", "via")
	h.wantOutput(`^SPACE +MAY NOT SPEND OF +SINCE +BY\ndemo +all accounts +20..-..-.. ..:.. +root\n$`, "space", "via", "demo", "--off")
	h.wantOutput(`demo +all accounts .*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--off", "--identity", "user:ada")
	h.wantOutput(`demo +all accounts .*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--off") // repeating it changes nothing
	h.wantOutput(nothing, "space", "via", "other")
	h.wantOutput(`^SPACE.*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--on")
	h.wantOutput(`^\[{"space":"demo","identity":"user:ada","at":"20.*Z","by":"root"}\]\n$`, "space", "via", "--json")
	h.wantOutput(nothing, "space", "via", "demo", "--on", "--identity", "user:ada")
	h.wantOutput(`^\[\]\n$`, "space", "via", "--json")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"demo", "--off", "--on"}, "exclude each other"},
		{[]string{"--off"}, "no Space given"},
		{[]string{"demo", "--identity", "local"}, "--off or --on"},
		{[]string{"dmo", "--off"}, `unknown Space "dmo"; Spaces of this host: demo, other`},
		{[]string{"demo", "--off", "--identity", "ada"}, "spacehost quota"},
	} {
		got := h.spacehost(append([]string{"space", "via"}, row.args...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, row.want) {
			t.Errorf("%q: got %+v, want wrong usage: %s", row.args, got, row.want)
		}
	}
	h.wantOutput(nothing, "space", "via")
}

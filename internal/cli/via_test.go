package cli

import (
	"strings"
	"testing"
)

func TestViaByCommandLine(t *testing.T) {
	d := newDesk(t)
	const nothing = `^Nothing is forbidden: `
	d.wantSaid(nothing, "space", "via")
	d.wantSaid(`^SPACE +MAY NOT SPEND OF +SINCE +BY\ndemo +all accounts +20..-..-.. ..:.. +operator\n$`, "space", "via", "demo", "--off")
	d.wantSaid(`demo +all accounts .*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--off", "--identity", "user:ada")
	d.wantSaid(`demo +all accounts .*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--off") // once more changes nothing
	d.wantSaid(nothing, "space", "via", "other")
	d.wantSaid(`^SPACE.*\ndemo +user:ada .*\n$`, "space", "via", "demo", "--on")
	d.wantSaid(`^\[{"space":"demo","identity":"user:ada","at":"20.*Z","by":"operator"}\]\n$`, "space", "via", "--json")
	d.wantSaid(nothing, "space", "via", "demo", "--on", "--identity", "user:ada")
	d.wantSaid(`^\[\]\n$`, "space", "via", "--json")
	for _, row := range []struct {
		args []string
		says string
	}{
		{[]string{"demo", "--off", "--on"}, "exclude each other"},
		{[]string{"--off"}, "no Space given"},
		{[]string{"demo", "--identity", "local"}, "--off or --on"},
		{[]string{"dmo", "--off"}, `unknown Space "dmo"; Spaces of this host: demo, other`},
		{[]string{"demo", "--off", "--identity", "ada"}, "spacehost quota"},
	} {
		got := d.spacehost(append([]string{"space", "via"}, row.args...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, row.says) {
			t.Errorf("%q: got %+v, want a mistake: %s", row.args, got, row.says)
		}
	}
	d.wantSaid(nothing, "space", "via")
}

package doctor

import (
	"strings"
	"testing"
)

func TestAppArmorProfile(t *testing.T) {
	got, err := AppArmorProfile("/usr/local/bin/spacehost")
	want := `# Gives spacehost the right to create user namespaces, in which it confines Spaces.
abi <abi/4.0>,
include <tunables/global>

profile spacehost "/usr/local/bin/spacehost" flags=(unconfined) {
  userns,

  include if exists <local/spacehost>
}
`
	if err != nil || got != want {
		t.Errorf("got\n%s%v\nwant\n%s", got, err, want)
	}
	if got, err := AppArmorProfile("/home/ada/my bin/spacehost-1.0"); err != nil || !strings.Contains(got, `profile spacehost "/home/ada/my bin/spacehost-1.0" flags`) {
		t.Errorf("got\n%s%v\nwant the path in quotes", got, err)
	}
	for _, bad := range []string{"spacehost", "", "/bin/a\nprofile b /bin/sh {}", `/bin/"a`, "/bin/*", "/bin/a?", "/bin/{a,b}", "/bin/@{HOME}", `/bin/\a`} {
		if got, err := AppArmorProfile(bad); err == nil {
			t.Errorf("AppArmorProfile(%q): no error, but %s", bad, got)
		}
	}
}

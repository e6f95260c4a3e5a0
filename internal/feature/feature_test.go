package feature

import "testing"

func TestDisabledReadsTheList(t *testing.T) {
	for value, want := range map[string][2]bool{ // landlock, seccomp
		"":                        {false, false},
		"landlock":                {true, false},
		"cgroup,seccomp":          {false, true},
		"userns,landlock,seccomp": {true, true},
		"landlock2":               {false, false},
	} {
		t.Setenv(Variable, value)
		if got := [2]bool{Disabled(Landlock), Disabled(Seccomp)}; got != want {
			t.Errorf("%s=%q: got landlock and seccomp %v, want %v", Variable, value, got, want)
		}
	}
}

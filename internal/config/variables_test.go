package config

import (
	"strings"
	"testing"
)

func TestReservedVariables(t *testing.T) {
	for name, want := range map[string]string{
		"SPACE_ID": "is set by spacehost", "SPACES_ZERO_GPU": "is set by spacehost", "CUDA_VISIBLE_DEVICES": "is set by spacehost", "SPACEHOST_FD": "is set by spacehost",
		"1A": "is not a valid variable name", "SPACEHOST_TRACEBACK": "", "PATH": "", "SPACE_TITLE": "", "OPENID_PROVIDER_URL": "", "ZEROGPU_CUDA_DEVICE_NAME": "",
	} {
		if err := CheckVariable(name); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("CheckVariable(%s) = %v, want %q", name, err, want)
		}
	}
}

func TestPathIsTaken(t *testing.T) {
	s, warnings, err := configIn(t, "spaces:\n  - folder: .\n    name: hello\n    host: hello.lab.example\n    variables: {PATH: /own}\n")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "PATH replaces the whole search path") {
		t.Fatalf("warnings %q, %v", warnings, err)
	}
	if got := s.Spaces[0].Variables["PATH"]; got != "/own" {
		t.Errorf("PATH is %q", got)
	}
}

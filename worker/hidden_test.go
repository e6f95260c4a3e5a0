package worker

import (
	"strings"
	"testing"
)

func TestHiddenPath(t *testing.T) {
	exists := func(path string) bool { return path == "/home/ada/model" }
	for line, want := range map[string]bool{
		"FileNotFoundError: [Errno 2] No such file or directory: '/home/ada/model'":            true,
		"PermissionError: [Errno 13] Permission denied: '/home/ada/model'":                     true,
		"FileNotFoundError: [Errno 2] No such file or directory: '/home/ada/missing'":          false,
		"FileNotFoundError: [Errno 2] No such file or directory: 'model'":                      false,
		"ValueError: '/home/ada/model'":                                                        false,
		"print: FileNotFoundError: [Errno 2] No such file or directory: '/home/ada/model' end": false,
	} {
		got := hiddenPath([]string{"Traceback (most recent call last):", line}, exists)
		if (got != "") != want || want && !strings.Contains(got, "--mount /home/ada/model") {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := hiddenPath(nil, exists); got != "" {
		t.Errorf("no output: %q", got)
	}
}

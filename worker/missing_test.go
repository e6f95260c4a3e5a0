package worker

import "testing"

func TestMissingModule(t *testing.T) {
	rows := []struct{ last, want string }{
		{"ModuleNotFoundError: No module named 'torch'", "The Hub preinstalls torch; spacehost does not. Add torch to requirements.txt, which works on the Hub too."},
		{"ModuleNotFoundError: No module named 'torch.nn'", "The Hub preinstalls torch; spacehost does not. Add torch to requirements.txt, which works on the Hub too."},
		{"ModuleNotFoundError: No module named 'datasets'", "The Hub preinstalls datasets; spacehost does not. Add datasets to requirements.txt, which works on the Hub too."},
		{"ModuleNotFoundError: No module named 'cv2'", ""},
		{"ValueError: No module named 'torch'", ""},
		{"", ""},
	}
	for _, row := range rows {
		if got := missingModule([]string{"Traceback (most recent call last):", row.last}); got != row.want {
			t.Errorf("%q: got %q, want %q", row.last, got, row.want)
		}
	}
	if got := missingModule(nil); got != "" {
		t.Errorf("no output: %q", got)
	}
}

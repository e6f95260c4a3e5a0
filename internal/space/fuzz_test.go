package space

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzReadme checks that any README.md yields either a Space with usable fields, or one of this package's errors with
// a next step.
func FuzzReadme(f *testing.F) {
	for _, seed := range []string{
		"", "---", "---\n---", "---\nsdk: gradio\nsdk_version: 6.31.0\n---\n# x", "\ufeff---\r\nsdk: gradio\r\n---\r\n",
		"---\nsdk_version: 3.10\npython_version: 3.10\n---", "---\na: &a [*a]\nmodels: *a\n---", "---\n<<: {sdk: static}\n---",
		"---\n? [a, b]\n: c\n---", "---\napp_file: ../x\n---", "---\ntitle: a: b\n---", "---\n\t\n---", "---\n- a\n---",
		"---\ncustom_headers: {a: b, c: [d]}\npreload_from_hub: x\nhf_oauth: yes\n---", "---\nsdk: !!binary Z3JhZGlv\n---",
		"---\nstartup_duration_timeout: 1h 30 minutes\n---", "---\nstartup_duration_timeout: 9999999999999999999999d\n---",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.py"), nil, 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, readme []byte) {
		m, err := parse(readme)
		if err == nil {
			var s *Space
			if s, err = m.space(dir); err == nil {
				checkUsable(t, s)
				err = checkAppFile(dir, s.AppFile, m.line("app_file"))
			}
		}
		checkError(t, err)
	})
}

func checkUsable(t *testing.T, s *Space) {
	t.Helper()
	if s.SDK != "gradio" || s.AppFile == "" || s.Title == "" || s.StartupTimeout <= 0 {
		t.Errorf("unusable Space %+v", s)
	}
	if strings.ContainsAny(s.SDKVersion+s.PythonVersion, " \t\n;=<>@/") {
		t.Errorf("versions %q and %q are not safe to pass to an installer", s.SDKVersion, s.PythonVersion)
	}
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	_, config := errors.AsType[*ConfigError](err)
	_, appFile := errors.AsType[*AppFileError](err)
	if !config && !appFile {
		t.Errorf("unknown kind of error %T: %v", err, err)
	}
	if text := err.Error(); !strings.Contains(text, "; ") {
		t.Errorf("no next step in %q", text)
	}
}

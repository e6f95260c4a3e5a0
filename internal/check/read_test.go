package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/space"
	"spacehost/quota"
)

// write makes a Space of these files, named with slashes.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readmeOnly are options of a check without an interpreter: README.md and requirements.txt are looked at alone.
func readmeOnly(dir string) Options {
	tiers, _ := quota.Presets(quota.NewestPreset)
	return Options{Dir: dir, NoPython: "no interpreter", Tiers: tiers, Tier: "free"}
}

// brief returns findings as "A106:4:error ...".
func brief(r *Report) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s:%d:%s", f.ID, f.Line, f.Severity))
	}
	return strings.Join(all, " ")
}

const good = "---\ntitle: x\nsdk: gradio\nsdk_version: 6.31.0\npython_version: \"3.12\"\n"

func TestReadmeRules(t *testing.T) {
	for name, row := range map[string]struct {
		readme, requirements string // readme "": no file
		want                 string
		refused              bool // `spacehost run` refuses it
	}{
		"healthy":         {good + "---\n", "numpy\n", "", false},
		"no README":       {"", "", "A100:0:warning", false},
		"no front matter": {"# Hello\n", "", "A100:0:warning", false},
		"no dashes":       {"title: x\nsdk: gradio\n", "", "A100:1:error", false},
		"not closed":      {good, "", "A101:1:error", true},
		"colon":           {"---\ntitle: FLUX: the best\nsdk: gradio\n---\n", "", "A101:2:error", true},
		"tab":             {"---\ntitle: x\n\tsdk: gradio\n---\n", "", "A101:3:error", true},
		"no sdk":          {"---\ntitle: x\npython_version: '3.12'\nsdk_version: 6.31.0\n---\n", "", "A102:0:error", false},
		"docker":          {"---\nsdk: docker\npython_version: '3.12'\n---\n", "", "A102:2:warning", true},
		"two parts":       {"---\nsdk: gradio\nsdk_version: 5.0\npython_version: '3.12'\n---\n", "", "A103:3:warning A103:3:error", false},
		"old gradio":      {"---\nsdk: gradio\nsdk_version: 3.50.2\npython_version: '3.12'\n---\n", "", "A103:3:warning", false},
		"python float":    {"---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: 3.1\n---\n", "", "A104:4:error", true},
		"python 3.10":     {"---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: 3.10\n---\n", "", "A104:4:warning", false},
		"python 3.13":     {"---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: '3.13'\n---\n", "", "A110:4:info", false},
		"refused values":  {good + "colorFrom: orange\nemoji: rocket\n---\n", "", "A106:6:error A106:7:error", false},
		"keys":            {good + "licence: mit\nhardware: zero-a10g\n---\n", "", "A107:6:warning A107:7:info", false},
		"ignored value":   {good + "suggested_storage: small\n---\n", "", "A108:6:warning", false},
		"preload":         {good + "preload_from_hub: [a b c d]\n---\n", "", "A109:6:warning", false},
		"no version":      {"---\nsdk: gradio\npython_version: '3.12'\n---\n", "", "B101:2:warning", false},
		"requirements":    {good + "---\n", "torch==2.4.0\ngradio==5.0.0\nspaces==0.30.2\nhuggingface_hub==0.24.0\nspaces>=0.40\n", "A201:1:error A202:2:warning A203:3:info A203:4:info", false},
		"comments":        {good + "licence: mit # spacehost: ignore[A107]\n---\n", "# spacehost: ignore[A2]\ntorch==2.4.0\ngradio==5.0.0 # spacehost: ignore[a202, A203]\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"app.py": "", "requirements.txt": row.requirements}
			if row.readme != "" {
				files["README.md"] = row.readme
			}
			o := readmeOnly(write(t, files))
			r, err := Read(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Apply(Filter{Dir: o.Dir}); err != nil {
				t.Fatal(err)
			}
			if got := brief(r); got != row.want {
				t.Errorf("got %s, want %s: %+v", got, row.want, r.Findings)
			}
			if _, opened := space.Open(o.Dir); (opened != nil) != row.refused || (r.Stop != nil) != row.refused {
				t.Errorf("Stop = %v, Open: %v, want refused %v", r.Stop, opened, row.refused)
			}
			for _, f := range r.Findings {
				if strings.ContainsAny(f.Text+f.Fix, "{}") || f.Bucket != f.ID[:1] || f.Stage != StageRead {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestAppFile covers folders without the app file, and what is looked at then.
func TestAppFile(t *testing.T) {
	for name, row := range map[string]struct {
		files   map[string]string
		want    string
		mention string // in LookedAt and NotLookedAt
	}{
		"missing":         {map[string]string{"README.md": good + "---\n", "main.py": ""}, "A105:0:error", "there is no app file"},
		"named":           {map[string]string{"README.md": good + "app_file: demo.py\n---\n"}, "A105:6:error", "there is no app file"},
		"outside":         {map[string]string{"README.md": good + "app_file: ../demo.py\n---\n"}, "A105:6:error", "there is no app file"},
		"no README":       {map[string]string{"run.py": ""}, "A100:0:warning A105:0:warning", "run.py in place of the missing app.py"},
		"several modules": {map[string]string{"run.py": "", "helpers.py": ""}, "A100:0:warning A105:0:warning", "there is no app file"},
		"other SDK":       {map[string]string{"README.md": "---\nsdk: docker\npython_version: '3.12'\n---\n", "app.py": ""}, "A102:2:warning", "not a Gradio Space"},
		"packages":        {map[string]string{"README.md": good + "---\n", "app.py": "", "packages.txt": "# tools\nffmpeg\n"}, "A205:2:info", "packages.txt"},
		"empty folder":    {nil, "A100:0:warning A105:0:warning", "there is no app file"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Read(t.Context(), readmeOnly(write(t, row.files)))
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(r); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
			if all := strings.Join(append(r.LookedAt, r.NotLookedAt...), "; "); !strings.Contains(all, row.mention) {
				t.Errorf("%q is not in %s", row.mention, all)
			}
		})
	}
}

func TestFolderErrors(t *testing.T) {
	file := filepath.Join(write(t, map[string]string{"app.py": ""}), "app.py")
	for _, dir := range []string{filepath.Join(t.TempDir(), "none"), file} {
		_, err := Read(t.Context(), readmeOnly(dir))
		if _, ok := errors.AsType[*space.FolderError](err); !ok {
			t.Errorf("%s: %v", dir, err)
		}
	}
	dir := write(t, map[string]string{"README.md/x": ""})
	_, err := Read(t.Context(), readmeOnly(dir))
	if _, ok := errors.AsType[*space.ConfigError](err); !ok {
		t.Errorf("README.md is a folder: %v", err)
	}
}

func TestEventDataOfOlderGradio(t *testing.T) {
	for version, want := range map[string]bool{"": false, "4.44.1": true, "5.49.1": true, "6.0.0": false, "6.31.0": false} {
		if got := takesEventData(version); got != want {
			t.Errorf("takesEventData(%q) = %v, want %v", version, got, want)
		}
	}
}

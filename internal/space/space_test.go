package space

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// write creates a Space's folder with this name and these files.
func write(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// app creates a Space with a working app.py and this front matter.
func app(t *testing.T, frontMatter string) string {
	t.Helper()
	return write(t, "demo", map[string]string{"app.py": "", "README.md": "---\n" + frontMatter + "\n---\n# Demo\n"})
}

func open(t *testing.T, dir string) *Space {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatalf("Open(%s) = %v", dir, err)
	}
	return s
}

// fullReadme sets every key of the Hub's reference.
const fullReadme = `---
title: My Demo
emoji: 🚀
colorFrom: red
colorTo: indigo
sdk: gradio
sdk_version: 5.49.1
python_version: "3.10"
app_file: ./src/main.py
suggested_hardware: zero-a10g
suggested_storage: small
base_path: /about
fullWidth: false
header: mini
short_description: says things
models: [openai-community/gpt2]
datasets:
  - mozilla-foundation/common_voice_13_0
tags: [mcp-server, demo]
thumbnail: https://example.com/x.png
pinned: true
license: apache-2.0
hf_oauth: true
hf_oauth_scopes: [read-repos, inference-api]
hf_oauth_expiration_minutes: 43200
hf_oauth_authorized_org: my-org
disable_embedding: true
startup_duration_timeout: 1h
custom_headers:
  cross-origin-embedder-policy: require-corp
preload_from_hub:
  - coqui/XTTS-v1
  - openai-community/gpt2 config.json 11c5a3d5811f50298f278a704980280950aedb10
---
text
`

func TestOpenReadsEveryKey(t *testing.T) {
	dir := write(t, "My Demo_2", map[string]string{"src/main.py": "", "README.md": fullReadme})
	want := &Space{
		Dir: dir, Name: "my-demo_2", ID: "local/my-demo_2",
		Title: "My Demo", Emoji: "🚀", ColorFrom: "red", ColorTo: "indigo",
		Thumbnail: "https://example.com/x.png", ShortDescription: "says things", License: "apache-2.0",
		Header: "mini", BasePath: "/about", Pinned: true, DisableEmbedding: true,
		SuggestedHardware: "zero-a10g", SuggestedStorage: "small",
		Models: []string{"openai-community/gpt2"}, Datasets: []string{"mozilla-foundation/common_voice_13_0"},
		Tags:          []string{"mcp-server", "demo"},
		CustomHeaders: map[string]string{"cross-origin-embedder-policy": "require-corp"},
		SDK:           "gradio", SDKVersion: "5.49.1", PythonVersion: "3.10", AppFile: "src/main.py",
		StartupTimeout: time.Hour,
		PreloadFromHub: []string{"coqui/XTTS-v1", "openai-community/gpt2 config.json 11c5a3d5811f50298f278a704980280950aedb10"},
		HFOAuth:        true, HFOAuthScopes: []string{"read-repos", "inference-api"},
		HFOAuthExpirationMinutes: 43200, HFOAuthAuthorizedOrg: []string{"my-org"},
		Warnings: []string{"README.md line 11: suggested_storage has no effect: persistent storage no longer exists on the Hub; remove it, and keep files in a dataset or a bucket"},
	}
	if got := open(t, dir); !reflect.DeepEqual(got, want) {
		t.Errorf("Open = %+v\nwant   %+v", got, want)
	}
}

func TestDefaultsWithoutFrontMatter(t *testing.T) {
	rows := []struct {
		name    string
		files   map[string]string
		warning string
	}{
		{"no README", map[string]string{"app.py": ""}, "README.md is missing"},
		{"empty README", map[string]string{"app.py": "", "README.md": ""}, "no front matter"},
		{"text only", map[string]string{"app.py": "", "README.md": "# Demo\n---\nsdk: static\n---\n"}, "no front matter"},
		{"nothing between", map[string]string{"app.py": "", "README.md": "---\n---\n"}, "no front matter"},
		{"comments only", map[string]string{"app.py": "", "README.md": "---\n# sdk: gradio\n---\n"}, "front matter is empty"},
		{"body in Latin-1", map[string]string{"app.py": "", "README.md": "caf\xe9"}, "no front matter"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := open(t, write(t, "demo", row.files))
			if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], row.warning) {
				t.Errorf("Warnings = %q, want one with %q", got.Warnings, row.warning)
			}
			want := &Space{Dir: got.Dir, Name: "demo", ID: "local/demo", Title: "demo", FullWidth: true, SDK: "gradio",
				AppFile: "app.py", StartupTimeout: 30 * time.Minute, HFOAuthExpirationMinutes: 480, Warnings: got.Warnings}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Open = %+v\nwant   %+v", got, want)
			}
		})
	}
}

func TestFrontMatterFormats(t *testing.T) {
	const plain = "---\ntitle: Demo\nsdk: gradio\nsdk_version: 6.0\npython_version: 3.10\n---\ntext\n"
	rows := map[string]string{
		"unix":            plain,
		"windows":         strings.ReplaceAll(plain, "\n", "\r\n"),
		"old mac":         strings.ReplaceAll(plain, "\n", "\r"),
		"byte order mark": "\ufeff" + plain,
		"blank lines":     "\n \n" + plain,
		"blanks at rules": strings.ReplaceAll(plain, "---\n", "---  \t\n"),
		"no body":         strings.TrimSuffix(plain, "\ntext\n"),
		"bom and windows": "\ufeff" + strings.ReplaceAll(plain, "\n", "\r\n"),
		"quoted":          strings.NewReplacer("6.0", `"6.0"`, "3.10", `'3.10'`).Replace(plain),
		"aliased":         strings.NewReplacer("Demo", "&t Demo", "---\ntext", "short_description: *t\n---\ntext").Replace(plain),
		"latin-1 body":    plain + "caf\xe9",
	}
	for name, readme := range rows {
		t.Run(name, func(t *testing.T) {
			s := open(t, write(t, "demo", map[string]string{"app.py": "", "README.md": readme}))
			if s.Title != "Demo" || s.SDKVersion != "6.0" || s.PythonVersion != "3.10" {
				t.Errorf("title %q sdk_version %q python_version %q, want Demo 6.0 3.10; README %q", s.Title, s.SDKVersion, s.PythonVersion, readme)
			}
		})
	}
}

func TestEmptyValuesAreDefaults(t *testing.T) {
	s := open(t, app(t, "sdk: gradio\nsdk_version:\npython_version: ~\napp_file: \"\"\nstartup_duration_timeout:\ntags:\npinned:"))
	if s.SDKVersion != "" || s.PythonVersion != "" || s.AppFile != "app.py" || s.StartupTimeout != 30*time.Minute || s.Tags != nil || s.Pinned {
		t.Errorf("Open = %+v, want the defaults", s)
	}
}

func TestWarnings(t *testing.T) {
	rows := []struct{ name, frontMatter, want string }{
		{"dash", "sdk: gradio\nsdk-version: 5.0.0", `README.md line 3: unknown key "sdk-version"; did you mean "sdk_version"?`},
		{"camel", "sdk: gradio\nsdkVersion: 5.0.0", `README.md line 3: unknown key "sdkVersion"; did you mean "sdk_version"?`},
		{"slip", "sdk: gradio\npyton_version: 3.10", `README.md line 3: unknown key "pyton_version"; did you mean "python_version"?`},
		{"short", "sdk: gradio\ntag: [x]", `README.md line 3: unknown key "tag"; did you mean "tags"?`},
		{"far", "sdk: gradio\n\n# more\ncolour: red", `README.md line 5: unknown key "colour"; ignored, as on the Hub`},
		{"no sdk", "title: x", "README.md has no sdk: using gradio; write sdk: gradio, which the Hub requires"},
		{"two parts", "sdk: gradio\nsdk_version: 6.1", "README.md line 3: sdk_version 6.1 has only two parts, which the Hub has rejected; write all three"},
		{"old gradio", "sdk: gradio\nsdk_version: 3.50.2", "README.md line 3: sdk_version 3.50.2 is older than 4, the first Gradio that ZeroGPU supports; choose 4 or newer"},
		{"flag", "sdk: gradio\npinned: maybe", "README.md line 3: pinned must be true or false; using false"},
		{"number", "sdk: gradio\nhf_oauth_expiration_minutes: long", "README.md line 3: hf_oauth_expiration_minutes must be a whole number above 0; using 480"},
		{"list", "sdk: gradio\nmodels: {a: b}", "README.md line 3: models must be a list of texts; ignored"},
		{"nested list", "sdk: gradio\nmodels: [[a]]", "README.md line 3: models must be a list of texts; ignored"},
		{"text", "sdk: gradio\ntitle: [a]", "README.md line 3: title must be a single text; ignored"},
		{"table", "sdk: gradio\ncustom_headers: x", "README.md line 3: custom_headers must be a list of `name: value` lines; ignored"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := open(t, app(t, row.frontMatter+"\npython_version: \"3.10\"")).Warnings
			if len(got) != 1 || got[0] != row.want {
				t.Errorf("front matter %q\ngot  %q\nwant %q", row.frontMatter, got, row.want)
			}
		})
	}
}

func TestWarningsAreOrderedByLine(t *testing.T) {
	got := open(t, app(t, "sdk: gradio\npinned: maybe\ncolour: red\npython_version: \"3.10\"")).Warnings
	if len(got) != 2 || !strings.Contains(got[0], "line 3") || !strings.Contains(got[1], "line 4") {
		t.Errorf("Warnings = %q, want line 3, then line 4", got)
	}
}

func TestConfigErrors(t *testing.T) {
	rows := []struct {
		name, frontMatter string
		line              int
		key, want         string
	}{
		{"streamlit", "sdk: streamlit", 2, "sdk", `sdk is "streamlit", but spacehost runs only Gradio Spaces; write sdk: gradio`},
		{"docker", "title: x\nsdk: docker", 3, "sdk", "spacehost runs only Gradio Spaces"},
		{"sdk list", "sdk: [gradio]", 2, "sdk", "sdk is not a single text"},
		{"latest", "sdk: gradio\nsdk_version: latest", 3, "sdk_version", `sdk_version "latest" is not a version of Gradio; write a version`},
		{"range", "sdk: gradio\nsdk_version: '>=5'", 3, "sdk_version", "is not a version of Gradio"},
		{"one part", "sdk: gradio\nsdk_version: 5", 3, "sdk_version", "is not a version of Gradio"},
		{"option", "sdk: gradio\nsdk_version: '5.0.0 --pre'", 3, "sdk_version", "is not a version of Gradio"},
		{"python name", "sdk: gradio\npython_version: python3.10", 3, "python_version", "is not a version like 3.10 or 3.10.13"},
		{"python 2", "sdk: gradio\npython_version: 2.7", 3, "python_version", "is not a version like 3.10"},
		{"python 3.1", "sdk: gradio\npython_version: 3.1", 3, "python_version", "is older than 3.10"},
		{"python 3.8.9", "sdk: gradio\npython_version: 3.8.9", 3, "python_version", `is older than 3.10, which spacehost needs; write python_version: "3.10"`},
		{"timeout", "sdk: gradio\nstartup_duration_timeout: soon", 3, "startup_duration_timeout", `"soon" is not a duration`},
		{"endless", "sdk: gradio\nstartup_duration_timeout: 20000000000000m", 3, "startup_duration_timeout", "is not a duration between 1s and 30 days"},
		{"app files", "sdk: gradio\napp_file: [a.py, b.py]", 3, "app_file", "app_file is not a single text"},
		{"twice", "sdk: gradio\ntitle: a\nsdk: static", 4, "sdk", `"sdk" is set here and in line 2; remove one`},
		{"colon", "sdk: gradio\ntitle: Demo: the best\npinned: true", 3, "", "not YAML (mapping values are not allowed in this context)"},
		{"tab", "sdk: gradio\nmodels:\n\t- a", 4, "", "not YAML"},
		{"a list", "- sdk\n- gradio", 2, "", "not a list of `key: value` lines"},
		{"latin-1", "title: caf\xe9", 0, "", "not UTF-8"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := Open(app(t, row.frontMatter))
			wrong, ok := errors.AsType[*ConfigError](err)
			if !ok {
				t.Fatalf("front matter %q: error %v, want a *ConfigError", row.frontMatter, err)
			}
			if wrong.Line != row.line || wrong.Key != row.key || !strings.Contains(err.Error(), row.want) {
				t.Errorf("front matter %q\ngot  line %d key %q: %v\nwant line %d key %q: ... %s", row.frontMatter, wrong.Line, wrong.Key, err, row.line, row.key, row.want)
			}
			if StageOf(err) != ConfigFailed {
				t.Errorf("StageOf = %s, want %s", StageOf(err), ConfigFailed)
			}
		})
	}
}

func TestUnclosedFrontMatter(t *testing.T) {
	_, err := Open(write(t, "demo", map[string]string{"app.py": "", "README.md": "\n---\nsdk: gradio\n"}))
	want := "README.md line 2: front matter starts here and is not closed; close it with a line of ---"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestReadmeInUTF16(t *testing.T) {
	_, err := Open(write(t, "demo", map[string]string{"app.py": "", "README.md": "\xff\xfe-\x00-\x00-\x00\n\x00"}))
	if err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("got %v, want an error about UTF-8", err)
	}
}

func TestStartupTimeout(t *testing.T) {
	rows := map[string]time.Duration{
		"30m": 30 * time.Minute, "1h": time.Hour, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute,
		"90s": 90 * time.Second, "2 hours": 2 * time.Hour, "1d": 24 * time.Hour, "10 Min": 10 * time.Minute,
	}
	for text, want := range rows {
		if got := open(t, app(t, "sdk: gradio\nstartup_duration_timeout: "+text)).StartupTimeout; got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestSDKVersionsAreKeptAsWritten(t *testing.T) {
	for _, version := range []string{"5.49.1", "6.31.0", "4.44.0", "6.10", "5.0.0b3", "5.0.0-beta.2", "6.0.0.dev4", "5.0.0rc1"} {
		if got := open(t, app(t, "sdk: gradio\nsdk_version: "+version)).SDKVersion; got != version {
			t.Errorf("got %q, want %q", got, version)
		}
	}
}

func TestAppFileMustExist(t *testing.T) {
	dir := app(t, "sdk: gradio\napp_file: main.py")
	_, err := Open(dir)
	want := `app_file "main.py" does not exist in ` + dir + `; create it, or correct app_file in README.md (line 3)`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if StageOf(err) != NoAppFile {
		t.Errorf("StageOf = %s, want %s", StageOf(err), NoAppFile)
	}
}

func TestDefaultAppFileMustExist(t *testing.T) {
	dir := write(t, "demo", map[string]string{"requirements.txt": ""})
	_, err := Open(dir)
	want := "file app.py does not exist in " + dir + "; create it, or set app_file in README.md to the file to run"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestAppFileMustStayInside(t *testing.T) {
	dir := app(t, "sdk: gradio")
	outside := write(t, "other", map[string]string{"app.py": ""})
	link(t, filepath.Join(outside, "app.py"), filepath.Join(dir, "link.py"))
	link(t, outside, filepath.Join(dir, "folder"))
	link(t, "nowhere", filepath.Join(dir, "dangling.py"))
	link(t, "app.py", filepath.Join(dir, "fine.py"))
	rows := []struct {
		appFile string
		ok      bool
		outside bool
	}{
		{"fine.py", true, false},
		{"sub/../app.py", true, false},
		{"../other/app.py", false, true},
		{filepath.Join(outside, "app.py"), false, true},
		{"link.py", false, true},
		{"folder/app.py", false, true},
		{"dangling.py", false, false},
		{".", false, false},
	}
	for _, row := range rows {
		readme := "---\nsdk: gradio\napp_file: " + row.appFile + "\n---\n"
		if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(readme), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		wrong, refused := errors.AsType[*AppFileError](err)
		if refused == row.ok || refused && wrong.Outside != row.outside {
			t.Errorf("app_file %s: got %v, want ok %t outside %t", row.appFile, err, row.ok, row.outside)
		}
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestSpaceFolderMayBeLink(t *testing.T) {
	dir := app(t, "sdk: gradio")
	alias := filepath.Join(t.TempDir(), "alias")
	link(t, dir, alias)
	if got := open(t, alias).Name; got != "alias" {
		t.Errorf("Name = %q, want the link's own", got)
	}
}

func TestFolderErrors(t *testing.T) {
	dir := write(t, "demo", map[string]string{"app.py": ""})
	rows := map[string]string{
		filepath.Join(dir, "nothing"): "folder " + dir + "/nothing does not exist; pass the folder that contains the Space's app.py",
		filepath.Join(dir, "app.py"):  dir + "/app.py is not a folder; pass the folder that contains the Space's app.py",
	}
	for path, want := range rows {
		_, err := Open(path)
		if _, ok := errors.AsType[*FolderError](err); !ok || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestReadmeIsFolder(t *testing.T) {
	_, err := Open(write(t, "demo", map[string]string{"app.py": "", "README.md/x": ""}))
	if _, ok := errors.AsType[*ConfigError](err); !ok {
		t.Errorf("got %v, want a *ConfigError", err)
	}
}

func TestNames(t *testing.T) {
	rows := map[string]string{
		"Demo": "demo", "my demo (1)": "my-demo-1", "a_b.c-d": "a_b.c-d", ".hidden": "hidden", "x..": "x",
		"画像": "space-6fd5a7cc", "été": "t",
	}
	for folder, want := range rows {
		if got := NameOf("/spaces/" + folder); got != want {
			t.Errorf("NameOf(%q) = %q, want %q", folder, got, want)
		}
	}
}

package space

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ruleSamples has a good and a bad value for each key with a rule. hub holds the Hub's words as public logs quote them.
var ruleSamples = []struct {
	key, good, bad string
	refused        bool
	hub            string // "" where it is not known
	sentence       string // of the bad sample, without its place
}{
	{"emoji", "🚀", "rocket", true, "", `emoji "rocket" has other characters than emojis; write one emoji, such as 🚀`},
	{"emoji", "👩🏽‍🚀", "🚀x", true, "", `emoji "🚀x" has other characters than emojis; write one emoji, such as 🚀`},
	{"emoji", "1️⃣", "1", true, "", `emoji "1" has other characters than emojis; write one emoji, such as 🚀`},
	{"emoji", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "→", true, "", `emoji "→" has other characters than emojis; write one emoji, such as 🚀`},
	{"colorFrom", "gray", "orange", true, `"colorFrom" must be one of [red, yellow, green, blue, indigo, purple, pink, gray]`,
		`"colorFrom" must be one of [red, yellow, green, blue, indigo, purple, pink, gray]; replace "orange" with one of them`},
	{"colorTo", "pink", "Pink", true, `"colorTo" must be one of [red, yellow, green, blue, indigo, purple, pink, gray]`,
		`"colorTo" must be one of [red, yellow, green, blue, indigo, purple, pink, gray]; replace "Pink" with one of them`},
	{"header", "mini", "small", true, "", `"header" must be one of [mini, default]; replace "small" with one of them`},
	{"base_path", "/about", "about", true, "", `base_path "about" does not begin with /; write base_path: /about`},
	{"short_description", strings.Repeat("x", 60), strings.Repeat("x", 61), true,
		`"short_description" length must be less than or equal to 60 characters long`,
		`"short_description" length must be less than or equal to 60 characters long; remove 1 of its 61 characters`},
	{"short_description", strings.Repeat("🚀", 30), strings.Repeat("🚀", 31), true,
		`"short_description" length must be less than or equal to 60 characters long`,
		`"short_description" length must be less than or equal to 60 characters long; remove 2 of its 62 characters`},
	{"license", "apache-2.0", "apache2.0", true, hubLicenses, `license "apache2.0" is none of its 83 identifiers; write license: apache-2.0`},
	{"license", "[mit, other]", "[mit, mine-own]", true, hubLicenses,
		`license "mine-own" is none of its 83 identifiers; write license: other, with license_name and license_link`},
	{"license_name", "my-license-1.0", "My License", true, "",
		`license_name "My License" has other characters than a-z, 0-9, - and .; write it in lower case, with - for a space`},
	{"license_link", "LICENSE.md", "COPYING", true, "", `license_link "COPYING" is neither LICENSE, LICENSE.md nor a URI; write one of these`},
	{"license_link", "https://example.com/license", "./LICENSE", true, "", `license_link "./LICENSE" is neither LICENSE, LICENSE.md nor a URI; write one of these`},
	{"hf_oauth_scopes", "[email, read-repos]", "[read-repo]", true, "", `hf_oauth_scopes has no value "read-repo"; write read-repos`},
	{"hf_oauth_expiration_minutes", "43200", "43201", true, "",
		"hf_oauth_expiration_minutes 43201 is more than 43200, which is 30 days; write 43200 or less"},
	{"custom_headers", "{cross-origin-opener-policy: same-origin}", "{cross-origin-opener-policy: none}", true, "",
		`custom_headers: cross-origin-opener-policy may not be "none"; write one of same-origin, same-origin-allow-popups, unsafe-none`},
	{"custom_headers", "{cross-origin-embedder-policy: credentialless}", "{Cross-Origin-Embedder-Policy: credentialless}", true, "",
		`custom_headers may not set "Cross-Origin-Embedder-Policy"; write cross-origin-embedder-policy`},
	{"custom_headers", "{cross-origin-resource-policy: same-site}", "{x-frame-options: DENY}", true, "",
		`custom_headers may not set "x-frame-options"; write some of cross-origin-embedder-policy, cross-origin-opener-policy, cross-origin-resource-policy`},
	{"preload_from_hub", "[gpt2, a/b x.bin, 'a/b x.bin,y.bin 11c5a3d5811f50298f278a704980280950aedb10']", "[a/b x.bin main]", false, "",
		`preload_from_hub: "main" is not a commit of 40 hexadecimal digits; the build fails; write repo, repo file,file or repo file,file commit`},
	{"suggested_hardware", "zero-a10g", "zero-a100", false, "", `suggested_hardware "zero-a100" is no hardware of the Hub known to spacehost; write zero-a10g for ZeroGPU`},
	{"suggested_storage", "", "small", false, "",
		"suggested_storage has no effect: persistent storage no longer exists on the Hub; remove it, and keep files in a dataset or a bucket"},
	{"python_version", `"3.10"`, "3.10", false, "", "python_version is a number: here it is 3.10, on the Hub 3.1 (hub-docs#1928); put it in quotes"},
	{"python_version", `"3.12.12"`, `"3.11"`, false, "", `ZeroGPU has no Python 3.11: it has 3.10.13 and 3.12.12; write python_version: "3.12" or "3.10"`},
	{"python_version", "3.10.13", "3.10.12", false, "", `ZeroGPU has no Python 3.10.12: it has 3.10.13 and 3.12.12; write python_version: "3.12" or "3.10"`},
	{"dev-mode-folder", "/home/user/app", "", false, "", ""},
	{"metaTitle", "A title", "", false, "", ""},
	{"description", "What it does", "", false, "", ""},
	{"hardware", "", "zero-a10g", false, "", "hardware has no effect on the Hub: only `gradio deploy` reads it; choose the hardware in the Space's settings; suggested_hardware: zero-a10g offers ZeroGPU to duplicates"},
}

// hubLicenses is the Hub's sentence to the letter (huggingface_hub 1.18.0, ModelCard.validate, 2026-07-25).
const hubLicenses = `"license" must be one of [apache-2.0, mit, openrail, bigscience-openrail-m, creativeml-openrail-m, ` +
	`bigscience-bloom-rail-1.0, bigcode-openrail-m, afl-3.0, artistic-2.0, bsl-1.0, bsd, bsd-2-clause, bsd-3-clause, bsd-3-clause-clear, c-uda, cc, cc0-1.0, ` +
	`cc-by-2.0, cc-by-2.5, cc-by-3.0, cc-by-4.0, cc-by-sa-3.0, cc-by-sa-4.0, cc-by-nc-2.0, cc-by-nc-3.0, cc-by-nc-4.0, cc-by-nd-4.0, cc-by-nc-nd-3.0, ` +
	`cc-by-nc-nd-4.0, cc-by-nc-sa-2.0, cc-by-nc-sa-3.0, cc-by-nc-sa-4.0, cdla-sharing-1.0, cdla-permissive-1.0, cdla-permissive-2.0, wtfpl, ecl-2.0, epl-1.0, ` +
	`epl-2.0, etalab-2.0, eupl-1.1, eupl-1.2, agpl-3.0, gfdl, gpl, gpl-2.0, gpl-3.0, lgpl, lgpl-2.1, lgpl-3.0, isc, h-research, intel-research, lppl-1.3c, ` +
	`ms-pl, apple-ascl, apple-amlr, mpl-2.0, odc-by, odbl, openmdw-1.0, openmdw-1.1, openrail++, osl-3.0, postgresql, ofl-1.1, ncsa, unlicense, zlib, pddl, ` +
	`lgpl-lr, deepfloyd-if-license, fair-noncommercial-research-license, llama2, llama3, llama3.1, llama3.2, llama3.3, llama4, grok2-community, gemma, ` +
	`unknown, other, array]`

func TestRules(t *testing.T) {
	for _, row := range ruleSamples {
		t.Run(row.key+"/"+row.bad, func(t *testing.T) {
			if got := Check(readmeWith(row.key, row.good)); row.good != "" && len(got) > 0 {
				t.Errorf("%s: %s is good, but: %v", row.key, row.good, got)
			}
			got := Check(readmeWith(row.key, row.bad))
			if row.sentence == "" {
				return // a key without a rule
			}
			prefix := "README.md line 4: "
			if row.refused {
				prefix += "the Hub refuses this file: "
			}
			if len(got) != 1 || got[0].String() != prefix+row.sentence {
				t.Fatalf("%s: %s\ngot  %v\nwant %s", row.key, row.bad, got, prefix+row.sentence)
			}
			if f := got[0]; f.Refused != row.refused || f.Hub != row.hub || f.Line != 4 || f.Key != row.key {
				t.Errorf("%s: %s: got %+v", row.key, row.bad, f)
			}
			if row.hub != "" && got[0].Message() != row.hub {
				t.Errorf("Message = %q, want %q", got[0].Message(), row.hub)
			}
		})
	}
}

// readmeWith has the keys without which every README.md gets a finding, and one more in line 4.
func readmeWith(key, value string) []byte {
	text := "---\nsdk: gradio\nsdk_version: 6.31.0\n" + key + ": " + value + "\n"
	if key != "python_version" {
		text += "python_version: '3.12'\n"
	}
	return []byte(text + "---\n")
}

// TestEveryRuleHasASample: a new key with a check needs a row in ruleSamples.
func TestEveryRuleHasASample(t *testing.T) {
	for _, key := range Keys {
		sampled := key.Name == "sdk_version" // TestCheck
		for _, row := range ruleSamples {
			sampled = sampled || row.key == key.Name
		}
		if key.check != nil && !sampled {
			t.Errorf("%s has no sample", key.Name)
		}
		if key.Type == "" {
			t.Errorf("%s has no type", key.Name)
		}
	}
}

func TestCheck(t *testing.T) {
	rows := []struct {
		name, readme string
		refused      bool
		hub, want    string
	}{
		{"no metadata", "# Demo\n", false, "empty or missing yaml metadata in repo card", "README.md has no front matter: using the newest Gradio and app.py; add sdk"},
		{"no sdk", "---\ntitle: x\npython_version: '3.10'\n---\n", false, "Missing configuration in README", "README.md has no sdk: using gradio; write sdk: gradio"},
		{"no python", "---\nsdk: gradio\n---\n", false, "", `README.md has no python_version: the Hub takes 3.10, spacehost the python3 of this machine; write python_version: "3.10" or "3.12"`},
		{"twice", "---\nsdk: gradio\nsdk: static\n---\n", true, "", `README.md line 3: the Hub refuses this file: "sdk" is set here and in line 2; remove one`},
		{"not YAML", "---\ntitle: a: b\n---\n", true, "", "README.md line 2: the Hub refuses this file: the front matter is not YAML"},
		{"UTF-16", "\xff\xfe-\x00", true, "", "the Hub refuses this file: README.md is not UTF-8 text"},
		{"docker", "---\nsdk: docker\npython_version: '3.10'\n---\n", false, "", `README.md line 2: sdk is "docker", but spacehost runs only Gradio Spaces`},
		{"zero", "---\nsdk: gradio\nsdk_version: 5.10\npython_version: '3.10'\n---\n", false, "", "README.md line 3: sdk_version is a number: here it is 5.10, on the Hub 5.1 (hub-docs#1928)"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := Check([]byte(row.readme))
			at := slices.IndexFunc(got, func(f Finding) bool { return strings.HasPrefix(f.String(), row.want) })
			if at < 0 {
				t.Fatalf("got %v, want %s", got, row.want)
			}
			if got[at].Refused != row.refused || got[at].Hub != row.hub {
				t.Errorf("got %+v", got[at])
			}
		})
	}
}

func TestCheckRequirements(t *testing.T) {
	rows := map[string]string{ // "": no finding
		"torch":                    "",
		"torch==2.8.0":             "",
		"torch==2.8.0+cu126":       "",
		"torch == 2.11":            "",
		"torch>=2.0,<3":            "",
		"torch~=2.9":               "",
		"torch==2.9.*":             "",
		"torch!=2.8.0 # any":       "",
		"torch==2.12.0rc1":         "",
		"torch @ https://x/t.whl":  "",
		"torchvision==0.1":         "",
		"# torch==2.5.1":           "",
		"torch==2.5.1":             "torch==2.5.1",
		"  Torch[opt]==2.5.1+cu12": "Torch[opt]==2.5.1+cu12",
		"torch<2.8":                "torch<2.8",
		"torch~=2.9.2":             "torch~=2.9.2",
		"torch>2.11.0":             "torch>2.11.0",
		"torch==2.7.*":             "torch==2.7.*",
		"torch>=2.4,<=2.7.1":       "torch>=2.4,<=2.7.1",
		"torch===2.9.0":            "torch===2.9.0",
		"torch!=2.8.0,<2.9":        "torch!=2.8.0,<2.9",
		"torch!=2.8.*,<2.9":        "torch!=2.8.*,<2.9",
	}
	for line, want := range rows {
		got := CheckRequirements([]byte("numpy\r\n" + line + "\n"))
		if want == "" && len(got) > 0 {
			t.Errorf("%q: got %v, want none", line, got)
		}
		full := `requirements.txt line 2: ZeroGPU has no torch that fits "` + want + `": it has 2.8.0, 2.9.1, 2.10.0, 2.11.0; choose one of these`
		if want != "" && (len(got) != 1 || got[0].String() != full) {
			t.Errorf("%q: got %v, want %s", line, got, full)
		}
	}
}

func TestCheckDir(t *testing.T) {
	dir := write(t, "demo", map[string]string{"app.py": "", "README.md": "---\nsdk: gradio\nheader: tiny\npython_version: '3.10'\n---\n", "requirements.txt": "torch==2.5.1\nspaces==0.30.2\n"})
	got, err := CheckDir(dir)
	if err != nil || codes(got) != "no-sdk-version:2 refused:3 torch:1 packages:2" || got.AppFile != "app.py" || got.Refused != nil {
		t.Errorf("CheckDir = %+v, %v", got, err)
	}
	if refused := open(t, dir).Refused; refused == nil || !strings.HasPrefix(refused.Error(), "torch version in requirements.txt is not compatible with ZeroGPU (requirements.txt line 1: ") || StageOf(refused) != "CONFIG_ERROR" {
		t.Errorf("Refused = %v", refused)
	}
	if warnings := open(t, dir).Warnings; len(warnings) != 2 || warnings[1] != got.Findings[2].String() {
		t.Errorf("Open warns %q", warnings)
	}
	if err := os.Remove(filepath.Join(dir, "README.md")); err != nil {
		t.Fatal(err)
	}
	if got, err = CheckDir(dir); err != nil || codes(got) != "no-front-matter:0 torch:1 packages:2" || got.HasReadme {
		t.Errorf("CheckDir without README.md = %+v, %v", got, err)
	}
	if _, err := CheckDir(filepath.Join(dir, "none")); err == nil {
		t.Error("CheckDir of no folder returns no error")
	}
}

func codes(c *Checked) string {
	var all []string
	for _, f := range c.Findings {
		all = append(all, fmt.Sprintf("%s:%d", f.Code, f.Line))
	}
	return strings.Join(all, " ")
}

// TestCheckDirRefuses compares what CheckDir and Open refuse.
func TestCheckDirRefuses(t *testing.T) {
	const top, end = "---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: '3.12'\n", "---\n"
	for name, row := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no app file":     {map[string]string{"README.md": top + end}, "app-file:0"},
		"named app file":  {map[string]string{"README.md": top + "app_file: main.py\n" + end}, "app-file:5"},
		"outside":         {map[string]string{"README.md": top + "app_file: ../main.py\n" + end}, "app-file:5"},
		"docker":          {map[string]string{"README.md": "---\nsdk: docker\n---\n", "app.py": ""}, "python-on-zerogpu:0 sdk:2"},
		"not closed":      {map[string]string{"README.md": top, "app.py": ""}, "syntax:1"},
		"colon":           {map[string]string{"README.md": "---\ntitle: a: b\n---\n", "app.py": ""}, "syntax:2"},
		"tab":             {map[string]string{"README.md": "---\nsdk: gradio\n\ttitle: x\n---\n", "app.py": ""}, "syntax:3"},
		"twice":           {map[string]string{"README.md": top + "sdk: gradio\n" + end, "app.py": ""}, "syntax:5"},
		"gradio version":  {map[string]string{"README.md": "---\nsdk: gradio\nsdk_version: new\n---\n", "app.py": ""}, "python-on-zerogpu:0 sdk-version:3"},
		"python version":  {map[string]string{"README.md": "---\nsdk: gradio\nsdk_version: 6.31.0\npython_version: 3.1\n---\n", "app.py": ""}, "python-on-zerogpu:4 python-version:4"},
		"not enclosed":    {map[string]string{"README.md": "title: x\nsdk: gradio\n\n# Hello\n", "app.py": ""}, "not-enclosed:1"},
		"no front matter": {map[string]string{"README.md": "# Hello\nsdk: gradio\n", "app.py": ""}, "no-front-matter:0"},
		"preload":         {map[string]string{"README.md": top + "preload_from_hub:\n- a b c d\n" + end, "app.py": ""}, "preload:5"},
		"gradio pinned":   {map[string]string{"README.md": top + end, "app.py": "", "requirements.txt": "gradio[oauth]==5.0.0\nGradio>=6\ngradio_client==1\n"}, "gradio:1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, "demo", row.files)
			got, err := CheckDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if text := codes(got); text != row.want {
				t.Errorf("got %s, want %s: %v", text, row.want, got.Findings)
			}
			_, opened := Open(dir)
			if fmt.Sprint(opened) != fmt.Sprint(got.Refused) {
				t.Errorf("CheckDir refuses with %v, Open with %v", got.Refused, opened)
			}
		})
	}
}

func TestParsePreload(t *testing.T) {
	for _, line := range []string{"", "a b c d", "../etc x", "a//b", "a/b/c", "a/b x,,y", "a/b x 123", "-a/b", "a/b x " + strings.Repeat("g", 40)} {
		if p, err := ParsePreload(line); err == nil {
			t.Errorf("%q is read as %+v", line, p)
		}
	}
	p, err := ParsePreload("a/b x.bin,y/z.json 11c5a3d5811f50298f278a704980280950aedb10")
	if err != nil || p.Model != "a/b" || !slices.Equal(p.Files, []string{"x.bin", "y/z.json"}) || p.Commit == "" {
		t.Errorf("got %+v, %v", p, err)
	}
}

// TestUnmet compares an environment with what a Space asks for.
func TestUnmet(t *testing.T) {
	installed := map[string]string{"gradio": "5.49.1", "torch": "2.9.1", "edge-tts": "7.0.0", "transformers": "5.24.0"}
	for name, row := range map[string]struct {
		requirements, gradio string
		want                 []string
	}{
		"met":           {"torch\nEdge_TTS>=6  # speech\n\n# a comment\n--extra-index-url https://example.org\ntorch[all] ~= 2.9\ngradio==5.0.0\nold; python_version < '3'\n", "", nil},
		"another one":   {"", "6.31.0", []string{"gradio 6.31.0"}},
		"absent":        {"sox\n", "", []string{"sox"}},
		"another bound": {"transformers==4.57.1\n", "", []string{"transformers==4.57.1"}},
		"not compared":  {"git+https://example.org/a.git\n-r more.txt\ntransformers @ https://example.org/a.whl\n", "", []string{"git+https://example.org/a.git", "-r more.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"README.md": "---\nsdk: gradio\nsdk_version: 5.49.1\n---\n", "app.py": "", "requirements.txt": row.requirements} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := Unmet(dir, row.gradio, installed); !slices.Equal(got, row.want) {
				t.Errorf("Unmet(%q, %q) = %q, want %q", row.requirements, row.gradio, got, row.want)
			}
		})
	}
}

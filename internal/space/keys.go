package space

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"spacehost/internal/nearest"
)

// Key is one key of the front matter, as the Hub defines it.
type Key struct {
	Name    string
	Type    string // string, bool, int, list or map
	Default string // of the Hub; empty: none
	Rule    string // what the Hub accepts, and what it does with the value; empty: any value of the type
	// check adds the findings about a value that is set. Type errors are found when the value is read.
	check func(*frontMatter, Key, *yaml.Node)
}

// Keys are the keys of the Hub's spaces-config-reference.md (August 2026), spaces-oauth.md and OpenAPI, the keys of
// ApiSpaceMetadata (huggingface.js, packages/hub/src/types/api/api-space.ts), and those that the Hub reads from the card
// of any repository (huggingface_hub, repocard_data.py). They are the one place that `spacehost run` and Check use. A
// Space that is valid on the Hub thus gets no warning about an unknown key.
var Keys = []Key{
	{"title", "string", "name of the repository", "", nil},
	{"emoji", "string", "", "emoji characters only", (*frontMatter).checkEmoji},
	{"colorFrom", "string", "", enumeration(colors), oneOf(colors, seen)},
	{"colorTo", "string", "", enumeration(colors), oneOf(colors, seen)},
	{"sdk", "string", "", "required; gradio, docker or static (streamlit: deprecated)", nil},
	{"sdk_version", "string", "newest release at creation", "a release of the SDK, with all three parts", unquoted(UnquotedVersion)},
	{"python_version", "string", "3.10", "any 3.x or 3.x.x; ZeroGPU has 3.10.13 and 3.12.12", (*frontMatter).checkPython},
	{"app_file", "string", "app.py", "a file of the repository", nil},
	{"app_port", "int", "7860", "docker only", nil},
	{"app_build_command", "string", "", "static only", nil},
	{"base_path", "string", "/", "begins with /; not for static", (*frontMatter).checkBasePath},
	{"fullWidth", "bool", "true", "width of the Space's frame", nil},
	{"header", "string", "default", enumeration(headers), oneOf(headers, deduced)},
	{"short_description", "string", "", "at most 60 characters", (*frontMatter).checkShortDescription},
	{"models", "list", "parsed from the code", "Hub identifiers", nil},
	{"datasets", "list", "parsed from the code", "Hub identifiers", nil},
	{"tags", "list", "", "mcp-server marks an MCP server", nil},
	{"thumbnail", "string", "", "a URL", nil},
	{"pinned", "bool", "false", "", nil},
	{"suggested_hardware", "string", "", "a flavor; offered to those that duplicate the Space", (*frontMatter).checkHardware},
	{"suggested_storage", "string", "", "small, medium or large; ignored since persistent storage was removed", (*frontMatter).checkStorage},
	{"hf_oauth", "bool", "false", "makes an OAuth app and sets its variables", nil},
	{"hf_oauth_scopes", "list", "openid, profile", enumeration(oauthScopes), eachOf(oauthScopes)},
	{"hf_oauth_expiration_minutes", "int", "480", "at most 43200", (*frontMatter).checkExpiration},
	{"hf_oauth_authorized_org", "list", "", "members of these organizations only", nil},
	{"disable_embedding", "bool", "false", "only the Hub's own pages may frame the Space", nil},
	{"startup_duration_timeout", "string", "30m", "any duration", nil},
	{"custom_headers", "map", "", "three names in lower case, with fixed values", (*frontMatter).checkHeaders},
	{"preload_from_hub", "list", "", "repo, repo file,file or repo file,file commit; downloaded by the build", (*frontMatter).checkPreload},
	{"license", "list", "", "83 identifiers", (*frontMatter).checkLicense},
	{"license_name", "string", "", "a-z, 0-9, - and .; for license: other", (*frontMatter).checkLicenseName},
	{"license_link", "string", "", "LICENSE, LICENSE.md or a URI", (*frontMatter).checkLicenseLink},
	{"duplicated_from", "string", "", "written by the Hub", nil},
	{"language", "list", "", "", nil},
	{"library_name", "string", "", "", nil},
	{"arxiv", "list", "", "", nil},
	{"dev-mode-folder", "string", "/home/user/app", "the folder that dev mode opens (huggingface_hub, cli/spaces.py)", nil},
	{"metaTitle", "string", "", "", nil},
	{"description", "string", "", "", nil},
	{"hardware", "string", "", "of `gradio deploy`, which writes and reads it (gradio, cli/commands/deploy_space.py)", (*frontMatter).noteHardware},
}

// knownKeys are the names of Keys.
var knownKeys = func() (names []string) {
	for _, key := range Keys {
		names = append(names, key.Name)
	}
	return names
}()

// applyRules adds the findings of all Keys.
func (m *frontMatter) applyRules() {
	for _, key := range Keys {
		if value := m.value(key.Name); value != nil && key.check != nil {
			key.check(m, key, value)
		}
	}
	m.checkMissingPython()
}

// warnUnknown warns about a key that the Hub does not know either.
func (m *frontMatter) warnUnknown(line int, key string) {
	problem, fix := fmt.Sprintf("unknown key %q", key), "ignored, as on the Hub"
	if near := nearest.Key(key, knownKeys); near != "" {
		fix = fmt.Sprintf("did you mean %q?", near)
	}
	m.warn(UnknownKey, line, key, problem, fix)
}

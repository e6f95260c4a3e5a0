package space

import (
	"fmt"

	"spacehost/internal/nearest"
)

// knownKeys are the keys of the Hub's spaces-config-reference.md (August 2026), and the keys that the Hub reads from
// any repository's card (huggingface_hub's repocard_data.py). A Space that is valid on the Hub thus gets no warning
// here. `sdk` and other keys are read in fields.go.
var knownKeys = []string{
	"title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version",
	"suggested_hardware", "suggested_storage", "app_file", "app_build_command", "app_port", "base_path",
	"fullWidth", "header", "short_description", "models", "datasets", "tags", "thumbnail", "pinned",
	"hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes", "hf_oauth_authorized_org",
	"disable_embedding", "startup_duration_timeout", "custom_headers", "preload_from_hub",

	"license", "license_name", "license_link", "language", "library_name", "duplicated_from", "arxiv",
}

// unknown returns the warning for a key that the Hub does not know either.
func unknown(key string) string {
	if near := nearest.Key(key, knownKeys); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, near)
	}
	return fmt.Sprintf("unknown key %q; ignored, as on the Hub", key)
}

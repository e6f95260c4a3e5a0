package space

import (
	"fmt"
	"strings"
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
	if near := Nearest(key, knownKeys); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, near)
	}
	return fmt.Sprintf("unknown key %q; ignored, as on the Hub", key)
}

// Nearest returns the one of all that was probably meant by key, "" if none: equal but for case, dashes and
// underscores, or one or two slips away. Short keys forgive one slip only, or half of all words would be near "sdk".
func Nearest(key string, all []string) string {
	best, bestSlips := "", 3
	for _, known := range all {
		n := slips(plain(key), plain(known))
		if n < bestSlips && (n == 0 || n <= len(known)/4) {
			best, bestSlips = known, n
		}
	}
	return best
}

func plain(key string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(key))
}

// slips is the Levenshtein distance, at least 3 where the lengths alone say so.
func slips(a, b string) int {
	if far := max(len(a)-len(b), len(b)-len(a)); far > 2 {
		return far
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

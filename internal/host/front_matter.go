package host

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"spacehost/internal/build"
	"spacehost/internal/space"
	"spacehost/internal/web"
)

// responseHeaders returns the headers that the front matter adds to every response of a Space: custom_headers that the Hub
// accepts, and the policy of disable_embedding.
func responseHeaders(s *space.Space) http.Header {
	headers := http.Header{}
	for name, value := range s.CustomHeaders {
		if space.IsCustomHeader(name, value) {
			headers.Set(name, value)
		}
	}
	if s.DisableEmbedding {
		headers.Set("Content-Security-Policy", "frame-ancestors 'self'")
	}
	return headers
}

// page is the path that visitors open first: base_path, unless the Hub refuses it.
func (s *spaceRun) page() string {
	if path := s.space().BasePath; web.IsOwnPath(path) {
		return path
	}
	return "/"
}

// pageURL is that page at the Space's address.
func (s *spaceRun) pageURL() string {
	if page := s.page(); page != "/" {
		return s.url() + page
	}
	return s.url()
}

// oauthVars sets what the Hub sets for hf_oauth: true. The operator registers the OAuth app and gives its ID and secret;
// scopes and provider have the Hub's values unless they are given too. Without an ID nothing is set, and gr.LoginButton
// stops the app with Gradio's own error (gradio/oauth.py).
func oauthVars(vars map[string]string, s *space.Space) {
	if s.HFOAuth {
		vars["OAUTH_SCOPES"] = strings.Join(withoutRepeats(append([]string{"openid", "profile"}, s.HFOAuthScopes...)), " ")
		vars["OPENID_PROVIDER_URL"] = "https://huggingface.co"
	}
}

func withoutRepeats(all []string) (once []string) {
	for _, text := range all {
		if !slices.Contains(once, text) {
			once = append(once, text)
		}
	}
	return once
}

// oauthWarning says what does not work without the operator's OAuth app. It is empty if nothing is missing.
func (s *spaceRun) oauthWarning() string {
	if !s.space().HFOAuth {
		return ""
	}
	given := maps.Clone(s.settings().Secrets)
	if given == nil {
		given = map[string]string{}
	}
	maps.Copy(given, s.settings().Variables)
	var missing []string
	for _, name := range []string{"OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"} {
		if given[name] == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("hf_oauth: %s not set, so sign-in with Hugging Face does not work and gr.LoginButton stops the app; "+
		"register an OAuth app with the redirect URL %s/login/callback, and set its values as Variable and Secret", strings.Join(missing, " and "), s.url())
}

// preload downloads preload_from_hub into the cache that the Space reads. vars is the environment of the Space.
func (s *spaceRun) preload(ctx context.Context, env *build.Environment, vars []string) error {
	if len(s.space().PreloadFromHub) == 0 {
		return nil
	}
	var downloads []build.Preload
	for _, line := range s.space().PreloadFromHub {
		p, err := space.ParsePreload(line)
		if err != nil {
			return &build.Error{Step: "reading preload_from_hub", Problem: "README.md: " + err.Error(), Hint: "write repo, repo file,file or repo file,file commit", LogPath: env.LogPath, Err: err}
		}
		downloads = append(downloads, build.Preload{Model: p.Model, Files: p.Files, Commit: p.Commit})
	}
	return s.builder(s.host.buildProgress()).Preload(ctx, s.specOf(s.space()), env, downloads, s.downloadVars(vars))
}

// downloadVars returns the variables that name the Hub's cache of the Space, and the Hub. HF_ENDPOINT is the operator's, never the
// console's of --by-name, which has no models.
func (s *spaceRun) downloadVars(vars []string) []string {
	var hub []string
	for _, pair := range vars {
		switch name, _, _ := strings.Cut(pair, "="); name {
		case "HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT":
			hub = append(hub, pair)
		}
	}
	endpoint := s.settings().Variables["HF_ENDPOINT"]
	if endpoint == "" {
		endpoint = os.Getenv("HF_ENDPOINT")
	}
	if endpoint != "" {
		hub = append(hub, "HF_ENDPOINT="+endpoint)
	}
	return hub
}

package doctor

import (
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	const noProxy, noToken = "ok | No proxy is set", "ok | No Hub token is set here"
	rows := []struct {
		name    string
		environ []string
		want    []string
	}{
		{"empty", nil, []string{noProxy, noToken}},
		{"set to nothing", []string{"HTTP_PROXY=", "HF_TOKEN="}, []string{noProxy, noToken}},
		{"only a proxy", []string{"HTTP_PROXY=http://p:3128"}, []string{"warning | A proxy is set (HTTP_PROXY), and NO_PROXY lacks | export NO_PROXY=127.0.0.1,localhost,::1", noToken}},
		{"half of loopback", []string{"https_proxy=http://p", "NO_PROXY=localhost"}, []string{"warning | (https_proxy) | export NO_PROXY", noToken}},
		{"loopback direct", []string{"ALL_PROXY=http://p", "no_proxy=127.0.0.1, localhost"}, []string{"ok | with loopback in NO_PROXY", noToken}},
		{"both spellings together", []string{"http_proxy=http://p", "NO_PROXY=127.0.0.1", "no_proxy=localhost"}, []string{"ok | (http_proxy), with loopback", noToken}},
		{"everything direct", []string{"HTTP_PROXY=http://p", "NO_PROXY=*"}, []string{"ok | with loopback", noToken}},
		{"tokens", []string{"HF_TOKEN=hf_secret", "HUGGING_FACE_HUB_TOKEN=hf_secret"}, []string{noProxy, "note | (HF_TOKEN, HUGGING_FACE_HUB_TOKEN); it is not passed to Spaces | --secret HF_TOKEN"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			expect(t, Config{machine: fake(t, nil, row.environ...)}.environment(t.Context()), row.want...)
		})
	}
}

// TestEnvironmentKeepsSecrets: proxies contain passwords.
func TestEnvironmentKeepsSecrets(t *testing.T) {
	m := fake(t, nil, "HTTP_PROXY=http://ada:hunter2@p:3128", "HF_TOKEN=hf_hunter2")
	for _, f := range (Config{machine: m}).environment(t.Context()) {
		if strings.Contains(f.Text+f.Do, "hunter2") {
			t.Errorf("%+v shows a secret", f)
		}
	}
}

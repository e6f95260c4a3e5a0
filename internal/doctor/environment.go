package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

var (
	proxyNames = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
	tokenNames = []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN"}
	loopback   = []string{"127.0.0.1", "localhost", "::1"}
)

// environment reports names of variables and never a value: proxies contain passwords.
func (c Config) environment(context.Context) []Finding {
	return []Finding{c.machine.proxies(), c.machine.tokens()}
}

func (m machine) set(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return m.variable(name) == "" })
}

func (m machine) proxies() Finding {
	proxies := m.set(proxyNames)
	if len(proxies) == 0 {
		return ok("No proxy is set")
	}
	direct := splitList(m.variable("NO_PROXY") + "," + m.variable("no_proxy"))
	if slices.Contains(direct, "*") || !slices.ContainsFunc(loopback[:2], func(name string) bool { return !slices.Contains(direct, name) }) {
		return ok("A proxy is set (%s), with loopback in NO_PROXY: Spaces and builds use it too", strings.Join(proxies, ", "))
	}
	return Finding{
		Level: Warning,
		Text: fmt.Sprintf("A proxy is set (%s), and NO_PROXY lacks 127.0.0.1 or localhost. For Spaces and builds, which use the proxy, spacehost exempts loopback; "+
			"your own clients (curl, gradio_client) send requests for http://127.0.0.1:7860 to the proxy", strings.Join(proxies, ", ")),
		Do: "export NO_PROXY=" + strings.Join(loopback, ",") + " where you start clients",
	}
}

func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func (m machine) tokens() Finding {
	tokens := m.set(tokenNames)
	if len(tokens) == 0 {
		return ok("No Hub token is set here; to pass one to a Space, use --secret HF_TOKEN=...")
	}
	return Finding{
		Level: Note, Text: fmt.Sprintf("A Hub token is set here (%s); it is not passed to Spaces", strings.Join(tokens, ", ")),
		Do: "Nothing; to pass it to a Space that needs it, use `spacehost run --secret HF_TOKEN`",
	}
}

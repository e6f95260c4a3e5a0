package host

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"spacehost/gpu"
	"spacehost/internal/build"
	"spacehost/internal/space"
)

// passed are the host's variables that a Space receives: the paths and certificates of this machine, and the address of
// its package index, for a Space that calls pip while it runs. All other variables are withheld: tokens are the operator's
// secrets, and locale, time zone and further settings of pip would make the Space behave otherwise than on the Hub
// (docs/design/0019-environment-of-a-space.md).
var passed = []string{"PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "HF_HOME"}

// indexes are passed unless they contain a password.
var indexes = []string{
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_PROXY",
	"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST",
}

var proxyVariables = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}

// spaceEnviron returns the environment of a Space. The Variables of the host have precedence over those of the machine.
func spaceEnviron(ofMachine, ofHost map[string]string) []string {
	vars := maps.Clone(ofMachine)
	maps.Copy(vars, ofHost)
	list := make([]string, 0, len(vars))
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	return list
}

// hostVars returns the variables of a Space that are the same on every machine: those of the Hub (hub-docs, spaces-overview.md,
// "Helper environment variables"), those that the host demands, and the Space's own Variables, which have precedence.
func hostVars(s *space.Space, address string, zeroGPU bool, variables map[string]string) map[string]string {
	vars := map[string]string{
		"SYSTEM": "spaces",
		// huggingface/skills, huggingface-spaces; with ZeroGPU the Hub also sets GRADIO_CACHE_MODE=lazy. Gradio before 5 ignores the mode.
		"GRADIO_CACHE_EXAMPLES": "true",
		// The Hub starts a Space in a new container. Here the folder stays, and with it the results of an earlier app.py.
		"GRADIO_RESET_EXAMPLES_CACHE": "True",
		"LANG":                        "C.UTF-8",
		"TZ":                          "UTC", // the Hub's containers have no time zone
		"SPACE_ID":                    s.ID,
		"SPACE_HOST":                  address,
		"SPACE_AUTHOR_NAME":           "local",
		"SPACE_REPO_NAME":             s.Name,
		"SPACE_TITLE":                 s.Title,
		"SPACE_CREATOR_USER_ID":       "local",
		"ACCELERATOR":                 "none",
		"PYTHONUNBUFFERED":            "1",     // output appears without delay
		"GRADIO_ANALYTICS_ENABLED":    "False", // a Space under test must not enter Gradio's statistics
	}
	oauthVars(vars, s)
	if zeroGPU {
		vars["SPACES_ZERO_GPU"] = "true"
		vars["ZEROGPU_V2"] = "true" // the default since spaces 0.41; the runner's CUDA emulation requires it
		vars["GRADIO_CACHE_MODE"] = "lazy"
		vars["ACCELERATOR"] = "zero-a10g" // the Hub's name of ZeroGPU hardware (huggingface_hub, SpaceHardware)
	}
	maps.Copy(vars, variables)
	return vars
}

// machineVars returns the variables of a Space that are facts of this machine: paths, addresses and hardware. visible is the GPU
// of ZeroGPU, nil without ZeroGPU.
func machineVars(s *space.Space, env *build.Environment, home string, visible *gpu.Hardware) map[string]string {
	vars := map[string]string{}
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); IsPassed(name) && !(slices.Contains(indexes, name) && hasPassword(value)) {
			vars[name] = value
		}
	}
	vars["PYTHONPATH"] = s.Dir         // an app in a subfolder imports from the root of the repository
	if home := hubHome(); home != "" { // models are not downloaded twice
		vars["HF_HOME"] = home
	}
	vars["HOME"] = home
	// The model cache is shared. The token that `hf auth login` stores in it is not: a Space has its own Secrets.
	vars["HF_TOKEN_PATH"] = filepath.Join(home, "huggingface-token")
	vars["PATH"] = filepath.Dir(env.Python) + string(os.PathListSeparator) + vars["PATH"]
	if env.Dir != "" {
		vars["VIRTUAL_ENV"] = env.Dir
	}
	vars["GRADIO_TEMP_DIR"] = filepath.Join(home, "gradio")
	direct := "127.0.0.1,localhost,::1" // a proxy would receive the device API's secret path
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if own := os.Getenv(name); own != "" {
			direct = own + "," + direct
			break
		}
	}
	vars["NO_PROXY"], vars["no_proxy"] = direct, direct
	vars["CPU_CORES"] = fmt.Sprint(runtime.NumCPU())
	vars["MEMORY"] = memory()
	vars["CUDA_VISIBLE_DEVICES"] = "" // only a worker sees a GPU
	if visible != nil {
		maps.Copy(vars, visible.Variables())
	}
	return vars
}

// hubHome returns the user's folder of models; "" if there is none.
func hubHome() string {
	if own := os.Getenv("HF_HOME"); own != "" {
		return own
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "huggingface")
}

// withoutProxies removes the operator's proxy, whose address and password no Space needs: the host itself connects through
// it (package egress).
func withoutProxies(vars []string) []string {
	return without(vars, append(slices.Clone(proxyVariables), "PIP_PROXY")...)
}

// without removes variables from an environment.
func without(vars []string, names ...string) []string {
	return slices.DeleteFunc(vars, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(names, name)
	})
}

// IsPassed reports whether a Space receives a variable of the host's environment.
func IsPassed(name string) bool {
	return slices.Contains(passed, name) || slices.Contains(proxyVariables, name) || slices.Contains(indexes, name)
}

// hasPassword reports whether an address in the list contains a user name or a password.
func hasPassword(addresses string) bool {
	return slices.ContainsFunc(strings.Fields(addresses), func(address string) bool {
		if _, rest, ok := strings.Cut(address, "://"); ok {
			address = rest
		}
		host, _, _ := strings.Cut(address, "/")
		return strings.Contains(host, "@")
	})
}

func memory() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return ""
	}
	return fmt.Sprintf("%dGi", uint64(info.Totalram)*uint64(info.Unit)>>30)
}

package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"spacehost/internal/lazyregexp"
)

// A confined tool receives no settings of the operator except those that decide which packages are installed and from
// where. Without them it would install from another index, in which another owner may hold the name of a private package.
// Passwords are removed: code of a Space can read the environment and the home folder of its tools.

// confinedVariables are the variables of toolEnv that confined tools see.
var confinedVariables = append([]string{
	"PATH", "LANG", "LC_*",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"UV_INDEX_STRATEGY", "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "UV_NO_INDEX", "PIP_NO_INDEX", "PIP_PRE",
	"UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES", "PIP_DEFAULT_TIMEOUT", "PIP_TIMEOUT", "PIP_RETRIES",
	"PIP_NO_COMPILE", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "MAX_JOBS",
}, append(slices.Clone(indexVariables), pathVariables...)...)

// indexVariables contain addresses of indexes, and folders with packages.
var indexVariables = []string{
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_FIND_LINKS",
	"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST", "UV_FIND_LINKS",
}

// pathVariables contain paths that a tool reads.
var pathVariables = []string{
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "LD_LIBRARY_PATH", "CUDA_HOME",
}

// confinedEnv returns the environment of a confined tool.
func confinedEnv(host []string) []string {
	var env []string
	for _, variable := range host {
		if name, _, _ := strings.Cut(variable, "="); isIn(name, confinedVariables) {
			env = append(env, withoutPasswords(variable))
		}
	}
	return append(env, fixedVariables...)
}

var passwords = lazyregexp.New(`(://)[^/@\s"',]*@`)

// withoutPasswords removes user names and passwords from all addresses in a text.
func withoutPasswords(text string) string { return passwords.ReplaceAllString(text, "$1") }

// namedPaths returns the paths of this machine that pathVariables and indexVariables name.
func namedPaths() (all []string) {
	for _, name := range slices.Concat(pathVariables, indexVariables) {
		value := strings.ReplaceAll(os.Getenv(name), "file://", "")
		for _, path := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" ,:\t\n", r) }) {
			isAddress := strings.HasPrefix(path, "//") // the rest of https://HOST
			if filepath.IsAbs(path) && filepath.Clean(path) != "/" && !isAddress {
				all = append(all, filepath.Clean(path))
			}
		}
	}
	return all
}

// settingsFiles are the files in which uv and pip find an index, the one in effect first, and their names in the home
// folder of a confined tool.
var settingsFiles = map[string][]string{
	".config/uv/uv.toml":   {"$UV_CONFIG_FILE", "$XDG_CONFIG_HOME/uv/uv.toml", "$HOME/.config/uv/uv.toml", "/etc/uv/uv.toml"},
	".config/pip/pip.conf": {"$PIP_CONFIG_FILE", "$XDG_CONFIG_HOME/pip/pip.conf", "$HOME/.config/pip/pip.conf", "$HOME/.pip/pip.conf", "/etc/pip.conf"},
}

// indexSettings returns the settings files of the operator without passwords, by their relative path in a home folder, and
// the addresses of all indexes.
func indexSettings() (files map[string]string, addresses []string) {
	files = map[string]string{}
	for name, paths := range settingsFiles {
		for _, path := range paths {
			text, err := os.ReadFile(os.ExpandEnv(path)) // an unset variable leads to a file that does not exist
			if err == nil {
				files[name] = withoutPasswords(string(text))
				addresses = append(addresses, urls([]string{files[name]})...)
				break
			}
		}
	}
	for _, name := range indexVariables {
		addresses = append(addresses, urls([]string{withoutPasswords(os.Getenv(name))})...)
	}
	return files, addresses
}

var address = lazyregexp.New(`https?://[^\s"',\]]+`)

// urls returns the addresses that texts contain.
func urls(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, address.FindAllString(text, -1)...)
	}
	return all
}

// planned matches a line of uv's dry run about a package from an index.
var planned = lazyregexp.New(`(?m)^ \+ ([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*)$`)

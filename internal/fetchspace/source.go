// Package fetchspace copies a Space from the Hub, or from another git repository, into a folder.
//
// # Terms
//
//   - Source: a git repository with a Space: owner/space, an address of the Hub or of hf.space, or the URL of any git repository.
//   - Endpoint: the address of the Hub: $HF_ENDPOINT, else https://huggingface.co.
//   - Clone: the folder of a Source below the Fetcher's folder. Its git directory is elsewhere (repositories), out of the Space's reach.
//
// # Types
//
// The commands `run` and `check` pass what is no folder to Parse, and the Source to Fetcher.Fetch. The first Fetch clones without
// history; later ones update the Clone, unless its files or commits have been changed.
//
// # The token
//
// $HF_TOKEN reaches git as a header that is limited to the Endpoint, in variables of git's environment. It is neither on a
// command line nor on the disk.
//
// # Failures
//
// A Clone appears whole or not at all: git writes to another folder first. An update that fails leaves the Clone as it is, and is
// a note. Any other failure is an *Error with the next step.
package fetchspace

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"spacehost/internal/lazyregexp"
)

// Hub is the address of the Hub unless $HF_ENDPOINT names another.
const Hub = "https://huggingface.co"

// Source is a git repository with a Space.
type Source struct {
	// URL is that of git. It is empty for an address of hf.space, of which only Subdomain is known.
	URL       string
	Folder    string // of the Clone, relative to the Fetcher's folder
	Subdomain string

	id string // owner/space on the Hub; empty for other repositories
}

// Endpoint returns the address of the Hub, without a slash at its end.
func Endpoint() string {
	if own := strings.TrimRight(os.Getenv("HF_ENDPOINT"), "/"); own != "" {
		return own
	}
	return Hub
}

// part is a segment of a path that is safe as the name of a folder.
const part = `[A-Za-z0-9_][A-Za-z0-9._-]*`

var (
	spaceID = lazyregexp.New(`^` + part + `/` + part + `$`)
	hubPath = lazyregexp.New(`^/?(?:spaces/)?(` + part + `/` + part + `?)(?:\.git)?(?:/(?:tree|blob|discussions|settings|commits)\b.*)?/?$`)
	scpLike = lazyregexp.New(`^[A-Za-z0-9._-]+@([A-Za-z0-9.-]+):(.+)$`)
	unsafe  = lazyregexp.New(`[^A-Za-z0-9._-]+`)
)

// Parse returns the Source that an argument of a command names; false for anything else. A file or folder of that name, or of the
// name before the slash, has precedence.
func Parse(argument, endpoint string) (Source, bool) {
	if _, err := os.Stat(argument); err == nil {
		return Source{}, false
	}
	if spaceID.MatchString(argument) {
		if exists(filepath.Dir(argument)) { // a mistyped name in an existing folder must not run code from elsewhere
			return Source{}, false
		}
		return onHub(argument, endpoint), true
	}
	if found := scpLike.FindStringSubmatch(argument); found != nil {
		return repository(argument, found[1], found[2]), true
	}
	u, err := url.Parse(argument)
	if err != nil || u.Host == "" {
		return Source{}, false
	}
	switch u.Scheme {
	case "http", "https":
		if subdomain, ok := strings.CutSuffix(u.Host, ".hf.space"); ok && subdomain != "" {
			return Source{Subdomain: subdomain}, true
		}
		if found := hubPath.FindStringSubmatch(u.Path); found != nil && isHub(u, endpoint) && strings.HasPrefix(u.Path, "/spaces/") {
			return onHub(found[1], endpoint), true
		}
		return repository(argument, u.Host, u.Path), true
	case "ssh", "git":
		return repository(argument, u.Host, u.Path), true
	}
	return Source{}, false
}

// isHub reports whether a URL is one of the Hub's, by any of its names.
func isHub(u *url.URL, endpoint string) bool {
	own, err := url.Parse(endpoint)
	return err == nil && u.Host == own.Host || u.Host == "huggingface.co" || u.Host == "hf.co" || u.Host == "www.huggingface.co"
}

func onHub(id, endpoint string) Source {
	return Source{URL: endpoint + "/spaces/" + id, Folder: filepath.FromSlash(id), id: id}
}

// repository is any git repository. Its folder is named by host and path.
func repository(address, host, at string) Source {
	at = strings.TrimSuffix(path.Clean("/"+at), ".git")
	folder := unsafe.ReplaceAllString(host, "-")
	for _, one := range strings.Split(strings.Trim(at, "/"), "/") {
		folder = filepath.Join(folder, strings.Trim(unsafe.ReplaceAllString(one, "-"), ".-"))
	}
	return Source{URL: address, Folder: folder}
}

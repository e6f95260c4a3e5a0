package build

import (
	"path/filepath"
	"strings"

	"spacehost/internal/lazyregexp"
)

// A plain requirement file has only lines that mean the same in every folder: a name with extras, versions, a marker and
// hashes, or the name of another plain file of the Space. Two Spaces with the same plain files share an environment. Any
// other line may install code that only one of the Spaces chose: a path, a URL, an option such as --find-links.

var (
	plainRequirement = lazyregexp.New(`^` + namePattern + // name
		`\s*(?:\[[A-Za-z0-9._,\s-]*\])?` + // extras
		`\s*(?:` + clausesPattern + `|\(\s*` + clausesPattern + `\s*\))?` +
		`\s*(?:;[A-Za-z0-9_.,'"<>=!~()+*\s-]*)?` + // marker
		`(?:\s+--hash=[a-z0-9]+:[0-9a-f]+)*$`)
	plainInclude = lazyregexp.New(`^(?:(?:-r|-c)\s*|(?:--requirement|--constraint)(?:\s+|=))([A-Za-z0-9_][A-Za-z0-9._/-]*|\.[A-Za-z0-9._/-]+)$`)

	// archive matches names that pip installs from a file of the folder, if there is one (pip/_internal/utils/filetypes.py).
	archive = lazyregexp.New(`(?i)\.(?:zip|whl|tar|tgz|tbz|txz|tlz|gz|bz2|xz|lz|lzma)$`)
	// option matches an option in a line other than a hash.
	option = lazyregexp.New(`\s-`)
	hashes = lazyregexp.New(`\s+--hash=\S+`)
)

const (
	namePattern    = `([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)`
	clausePattern  = `(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9.*+!_-]*`
	clausesPattern = clausePattern + `(?:\s*,\s*` + clausePattern + `)*\s*,?`
)

// plainFiles returns the requirement files without comments; false if one of them is not plain. The result is ASCII
// without comments, so an installer reads exactly the lines that were judged, whatever encoding and line separators it
// accepts.
func (in inputs) plainFiles() (files map[string]string, ok bool) {
	return in.filesOf(func(string) bool { return false })
}

// publicIndex matches a line that adds or sets an index whose packages are public. Such a line is not plain, because the
// index decides about the packages. The file needs nothing of the Space's folder, though.
var publicIndex = lazyregexp.New(`^(?:-i|--index-url|--extra-index-url)(?:\s+|=)https://(?:download\.pytorch\.org|pypi\.org|pypi\.nvidia\.com)/[A-Za-z0-9._/-]*$`)

// indexedFiles returns the requirement files as plainFiles does if all their lines are plain or name a public index.
func (in inputs) indexedFiles() (files map[string]string, ok bool) {
	return in.filesOf(publicIndex.MatchString)
}

func (in inputs) filesOf(further func(line string) bool) (files map[string]string, ok bool) {
	files = map[string]string{}
	for name, text := range in.Files {
		if files[name], ok = in.plainText(name, text, further); !ok {
			return nil, false
		}
	}
	return files, true
}

func (in inputs) plainText(name, text string, further func(line string) bool) (plain string, ok bool) {
	if len(text) >= maxFile { // its end was not read
		return "", false
	}
	var lines []string
	continued := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		bare := comments.ReplaceAllString(line, "")
		before, more := strings.CutSuffix(bare, `\`)
		if more && bare == line {
			continued += before + " "
			continue
		}
		bare = strings.TrimSpace(continued + bare)
		continued = ""
		if bare != "" && !isPlainRequirement(bare) && !in.isPlainInclude(name, bare) && !further(bare) {
			return "", false
		}
		lines = append(lines, bare+"\n")
	}
	return strings.Join(lines, ""), continued == ""
}

func isPlainRequirement(line string) bool {
	found := plainRequirement.FindStringSubmatch(line)
	return found != nil && !archive.MatchString(found[1]) && !option.MatchString(hashes.ReplaceAllString(line, ""))
}

// isPlainInclude reports whether a line of the file name includes a file of the Space that was read. plainFiles judges
// that file too.
func (in inputs) isPlainInclude(name, line string) bool {
	found := plainInclude.FindStringSubmatch(line)
	if found == nil {
		return false
	}
	_, read := in.Files[filepath.Join(filepath.Dir(name), found[1])]
	return read
}

package bundle

import (
	"cmp"
	"io/fs"
	"path"
	"strings"
)

// The bounds of every bundle. The first two are those of Linux, without its terminating NUL.
const (
	maxPath  = 4095 // bytes of a path or of a link's target
	maxName  = 255  // bytes of an element of a path
	maxDepth = 100  // elements of a path: the time to open one grows with them
)

// Limits bound a bundle. A zero field has the default of its comment.
type Limits struct {
	Entries   int   // files, folders and links: 200,000
	NameBytes int64 // of all paths and link targets: 32 MiB
	Bytes     int64 // of all files, a content that occurs twice counted twice: 1 TiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Entries:   cmp.Or(l.Entries, 200_000),
		NameBytes: cmp.Or(l.NameBytes, 32<<20),
		Bytes:     cmp.Or(l.Bytes, 1<<40),
	}
}

// checker checks the entries of a Manifest in their order, on both ends.
type checker struct {
	limits  Limits
	former  string   // the path of the entry before
	folders []string // the path of the innermost folder is the last one
	sizes   map[Sum]int64
	count   int
	names   int64
	bytes   int64
}

func newChecker(limits Limits) *checker {
	return &checker{limits: limits.withDefaults(), folders: []string{"."}, sizes: map[Sum]int64{}}
}

// add refuses an entry that is wrong by itself, or wrong after those before:
//
//  1. a path that could mean a file outside of the folder, or that Linux does not have
//  2. an entry out of order, which includes every path that occurs twice
//  3. an entry without its folder before it, so that nothing lies below a file or a link
//  4. a link out of the folder
//  5. one hash with two sizes
//  6. more than the limits
func (c *checker) add(e Entry) error {
	if err := checkPath(e.Path); err != nil { // 1
		return err
	}
	if c.former != "" && comparePaths(c.former, e.Path) >= 0 { // 2
		return &EntryError{e.Path, "is not in the order of the manifest"}
	}
	c.former = e.Path
	for folder := path.Dir(e.Path); c.folders[len(c.folders)-1] != folder; { // 3
		if len(c.folders) == 1 {
			return &EntryError{e.Path, "is not in a folder of the manifest"}
		}
		c.folders = c.folders[:len(c.folders)-1]
	}
	if e.Kind == Folder {
		c.folders = append(c.folders, e.Path)
	}
	if e.Kind == Link { // 4
		if err := checkTarget(e); err != nil {
			return err
		}
	}
	return c.tally(e)
}

func (c *checker) tally(e Entry) error {
	if e.HasContent() { // 5
		if size, known := c.sizes[e.Sum]; known && size != e.Size {
			return &EntryError{e.Path, "has the hash of a content with another size"}
		}
		c.sizes[e.Sum] = e.Size
	}
	c.count++
	c.names += int64(len(e.Path) + len(e.Target))
	switch { // 6
	case c.count > c.limits.Entries:
		return &LimitError{"entries", int64(c.limits.Entries)}
	case c.names > c.limits.NameBytes:
		return &LimitError{"bytes of names", c.limits.NameBytes}
	case e.Size > c.limits.Bytes-c.bytes:
		return &LimitError{"bytes", c.limits.Bytes}
	}
	c.bytes += e.Size
	return nil
}

func checkPath(name string) error {
	switch {
	case len(name) > maxPath || strings.Count(name, "/") >= maxDepth:
		return &EntryError{name, "is too long a path; shorten it"}
	case !fs.ValidPath(name) || name == "." || strings.ContainsRune(name, 0):
		return &EntryError{name, "is not a relative path of UTF-8 characters; rename the file"}
	}
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > maxName {
			return &EntryError{name, "has too long a name; shorten it"}
		}
	}
	return nil
}

// checkTarget refuses a link out of the folder. "..", allowed at the beginning only, is resolved from the link's own folder, which is
// no link. Behind a name, it could be resolved from the target of another link.
func checkTarget(e Entry) error {
	if e.Target == "" || len(e.Target) > maxPath || strings.ContainsRune(e.Target, 0) {
		return &EntryError{e.Path, "is a link with an impossible target"}
	}
	if path.IsAbs(e.Target) {
		return &EntryError{e.Path, "is a link to an absolute path, which another machine does not have; make it relative or replace it by the file"}
	}
	up, named := 0, false
	for element := range strings.SplitSeq(e.Target, "/") {
		switch {
		case element == "" || element == ".":
		case element != "..":
			named = true
		case named:
			return &EntryError{e.Path, `is a link to a target with ".." behind a name; shorten the target`}
		default:
			up++
		}
	}
	if up > strings.Count(e.Path, "/") {
		return &EntryError{e.Path, "is a link out of the Space's folder; replace it by the file"}
	}
	return nil
}

// comparePaths orders paths as a walk of their folders meets them: "a/b" is before "a-b".
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == b[i]:
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		default:
			return cmp.Compare(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b))
}

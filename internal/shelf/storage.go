package shelf

import (
	"mime"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"spacehost/queue"
)

// Storage names the folders of a Space's files. The host has chosen them, and folders named by a Space count only
// below them. The zero value leaves all files to the Space's own server.
type Storage struct {
	// Root holds all files that the host keeps for the Space. Below it are Uploads, which GRADIO_TEMP_DIR names, and
	// Staging, where an upload grows until it is complete. A staged file can thus be renamed into Uploads.
	Root, Uploads, Staging string
	// Marks has an empty file for each upload (uploads.go). The Space cannot reach it. Empty: no upload is ever removed.
	Marks string
	// MaxUpload is the limit of one uploaded file in bytes, beside that of the app; 0: none.
	MaxUpload int64
	// Served are the folders from which the host itself serves files: the Space's home and its code.
	Served []string
}

// relative returns a folder's path below the root.
func (s *Storage) relative(folder string) string {
	relative, err := filepath.Rel(s.Root, folder)
	if err != nil {
		return folder // os.Root refuses it
	}
	return relative
}

// SetStorage replaces the folders, for a Space that starts again with other settings.
func (s *Shelf) SetStorage(to Storage) { s.storage.Store(&to) }

// files returns the manifest's data on files, or nil if the Space must handle its files itself: an app with a login
// or middleware, an unknown Gradio, or an upload folder other than the host's.
func (s *Shelf) files(c call) *queue.Files {
	uploads := s.storage.Load().Uploads
	if c.Files == nil || !c.Native || uploads == "" || c.Files.Uploads != uploads {
		return nil
	}
	return c.Files
}

// resolve returns the real path of a clean, absolute path. It fails for /proc, /dev and /sys, which the host must not
// touch: the links of /proc differ for each process that reads them.
func resolve(name string) (string, bool) {
	if !filepath.IsAbs(name) || strings.ContainsRune(name, 0) || isBelowAny(name, []string{"/proc", "/dev", "/sys"}) {
		return "", false
	}
	real, err := filepath.EvalSymlinks(name)
	return real, err == nil && !isBelowAny(real, []string{"/proc", "/dev", "/sys"})
}

// isBelowAny reports whether name is one of folders or below one. All paths are clean.
func isBelowAny(name string, folders []string) bool {
	for _, folder := range folders {
		if name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/") {
			return true
		}
	}
	return false
}

// isInAny is isBelowAny for folders that may be links (gradio/utils.py, is_in_or_equal).
func isInAny(real string, folders []string) bool {
	for _, folder := range folders {
		if target, ok := resolve(filepath.Clean(folder)); ok && isBelowAny(real, []string{target}) {
			return true
		}
	}
	return false
}

// guessType is Python's mimetypes.guess_type of a path, with the Space's own tables. It returns "" for an unknown
// type.
func guessType(f *queue.Files, name string) string {
	base, ext := splitExt(name)
	for range len(f.Suffixes) + 1 {
		longer, ok := f.Suffixes[strings.ToLower(ext)]
		if !ok {
			break
		}
		base, ext = splitExt(base + longer)
	}
	if _, packed := f.Encodings[ext]; packed {
		_, ext = splitExt(base)
	}
	return f.Types[strings.ToLower(ext)]
}

// splitExt is Python's os.path.splitext: leading dots of a name do not begin an extension.
func splitExt(name string) (root, ext string) {
	folder, file := path.Split(name)
	stem := strings.TrimLeft(file, ".")
	dot := strings.LastIndexByte(stem, '.')
	if dot < 0 {
		return name, ""
	}
	dot += len(file) - len(stem)
	return folder + file[:dot], file[dot:]
}

// withCharset adds the charset to a media type as Starlette does (starlette/responses.py, init_headers).
func withCharset(kind string) string {
	if strings.HasPrefix(kind, "text/") && !strings.Contains(strings.ToLower(kind), "charset=") {
		return kind + "; charset=utf-8"
	}
	return kind
}

// isUTF8Form reports whether the names in a multipart body are encoded in UTF-8.
func isUTF8Form(r *http.Request) bool {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err != nil || params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8")
}

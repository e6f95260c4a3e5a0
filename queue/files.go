package queue

import "sync/atomic"

// Files is what a Space says of the files that Gradio takes and serves for it. Paths are the Space's claims:
// whoever opens one first looks whether it is below the folders that the host gave it.
type Files struct {
	// Uploads is Gradio's own folder (GRADIO_TEMP_DIR); Cache, that of cached examples.
	Uploads, Cache string
	// Seed goes into the hash that names an upload's folder, before the content.
	Seed string
	// MaxSize bounds one uploaded file; nil: unbounded.
	MaxSize *int64
	// Names are samples of what Gradio makes of the names of uploaded files.
	Names map[string]string
	// Allowed and Blocked are those of launch.
	Allowed, Blocked []string
	// Safe names the media types that are shown rather than downloaded; the others are Python's mimetypes.
	Safe                       map[string]bool
	Types, Encodings, Suffixes map[string]string
	// Proxied: the app has components of another Space (gr.load), whose paths are not of this machine.
	Proxied bool
	// Expires: Gradio deletes old files (delete_cache), and must see every upload.
	Expires bool
	// Ranges: Gradio answers them as HTTP has them, and the host may serve files in its place.
	Ranges bool

	static atomic.Pointer[[]string]
}

// Static returns what gr.set_static_paths has named.
func (f *Files) Static() []string {
	if paths := f.static.Load(); paths != nil {
		return *paths
	}
	return nil
}

// SetStatic replaces it. An app may name more at any time; both may be called from any goroutine.
func (f *Files) SetStatic(paths []string) { f.static.Store(&paths) }

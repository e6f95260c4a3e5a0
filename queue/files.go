package queue

import "sync/atomic"

// Files describes the files that Gradio accepts and serves for a Space. Its paths are claims of the Space: before
// opening one, the host checks that it is below a folder that the host assigned to the Space.
type Files struct {
	// Uploads is Gradio's own folder (GRADIO_TEMP_DIR). Cache is the folder of cached examples.
	Uploads, Cache string
	// Seed is hashed before the content to name an upload's folder.
	Seed string
	// MaxSize bounds one uploaded file; nil: unbounded.
	MaxSize *int64
	// Names are samples of the names that Gradio derives from the names of uploaded files.
	Names map[string]string
	// Allowed and Blocked are the arguments allowed_paths and blocked_paths of launch.
	Allowed, Blocked []string
	// Safe are the media types that are shown rather than downloaded. The other maps are Python's mimetypes.
	Safe                       map[string]bool
	Types, Encodings, Suffixes map[string]string
	// Proxied is set if the app has components of another Space (gr.load), whose paths are not on this machine.
	Proxied bool
	// Expires is set if Gradio deletes old files (delete_cache) and therefore must handle every upload.
	Expires bool
	// Ranges is set if Gradio handles range requests as HTTP specifies, so that the host may serve files in its place.
	Ranges bool

	static atomic.Pointer[[]string]
}

// Static returns the paths of gr.set_static_paths.
func (f *Files) Static() []string {
	if paths := f.static.Load(); paths != nil {
		return *paths
	}
	return nil
}

// SetStatic replaces these paths. An app may add paths at any time. Both methods may be called from any goroutine.
func (f *Files) SetStatic(paths []string) { f.static.Store(&paths) }

package shelf

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strings"

	"go.uber.org/zap"
)

// multipartExtra is ample for the boundaries and headers of an upload.
const multipartExtra = 1 << 20

// maxPaths bounds the answer to an upload that is read for its paths.
const maxPaths = 1 << 20

// passUpload passes an upload through to the Space's own server, for an app that handles its files itself. The limit of the host
// then applies to all files of the request together. The paths in the answer are marked as uploads, unless Gradio deletes old
// files itself.
func (s *Shelf) passUpload(c call) (stored bool) {
	storage := s.storage.Load()
	if most := storage.MaxUpload + multipartExtra; storage.MaxUpload > 0 {
		if c.r.ContentLength > most {
			refusal := aboveUploadLimit(storage.MaxUpload)
			s.config.Logger.Info("upload refused", zap.String("space", s.config.Space), zap.Error(refusal))
			c.allowOrigin()
			c.refuseText(http.StatusRequestEntityTooLarge, refusal.Error())
			return false
		}
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, most)
	}
	c.r.Header.Del("Accept-Encoding") // the answer is read here
	marked := storage.Marks != "" && (c.Files == nil || !c.Files.Expires)
	existing := map[string]bool{}
	if marked {
		existing = storage.existing()
	}
	answered := false
	c.pass(func(response *http.Response) {
		answered = true
		if marked {
			response.Body = &answeredPaths{ReadCloser: response.Body, whole: func(text []byte) { s.markPassed(storage, text, c.Owner, existing) }}
		}
	})
	return answered
}

// answeredPaths copies the beginning of a body that is read, and passes it to whole at its end.
type answeredPaths struct {
	io.ReadCloser
	text  bytes.Buffer
	whole func(text []byte)
}

func (a *answeredPaths) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.text.Len() <= maxPaths {
		a.text.Write(p[:n])
	}
	if err == io.EOF && a.whole != nil {
		a.whole(a.text.Bytes())
		a.whole = nil
	}
	return n, err
}

// existing returns the names of the folders of Gradio's cache.
func (s *Storage) existing() map[string]bool {
	entries, _ := s.cached() // there is none before the first upload
	names := make(map[string]bool, len(entries))
	for _, entry := range entries {
		names[entry.Name()] = true
	}
	return names
}

// markPassed marks the paths of an answer to an upload. existing are the folders from before the upload.
func (s *Shelf) markPassed(storage *Storage, answer []byte, by string, existing map[string]bool) {
	var paths []string
	if json.Unmarshal(answer, &paths) != nil {
		return // compressed, or no answer of Gradio's
	}
	s.uploads.mu.Lock()
	defer s.uploads.mu.Unlock()
	for _, name := range paths {
		below, ok := strings.CutPrefix(path.Clean(name), storage.Uploads+"/")
		if sum, _, _ := strings.Cut(below, "/"); ok && IsCacheFolder(sum) {
			if err := s.uploads.received(storage, sum, by, !existing[sum]); err != nil {
				s.config.Logger.Warn("upload not recorded", zap.String("space", s.config.Space), zap.Error(err))
				return
			}
		}
	}
}

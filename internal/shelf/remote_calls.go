package shelf

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"spacehost/queue"
)

const (
	// callTimeout bounds a call. Lists of large folders take seconds.
	callTimeout = 30 * time.Second
	// maxCheckBytes bounds the paths of one call.
	maxCheckBytes = 1 << 20
	// maxRealPath is above the length of any path that a system call resolves: 255 links of 255 bytes and PATH_MAX.
	maxRealPath = 128 << 10
)

// call calls an operation with a body in JSON, and decodes the answer to into, unless that is nil.
func (r *Remote) call(ctx context.Context, op string, v url.Values, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := r.post(ctx, op, v, body)
	if err != nil {
		return err
	}
	return decodeAnswer(answer, into)
}

// post sends a call. The caller closes the answer's body.
func (r *Remote) post(ctx context.Context, op string, v url.Values, body []byte) (*http.Response, error) {
	if v == nil {
		v = url.Values{}
	}
	v.Set("space", r.config.Space)
	q, err := r.request(ctx, http.MethodPost, op, v, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := r.transport.RoundTrip(q)
	if err != nil {
		return nil, fmt.Errorf("ask the machine of the Space: %w", err)
	}
	return answer, nil
}

// decodeAnswer decodes the answer to a call, and closes its body.
func decodeAnswer(answer *http.Response, into any) error {
	defer answer.Body.Close()
	if answer.Header.Get(headerResult) != resultAnswer {
		return resultOf(answer)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of the machine of the Space: %w", err)
	}
	return nil
}

// Check is Shelf.Check.
func (r *Remote) Check(ctx context.Context, f *queue.Files, paths []string) (wrong []string, err error) {
	m, err := r.encodings.of(f, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for len(paths) > 0 {
		count := batch(paths)
		part, err := r.checkPart(ctx, m, paths[:count])
		if err != nil {
			return nil, err
		}
		wrong, paths = append(wrong, part...), paths[count:]
	}
	return wrong, nil
}

// batch returns the number of paths for the next call.
func batch(paths []string) (count int) {
	for size := 0; count < len(paths) && (count == 0 || size+len(paths[count]) <= maxCheckBytes); count++ {
		size += min(len(paths[count]), maxRealPath)
	}
	return count
}

func (r *Remote) checkPart(ctx context.Context, m *encoded, paths []string) (wrong []string, err error) {
	q := checkCall{Paths: make([][]byte, len(paths))}
	for i, name := range paths {
		if isResolvable(name) { // an empty path is wrong
			q.Paths[i] = []byte(name)
		}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("check paths: %w", err)
	}
	answer, err := r.withManifest(ctx, m, func(digest string) (*http.Response, error) {
		return r.post(ctx, opCheck, url.Values{"manifest": {digest}}, body)
	})
	if err != nil {
		return nil, err
	}
	var a checkAnswer
	if err := decodeAnswer(answer, &a); err != nil {
		return nil, err
	}
	for _, at := range a.Wrong {
		if at < 0 || at >= len(paths) {
			return nil, fmt.Errorf("check paths: the machine of the Space has answered with position %d of %d", at, len(paths))
		}
		wrong = append(wrong, paths[at])
	}
	return wrong, nil
}

// isResolvable reports whether a path can be one of a file. Others need not be sent.
func isResolvable(name string) bool {
	return strings.HasPrefix(name, "/") && (len(name) < maxRealPath || len(path.Clean(name)) < maxRealPath)
}

// Uploads is Shelf.Uploads. All uses that NoteUses has found before are noted first.
func (r *Remote) Uploads(ctx context.Context, stopped bool) ([]Upload, error) {
	if err := r.flush(ctx); err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	v := url.Values{}
	if stopped {
		v.Set("stopped", "1")
	}
	var a uploadsAnswer
	if err := r.call(ctx, opUploads, v, nil, &a); err != nil {
		return nil, err
	}
	return a.Uploads, nil
}

// Remove is Shelf.Remove. All uses that NoteUses has found before are noted first, so none of these uploads is removed.
func (r *Remote) Remove(ctx context.Context, one Upload) (removed bool, err error) {
	if err := r.flush(ctx); err != nil {
		return false, fmt.Errorf("remove an upload: %w", err)
	}
	body, err := json.Marshal(removeCall{one.Name, one.Used, one.ByApp})
	if err != nil {
		return false, fmt.Errorf("remove an upload: %w", err)
	}
	var a removeAnswer
	if err := r.call(ctx, opRemove, nil, body, &a); err != nil {
		return false, err
	}
	return a.Removed, nil
}

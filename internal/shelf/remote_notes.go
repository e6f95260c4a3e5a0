package shelf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/queue"
)

const (
	// maxNotes bounds the uses that wait for the machine of the files, and maxTexts the bytes of texts. More are dropped.
	maxNotes = 20_000
	maxTexts = 4 << 20
	// noteRetry is the pause after a call that has failed.
	noteRetry = time.Second
)

// uses are the uses of uploads that wait for the machine of the files. Those that come during a call share the next one. No
// goroutine runs while there are none.
type uses struct {
	ctx    context.Context // of the sender
	cancel context.CancelFunc
	sender sync.WaitGroup

	mu      sync.Mutex
	folder  *folderAnswer // nil: not known yet
	waiting map[note]struct{}
	texts   []namingText // until the folder is known
	size    int          // of texts
	dropped bool         // reported once
	sending bool
	closed  bool

	added, done uint64        // uses
	failures    uint64        // calls that have failed
	failed      error         // of the last one
	changed     chan struct{} // closed and replaced with each change of done and failures
}

// namingText is a text that may name uploads of a folder that is not known yet.
type namingText struct {
	text    []byte
	session string // digest
}

var errClosed = errors.New("the Space's files are closed")

func (u *uses) init() {
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.waiting, u.changed = map[note]struct{}{}, make(chan struct{})
}

func (u *uses) close() {
	u.cancel()
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.sender.Wait()
}

// NoteUses is Shelf.NoteUses. It does not wait: another goroutine sends the uses. session may also be called if text names no upload.
func (r *Remote) NoteUses(text []byte, session func() queue.SessionHash) {
	u := &r.uses
	u.mu.Lock()
	folder := u.folder
	u.mu.Unlock()
	if folder == nil {
		r.keepText(text, session)
		return
	}
	if sums := folder.named(text); len(sums) > 0 {
		r.addNotes(sums, digestOfSession(session))
	}
}

func digestOfSession(session func() queue.SessionHash) string {
	if hash := session(); hash != "" {
		return hash.Digest()
	}
	return ""
}

// named returns the names of the uploads that a text names.
func (f *folderAnswer) named(text []byte) []string {
	if f.Uploads == "" {
		return nil
	}
	return namedIn(text, f.Uploads)
}

// keepText keeps a text until the folder is known, which the first one requests. A text without a slash names no file.
func (r *Remote) keepText(text []byte, session func() queue.SessionHash) {
	if bytes.IndexByte(text, '/') < 0 {
		return
	}
	digest := digestOfSession(session)
	u := &r.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.size+len(text) > maxTexts {
		r.drop()
		return
	}
	u.size += len(text)
	u.texts = append(u.texts, namingText{bytes.Clone(text), digest})
	u.added++
	r.startSender()
}

func (r *Remote) addNotes(sums []string, digest string) {
	u := &r.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, sum := range sums {
		if len(u.waiting) >= maxNotes {
			r.drop()
			break
		}
		u.waiting[note{sum, digest}] = struct{}{}
	}
	u.added++
	r.startSender()
}

// drop reports the first use that is dropped. It is called with the lock held.
func (r *Remote) drop() {
	if !r.uses.dropped {
		r.uses.dropped = true
		r.config.Logger.Warn("uses of uploads not recorded: too many wait for the machine of the Space", zap.String("space", r.config.Space))
	}
}

// startSender is called with the lock held.
func (r *Remote) startSender() {
	if u := &r.uses; !u.sending && !u.closed {
		u.sending = true
		u.sender.Go(r.sendNotes)
	}
}

// sendNotes sends until nothing waits, or until the Remote is closed.
func (r *Remote) sendNotes() {
	u := &r.uses
	for {
		u.mu.Lock()
		if u.done == u.added || u.closed {
			u.sending = false
			u.mu.Unlock()
			return
		}
		u.mu.Unlock()
		if r.sendRound() == nil {
			continue
		}
		select {
		case <-time.After(noteRetry):
		case <-u.ctx.Done():
		}
	}
}

// sendRound sends all that waits. What was not sent waits again.
func (r *Remote) sendRound() error {
	u := &r.uses
	err := r.learnFolder()
	u.mu.Lock()
	batch, count := u.waiting, u.added
	u.waiting = map[note]struct{}{}
	u.mu.Unlock()
	if err == nil {
		err = r.sendBatch(slices.Collect(maps.Keys(batch)))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.done = count
	} else {
		maps.Copy(u.waiting, batch)
		u.failed, u.failures = err, u.failures+1
	}
	close(u.changed)
	u.changed = make(chan struct{})
	return err
}

// learnFolder asks for the folder of the uploads, and reads the texts that wait for it.
func (r *Remote) learnFolder() error {
	u := &r.uses
	u.mu.Lock()
	known := u.folder != nil
	u.mu.Unlock()
	if known {
		return nil
	}
	var folder folderAnswer
	if err := r.call(u.ctx, opFolder, nil, nil, &folder); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range u.texts {
		for _, sum := range folder.named(one.text) {
			u.waiting[note{sum, one.session}] = struct{}{}
		}
	}
	u.folder, u.texts, u.size = &folder, nil, 0
	return nil
}

// sendBatch notes uses. Where an upload has no place for one more Session, those that are closed make room.
func (r *Remote) sendBatch(batch []note) error {
	if len(batch) == 0 {
		return nil
	}
	full, err := r.postNotes(noteCall{Notes: batch})
	if err != nil {
		return err
	}
	closed := map[string][]string{}
	for sum, sessions := range full {
		if gone := slices.DeleteFunc(sessions, r.config.IsPresent); len(gone) > 0 {
			closed[sum] = gone
		}
	}
	if len(closed) == 0 {
		return nil
	}
	again := slices.DeleteFunc(batch, func(one note) bool { return closed[one.Sum] == nil })
	_, err = r.postNotes(noteCall{Notes: again, Closed: closed})
	return err
}

func (r *Remote) postNotes(all noteCall) (full map[string][]string, err error) {
	body, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("note uses of uploads: %w", err)
	}
	var a noteAnswer
	err = r.call(r.uses.ctx, opNote, nil, body, &a)
	return a.Full, err
}

// flush waits until all uses that were found before are noted. It fails with the call that fails.
func (r *Remote) flush(ctx context.Context) error {
	u := &r.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	want, failures := u.added, u.failures
	for u.done < want {
		if u.closed {
			return errClosed
		}
		if u.failures > failures {
			return u.failed
		}
		changed := u.changed
		u.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-u.ctx.Done():
			err = errClosed
		}
		u.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

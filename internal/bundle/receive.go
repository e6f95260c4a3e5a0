package bundle

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"path"
	"strconv"
	"time"

	"spacehost/internal/removal"
)

// Options are the settings of one Receive.
type Options struct {
	Limits Limits
	// Writable demands a tree of copies for this call alone. Without it, the Space must not be able to write to the tree: its folder is
	// mounted read-only or is the lower layer of an overlay.
	Writable bool
	Progress Progress // may be nil
}

// Receive receives what Send sends, and returns the folder with the content. Release or a new process ends the protection of the folder from
// Prune. Receive may be called concurrently. The caller closes conn, which carries one bundle only.
//
// Errors: *EntryError, *LimitError and *ProtocolError for a bundle that is refused, *SpaceError, *PeerError for a failure of the sender, and
// errors of the disk and the connection. The sender gets the reason. Nothing outside of the Store is touched.
func Receive(ctx context.Context, conn net.Conn, store *Store, o Options) (dir string, err error) {
	r := receiver{stream: newStream(ctx, conn), store: store, options: o, progress: transfer{report: o.Progress}}
	r.limit = stallLimit
	defer r.close()
	if dir, err = r.run(); err != nil {
		r.refuse(err)
		return "", fmt.Errorf("receive bundle: %w", err)
	}
	return dir, nil
}

// receiver is one Receive.
type receiver struct {
	*stream
	store    *Store
	options  Options
	progress transfer
	draft    string // the folder below incoming of this call
	pending  pending
}

// lingering bounds the wait for the sender to read a refusal.
const lingering = 2 * time.Second

// refuse sends the reason, and reads on for a moment: if a connection is closed with unread bytes, the reason may be lost.
func (r *receiver) refuse(reason error) {
	var peer *PeerError
	if r.ctx.Err() != nil || errors.As(reason, &peer) || errors.Is(reason, io.ErrUnexpectedEOF) || errors.Is(reason, errStalled) {
		return
	}
	if r.sendReason(replyError, reason) == nil && r.conn.SetReadDeadline(time.Now().Add(lingering)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.conn, 64<<20))
	}
}

func (r *receiver) run() (dir string, err error) {
	digest, err := r.offer()
	if err != nil {
		return "", err
	}
	if dir, ok := r.existing(digest); ok {
		if err := r.send(replyExists); err != nil {
			r.store.Release(dir)
			return "", err
		}
		return dir, nil
	}
	m, err := r.manifest(digest)
	if err != nil {
		return "", err
	}
	defer r.store.expect(&m)()
	r.draft = path.Join(incoming, rand.Text())
	if err := r.store.root.Mkdir(r.draft, 0o700); err != nil {
		return "", err
	}
	defer removal.Below(r.store.root, r.draft) // what remains is removed by the next OpenStore
	if err := r.contents(&m); err != nil {
		return "", err
	}
	if dir, err = r.lay(&m, digest); err != nil {
		return "", err
	}
	if err := r.send(replyDone); err != nil {
		r.store.Release(dir)
		return "", err
	}
	return dir, nil
}

func (r *receiver) offer() (digest Sum, err error) {
	var offer [len(magic) + sha256.Size]byte
	if _, err := io.ReadFull(r.r, offer[:]); err != nil {
		return digest, readError("offer", err)
	}
	if string(offer[:len(magic)]) != magic {
		return digest, protocolError("it begins with %q; use the same version of spacehost on both machines", offer[:len(magic)])
	}
	return Sum(offer[len(magic):]), nil
}

func (r *receiver) existing(digest Sum) (dir string, ok bool) {
	if r.options.Writable {
		return "", false
	}
	return r.store.Has(digest)
}

func (r *receiver) manifest(digest Sum) (Manifest, error) {
	if err := r.send(replyManifest); err != nil {
		return Manifest{}, err
	}
	m, err := readManifest(r.r, r.options.Limits)
	if err == nil && m.Digest() != digest {
		err = protocolError("the manifest does not have the announced digest")
	}
	return m, err
}

// contents receives what the Store lacks. What was complete before a failure stays.
func (r *receiver) contents(m *Manifest) error {
	wants, bytes := r.store.lacks(m)
	need := bytes
	if r.options.Writable {
		need += m.Bytes()
	}
	if err := r.store.checkSpace(need); err != nil {
		return err
	}
	message := binary.BigEndian.AppendUint32([]byte{replyWants}, uint32(len(wants)))
	for _, position := range wants {
		message = binary.BigEndian.AppendUint32(message, uint32(position))
	}
	if err := r.send(message...); err != nil {
		return err
	}
	r.progress.total = bytes
	r.progress.add(0)
	var err error
	buffer := make([]byte, chunkSize)
	for i, position := range wants {
		e, name := m.Entries[position], path.Join(r.draft, strconv.Itoa(i))
		if err = r.content(e, name, buffer); err == nil {
			err = r.keep(name, e)
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, r.flush())
}

// content receives one file. The sender may begin it anew once.
func (r *receiver) content(e Entry, name string, buffer []byte) error {
	for try := 0; ; try++ {
		before := r.progress.done
		sum, verdict, err := r.attempt(e, name, buffer)
		switch {
		case err != nil:
			return err
		case verdict == contentComplete && sum == e.Sum:
			return nil
		case verdict == contentComplete:
			return &EntryError{e.Path, "has another content than its hash"}
		case verdict == contentFailed:
			return r.readReason()
		case verdict != contentChanged || try > 0:
			return protocolError("message %q after the content of %.300q", verdict, e.Path)
		}
		r.progress.done = before
	}
}

// attempt writes one content to a file, and returns its hash and the message after it. A content of another size has no hash.
func (r *receiver) attempt(e Entry, name string, buffer []byte) (sum Sum, verdict byte, err error) {
	file, err := r.store.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return sum, 0, err
	}
	defer file.Close()
	digest := sha256.New()
	if err := r.chunks(e, file, digest, buffer); err != nil {
		return sum, 0, err
	}
	if verdict, err = r.r.ReadByte(); err != nil {
		return sum, 0, readError("content", err)
	}
	if verdict == contentComplete {
		err = r.store.finish(file, name, e)
	}
	return Sum(digest.Sum(nil)), verdict, err
}

func (r *receiver) chunks(e Entry, file *os.File, digest hash.Hash, buffer []byte) error {
	for left := e.Size; ; {
		size, err := r.readUint32("content")
		switch {
		case err != nil:
			return err
		case size == 0:
			return nil
		case size > chunkSize:
			return protocolError("a chunk of %d bytes, above %d", size, chunkSize)
		case int64(size) > left:
			return &EntryError{e.Path, "has more bytes than announced"}
		}
		left -= int64(size)
		chunk := buffer[:size]
		if _, err := io.ReadFull(r.r, chunk); err != nil {
			return readError("content", err)
		}
		digest.Write(chunk)
		if _, err := file.Write(chunk); err != nil {
			return err
		}
		r.progress.add(int64(size))
	}
}

// pending are complete contents that are not blobs yet. Each of them may be lost in a power cut until it has reached the disk, and the disk
// is waited for once for many of them.
type pending struct {
	files []pendingFile
	bytes int64
}

type pendingFile struct{ from, to string }

// The contents that one wait for the disk covers.
const (
	maxPendingBytes = 1 << 30
	maxPendingFiles = 20_000
)

func (r *receiver) keep(name string, e Entry) error {
	r.pending.files = append(r.pending.files, pendingFile{name, e.blob()})
	r.pending.bytes += e.Size
	if r.pending.bytes >= maxPendingBytes || len(r.pending.files) >= maxPendingFiles {
		return r.flush()
	}
	return nil
}

// flush makes the pending contents blobs. A damaged blob of the same name is replaced.
func (r *receiver) flush() error {
	if len(r.pending.files) == 0 {
		return nil
	}
	if err := r.store.sync(); err != nil {
		return err
	}
	for _, f := range r.pending.files {
		if err := r.store.root.Rename(f.from, f.to); err != nil {
			return err
		}
	}
	r.pending = pending{}
	return nil
}

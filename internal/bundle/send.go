package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Send sends the folder from which m was scanned, as far as the receiver lacks it, and returns once the receiver has its tree. progress may
// be nil. Send may be called concurrently for one Manifest. The caller closes conn, which carries one bundle only.
//
// A file that has changed since the Scan is read twice and then fails as a *ChangedError; the next step is another Scan. A refusal by
// the receiver is a *PeerError.
func Send(ctx context.Context, conn net.Conn, m Manifest, dir string, progress Progress) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the Space's folder: %w", err)
	}
	defer root.Close()
	s := sender{stream: newStream(ctx, conn), root: root, manifest: m, progress: transfer{report: progress}}
	defer s.close()
	if err := s.run(); err != nil {
		return fmt.Errorf("send bundle of %s: %w", dir, err)
	}
	return nil
}

// sender is one Send.
type sender struct {
	*stream
	root     *os.Root
	manifest Manifest
	progress transfer
}

// answer is a message of the receiver.
type answer struct {
	kind  byte
	wants []Entry
}

// run sends while a second goroutine reads, because a receiver may refuse the bundle at any time.
func (s *sender) run() error {
	answers, read := make(chan answer, 3), make(chan struct{})
	go func() {
		defer close(read)
		defer close(answers)
		if err := s.readAnswers(answers); err != nil {
			s.fail(err)
		}
	}()
	err := s.converse(answers)
	if err != nil {
		s.fail(err)
	}
	<-read
	var changed *ChangedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &changed):
		return changed // the receiver may have closed the connection since it was told
	}
	return s.failure() // the first one: a refusal, and not the write that it ended
}

func (s *sender) converse(answers <-chan answer) error {
	digest := s.manifest.Digest()
	if err := s.send(append([]byte(magic), digest[:]...)...); err != nil {
		return err
	}
	a, ok := <-answers
	if !ok || a.kind == replyExists {
		return s.ended(ok)
	}
	if err := s.manifest.write(s.w); err != nil {
		return err
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if a, ok = <-answers; !ok {
		return s.ended(false)
	}
	if err := s.contents(a.wants); err != nil {
		return err
	}
	_, ok = <-answers
	return s.ended(ok)
}

// ended returns the reason why no answer came.
func (s *sender) ended(ok bool) error {
	if ok {
		return nil
	}
	return s.failure()
}

// readAnswers accepts the messages of a receiver in their order only. There are never more than three.
func (s *sender) readAnswers(answers chan<- answer) error {
	for _, allowed := range []string{"hm", "w", "d"} {
		kind, err := s.r.ReadByte()
		if err != nil {
			return readError("answer", err)
		}
		if kind == replyError {
			return s.readReason()
		}
		if !bytes.Contains([]byte(allowed), []byte{kind}) {
			return protocolError("message %q in place of one of %q", kind, allowed)
		}
		a := answer{kind: kind}
		if kind == replyWants {
			if a.wants, err = s.readWants(); err != nil {
				return err
			}
		}
		answers <- a
		if kind == replyExists {
			return nil
		}
	}
	return nil
}

// readWants reads which contents the receiver lacks: positions in the Manifest, ascending, so each of them once.
func (s *sender) readWants() (wants []Entry, err error) {
	count, err := s.readUint32("wanted entries")
	if err != nil {
		return nil, err
	}
	for next := 0; count > 0; count-- {
		position, err := s.readUint32("wanted entries")
		if err != nil {
			return nil, err
		}
		if uint64(position) >= uint64(len(s.manifest.Entries)) || int(position) < next || !s.manifest.Entries[position].HasContent() {
			return nil, protocolError("entry %d is wanted, which is no further file of the manifest", position)
		}
		next = int(position) + 1
		wants = append(wants, s.manifest.Entries[position])
	}
	return wants, nil
}

func (s *sender) contents(wants []Entry) error {
	for _, e := range wants {
		s.progress.total += e.Size
	}
	s.progress.add(0)
	buffer := make([]byte, chunkSize)
	for _, e := range wants {
		for try := 0; ; try++ {
			before := s.progress.done
			isSame, err := s.content(e, buffer)
			if err != nil {
				return err
			}
			if isSame {
				if err := s.w.WriteByte(contentComplete); err != nil {
					return err
				}
				break
			}
			if try > 0 {
				changed := &ChangedError{e.Path}
				_ = s.sendReason(contentFailed, changed)
				return changed
			}
			s.progress.done = before
			if err := s.w.WriteByte(contentChanged); err != nil {
				return err
			}
		}
	}
	return s.w.Flush()
}

// content sends a file in chunks, at most the bytes of its entry, and the end of the chunks. It reports whether the file is that of
// its entry. Errors are those of the connection and of the disk.
func (s *sender) content(e Entry, buffer []byte) (isSame bool, err error) {
	isSame, err = s.chunks(e, buffer)
	if err != nil {
		return false, err
	}
	_, err = s.w.Write([]byte{0, 0, 0, 0})
	return isSame, err
}

func (s *sender) chunks(e Entry, buffer []byte) (isSame bool, err error) {
	file, info, err := openFile(s.root, e.Path)
	if err != nil {
		return false, unlessMissing(err)
	}
	defer file.Close()
	if info.Size() != e.Size {
		return false, nil
	}
	hash, left := sha256.New(), e.Size
	for left > 0 {
		n, err := io.ReadFull(file, buffer[:min(left, chunkSize)])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil // it is shorter now
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", e.Path, err)
		}
		hash.Write(buffer[:n])
		if err := s.chunk(buffer[:n]); err != nil {
			return false, err
		}
		left -= int64(n)
		s.progress.add(int64(n))
	}
	return Sum(hash.Sum(nil)) == e.Sum, nil
}

func (s *sender) chunk(data []byte) error {
	if _, err := s.w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	_, err := s.w.Write(data)
	return err
}

// unlessMissing returns nil for the errors of a path that has no regular file any more.
func unlessMissing(err error) error {
	var changed *ChangedError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &changed) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return fmt.Errorf("open a file of the bundle: %w", err)
}

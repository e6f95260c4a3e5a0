package bundle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func file(path, content string) Entry {
	return Entry{Path: path, Kind: File, Size: int64(len(content)), Sum: sha256.Sum256([]byte(content))}
}

func folder(path string) Entry       { return Entry{Path: path, Kind: Folder} }
func link(path, target string) Entry { return Entry{Path: path, Kind: Link, Target: target} }

var hostile = map[string]struct {
	entries []Entry
	want    string
}{
	"parent":                     {[]Entry{file("../x", "")}, "not a relative path"},
	"parent inside":              {[]Entry{folder("a"), file("a/../../x", "")}, "not a relative path"},
	"absolute":                   {[]Entry{file("/etc/x", "")}, "not a relative path"},
	"empty":                      {[]Entry{file("", "")}, "not a relative path"},
	"the folder itself":          {[]Entry{folder(".")}, "not a relative path"},
	"dot":                        {[]Entry{file("./x", "")}, "not a relative path"},
	"double slash":               {[]Entry{folder("a"), file("a//x", "")}, "not a relative path"},
	"slash at the end":           {[]Entry{folder("a/")}, "not a relative path"},
	"NUL":                        {[]Entry{file("a\x00b", "")}, "not a relative path"},
	"no UTF-8":                   {[]Entry{file("\xff", "")}, "not a relative path"},
	"long name":                  {[]Entry{file(strings.Repeat("x", 256), "")}, "too long a name"},
	"deep":                       {[]Entry{file(strings.Repeat("x/", 100)+"x", "")}, "too long a path"},
	"long path":                  {[]Entry{file(strings.Repeat("x", 4096), "")}, "a name of 4096 bytes"},
	"duplicate":                  {[]Entry{file("x", "1"), file("x", "2")}, "order"},
	"duplicate folder":           {[]Entry{folder("x"), folder("x")}, "order"},
	"folder and link":            {[]Entry{folder("x"), link("x", "y")}, "order"},
	"descending":                 {[]Entry{file("b", ""), file("a", "")}, "order"},
	"back to a folder":           {[]Entry{folder("a"), file("b", ""), file("a/x", "")}, "order"},
	"no folder":                  {[]Entry{file("a/x", "")}, "not in a folder"},
	"below a link":               {[]Entry{link("a", "b"), file("a/x", "")}, "not in a folder"},
	"below a link to /":          {[]Entry{link("a", "/"), file("a/x", "")}, "absolute"},
	"below a file":               {[]Entry{file("a", ""), file("a/x", "")}, "not in a folder"},
	"link out":                   {[]Entry{link("a", "../x")}, "out of the Space's folder"},
	"link out through a link":    {[]Entry{link("a", "."), link("b", "a/../x")}, `".." behind a name`},
	"link with NUL":              {[]Entry{link("a", "b\x00")}, "impossible target"},
	"link to nothing":            {[]Entry{link("a", "")}, "impossible target"},
	"negative size":              {[]Entry{{Path: "a", Kind: File, Size: -1}}, "impossible size"},
	"too large":                  {[]Entry{{Path: "a", Kind: File, Size: 1 << 20}, {Path: "b", Kind: File, Sum: Sum{1}, Size: 1<<20 + 1}}, "more than 2097152 bytes"},
	"sum of sizes overflows":     {[]Entry{{Path: "a", Kind: File, Size: 1}, {Path: "b", Kind: File, Sum: Sum{1}, Size: 1<<63 - 1}}, "more than 2097152 bytes"},
	"one hash, two sizes":        {[]Entry{{Path: "a", Kind: File, Size: 1}, {Path: "b", Kind: File, Size: 2}}, "another size"},
	"unknown kind":               {[]Entry{{Path: "a", Kind: 'c'}}, "unknown kind"},
	"more entries":               {many(200), "more than 100 entries"},
	"more bytes of names":        {[]Entry{link("a", strings.Repeat("x/", 2000)), link("b", "x")}, "more than 4000 bytes of names"},
	"fine, but no content comes": {[]Entry{file("a", "1")}, "content"},
}

func many(n int) (all []Entry) {
	for i := range n {
		all = append(all, folder(fmt.Sprintf("%05d", i)))
	}
	return all
}

var small = Limits{Entries: 100, NameBytes: 4000, Bytes: 2 << 20}

// offer is what a sender writes: magic, digest and Manifest, correct or not.
func offer(m Manifest) []byte {
	digest := m.Digest()
	b := bytes.NewBuffer(append([]byte(magic), digest[:]...))
	_ = m.write(b) // a buffer returns no error
	return b.Bytes()
}

// deliver writes a stream to a receiver, whatever it answers, and returns its error and its answers.
func deliver(t testing.TB, s *Store, stream []byte) (answers []byte, err error) {
	t.Helper()
	front, node := connect(t)
	read := make(chan []byte, 1)
	go func() {
		_, _ = front.Write(stream)
		_ = front.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(front)
		read <- all
	}()
	_, err = Receive(t.Context(), node, s, Options{Limits: small})
	node.Close()
	return <-read, err
}

// checkUntouched verifies that a store has no tree and nothing incomplete, and that nothing lies beside it.
func checkUntouched(t testing.TB, s *Store) {
	t.Helper()
	for path, want := range map[string]int{filepath.Dir(s.dir): 1, s.dir: 4, filepath.Join(s.dir, trees): 0, filepath.Join(s.dir, incoming): 0} {
		if entries, err := os.ReadDir(path); err != nil || len(entries) != want {
			t.Errorf("%s: got %v (%v), want %d entries", path, entries, err, want)
		}
	}
}

func TestHostileManifests(t *testing.T) {
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			answers, err := deliver(t, s, offer(Manifest{Entries: c.entries}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
			isCut := errors.Is(err, io.ErrUnexpectedEOF)
			if !isCut && !bytes.Contains(answers, []byte{replyError}) {
				t.Errorf("got answers %q, want a reason", answers)
			}
			checkUntouched(t, s)
		})
	}
}

// chunk is a chunk of a content as a sender writes it. An empty one ends the content.
func chunk(data string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) + data
}

func TestHostileStreams(t *testing.T) {
	begin := string(offer(Manifest{Entries: []Entry{file("a", "12"), file("b", "345")}}))
	otherDigest := []byte(begin)
	otherDigest[len(magic)]++
	good := chunk("12") + chunk("") + "k"
	for name, c := range map[string]struct{ stream, want string }{
		"nothing":            {"", "unexpected EOF"},
		"other program":      {strings.Repeat("GET / HTTP/1.1\r\n", 10), "it begins with"},
		"other version":      {strings.Repeat("shbundl\x02", 10), "use the same version"},
		"other digest":       {string(otherDigest), "announced digest"},
		"cut manifest":       {begin[:len(begin)-5], "unexpected EOF"},
		"cut content":        {begin + good + chunk("3")[:4], "unexpected EOF"},
		"more bytes":         {begin + chunk("123"), "more bytes than announced"},
		"more bytes later":   {begin + chunk("12") + chunk("3"), "more bytes than announced"},
		"fewer bytes":        {begin + chunk("1") + chunk("") + "k", "another content than its hash"},
		"other content":      {begin + chunk("13") + chunk("") + "k", "another content than its hash"},
		"second is other":    {begin + good + chunk("346") + chunk("") + "k", `"b" has another content`},
		"large chunk":        {begin + "\xff\xff\xff\xff", "a chunk of 4294967295 bytes"},
		"unknown verdict":    {begin + chunk("12") + chunk("") + "?", "message '?'"},
		"endless changes":    {begin + strings.Repeat(chunk("1")+chunk("")+"r", 1000), "message 'r'"},
		"sender fails":       {begin + chunk("") + "x\x00\x05a\x1b[2J", "connection failed: a"},
		"long reason":        {begin + chunk("") + "x\xff\xff", "a reason of 65535 bytes"},
		"changed, then good": {begin + chunk("1") + chunk("") + "r" + good, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			_, err := deliver(t, s, []byte(c.stream))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got error %q, want %q", err, c.want)
			}
			checkUntouched(t, s)
		})
	}
}

func TestEndlessNames(t *testing.T) {
	front, node := connect(t)
	go func() {
		_, err := front.Write(append([]byte(magic), make([]byte, sha256.Size)...))
		for i := 0; err == nil; i++ {
			_, err = front.Write(folder(fmt.Sprintf("%0200d", i)).append(nil))
		}
	}()
	s := newStore(t)
	if _, err := Receive(t.Context(), node, s, Options{Limits: Limits{NameBytes: 1 << 20}}); !isError[*LimitError](err) {
		t.Errorf("got error %v, want a *LimitError", err)
	}
	checkUntouched(t, s)
}

func TestBundlesAboveTheDisk(t *testing.T) {
	s := newStore(t)
	stream := offer(Manifest{Entries: []Entry{{Path: "a", Kind: File, Size: 1 << 60}}})
	front, node := connect(t)
	go func() { _, _ = front.Write(stream) }()
	go func() { _, _ = io.Copy(io.Discard, front); front.Close() }()
	_, err := Receive(t.Context(), node, s, Options{Limits: Limits{Bytes: 1 << 62}})
	if !isError[*SpaceError](err) {
		t.Errorf("got error %v, want a *SpaceError", err)
	}
	checkUntouched(t, s)
}

// TestHostileReceivers: no answer lets a sender send another file than those of its manifest, each of them once.
func TestHostileReceivers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1", "b/": "", "c": "2"}) // entries 0, 1, 2
	m := scan(t, dir, nil)
	wants := func(count uint32, positions ...uint32) string {
		b := binary.BigEndian.AppendUint32([]byte("mw"), count)
		for _, p := range positions {
			b = binary.BigEndian.AppendUint32(b, p)
		}
		return string(b)
	}
	for name, c := range map[string]struct{ answers, want string }{
		"nothing":         {"", "unexpected EOF"},
		"unknown":         {"?", "message '?'"},
		"done at once":    {"d", "message 'd'"},
		"beyond":          {wants(1, 3), "entry 3 is wanted"},
		"far beyond":      {wants(1, 1<<31), "is wanted"},
		"a folder":        {wants(1, 1), "entry 1 is wanted"},
		"twice":           {wants(2, 0, 0), "entry 0 is wanted"},
		"descending":      {wants(2, 2, 0), "entry 0 is wanted"},
		"more than there": {wants(1<<32-1, 0, 2), "unexpected EOF"},
		"refusal":         {"e\x00\x07too\tbig", "connection failed: too big"},
		"later refusal":   {"me\x00\x03big", "connection failed: big"},
		"last refusal":    {wants(1, 0) + "e\x00\x03big", "connection failed: big"},
		"no end":          {wants(1, 0), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			front, node := connect(t)
			go func() {
				_, _ = io.WriteString(node, c.answers)
				_ = node.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, node)
			}()
			if err := Send(t.Context(), front, m, dir, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
		})
	}
}

func TestRefusalsReachTheSender(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"a": "1", "b": "2"})
	r := pass(t, scan(t, dir, nil), dir, s, Options{Limits: Limits{Entries: 1}}, nil)
	if !isError[*LimitError](r.received) || !isError[*PeerError](r.sent) || !strings.Contains(r.sent.Error(), "more than 1 entries") {
		t.Errorf("got %+v", r)
	}
}

func TestChangedFiles(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("original"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string) error{
		"content":      func(path string) error { return os.WriteFile(path, []byte("orig1nal"), 0o644) },
		"shorter":      func(path string) error { return os.Truncate(path, 1) },
		"longer":       func(path string) error { return os.Truncate(path, 1<<20) },
		"removed":      os.Remove,
		"a folder":     func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"a link":       func(path string) error { return errors.Join(os.Remove(path), os.Symlink("same", path)) },
		"a link out":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink(outside, path)) },
		"a named pipe": func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), newStore(t)
			write(t, dir, map[string]string{"app.py": "original", "same": "original"})
			m := scan(t, dir, nil)
			if err := change(filepath.Join(dir, "app.py")); err != nil {
				t.Fatal(err)
			}
			r := pass(t, m, dir, s, Options{}, nil)
			if !isError[*ChangedError](r.sent) || !strings.Contains(r.sent.Error(), `"app.py"`) {
				t.Errorf("sender: got error %v, want a *ChangedError with the name", r.sent)
			}
			if !isError[*PeerError](r.received) || !strings.Contains(r.received.Error(), `"app.py"`) {
				t.Errorf("receiver: got error %v, want a *PeerError with the name", r.received)
			}
			checkUntouched(t, s)
		})
	}
}

// TestStalledConnections: an end that neither reads nor writes does not keep the other for ever.
func TestStalledConnections(t *testing.T) {
	dir, s := t.TempDir(), newStore(t)
	write(t, dir, map[string]string{"a": "1"})
	m := scan(t, dir, nil)
	for name, end := range map[string]func(context.Context, net.Conn) error{
		"sender":   func(ctx context.Context, conn net.Conn) error { return Send(ctx, conn, m, dir, nil) },
		"receiver": func(ctx context.Context, conn net.Conn) error { _, err := Receive(ctx, conn, s, Options{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer there.Close()
				defer here.Close()
				began := time.Now()
				if err := end(t.Context(), here); !errors.Is(err, errStalled) || time.Since(began) != stallLimit {
					t.Errorf("got error %v after %s, want a stall after %s", err, time.Since(began), stallLimit)
				}
			})
		})
	}
}

func FuzzReadManifest(f *testing.F) {
	for _, c := range hostile {
		f.Add(offer(Manifest{Entries: c.entries})[len(magic)+sha256.Size:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readManifest(bufio.NewReader(bytes.NewReader(data)), small)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := m.write(&b); err != nil || !bytes.HasPrefix(data, b.Bytes()) {
			t.Errorf("%q is read as %q: one manifest with two encodings", data, b.Bytes())
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(e.Path) || e.Kind == Link && !filepath.IsLocal(filepath.Join(filepath.Dir(e.Path), e.Target)) {
				t.Errorf("accepted %+v", e)
			}
		}
	})
}

// FuzzReceive lets a sender write anything. A tree appears with the announced digest only, and nothing appears outside of the store.
func FuzzReceive(f *testing.F) {
	begin := string(offer(Manifest{Entries: []Entry{file("a", "12"), folder("b"), file("b/c", "345"), link("l", "b/c")}}))
	f.Add([]byte(begin + chunk("12") + chunk("") + "k" + chunk("3") + chunk("45") + chunk("") + "k"))
	f.Add([]byte(begin + chunk("1") + chunk("") + "r" + chunk("12") + chunk("") + "k"))
	f.Add([]byte(begin + chunk("") + "x\x00\x01a"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		s := newStore(t)
		_, err := deliver(t, s, stream)
		if err != nil {
			checkUntouched(t, s)
			return
		}
		entries, _ := os.ReadDir(filepath.Join(s.dir, trees))
		if len(entries) != 1 {
			t.Fatalf("got %d trees, want 1", len(entries))
		}
		m := scan(t, filepath.Join(s.dir, trees, entries[0].Name()), nil)
		if m.Digest().String() != entries[0].Name() && len(m.Notes) == 0 && !bytes.Contains(stream, []byte(".git")) {
			t.Errorf("tree %s has digest %s", entries[0].Name(), m.Digest())
		}
	})
}

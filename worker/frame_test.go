package worker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// frameIndex describes testdata/frames; worker/runner/tests/test_frames.py reads the same files.
type frameIndex struct {
	Good []struct {
		File    string
		Header  map[string]any
		Payload string `json:"payload_hex"`
	}
	Bad []struct{ File, Error, Why string }
}

func readFrameIndex(t testing.TB) (index frameIndex) {
	t.Helper()
	if err := json.Unmarshal(frameFile(t, "index.json"), &index); err != nil {
		t.Fatal(err)
	}
	return index
}

func frameFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "frames", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoodFrames(t *testing.T) {
	for _, good := range readFrameIndex(t).Good {
		t.Run(good.File, func(t *testing.T) {
			data := frameFile(t, good.File)
			reader := iotest.OneByteReader(bytes.NewReader(append(data, "next"...)))
			f, err := ReadFrame(reader)
			if err != nil {
				t.Fatal(err)
			}
			var header map[string]any
			if err := json.Unmarshal(f.Header, &header); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(header, good.Header) || hex.EncodeToString(f.Payload) != good.Payload {
				t.Errorf("got %v %x, want %v %s", header, f.Payload, good.Header, good.Payload)
			}
			if rest, _ := io.ReadAll(reader); string(rest) != "next" {
				t.Errorf("it left %q unread, want %q", rest, "next")
			}
			var again bytes.Buffer
			if n, err := f.WriteTo(&again); err != nil || n != int64(len(data)) || !bytes.Equal(again.Bytes(), data) {
				t.Errorf("written again: %d bytes %x (%v), want %x", n, again.Bytes(), err, data)
			}
			if parsed, err := ParseFrame(data); err != nil || !reflect.DeepEqual(parsed, f) {
				t.Errorf("parsed: %v %x %v, want %v %x", parsed.Header, parsed.Payload, err, f.Header, f.Payload)
			}
			for size := range data {
				if _, err := ParseFrame(data[:size]); err != io.ErrUnexpectedEOF {
					t.Errorf("parsed the first %d of %d bytes: %v", size, len(data), err)
				}
				for text, want := range map[string]bool{string(data[:size]): false, string(data) + string(data[:size]): true} {
					buffered := bufio.NewReader(strings.NewReader(text))
					_, _ = buffered.Peek(1) // fills it; there may be nothing
					if got := isBuffered(buffered); got != want {
						t.Errorf("%d bytes of a frame of %d are buffered: whole %v, want %v", len(text), len(data), got, want)
					}
				}
			}
		})
	}
}

func TestBadFrames(t *testing.T) {
	for _, bad := range readFrameIndex(t).Bad {
		t.Run(bad.File, func(t *testing.T) {
			f, err := ReadFrame(bytes.NewReader(frameFile(t, bad.File)))
			var breach *FrameError
			broken := errors.As(err, &breach)
			want := map[string]bool{
				"limit": broken && strings.Contains(breach.Reason, "above the limit"), "header": broken && strings.Contains(breach.Reason, "JSON object"),
				"end": err == io.EOF, "truncated": err == io.ErrUnexpectedEOF,
			}
			if ok, known := want[bad.Error]; !known || !ok {
				t.Errorf("%s: got %q %x, %v; want %s", bad.Why, f.Header, f.Payload, err, bad.Error)
			}
		})
	}
}

func TestEveryFrameFileIsInTheIndex(t *testing.T) {
	known := map[string]bool{"index.json": true}
	index := readFrameIndex(t)
	for _, good := range index.Good {
		known[good.File] = true
	}
	for _, bad := range index.Bad {
		known[bad.File] = true
	}
	entries, err := os.ReadDir("testdata/frames")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !known[entry.Name()] {
			t.Errorf("%s is not in index.json", entry.Name())
		}
	}
	if len(entries) != len(known) {
		t.Errorf("%d files, %d described", len(entries), len(known))
	}
}

// Both sides accept a frame that is exactly at the limit, and neither sends a larger one. The Python side is in
// test_frames.py.
func TestFrameLimits(t *testing.T) {
	padded := func(size int) json.RawMessage {
		return json.RawMessage(`{"a":"` + strings.Repeat("x", size-len(`{"a":""}`)) + `"}`)
	}
	f := Frame{Header: padded(headerLimit), Payload: make([]byte, payloadLimit)}
	var wire bytes.Buffer
	if _, err := f.WriteTo(&wire); err != nil {
		t.Fatal(err)
	}
	back, err := ReadFrame(&wire)
	if err != nil || len(back.Header) != headerLimit || len(back.Payload) != payloadLimit {
		t.Fatalf("got %d+%d bytes, %v", len(back.Header), len(back.Payload), err)
	}
	for name, f := range map[string]Frame{
		"header":  {Header: padded(headerLimit + 1)},
		"payload": {Header: json.RawMessage("{}"), Payload: make([]byte, payloadLimit+1)},
	} {
		var breach *FrameError
		if n, err := f.WriteTo(io.Discard); !errors.As(err, &breach) || n != 0 {
			t.Errorf("%s above the limit: wrote %d bytes, %v", name, n, err)
		}
	}
}

// A runner that announces 320 MiB and sends nothing must not cost 320 MiB.
func TestFalseLengthTakesNoMemory(t *testing.T) {
	var head [8]byte
	binary.BigEndian.PutUint32(head[:], 2)
	binary.BigEndian.PutUint32(head[4:], payloadLimit)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadFrame(bytes.NewReader(append(head[:], "{}"...))); err != io.ErrUnexpectedEOF {
		t.Fatalf("got %v", err)
	}
	runtime.ReadMemStats(&after)
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 1<<20 {
		t.Errorf("it allocated %d bytes", taken)
	}
}

func FuzzReadFrame(f *testing.F) {
	index := readFrameIndex(f)
	for _, good := range index.Good {
		f.Add(frameFile(f, good.File))
	}
	for _, bad := range index.Bad {
		f.Add(frameFile(f, bad.File))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := bytes.NewReader(data)
		frame, err := ReadFrame(reader)
		used := len(data) - reader.Len()
		if err != nil {
			var breach *FrameError
			if !errors.As(err, &breach) && err != io.EOF && err != io.ErrUnexpectedEOF {
				t.Fatalf("%x: %v", data, err)
			}
			return
		}
		var wire bytes.Buffer
		if _, err := frame.WriteTo(&wire); err != nil || !bytes.Equal(wire.Bytes(), data[:used]) {
			t.Fatalf("%x was read as %x (%v)", data[:used], wire.Bytes(), err)
		}
		if r, err := parseReport(frame); err == nil { // no manifest may cause a panic
			_, _ = r.manifestOf()
		} else if !errors.As(err, new(*FrameError)) {
			t.Fatalf("%s: %v", frame.Header, err)
		}
	})
}

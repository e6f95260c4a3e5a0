package check

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestLockOf reads the packages of an environment, writes them, and reads the file again.
func TestLockOf(t *testing.T) {
	home := t.TempDir()
	packages := filepath.Join(home, "lib", "python3.10", "site-packages")
	for _, name := range []string{"gradio-6.31.0.dist-info", "Foo_Bar.baz-1.0.post1.dist-info", "torch-2.9.1+cu128.dist-info", "gradio", "other.egg-info"} {
		if err := os.MkdirAll(filepath.Join(packages, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	python := filepath.Join(home, "bin", "python")
	l, err := PinsOf(python, "3.10.13")
	want := &Pins{"3.10.13", map[string]string{"gradio": "6.31.0", "foo-bar-baz": "1.0.post1", "torch": "2.9.1+cu128"}}
	if err != nil || !reflect.DeepEqual(l, want) {
		t.Fatalf("got %+v, %v, want %+v", l, err, want)
	}
	var file bytes.Buffer
	if err := l.Write(&file); err != nil {
		t.Fatal(err)
	}
	if text := "# written by spacehost check --write-lock\n# python 3.10.13\nfoo-bar-baz==1.0.post1\ngradio==6.31.0\ntorch==2.9.1+cu128\n"; file.String() != text {
		t.Errorf("got %q, want %q", &file, text)
	}
	if again, err := ReadPins(&file); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := PinsOf("/usr/bin/no/python3", ""); err == nil {
		t.Error("a Python without an environment has packages")
	}
}

func TestReadLock(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"aiofiles==24.1.0\nPillow==11.3.0 ; python_version > \"3\"\nuvicorn[standard]==0.30\n-e git+https://x\nmine @ file:///w/mine.whl\n": {"aiofiles": "24.1.0", "pillow": "11.3.0", "uvicorn": "0.30", "mine": "file:///w/mine.whl"},
		"#10 12.3 Successfully installed numpy-2.2.6 opencv-python-headless-4.11.0.86 torch-2.9.1\n": {
			"numpy": "2.2.6", "opencv-python-headless": "4.11.0.86", "torch": "2.9.1"},
		" + numpy==2.2.6\n + numpy==2.3.0\n - numpy==2.2.6\n": {"numpy": "2.3.0"},
	} {
		if l, err := ReadPins(strings.NewReader(text)); err != nil || !maps.Equal(l.Packages, want) {
			t.Errorf("%q: got %v, %v, want %v", text, l, err, want)
		}
	}
	if _, err := ReadPins(strings.NewReader("===== Application Startup =====\n")); err == nil || !strings.Contains(err.Error(), "it names no package") {
		t.Errorf("a text without packages: %v", err)
	}
}

func TestCompare(t *testing.T) {
	before := &Pins{"3.10", map[string]string{"a": "1", "gradio": "5.49.1", "gone": "1", "torch": "2.8.0", "same": "1"}}
	now := &Pins{"3.12.1", map[string]string{"a": "2", "gradio": "6.31.0", "torch": "2.9.1", "new": "3", "same": "1"}}
	want := []Drift{{"python", "3.10", "3.12.1"}, {"gradio", "5.49.1", "6.31.0"}, {"torch", "2.8.0", "2.9.1"}, {"a", "1", "2"}, {"gone", "1", ""}, {"new", "", "3"}}
	if got := before.Compare(now); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	now.Python, now.Packages = "3.10.13", before.Packages
	if got := before.Compare(now); len(got) > 0 {
		t.Errorf("a patch of the same Python: got %+v", got)
	}
}

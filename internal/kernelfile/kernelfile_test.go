package kernelfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/kernelfile"
)

func TestFiles(t *testing.T) {
	text, err := kernelfile.Read(fmt.Sprintf("/proc/%d/stat", os.Getpid()), make([]byte, 1<<10))
	if err != nil || !strings.HasPrefix(string(text), fmt.Sprintf("%d (", os.Getpid())) {
		t.Errorf("stat: %q, %v", text, err)
	}
	path := filepath.Join(t.TempDir(), "value")
	if err := kernelfile.Write(path, "1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("write of a missing file: %v", err)
	}
	if _, err := kernelfile.Read(path, make([]byte, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read of a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := kernelfile.Write(path, "ab"); err != nil {
		t.Error(err)
	}
	if text, err := kernelfile.Read(path, make([]byte, 3)); err != nil || string(text) != "ab2" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := kernelfile.Read("a\x00b", make([]byte, 1)); err == nil {
		t.Error("a path with a zero byte is read")
	}
	if err := kernelfile.Write("/proc/self/stat", "1"); err == nil {
		t.Error("a file that cannot be written is written")
	}
	t.Chdir(filepath.Dir(path))
	if text, err := kernelfile.Read("value", make([]byte, 8)); err != nil || string(text) != "ab23" {
		t.Errorf("relative path: got %q, %v", text, err)
	}
}

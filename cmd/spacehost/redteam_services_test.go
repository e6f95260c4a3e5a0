package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// services are programs and files of the host's user that no Space must reach. Each service answers every client with a
// canary.
type services struct {
	port        int    // of TCP and UDP, at every address of this machine
	hidden      int    // port of a TCP service that no rule names
	machine     string // an address of this machine outside of the loopback network, or 127.0.0.1
	abstract    string // name of an abstract unix socket
	named       string // path of a unix socket
	connections atomic.Int64

	sharedMemory, temporary string   // files
	systemV                 int      // key of a System V segment
	argument                string   // of the command line of the canary processes
	disk                    []uint32 // major and minor number
}

func newServices(t *testing.T) *services {
	t.Helper()
	s := &services{machine: machineAddress(t), abstract: fmt.Sprintf("redteam-%d", os.Getpid()), named: filepath.Join(t.TempDir(), "socket"), argument: fmt.Sprintf("7777.%d", os.Getpid())}
	s.listen(t, "tcp", ":0")
	s.hidden, s.port = s.port, 0
	s.listen(t, "tcp", ":0")
	s.listen(t, "unix", s.named)
	s.listen(t, "unix", "@"+s.abstract)
	s.listenUDP(t)
	s.sharedMemory = fmt.Sprintf("/dev/shm/spacehost-redteam-%d", os.Getpid())
	s.temporary = filepath.Join(t.TempDir(), "canary")
	for _, path := range []string{s.sharedMemory, s.temporary} {
		writeFile(t, path, "CANARY-file")
	}
	t.Cleanup(func() { os.Remove(s.sharedMemory) })
	s.openSystemV(t)
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		t.Fatal(err)
	}
	s.disk = []uint32{unix.Major(root.Dev), unix.Minor(root.Dev)}
	return s
}

// listen answers each connection with a canary.
func (s *services) listen(t *testing.T, network, address string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		s.port = at.Port
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by Cleanup
			}
			s.connections.Add(1)
			fmt.Fprint(c, "CANARY-service")
			c.Close()
		}
	}()
}

func (s *services) listenUDP(t *testing.T) {
	t.Helper()
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for buffer := make([]byte, 100); ; {
			_, from, err := c.ReadFrom(buffer)
			if err != nil {
				return // closed by Cleanup
			}
			s.connections.Add(1)
			_, _ = c.WriteTo([]byte("CANARY-service"), from)
		}
	}()
}

// openSystemV creates a segment of shared memory with a canary.
func (s *services) openSystemV(t *testing.T) {
	t.Helper()
	s.systemV = 0x5eed0000 + os.Getpid()
	id, err := unix.SysvShmGet(s.systemV, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }) // of our own segment
	memory, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	copy(memory, "CANARY-memory")
	if err := unix.SysvShmDetach(memory); err != nil {
		t.Fatal(err)
	}
}

// startCanary starts a process of the host's user and returns its pid.
func (s *services) startCanary(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", s.argument)
	cmd.Env = []string{"REDTEAM_CANARY=CANARY-environment", "PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an attack may have killed it
		_ = cmd.Wait()         // the error reports the signal
	})
	return cmd.Process.Pid
}

// outside returns the hash of every file that the Space must not change, by its path.
func (r *redteam) outside() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	changing := []string{filepath.Join(r.stateOfSpaces(), "spaces", "redteam"), filepath.Join(r.stateOfSpaces(), "run"), filepath.Join(r.State, "logs")}
	for _, root := range []string{r.home, r.State, r.venv, r.folders} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			for _, one := range changing {
				if path == one {
					return filepath.SkipDir
				}
			}
			if strings.HasPrefix(entry.Name(), "spacehost.db") {
				return nil
			}
			all[path], err = fingerprint(path, entry)
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

// fingerprint describes a file: mode, owner, the date of its last change and, for a regular file, its content.
func fingerprint(path string, entry fs.DirEntry) (string, error) {
	info, err := entry.Info()
	if err != nil {
		return "", err
	}
	text := fmt.Sprint(info.Mode(), info.ModTime(), info.Size())
	if info.Mode().IsRegular() {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf(" %x", sha256.Sum256(data))
	}
	return text, nil
}

// wantUnchanged compares everything outside with an earlier outside.
func (r *redteam) wantUnchanged(before map[string]string) {
	r.t.Helper()
	after := r.outside()
	for path, was := range before {
		if after[path] != was {
			r.t.Errorf("%s: %q before the attacks, %q after", path, was, after[path])
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			r.t.Errorf("%s was not there before the attacks", path)
		}
	}
}

// wantFilesServed checks files of the Space at its address: what it has written into its folder, whose layer only the Space sees,
// and an upload.
func (r *redteam) wantFilesServed() {
	r.t.Helper()
	t := r.t.(*testing.T)
	base := r.Spaces[0].URL + "/gradio_api/"
	for _, name := range []string{"own.txt", "shipped.txt"} {
		if status, body := request(t, http.MethodGet, base+"file="+name, "", nil); status != http.StatusOK || body != "own" {
			t.Errorf("%s: got %d %.200s, want what the Space has written", name, status, body)
		}
	}
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	part, err := parts.CreateFormFile("files", "upload.txt")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, "uploaded")
	if err := parts.Close(); err != nil {
		t.Fatal(err)
	}
	status, answer := request(t, http.MethodPost, base+"upload", form.String(), map[string]string{"Content-Type": parts.FormDataContentType()})
	var paths []string
	if err := json.Unmarshal([]byte(answer), &paths); err != nil || len(paths) != 1 {
		t.Fatalf("upload: %d %s", status, answer)
	}
	if status, body := request(t, http.MethodGet, base+"file="+paths[0], "", nil); status != http.StatusOK || body != "uploaded" {
		t.Errorf("the upload: got %d %.200s", status, body)
	}
}

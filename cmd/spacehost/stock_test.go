package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// stockPython disables the hot-reload server that Gradio starts on Spaces, because it would listen on every interface.
const stockPython = `
import runpy, gradio.http_server
gradio.http_server.watchfn_spaces = lambda reloader: None
runpy.run_path("app.py", run_name="__main__")
`

// stockGradio is an app that runs under stock Gradio, without a host.
type stockGradio struct {
	t     *testing.T
	url   string
	ended chan struct{}
}

// startStock runs the app as its author does, without a host. With the variables of onSpaces it runs as on the Hub, where Gradio
// builds another config.
func startStock(t *testing.T, python, dir string, vars ...string) stockGradio {
	t.Helper()
	addr := freeAddress(t)
	_, port, _ := net.SplitHostPort(addr)
	home := filepath.Join(t.TempDir(), "home")
	if err := os.MkdirAll(filepath.Join(home, "gradio"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", stockPython)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GRADIO_SERVER_NAME=127.0.0.1", "GRADIO_SERVER_PORT="+port, "GRADIO_TEMP_DIR="+filepath.Join(home, "gradio"),
		"GRADIO_ANALYTICS_ENABLED=False", "HOME="+home, "SPACE_HOST="+addr, "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost")
	cmd.Env = append(cmd.Env, vars...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // killed by the cleanup
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("output of stock Gradio in %s:\n%s", dir, output.String()[max(0, output.Len()-4000):])
		}
	})
	return stockGradio{t, "http://" + addr, ended}
}

func onSpaces(name string) []string { return []string{"SYSTEM=spaces", "SPACE_ID=local/" + name} }

// ready waits for the first response and returns the address.
func (s stockGradio) ready() string {
	s.t.Helper()
	eventually(s.t, "stock Gradio responds", 2*patience, func() bool {
		select {
		case <-s.ended:
			s.t.Fatal("stock Gradio has exited")
		default:
		}
		answer, err := http.Get(s.url + "/docs") // usually 404; /config does not exist for an app mounted below a path
		if err == nil {
			answer.Body.Close()
		}
		return err == nil
	})
	return s.url
}

var givenAddresses sync.Map // of freeAddress

// freeAddress returns a free address outside the kernel's range of ephemeral ports. The app takes seconds to listen, and an
// ephemeral port could be assigned to another program until then. No address is returned twice: apps start beside each other,
// and Gradio takes the next port if its own is in use.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if _, given := givenAddresses.LoadOrStore(addr, nil); given {
			continue
		}
		if probe, err := net.Listen("tcp", addr); err == nil {
			probe.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

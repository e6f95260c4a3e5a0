package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
)

// gpuStub is the minimal server for the GPU requests of the `spaces` package. It grants every request, checks
// nothing, stores nothing and revokes nothing. The difference to it is the cost of spacehost's accounting.
type gpuStub struct {
	url    string
	server *http.Server
	ended  chan error

	mu   sync.Mutex
	warm map[string]bool // by Task: its last call succeeded, so its worker waits for another
}

func newGPUStub() (*gpuStub, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gpuStub{url: "http://" + listener.Addr().String(), ended: make(chan error, 1), warm: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /startup-report", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /schedule", g.schedule)
	mux.HandleFunc("POST /allow", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /release", g.release)
	g.server = &http.Server{Handler: mux}
	go func() { g.ended <- g.server.Serve(listener) }()
	return g, nil
}

// schedule returns the Task as the credential of its lease (spaces/zero/api.py, ScheduleResponse).
func (g *gpuStub) schedule(w http.ResponseWriter, r *http.Request) {
	task := r.FormValue("taskId")
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"idle": g.warm[task], "nvidiaIndex": 0, "nvidiaUUID": "GPU-given", "allowToken": task}) // the client may have disconnected
}

func (g *gpuStub) release(_ http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.warm[r.FormValue("allowToken")] = r.FormValue("fail") == "false"
}

func (g *gpuStub) close() error {
	err := g.server.Close()
	if ended := <-g.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

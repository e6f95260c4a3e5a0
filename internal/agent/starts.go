package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"go.uber.org/zap"

	"spacehost/worker"
)

// Starts are the processes of Spaces on one machine, which outlast their hosts. The agent of the host's own machine has one, and each
// node. Its methods may be called concurrently.
type Starts struct {
	log *zap.Logger

	mu        sync.Mutex
	instances map[string]*instance
}

// NewStarts returns a Starts without processes. log may be nil.
func NewStarts(log *zap.Logger) *Starts {
	if log == nil {
		log = zap.NewNop()
	}
	return &Starts{log: log, instances: map[string]*instance{}}
}

// Launcher starts a process. Its reports go to the Reporter. sockets are those of its sandbox that a host on this machine serves.
type Launcher func(to worker.Reporter) (kept worker.Kept, process worker.LocalProcess, sockets []*os.File, err error)

// Launch starts a process for a host, answers on its connection, and serves the connection until the host leaves it or the process has
// ended. Closed is called once nothing of the process is left; nil: no call.
func (s *Starts) Launch(conn net.Conn, launch Launcher, closed func()) {
	i := &instance{relay: worker.NewRelay(), over: make(chan struct{})}
	var err error
	if i.kept, i.process, i.sockets, err = launch(i.relay); err != nil {
		closeAll(i.sockets)
		s.answer(conn, answer{Error: toWire(err)}, nil)
		return
	}
	name := i.kept.Facts.Instance
	s.mu.Lock()
	s.instances[name] = i
	s.mu.Unlock()
	s.log.Info("process started", zap.String("space", i.kept.Space), zap.String("instance", name), zap.Int("pid", i.kept.Facts.PID))
	go s.await(i, closed)
	s.serve(conn, i)
}

// await forgets an instance once its processes have exited.
func (s *Starts) await(i *instance, closed func()) {
	<-i.process.Done()
	name := i.kept.Facts.Instance
	s.log.Info("process ended", zap.String("space", i.kept.Space), zap.String("instance", name), zap.Error(i.process.Err()))
	s.mu.Lock()
	delete(s.instances, name)
	s.mu.Unlock()
	closeAll(i.sockets)
	if closed != nil {
		closed()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.host != nil {
		i.host.write(kindDone, encode(done{toWire(i.process.Err()), i.process.Exit(), i.process.Tail()}))
	}
	close(i.over)
}

// streamRequest begins a stream of a host on another machine: take or dial.
type streamRequest struct {
	Op, Instance string
	Port         int // dial
}

// The operations on processes of a host on another machine.
const (
	opTake    = "process/take"
	opDial    = "process/dial"
	opInspect = "process/inspect"
	opStatus  = "process/status"
	opEnd     = "process/end"
	opKept    = "process/kept" // of the Space that the request names as Instance; "": of all
)

// Stream serves a stream of a host on another machine. It returns false for one that does not concern processes.
func (s *Starts) Stream(hello json.RawMessage, conn net.Conn) bool {
	var q streamRequest
	if json.Unmarshal(hello, &q) != nil || q.Op != opTake && q.Op != opDial {
		return false
	}
	defer conn.Close()
	i := s.get(q.Instance)
	switch {
	case i == nil:
		s.answer(conn, answer{Error: toWire(errEnded(q.Instance))}, nil)
	case q.Op == opTake:
		s.serve(conn, i)
	default:
		s.pipe(conn, i, q.Port)
	}
	return true
}

// pipe connects a stream to a port of a process.
func (s *Starts) pipe(conn net.Conn, i *instance, port int) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	own, err := i.process.Dial(ctx, port)
	if err != nil {
		s.answer(conn, answer{Error: toWire(err)}, nil)
		return
	}
	defer own.Close()
	s.answer(conn, answer{}, nil)
	Join(conn, own)
}

// Call answers a call of a host on another machine. known is false for one that does not concern processes.
func (s *Starts) Call(ctx context.Context, op string, body json.RawMessage) (result any, known bool, err error) {
	if op != opInspect && op != opStatus && op != opEnd && op != opKept {
		return nil, false, nil
	}
	var q request
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, true, err
	}
	if op == opKept {
		return answer{Kept: slices.DeleteFunc(s.Kept(), func(k worker.Kept) bool { return q.Instance != "" && k.Space != q.Instance })}, true, nil
	}
	i := s.get(q.Instance)
	if i == nil {
		return answer{Error: toWire(errEnded(q.Instance))}, true, nil
	}
	switch op {
	case opStatus:
		if status, runs := i.process.Status(); runs {
			return answer{Status: &status}, true, nil
		}
		return answer{}, true, nil
	case opInspect:
		q.Op = "inspect"
	case opEnd:
		q.Op = "end"
	}
	a, _ := i.answer(ctx, q)
	return a, true, nil
}

func errEnded(instance string) error { return fmt.Errorf("instance %s has ended", instance) }

// answer writes an answer and the descriptors that belong to it.
func (s *Starts) answer(conn net.Conn, a answer, files []*os.File) {
	a.Files = len(files)
	err := write(conn, message(kindAnswer, encode(a)))
	if local, ok := conn.(*net.UnixConn); err == nil && ok {
		err = writeFiles(local, files)
	}
	if err != nil {
		s.log.Warn("answer not sent", zap.Error(err))
	}
}

// EndAll ends all processes, at the same time. EndSpace ends those of one Space.
func (s *Starts) EndAll() { s.endEach(func(*instance) bool { return true }) }

// EndSpace ends the processes of a Space.
func (s *Starts) EndSpace(space string) {
	s.endEach(func(i *instance) bool { return i.kept.Space == space })
}

func (s *Starts) endEach(matches func(*instance) bool) {
	s.mu.Lock()
	var all []*instance
	for _, i := range s.instances {
		if matches(i) {
			all = append(all, i)
		}
	}
	s.mu.Unlock()
	var ending sync.WaitGroup
	for _, i := range all {
		ending.Go(func() {
			i.process.End(context.Background(), endGrace)
			<-i.over
		})
	}
	ending.Wait()
}

func (s *Starts) get(instance string) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instances[instance]
}

// Count returns the number of processes. Unlike Kept it never waits for a host that reads no reports.
func (s *Starts) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.instances)
}

// Kept lists the processes for the next host.
func (s *Starts) Kept() (all []worker.Kept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.instances {
		if i.relay.CanBeTaken() {
			all = append(all, i.kept)
		} else {
			kept := i.kept
			kept.Likeness = "" // the host ends it
			all = append(all, kept)
		}
	}
	return all
}

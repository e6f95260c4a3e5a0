package shelf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// maxCall bounds the body of a call of the front.
const maxCall = 16 << 20

// Serve answers the requests of a Remote on one connection, on the machine of the files. find returns the Shelf of a Space, or nil.
// Serve closes the connection, and returns when the front has closed it or ctx has ended, and no request is under way. log gets the
// failures of the server, such as panics, and may be nil.
func Serve(ctx context.Context, conn net.Conn, find func(space string) *Shelf, log *zap.Logger) {
	if log == nil {
		log = zap.NewNop()
	}
	n := &node{find: find}
	failures, err := zap.NewStdLogAt(log, zap.WarnLevel)
	if err != nil {
		panic(err) // a level that zap does not have
	}
	listener := &oneConn{conn: &watchedConn{Conn: conn, closed: make(chan struct{})}, first: make(chan struct{}, 1)}
	listener.first <- struct{}{}
	server := &http.Server{Handler: n, MaxHeaderBytes: wireMaxQuery, ErrorLog: failures, BaseContext: func(net.Listener) context.Context { return ctx }}
	defer n.requests.Wait()
	defer context.AfterFunc(ctx, func() { _ = listener.conn.Close() })()
	_ = server.Serve(listener) // ends with the connection
}

// oneConn is a listener of one connection. Accept fails once that is closed.
type oneConn struct {
	conn  *watchedConn
	first chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case <-l.first:
		return l.conn, nil
	default:
	}
	<-l.conn.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// watchedConn is a connection with an end that can be awaited.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// node is the handler of a connection.
type node struct {
	find     func(space string) *Shelf
	requests sync.WaitGroup
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.requests.Add(1)
	defer n.requests.Done()
	op, ok := strings.CutPrefix(r.URL.Path, wirePrefix)
	v := r.URL.Query()
	s := n.find(v.Get("space"))
	var err error
	switch {
	case !ok:
		err = fmt.Errorf("no operation of a shelf: %s", r.URL.Path)
	case s == nil:
		err = fmt.Errorf("no files of Space %q on this machine", v.Get("space"))
	case op == opVisit, op == opUpload, op == opCheck:
		m, known := s.sent.get(v.Get("manifest"))
		switch {
		case !known:
			w.Header().Set(headerResult, resultManifest)
		case op == opVisit:
			s.answerVisit(w, r, m)
		case op == opUpload:
			err = s.answerUpload(w, r, m)
		default:
			err = s.answerCheck(w, r, m)
		}
	default:
		err = s.answerCall(w, r, op)
	}
	if err != nil {
		w.Header().Set(headerResult, resultError)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, err.Error()) // fails if the front has left
	}
}

// answerVisit answers a visitor's request that is no upload.
func (s *Shelf) answerVisit(w http.ResponseWriter, r *http.Request, m manifest) {
	v := r.URL.Query()
	visit, c := decodeCall(r, v, m)
	head := w.Header()
	c.AllowOrigin = func(http.Header) { head.Set(headerAllowOrigin, "1") }
	c.Pass = func(http.ResponseWriter, *http.Request, func(*http.Response)) { head.Set(headerResult, resultPass) }
	head.Set(headerResult, resultAnswer)
	s.ServeHTTP(w, With(visit, c, v.Get("path")))
}

func (s *Shelf) answerCheck(w http.ResponseWriter, r *http.Request, m manifest) error {
	var q checkCall
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if m.Files == nil {
		return errors.New("check files: the manifest has no data on files")
	}
	answer := checkAnswer{}
	for i, name := range q.Paths {
		wrong, err := s.Check(r.Context(), m.Files, []string{string(name)})
		if err != nil {
			return err
		}
		if len(wrong) > 0 {
			answer.Wrong = append(answer.Wrong, i)
		}
	}
	return writeJSON(w, answer)
}

// answerCall answers the calls that need no manifest.
func (s *Shelf) answerCall(w http.ResponseWriter, r *http.Request, op string) error {
	switch op {
	case opManifest:
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
		if err == nil {
			err = s.sent.add(text)
		}
		if err != nil {
			return err
		}
		return writeJSON(w, struct{}{})
	case opNote:
		var q noteCall
		if err := readJSON(w, r, &q); err != nil {
			return err
		}
		return writeJSON(w, noteAnswer{s.noteAll(q)})
	case opFolder:
		var a folderAnswer
		if storage := s.storage.Load(); storage.Marks != "" {
			a.Uploads = storage.Uploads
		}
		return writeJSON(w, a)
	case opUploads:
		all, err := s.Uploads(r.Context(), r.URL.Query().Has("stopped"))
		if err != nil {
			return err
		}
		return writeJSON(w, uploadsAnswer{all})
	case opRemove:
		var q removeCall
		if err := readJSON(w, r, &q); err != nil {
			return err
		}
		if !IsCacheFolder(q.Name) {
			return fmt.Errorf("remove an upload: %q is no folder of Gradio's cache", q.Name)
		}
		removed, err := s.Remove(r.Context(), Upload{Name: q.Name, Used: q.Used, ByApp: q.ByApp})
		if err != nil {
			return err
		}
		return writeJSON(w, removeAnswer{removed})
	}
	return fmt.Errorf("no operation of a shelf: %s", op)
}

func readJSON(w http.ResponseWriter, r *http.Request, to any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall)).Decode(to); err != nil {
		return fmt.Errorf("read a call: %w", err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, value any) error {
	w.Header().Set(headerResult, resultAnswer)
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(value)
}

package server

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Certificate serves the certificate in a pair of files, and reads the files again when they change. It may be used concurrently.
type Certificate struct {
	load func(cert, key string) (*tls.Certificate, error)
	log  *zap.Logger
	now  func() time.Time

	mu        sync.Mutex
	cert, key string
	pair      *tls.Certificate
	seen      string // fingerprint of the files at the last try
	looked    time.Time
}

// lookEvery is the time after which a handshake compares the files with what was read.
const lookEvery = time.Second

// NewCertificate reads the pair with load, whose errors it returns. A nil logger is silent.
func NewCertificate(cert, key string, load func(cert, key string) (*tls.Certificate, error), log *zap.Logger) (*Certificate, error) {
	if log == nil {
		log = zap.NewNop()
	}
	c := &Certificate{load: load, log: log, now: time.Now, cert: cert, key: key}
	c.seen, c.looked = fingerprint(cert, key), c.now()
	pair, err := load(cert, key)
	c.pair = pair
	return c, err
}

// Use names other files. The former certificate stays in use until they can be read.
func (c *Certificate) Use(cert, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != cert || c.key != key {
		c.cert, c.key, c.seen, c.looked = cert, key, "", time.Time{}
	}
}

// current returns the certificate for a handshake. Files that cannot be used, such as those of a renewal that has written only
// one of the two, leave the former certificate in place. They are tried again when they change.
func (c *Certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.looked) < lookEvery {
		return c.pair, nil
	}
	c.looked = c.now()
	seen := fingerprint(c.cert, c.key) // before the files are read: a later write is a change
	if seen == c.seen {
		return c.pair, nil
	}
	c.seen = seen
	pair, err := c.load(c.cert, c.key)
	if err != nil {
		c.log.Error("changed certificate not used", zap.Error(err))
		return c.pair, nil
	}
	c.pair = pair
	c.log.Info("certificate read again", zap.String("cert", c.cert))
	return c.pair, nil
}

// fingerprint changes with the content of the files: an editor or a renewal writes them, or replaces them by others.
func fingerprint(files ...string) (all string) {
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			all += err.Error() + "\n"
			continue
		}
		all += fmt.Sprintf("%d %d %v\n", info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	return all
}

// config is that of every TLS connection. HTTP/2 is not offered: a stream takes its connection over.
func (c *Certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.current}
}

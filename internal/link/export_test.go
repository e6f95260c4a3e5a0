package link

import (
	"testing"

	"golang.org/x/time/rate"
)

// NewRequest returns a request for a certificate of a new key.
func NewRequest(t *testing.T) []byte {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := newRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// Resumed reports whether a connection of the agent has resumed the TLS session of an earlier one.
func Resumed(conn any) bool { return conn.(*stream).ConnectionState().DidResume }

// SetUnlimited removes the limit of messages of a link at the front.
func SetUnlimited(l *Link) { l.rate.SetLimit(rate.Inf) }

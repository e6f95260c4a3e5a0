package control

import (
	"net/url"
	"strings"
)

// Endpoint is a method and a path of the API, with the types of its request body and of its answer. In Path, ":name" stands for a
// parameter.
type Endpoint[Body, Answer any] struct{ Method, Path string }

// NoBody is the Body of requests without one.
type NoBody struct{}

// CSV is the Answer of an Endpoint that sends comma-separated values.
type CSV string

// Request is one request of a client, ready to send.
type Request struct {
	Method, Path string
	Body         any // to be sent as JSON; nil: no body
}

// Request returns the request with this body. params replace the parameters of the path, in order.
func (e Endpoint[Body, Answer]) Request(body Body, params ...string) Request {
	segments := strings.Split(e.Path, "/")
	for i, segment := range segments {
		if strings.HasPrefix(segment, ":") {
			segments[i], params = url.PathEscape(params[0]), params[1:]
		}
	}
	r := Request{Method: e.Method, Path: strings.Join(segments, "/"), Body: body}
	if _, none := any(body).(NoBody); none {
		r.Body = nil
	}
	return r
}

// With returns the request with a query.
func (r Request) With(query url.Values) Request {
	r.Path += "?" + query.Encode()
	return r
}

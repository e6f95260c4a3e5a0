package machine

import (
	"encoding/json"
	"errors"
	"fmt"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/link"
)

// codeClosed is the code of gpu.ErrClosed.
const codeClosed = "gpu closed"

// errorTypes are the types of errors that cross a link unchanged, by their code.
var errorTypes = []errorType{
	typeOf[*gpu.BusyError]("gpu busy"),
	typeOf[*gpu.LostError]("gpu lost"),
	typeOf[*gpu.HungError]("gpu hung"),
	typeOf[*gpu.UnknownDeviceError]("gpu unknown"),
	typeOf[*gpu.NotSupportedError]("gpu not supported"),
	typeOf[*gpu.GoneError]("process gone"),
	typeOf[*gpu.NoInstanceError]("gpu without instance"),
	typeOf[*gpu.DriverError]("gpu driver"),
	typeOf[*lease.NotOwnedError]("not owned"),
}

type errorType struct {
	code   string
	find   func(error) (found error, ok bool)
	decode func(json.RawMessage) (error, error)
}

// typeOf describes an error type without unexported fields.
func typeOf[P interface {
	*T
	error
}, T any](code string) errorType {
	return errorType{
		code: code,
		find: func(err error) (error, bool) {
			found, ok := errors.AsType[P](err)
			return found, ok
		},
		decode: func(detail json.RawMessage) (error, error) {
			decoded := P(new(T))
			return decoded, json.Unmarshal(detail, decoded)
		},
	}
}

// encodeError returns err as it crosses a link.
func encodeError(err error) *link.RemoteError {
	encoded := &link.RemoteError{Text: err.Error()}
	if errors.Is(err, gpu.ErrClosed) {
		encoded.Code = codeClosed
		return encoded
	}
	for _, one := range errorTypes {
		if found, ok := one.find(err); ok {
			encoded.Code = one.code
			encoded.Detail, _ = json.Marshal(found) // plain data
			break
		}
	}
	return encoded
}

// decodeError is the inverse of encodeError, for the errors of a call. Other errors are returned as they are.
func decodeError(err error) error {
	remote, ok := errors.AsType[*link.RemoteError](err)
	if !ok {
		return err
	}
	if remote.Code == codeClosed {
		return withText(remote.Text, gpu.ErrClosed)
	}
	for _, one := range errorTypes {
		if one.code != remote.Code {
			continue
		}
		decoded, wrong := one.decode(remote.Detail)
		if wrong != nil {
			return remote
		}
		return withText(remote.Text, decoded)
	}
	return remote
}

// decodeErrorText is decodeError for an error that is part of an answer.
func decodeErrorText(text json.RawMessage) error {
	remote := &link.RemoteError{}
	if err := json.Unmarshal(text, remote); err != nil {
		return fmt.Errorf("error of a node: %w", err)
	}
	return decodeError(remote)
}

// withText returns err, or an error with another text that wraps it.
func withText(text string, err error) error {
	if err.Error() == text {
		return err
	}
	return &textError{text, err}
}

type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }

func (e *textError) Unwrap() error { return e.err }

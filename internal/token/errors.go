package token

import (
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// Reason is why a token is refused.
type Reason string

// The reasons of an Error.
const (
	Malformed     Reason = "malformed"
	TooLong       Reason = "too long"
	ForeignKey    Reason = "foreign key"
	BadSignature  Reason = "bad signature" // or an algorithm other than HS256
	WrongIssuer   Reason = "wrong issuer"
	WrongAudience Reason = "wrong audience"
	Expired       Reason = "expired"
	NotYet        Reason = "issued in the future"
	Ended         Reason = "its session has ended"
	BadClaims     Reason = "bad claims" // correctly signed, but without an audience, a time or a subject
)

// Error refuses a token. It does not contain the token, which may still be valid elsewhere.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return "token refused: " + string(e.Reason) }

var (
	errForeignKey = errors.New("unknown key")
	errHeader     = errors.New("unexpected header field")
	errNoAudience = errors.New("no audience")
	errNoIssuedAt = errors.New("no time of issue")
	errBadSubject = errors.New("subject is not an identity")
)

// reasons are tried in order: earlier ones are more specific.
var reasons = []struct {
	err    error
	reason Reason
}{
	{jwt.ErrTokenMalformed, Malformed},
	{errHeader, Malformed},
	{errForeignKey, ForeignKey},
	{jwt.ErrTokenUnverifiable, BadSignature}, // an unknown algorithm
	{jwt.ErrTokenSignatureInvalid, BadSignature},
	{jwt.ErrTokenInvalidIssuer, WrongIssuer},
	{jwt.ErrTokenExpired, Expired},
	{jwt.ErrTokenUsedBeforeIssued, NotYet},
}

func newTokenError(err error) *Error {
	for _, row := range reasons {
		if errors.Is(err, row.err) {
			return &Error{Reason: row.reason}
		}
	}
	return &Error{Reason: BadClaims}
}

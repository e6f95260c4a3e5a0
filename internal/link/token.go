package link

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Token lets one node, or as many as the front has decided, join a cluster. Its text is shj_ID_SECRET_PIN.
type Token struct {
	ID     string   // under which the front keeps it
	Secret string   // the front keeps the Hash alone
	Pin    [32]byte // SHA-256 of the public key of the cluster's Authority, by which the node recognizes the front
}

const tokenPrefix = "shj_"

// maxToken bounds the text of a token, in bytes.
const maxToken = 256

// NewToken returns a new token with the pin of this Authority. The caller stores its ID and Hash.
func (a *Authority) NewToken() Token {
	id := make([]byte, 8)
	rand.Read(id)
	secret := make([]byte, 32)
	rand.Read(secret)
	return Token{ID: hex.EncodeToString(id), Secret: hex.EncodeToString(secret), Pin: a.Pin()}
}

// ParseToken reads the text of a token. The error does not contain the text.
func ParseToken(text string) (Token, error) {
	bad := errors.New("this is no join token; copy the whole text, which begins with " + tokenPrefix)
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	parts := strings.Split(rest, "_")
	if !ok || len(text) > maxToken || len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return Token{}, bad
	}
	pin, err := hex.DecodeString(parts[2])
	if err != nil || len(pin) != 32 {
		return Token{}, bad
	}
	return Token{ID: parts[0], Secret: parts[1], Pin: [32]byte(pin)}, nil
}

// String returns the text that the node gets. It is secret.
func (t Token) String() string {
	return tokenPrefix + t.ID + "_" + t.Secret + "_" + hex.EncodeToString(t.Pin[:])
}

// Hash returns what the front stores of the secret.
func (t Token) Hash() [32]byte { return sha256.Sum256([]byte(t.Secret)) }

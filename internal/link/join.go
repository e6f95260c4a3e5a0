package link

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"spacehost/internal/placement"
)

// JoinRequest is what a node sends to join. All but the hash and the key are claims.
type JoinRequest struct {
	TokenID    string
	SecretHash [32]byte // Token.Hash
	Name       string   // that the node wants; "": the front decides
	Key        [32]byte // SHA-256 of the public key, which Server.Authorize gets later
	Address    net.Addr
}

// JoinGrant is the front's answer to a JoinRequest.
type JoinGrant struct {
	Name string        // of the node; "": the one that it wants
	Life time.Duration // of its certificates; 0: NodeLife
}

// joinLine is the first line of a node that joins.
type joinLine struct {
	TokenID string `json:"token_id"`
	Secret  string `json:"secret"`
	Name    string `json:"name,omitempty"`
	Request []byte `json:"csr"` // DER
}

// joinReply is the front's line that follows.
type joinReply struct {
	Certificate []byte       `json:"certificate,omitempty"` // DER
	Error       *RemoteError `json:"error,omitempty"`
}

// Join makes a key, has the front at an address sign a certificate for it, and returns both. The token is the text of a Token. name of ""
// lets the front decide. A refusal of the front is a *RemoteError, and the token may be used up then.
func Join(ctx context.Context, address, token, name string) (Identity, error) {
	return (&Dialer{Address: address}).Join(ctx, token, name)
}

// Join is the function Join with the DialContext of the Dialer. It does not change the Dialer.
func (d *Dialer) Join(ctx context.Context, token, name string) (Identity, error) {
	t, err := ParseToken(token)
	if err != nil {
		return Identity{}, err
	}
	id, err := d.join(ctx, t, name)
	if err != nil {
		return Identity{}, fmt.Errorf("join the front %s: %w", d.Address, err)
	}
	return id, nil
}

func (d *Dialer) join(ctx context.Context, t Token, name string) (Identity, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*handshakeTimeout, fmt.Errorf("no answer within %s", 2*handshakeTimeout))
	defer cancel()
	key, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	request, err := newRequest(key)
	if err != nil {
		return Identity{}, err
	}
	var ca *x509.Certificate
	conn, err := handshake(ctx, d.DialContext, d.Address, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocolJoin}, ServerName: frontName,
		InsecureSkipVerify: true, // VerifyConnection does it, with the pin in place of a root
		VerifyConnection:   func(state tls.ConnectionState) (err error) { ca, err = verifyPin(state, t.Pin); return err },
	})
	if err != nil {
		return Identity{}, err
	}
	defer conn.NetConn().Close()
	var r joinReply
	if err := exchangeLines(ctx, conn, joinLine{t.ID, t.Secret, name, request}, &r); err != nil {
		return Identity{}, err
	}
	if r.Error != nil {
		return Identity{}, r.Error
	}
	return newIdentity(key, r.Certificate, ca.Raw)
}

// verifyPin checks that the front's certificate is signed by the authority with this SHA-256 of its public key, and returns the
// certificate of the authority.
func verifyPin(state tls.ConnectionState, pin [32]byte) (*x509.Certificate, error) {
	chain := state.PeerCertificates
	if len(chain) != 2 {
		return nil, errors.New("the front shows no certificate of a cluster; check the address")
	}
	key, err := keyOf(chain[1].PublicKey)
	if err != nil {
		return nil, err
	}
	if key != pin {
		return nil, errors.New("the front is not of the cluster that made the token; check the address and the token")
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[1])
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: frontName, Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return nil, fmt.Errorf("check the certificate of the front: %w", err)
	}
	return chain[1], nil
}

// answerJoin lets Redeem decide about a request, and signs the certificate.
func (s *Server) answerJoin(ctx context.Context, line joinLine, address net.Addr) (certificate []byte, node string, err error) {
	if line.Name != "" {
		if err := placement.CheckWord(line.Name); err != nil {
			return nil, "", &RemoteError{Code: CodeRefused, Text: err.Error()}
		}
	}
	if s.Redeem == nil {
		return nil, "", &RemoteError{Code: CodeRefused, Text: "this front accepts no node"}
	}
	key, sum, err := readRequest(line.Request)
	if err != nil {
		return nil, "", &RemoteError{Code: CodeProtocol, Text: err.Error()}
	}
	r := JoinRequest{TokenID: line.TokenID, SecretHash: sha256.Sum256([]byte(line.Secret)), Name: line.Name, Key: sum, Address: address}
	grant, err := s.Redeem(ctx, r)
	if err != nil {
		return nil, "", err
	}
	node = grant.Name
	if node == "" {
		node = line.Name
	}
	certificate, err = s.CA.Issue(node, key, grant.Life)
	return certificate, node, err
}

package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"spacehost/internal/placement"
)

// Identity is what a node proves itself with. The second certificate of the chain is that of the cluster's Authority.
type Identity struct {
	Certificate tls.Certificate
	CA          *x509.CertPool
}

const identityFile = "identity.pem"

// LoadIdentity reads the identity that Save has written to a folder. The error is fs.ErrNotExist if there is none.
func LoadIdentity(dir string) (Identity, error) {
	key, chain, err := readPEM(filepath.Join(dir, identityFile))
	if err != nil {
		return Identity{}, fmt.Errorf("read the node's certificate: %w", err)
	}
	id, err := newIdentity(key, chain...)
	if err != nil {
		return Identity{}, fmt.Errorf("read the node's certificate %s: %w; remove the file and join again", filepath.Join(dir, identityFile), err)
	}
	return id, nil
}

// Save writes the identity to a folder that exists. The file replaces an earlier one in one step, and only its user can read it.
func (id Identity) Save(dir string) error {
	key, ok := id.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("save the node's certificate: it has no ECDSA key")
	}
	if err := writePEM(filepath.Join(dir, identityFile), key, id.Certificate.Certificate...); err != nil {
		return fmt.Errorf("save the node's certificate: %w", err)
	}
	return nil
}

// Node returns the name in the certificate.
func (id Identity) Node() string {
	if id.Certificate.Leaf == nil {
		return ""
	}
	node, _ := nodeOf(id.Certificate.Leaf) // newIdentity has checked it
	return node
}

// Expires returns when the certificate expires.
func (id Identity) Expires() time.Time {
	if id.Certificate.Leaf == nil {
		return time.Time{}
	}
	return id.Certificate.Leaf.NotAfter
}

// renewAt returns when two thirds of the certificate's life have passed.
func (id Identity) renewAt() time.Time {
	leaf := id.Certificate.Leaf
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
}

// newIdentity checks that a chain of two certificates belongs to the key and is that of a node.
func newIdentity(key *ecdsa.PrivateKey, chain ...[]byte) (Identity, error) {
	if len(chain) != 2 {
		return Identity{}, fmt.Errorf("%d certificates, not those of the node and of its cluster", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return Identity{}, err
	}
	ca, err := x509.ParseCertificate(chain[1])
	if err != nil {
		return Identity{}, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return Identity{}, errors.New("the certificate is of another key")
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return Identity{}, fmt.Errorf("the certificate is of another cluster: %w", err)
	}
	if _, err := nodeOf(leaf); err != nil {
		return Identity{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return Identity{Certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, CA: pool}, nil
}

// nodePrefix begins the common name of each node's certificate.
const nodePrefix = "node:"

// nodeOf returns the name of the node that a certificate is of.
func nodeOf(certificate *x509.Certificate) (string, error) {
	name, ok := strings.CutPrefix(certificate.Subject.CommonName, nodePrefix)
	if !ok || placement.CheckWord(name) != nil {
		return "", fmt.Errorf("certificate of %q, which is no node", certificate.Subject.CommonName)
	}
	return name, nil
}

// keyOf identifies a public key: the SHA-256 of its DER form.
func keyOf(public crypto.PublicKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	return sha256.Sum256(der), err
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// newRequest returns a request for a certificate, in DER. The front decides the name in it.
func newRequest(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// readPEM reads a key and certificates.
func readPEM(path string) (key *ecdsa.PrivateKey, certificates [][]byte, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certificates = append(certificates, block.Bytes)
			continue
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		key, _ = parsed.(*ecdsa.PrivateKey)
	}
	if key == nil || len(certificates) == 0 {
		return nil, nil, fmt.Errorf("%s has no ECDSA key or no certificate", path)
	}
	return key, certificates, nil
}

// writePEM writes a key and certificates in one step.
func writePEM(path string, key *ecdsa.PrivateKey, certificates ...[]byte) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for _, der := range certificates {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.Write(data)
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// checkPrivate refuses a file that other users can read.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&(fs.ModePerm&^0o700) != 0 {
		return fmt.Errorf("%s has mode %04o, which other users can use; run chmod 600 on it", path, mode)
	}
	return nil
}

package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"spacehost/internal/placement"
)

// Authority is the certificate authority of a cluster. Its methods are safe for concurrent use.
type Authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pin         [32]byte

	mu    sync.Mutex
	front *tls.Certificate // of this host; nil: none is made yet
}

const (
	authorityFile = "authority.pem"
	// frontName is in the certificate of the front, and in no other.
	frontName = "front.spacehost.internal"

	authorityLife = 10 * 365 * 24 * time.Hour
	frontLife     = 90 * 24 * time.Hour
	// NodeLife is how long the certificate of a node is valid, if the front does not decide otherwise.
	NodeLife = 90 * 24 * time.Hour
	// backdate is how far the clock of a node may be behind.
	backdate = time.Hour
)

// OpenAuthority reads the authority of a folder, and makes both if there is none. Only the user of the host can read its key.
func OpenAuthority(dir string) (*Authority, error) {
	path := filepath.Join(dir, authorityFile)
	a, err := readAuthority(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createAuthority(path); err == nil {
			a, err = readAuthority(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the authority of the cluster: %w", err)
	}
	return a, nil
}

func readAuthority(path string) (*Authority, error) {
	key, certificates, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path); err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !certificate.IsCA || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%s has no key of an authority", path)
	}
	pin, err := keyOf(&key.PublicKey)
	return &Authority{key: key, certificate: certificate, pin: pin}, err
}

func createAuthority(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	template := newTemplate("spacehost cluster", authorityLife)
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return writePEM(path, key, der)
}

// Pin returns the SHA-256 of the public key.
func (a *Authority) Pin() [32]byte { return a.pin }

// Issue signs a certificate, in DER, for the key of a node. life of 0 is NodeLife.
func (a *Authority) Issue(node string, key crypto.PublicKey, life time.Duration) ([]byte, error) {
	if err := placement.CheckWord(node); err != nil {
		return nil, err
	}
	if life == 0 {
		life = NodeLife
	}
	template := newTemplate(nodePrefix+node, life)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template, key)
}

// NewIdentity makes a key and a certificate of a node, without the join protocol. life of 0 is NodeLife.
func (a *Authority) NewIdentity(node string, life time.Duration) (Identity, error) {
	key, err := newKey()
	if err != nil {
		return Identity{}, err
	}
	der, err := a.Issue(node, &key.PublicKey, life)
	if err != nil {
		return Identity{}, err
	}
	return newIdentity(key, der, a.certificate.Raw)
}

// readRequest returns the key of a request for a certificate, and the SHA-256 of the key. The request is signed with the key.
func readRequest(der []byte) (key crypto.PublicKey, sum [32]byte, err error) {
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, sum, fmt.Errorf("read the request for a certificate: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, sum, fmt.Errorf("check the request for a certificate: %w", err)
	}
	if _, ok := request.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, sum, errors.New("the request for a certificate has no ECDSA key")
	}
	sum, err = keyOf(request.PublicKey)
	return request.PublicKey, sum, err
}

func (a *Authority) sign(template *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q: %w", template.Subject.CommonName, err)
	}
	return der, nil
}

func newTemplate(name string, life time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// frontCertificate returns the certificate of this host, which it renews by itself. Its key is in memory only.
func (a *Authority) frontCertificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.front != nil && time.Until(a.front.Leaf.NotAfter) > frontLife/3 {
		return a.front, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := newTemplate("front", frontLife)
	template.DNSNames, template.ExtKeyUsage = []string{frontName}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := a.sign(template, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a.front = &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}
	return a.front, nil
}

// pool returns the certificates that sign those of nodes.
func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

package link_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

func TestNodeJoinsAndConnects(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu2")
	if node := d.Identity.Node(); node != "gpu2" {
		t.Errorf("the certificate is of %q", node)
	}
	dir := t.TempDir()
	if err := d.Identity.Save(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := link.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, welcome, err := link.Dial(t.Context(), d.Address, loaded, number{7}, echo)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if string(welcome) != `"welcome gpu2"` || f.hellos[0] != `gpu2 {"N":7}` {
		t.Errorf("welcome %s, hellos %v", welcome, f.hellos)
	}
	var got number
	if err := l.Call(t.Context(), "echo", number{3}, &got); err != nil || got.N != 3 {
		t.Errorf("call: %v, %v", got, err)
	}
	front := f.Link("gpu2")
	if front == nil || front.Peer() != "gpu2" || l.Peer() != "" {
		t.Fatalf("the front's link is %v", front)
	}
	if host, _, err := net.SplitHostPort(front.Address().String()); err != nil || host != "127.0.0.1" || l.Address().String() != d.Address {
		t.Errorf("addresses %s and %s, %v", front.Address(), l.Address(), err)
	}
}

// TestHandshakeIsCutOff: the agent may repeat a join of which the front has received nothing.
func TestHandshakeIsCutOff(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	go func() {
		for {
			conn, err := busy.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1)) // the begin of the handshake
			conn.Close()
		}
	}()
	d.Address = busy.Addr().String()
	if _, err := d.Join(t.Context(), f.token(time.Hour), "gpu1"); !errors.Is(err, link.ErrNoHandshake) {
		t.Errorf("got %v, want ErrNoHandshake", err)
	}
}

func TestJoinsAreRefused(t *testing.T) {
	f, other := newFront(t, echo), newFront(t, echo)
	d := f.listen()
	used := f.token(time.Hour)
	if _, err := d.Join(t.Context(), used, "gpu1"); err != nil {
		t.Fatal(err)
	}
	valid := f.token(time.Hour)
	secret := strings.Split(valid, "_")
	secret[2] = strings.Repeat("0", 64)
	for what, row := range map[string]struct{ token, name, want string }{
		"token twice":        {used, "gpu1", "used up"},
		"replayed token":     {used, "gpu2", "used up"},
		"expired token":      {f.token(-time.Second), "gpu2", "expired"},
		"wrong secret":       {strings.Join(secret, "_"), "gpu2", "unknown token"},
		"another front":      {other.token(time.Hour), "gpu2", "not of the cluster that made the token"},
		"no token":           {"shj_a_b", "gpu2", "no join token"},
		"long token":         {"shj_" + strings.Repeat("a", 1000) + "_b_" + strings.Repeat("0", 64), "gpu2", "no join token"},
		"name of an upper A": {valid, "A", "lower-case"},
		"name with a slash":  {valid, "../gpu", "lower-case"},
		"long name":          {valid, strings.Repeat("a", 65), "lower-case"},
	} {
		_, err := d.Join(t.Context(), row.token, row.name)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", what, err, row.want)
		}
		if err != nil && len(secret[2]) > 0 && strings.Contains(err.Error(), strings.Split(valid, "_")[2]) {
			t.Errorf("%s: the error contains the secret: %v", what, err)
		}
	}
	if len(f.keys) != 1 {
		t.Errorf("%d nodes have joined, want 1", len(f.keys))
	}
	d.Address = "127.0.0.1:1"
	if _, err := d.Join(t.Context(), valid, "gpu2"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("no front: got %v", err)
	}
}

func TestTokens(t *testing.T) {
	a := linktest.NewAuthority(t)
	made := a.NewToken()
	read, err := link.ParseToken(made.String())
	if err != nil || read != made || read.Pin != a.Pin() || read.Hash() != made.Hash() {
		t.Errorf("got %v, %v, want %v", read, err, made)
	}
	if again := a.NewToken(); again.ID == made.ID || again.Secret == made.Secret {
		t.Error("two tokens are equal")
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	first, err := link.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := link.OpenAuthority(dir)
	if err != nil || second.Pin() != first.Pin() {
		t.Errorf("opened again: %v", err)
	}
	file := filepath.Join(dir, "authority.pem")
	for path, want := range map[string]fs.FileMode{dir: 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", path, info.Mode().Perm(), err)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := link.OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable key: got %v", err)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := link.OpenAuthority(dir); err == nil {
		t.Error("a damaged file is replaced by a new authority")
	}
}

func TestIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := link.LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	id := linktest.NewIdentity(t, linktest.NewAuthority(t), "gpu1")
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "identity.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode().Perm(), err)
	}
	mixed := linktest.NewIdentity(t, linktest.NewAuthority(t), "gpu1")
	mixed.Certificate.Certificate[0] = id.Certificate.Certificate[0]
	if err := mixed.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := link.LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("certificate of another key: got %v", err)
	}
	if err := (link.Identity{}).Save(dir); err == nil {
		t.Error("an empty identity is saved")
	}
	if (link.Identity{}).Node() != "" || !(link.Identity{}).Expires().IsZero() {
		t.Error("an empty identity has a name or expires")
	}
}

// The certificate is renewed at two thirds of its life, over the link. The key, the name and the life stay.
func TestCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		d, _ := linktest.Connect(t, f.Server)
		d.Handler = echo
		f.life = time.Hour // and one hour before the front's clock
		f.join(d, "gpu1")
		var renewed []link.Identity
		var after []time.Duration
		begun := time.Now()
		d.Renewed = func(id link.Identity) {
			renewed, after = append(renewed, id), append(after, time.Since(begun))
		}
		l := f.dial(d)
		time.Sleep(70 * time.Minute)
		synctest.Wait()
		if len(renewed) != 3 || after[0].Round(time.Minute) != 20*time.Minute {
			t.Fatalf("renewed after %v", after)
		}
		last := renewed[2]
		if last.Node() != "gpu1" || last.Expires().Sub(begun.Add(after[2])).Round(time.Minute) != f.life {
			t.Errorf("renewed for %q until %s", last.Node(), last.Expires())
		}
		stream, err := l.Open(t.Context(), nil) // with the new certificate: the first has expired
		if err != nil {
			t.Fatal(err)
		}
		stream.Close()
		if _, _, err := d.Dial(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("dial with the first certificate: got %v", err)
		}
		d.Identity = last
		f.dial(d)
	})
}

// A renewal that fails is tried again.
func TestRenewalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, echo)
		d, proxy := linktest.Connect(t, f.Server)
		d.Handler = echo
		id, err := f.CA.NewIdentity("gpu1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(id.Certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		f.Authorize = func(string, [32]byte) error { return nil }
		d.Identity = id
		var at time.Time
		d.Renewed = func(link.Identity) { at = time.Now() }
		f.dial(d)
		due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 3 * 2)
		time.Sleep(time.Until(due) - time.Second)
		proxy.Partition()
		time.Sleep(12 * time.Second) // the call ends after 10 s, and the link would end after 15
		proxy.Heal()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if late := at.Sub(due); late < time.Minute || late > 2*time.Minute {
			t.Errorf("renewed %s after two thirds", late)
		}
	})
}

func TestCertificatesOfThisHostAreNotThoseOfNodes(t *testing.T) {
	f := newFront(t, echo)
	d := f.listen()
	f.join(d, "gpu1")
	id := d.Identity
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{id.Certificate}, NextProtos: []string{"spacehost-link/1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	d.Address = listener.Addr().String()
	if _, _, err := d.Dial(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no certificate of this node's cluster") {
		t.Errorf("a node that poses as the front: got %v", err)
	}
}

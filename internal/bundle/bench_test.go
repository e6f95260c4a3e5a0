package bundle

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// manyFiles creates 10,000 files of 1 kB in 100 folders.
func manyFiles(b *testing.B) string {
	dir, content := b.TempDir(), make([]byte, 1000)
	for i := range 10_000 {
		folder := filepath.Join(dir, fmt.Sprintf("%02d", i%100))
		if i < 100 {
			if err := os.Mkdir(folder, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		_, _ = rand.Read(content) // never fails
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir
}

func weights(b *testing.B) string {
	dir, content := b.TempDir(), make([]byte, 256<<20)
	_, _ = rand.Read(content) // never fails
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), content, 0o644); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkBundle(b *testing.B) {
	for name, create := range map[string]func(*testing.B) string{"10000 files": manyFiles, "256 MB": weights} {
		b.Run(name, func(b *testing.B) {
			dir := create(b)
			m := scan(b, dir, nil)
			b.Run("scan", func(b *testing.B) {
				b.SetBytes(m.Bytes())
				for b.Loop() {
					scan(b, dir, nil)
				}
			})
			b.Run("cached scan", func(b *testing.B) {
				cache := &Cache{hashes: map[string]hashed{}}
				for _, e := range m.Entries {
					if info, err := os.Lstat(filepath.Join(dir, e.Path)); err == nil && e.HasContent() {
						cache.hashes[e.Path] = hashed{identify(info), e.Sum}
					}
				}
				for b.Loop() {
					scan(b, dir, cache)
				}
			})
			for name, options := range map[string]Options{"first": {}, "first, writable": {Writable: true}} {
				b.Run(name, func(b *testing.B) {
					b.SetBytes(m.Bytes())
					for b.Loop() {
						mustPass(b, m, dir, newStore(b), options)
					}
				})
			}
			s := newStore(b)
			mustPass(b, m, dir, s, Options{})
			b.Run("again", func(b *testing.B) {
				for b.Loop() {
					mustPass(b, m, dir, s, Options{})
				}
			})
			b.Run("again, writable", func(b *testing.B) {
				for b.Loop() {
					mustPass(b, m, dir, s, Options{Writable: true})
				}
			})
		})
	}
}

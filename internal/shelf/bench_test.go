package shelf_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"spacehost/internal/shelf"
	"spacehost/internal/shelf/shelftest"
)

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// BenchmarkUpload stores a file of 256 MiB, with the files on this machine and behind a connection.
func BenchmarkUpload(b *testing.B) {
	const size = 256 << 20
	for name, remote := range map[string]bool{"local": false, "remote": true} {
		b.Run(name, func(b *testing.B) {
			storage, files := shelftest.Folders(b)
			var s shelftest.Shelf = shelf.New(shelf.Config{Storage: storage})
			if remote {
				s = shelftest.Remote(b, shelf.Config{Storage: storage})
			}
			known := shelf.Call{Files: files, Native: true}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.ServeHTTP(w, shelf.With(r, known, r.URL.Path))
			}))
			defer server.Close()
			head := strings.TrimSuffix(shelftest.Part("files", "a.bin", ""), "\r\n")
			b.SetBytes(size)
			for b.Loop() {
				body := io.MultiReader(strings.NewReader(head), io.LimitReader(zeros{}, size), strings.NewReader("\r\n--B--\r\n"))
				got, err := server.Client().Post(server.URL+"/upload", "multipart/form-data; boundary=B", body)
				if err != nil {
					b.Fatal(err)
				}
				got.Body.Close()
				if got.StatusCode != http.StatusOK {
					b.Fatal(got.Status)
				}
				if err := os.RemoveAll(storage.Uploads); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package token

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	keySize   = 32 // bytes, random
	keySuffix = ".key"
)

// loadKeys reads dir/keys/<kid>.key. It creates the folder with a first key if the folder does not exist.
func loadKeys(dir string) (map[string][]byte, error) {
	folder := filepath.Join(dir, "keys")
	if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
		if err := createKeys(dir, folder); err != nil {
			return nil, err
		}
	}
	return readKeys(folder)
}

// createKeys fills a folder under a temporary name and renames it into place, so that no start reads an incomplete folder.
// Of two hosts that start at the same time, the later one uses the other's key.
func createKeys(dir, folder string) error {
	draft, err := os.MkdirTemp(dir, "keys.new-*") // 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	key := make([]byte, keySize)
	rand.Read(key)
	if err := writeSynced(filepath.Join(draft, rand.Text()+keySuffix), key); err != nil {
		return err
	}
	if err := os.Rename(draft, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readKeys(folder string) (map[string][]byte, error) {
	if err := checkFolder(folder); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]byte)
	for _, e := range entries {
		kid, isKey := strings.CutSuffix(e.Name(), keySuffix)
		if !isKey || kid == "" {
			continue
		}
		if keys[kid], err = readKey(filepath.Join(folder, e.Name())); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s contains no key: restore it from a backup, or remove the folder to create a new key", folder)
	}
	return keys, nil
}

// readKey refuses a key that other users of the machine may have read or replaced: the key allows to act as any account.
func readKey(path string) ([]byte, error) {
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key %s is not a regular file: restore it from a backup, or remove its folder to create a new key", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkPrivate(f, "run chmod 600, or remove its folder to create a new key if the key may have been read"); err != nil {
		return nil, err
	}
	key, err := io.ReadAll(io.LimitReader(f, keySize+1))
	if err == nil && len(key) != keySize {
		err = fmt.Errorf("key %s does not have %d bytes: restore it from a backup, or remove its folder to create a new key", path, keySize)
	}
	return key, err
}

func checkFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkPrivate(f, "run chmod 700")
}

func checkPrivate(f *os.File, remedy string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s is accessible to other users (mode %o): %s", f.Name(), perm, remedy)
	}
	return nil
}

// signingKid returns the key that signs. Several keys exist only if an operator has added some. Then any of them will do,
// as long as it is the same at every start.
func signingKid(keys map[string][]byte) string {
	return slices.Min(slices.Collect(maps.Keys(keys)))
}

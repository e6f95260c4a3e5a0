package build

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"spacehost/internal/removal"
)

// The generations of a key are the folders KEY, KEY-2, KEY-3 and so on. The current one is the newest with a stamp. A build
// makes the next number. Its stamp is one rename, so other builders see the former generation or the finished new one.
// Everything here requires the lock of the key, except current.

const (
	lockSuffix = ".lock" // serializes the builds of a key
	useSuffix  = ".use"  // marks a generation that is in use
)

// splitGeneration returns the key and the number of a folder of environments. ok is false for other files.
func splitGeneration(name string) (key string, number int, ok bool) {
	key, suffix, more := strings.Cut(name, "-")
	if number = 1; more {
		var err error
		if number, err = strconv.Atoi(suffix); err != nil || number < 2 || suffix != strconv.Itoa(number) {
			return "", 0, false
		}
	}
	return key, number, isKey(key)
}

func isKey(text string) bool {
	return len(text) == 16 && strings.Trim(text, "0123456789abcdef") == ""
}

func generation(key string, number int) string {
	if number == 1 {
		return key
	}
	return key + "-" + strconv.Itoa(number)
}

// generations lists the numbers of a key's folders, finished or not, newest first. key is a path.
func generations(key string) (numbers []int, err error) {
	entries, err := os.ReadDir(filepath.Dir(key))
	for _, entry := range entries {
		if of, number, ok := splitGeneration(entry.Name()); ok && of == filepath.Base(key) && entry.IsDir() {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	return numbers, err
}

// newest returns the newest finished generation of a key.
func newest(key string) (*Environment, bool) {
	numbers, _ := generations(key) // a folder that cannot be read has none
	for _, number := range numbers {
		if env, ok := readStamp(generation(key, number)); ok {
			return env, true
		}
	}
	return nil, false
}

// current returns the generation that the job may use without a build.
func (j *job) current() (*Environment, bool) {
	env, ok := newest(j.key)
	if !ok || env.Built.Before(j.spec.BuiltAfter) {
		return nil, false
	}
	return env, true
}

// newGeneration returns the folder of the next generation, after it has removed unfinished ones: builds that were killed.
func (j *job) newGeneration() (home string, err error) {
	numbers, err := generations(j.key)
	if err != nil {
		return "", err
	}
	last := 0
	for _, number := range numbers {
		home := generation(j.key, number)
		if _, finished := readStamp(home); finished {
			last = max(last, number)
			continue
		}
		if removed, err := removeGeneration(home); err != nil {
			return "", err
		} else if !removed {
			last = max(last, number) // in use, although its base Python is gone
		}
	}
	return generation(j.key, last+1), nil
}

// removeReplaced removes the generations other than the current one that are in use no more. What remains is left to Prune.
func (j *job) removeReplaced(current string) {
	numbers, _ := generations(j.key)
	for _, number := range numbers {
		home := generation(j.key, number)
		if home == current {
			continue
		}
		if removed, err := removeGeneration(home); err != nil {
			j.log.Warn("replaced environment not removed", zap.String("dir", home), zap.Error(err))
		} else if removed {
			j.log.Info("removed a replaced environment", zap.String("dir", home))
		}
	}
}

// removeGeneration removes an environment unless it is in use.
func removeGeneration(home string) (removed bool, err error) {
	u, err := tryUse(home)
	if u == nil || err != nil {
		return false, err
	}
	defer u.close()
	// Without its stamp first, an interrupted removal leaves no environment that looks complete.
	if err := os.Remove(filepath.Join(home, stampName)); err != nil && !os.IsNotExist(err) {
		return false, err
	}
	if err := removal.Tree(home); err != nil {
		return false, err
	}
	if err := os.Remove(home + useSuffix); err != nil && !os.IsNotExist(err) {
		return true, err
	}
	return true, nil
}

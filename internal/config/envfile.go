package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/joho/godotenv"
)

// EnvFile is the usual name of a dotenv file. Git repositories of Spaces leave it out.
const EnvFile = ".env"

// ReadEnvFile reads Secrets from a dotenv file: lines of NAME=VALUE, quotes and comments as in github.com/joho/godotenv. Its
// errors contain no line of the file, which may be a Secret.
func ReadEnvFile(path string) (map[string]string, error) {
	data, err := readSmall(path, maxSecret)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w; correct the path or the file", path, WithoutPath(err))
	}
	values, err := godotenv.UnmarshalBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: the line is not NAME=VALUE, or a quote is not closed; correct it", path, wrongLine(string(data)))
	}
	for name, value := range values {
		err := CheckVariable(name)
		if err == nil && strings.ContainsRune(value, 0) {
			err = errors.New("contains a NUL character; remove it")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %.70q %w", path, name, err)
		}
	}
	return values, nil
}

// wrongLine returns the number of the first line that no valid beginning of the file contains.
func wrongLine(text string) int {
	lines := strings.SplitAfter(text, "\n")
	for n := len(lines) - 1; n > 0; n-- {
		if _, err := godotenv.Unmarshal(strings.Join(lines[:n], "")); err == nil {
			return n + 1
		}
	}
	return 1
}

// EnvFileNote describes a dotenv file in the folder of a Space that is not read; "" if there is none. dir is as the user wrote
// it.
func EnvFileNote(dir string) string {
	path := filepath.Join(dir, EnvFile)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return fmt.Sprintf("%s is ignored, as on the Hub; to use its values as Secrets, add --env-file %[1]s", path)
}

// envFile reads `env_file` of a Space. Secrets of the same name have precedence.
func (l *loader) envFile(n node, into map[string]string) {
	var path string
	if !l.path(n, &path) {
		return
	}
	l.addSource(path)
	values, err := ReadEnvFile(path)
	if err != nil {
		n.fail("%v", err)
		return
	}
	if isWorldReadable(path) {
		l.warn(n, "every user of this machine may read these Secrets; run chmod o-r %s", path)
	}
	maps.Copy(into, values)
}

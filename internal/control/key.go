package control

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/labstack/echo/v4"
)

// KeyHeader is the header in which a client sends the key of the control socket.
const KeyHeader = "X-Spacehost-Key"

func keyPath(state string) string { return filepath.Join(state, "control.key") }

// CreateKey writes a new random key into the state folder, readable by its user only, and returns it. It replaces the key
// of an earlier host: a key that has leaked is useless after a restart, and no client keeps one, because ReadKey is called
// for each request. Call it while the folder is locked, before the socket is open.
func CreateKey(state string) (key string, err error) {
	key = rand.Text()
	draft := keyPath(state) + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("replace the key of the control socket: %w", err)
	}
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("create the key of the control socket: %w; choose another folder with --state", err)
	}
	_, err = fmt.Fprintln(f, key)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(draft, keyPath(state))
	}
	if err != nil {
		return "", fmt.Errorf("write the key of the control socket: %w; choose another folder with --state", err)
	}
	return key, nil
}

// ReadKey returns the key of the host that runs on a state folder; "" if the folder has none, as with an earlier version
// of the host.
func ReadKey(state string) (string, error) {
	text, err := os.ReadFile(keyPath(state))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// RequireKey refuses requests without the key, with 401 and the next step. The socket is open to every process of this
// user; the key is not readable for a Space that is confined to files of its own.
func RequireKey(state, key string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			given := c.Request().Header.Get(KeyHeader)
			switch {
			case given == "":
				return echo.NewHTTPError(http.StatusUnauthorized, fmt.Sprintf(
					"the request has no key: use the spacehost command of the version that runs this host, or send the content of %s in the header %s", keyPath(state), KeyHeader))
			case subtle.ConstantTimeCompare([]byte(given), []byte(key)) != 1:
				return echo.NewHTTPError(http.StatusUnauthorized, fmt.Sprintf(
					"the key in the header %s is not the key of this host, which changes at each start: read %s again, or repeat the command", KeyHeader, keyPath(state)))
			}
			return next(c)
		}
	}
}

package cli

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/labstack/echo/v4"

	"spacehost/internal/control"
	"spacehost/server"
)

// TestRefusalsNameTheNextStep: a host that closes the connection, and one that was started after its key was read.
func TestRefusalsNameTheNextStep(t *testing.T) {
	for _, row := range []struct {
		refuse func(pid int) bool
		want   string
	}{
		{func(int) bool { return true }, " closed the connection: it accepts no commands of processes that it or a Space has started; run this command in a shell of your own\n"},
		{nil, "/control.key again, or repeat the command\n"},
	} {
		state := newStaleSocket(t)
		s := server.New(nil)
		site, err := s.MountSocket(filepath.Join(state, "control.sock"), row.refuse)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := control.CreateKey(state); err != nil {
			t.Fatal(err)
		}
		site.Pre(control.RequireKey(state, "THE-NEXT-KEY"))
		site.Any("/*", func(c echo.Context) error { return c.String(200, "{}") })
		ctx, stop := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Run(ctx) })
		for _, args := range [][]string{{"quota"}, {"login"}, {"lease", "--watch"}} {
			if got := spacehostOn(t.Context(), state, args...); got.code != ExitHost || !strings.HasSuffix(got.err, row.want) {
				t.Errorf("%v: got %+v, want %q", args, got, row.want)
			}
		}
		stop()
		serving.Wait()
	}
}

package shelf

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"go.uber.org/zap"
)

// Room is the room on the disk that the host keeps for an upload until its end. Its methods may be called from any goroutine.
type Room interface {
	// Received reports n bytes more of the upload. Its error refuses the rest, with a sentence for the visitor.
	Received(n int64) error
	// End gives back the room for bytes that have not come, and for all unless the upload was stored.
	End(stored bool)
}

// roomInterval is the number of received bytes after which the host checks the room again.
const roomInterval = 1 << 20

// RoomError refuses an upload for lack of disk. Its text is for the visitor.
type RoomError struct{ error }

// roomKeeper keeps room for the uploads of one Space.
type roomKeeper struct {
	space   string
	reserve func(size int64) (Room, error) // nil: no upload is refused here
	logger  *zap.Logger
}

// with passes an upload to the next step while the host keeps room for it.
func (k roomKeeper) with(c call, next func(call) (stored bool, err error)) error {
	if k.reserve == nil {
		_, err := next(c)
		return k.refused(c, err)
	}
	room, err := k.reserve(c.r.ContentLength)
	if err != nil {
		return k.refused(c, RoomError{err})
	}
	body := &roomBody{ReadCloser: c.r.Body, room: room}
	stored := false
	defer func() { room.End(stored) }()
	c.r.Body = body
	stored, err = next(c)
	if refused := body.refused.Load(); refused != nil && !errors.As(err, &RoomError{}) { // another machine has answered
		k.log(c, *refused)
	}
	return k.refused(c, err)
}

// refused answers if err is a lack of room, here or where the bytes come from. It returns any other error.
func (k roomKeeper) refused(c call, err error) error {
	refused := RoomError{}
	if !errors.As(err, &refused) {
		return err
	}
	k.log(c, refused)
	c.allowOrigin()
	c.refuseText(http.StatusInsufficientStorage, refused.Error())
	return nil
}

func (k roomKeeper) log(c call, refused RoomError) {
	k.logger.Warn("upload refused", zap.String("space", k.space), zap.Int64("size", c.r.ContentLength), zap.Error(refused.error))
}

// roomBody is the body of an upload. It fails with a RoomError once there is no room for the rest.
type roomBody struct {
	io.ReadCloser
	room    Room
	fresh   int64 // bytes that room does not know yet
	refused atomic.Pointer[RoomError]
}

func (b *roomBody) Read(p []byte) (int, error) {
	if refused := b.refused.Load(); refused != nil {
		return 0, *refused
	}
	n, err := b.ReadCloser.Read(p)
	if b.fresh += int64(n); b.fresh >= roomInterval || err != nil && b.fresh > 0 {
		full := b.room.Received(b.fresh)
		if b.fresh = 0; full != nil {
			b.refused.Store(&RoomError{full})
			return n, RoomError{full}
		}
	}
	return n, err
}

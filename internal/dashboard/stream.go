package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/views"
	"spacehost/internal/web"
)

// keepAlive is the longest silence of a stream. A comment line then shows that the connection works, and the person is looked up
// again.
const keepAlive = 10 * time.Second

// changes answers with Server-Sent Events: one for each topic as it is now, then one for each change of a topic. The id of an event
// is a revision: with it as Last-Event-ID, a new stream leaves out the topics that have not changed since. The events of one look
// repeat the id before, except for the last: a stream that breaks between them is resumed without a loss. The event "stale" names the
// topics that cannot be read now. The stream ends when the bearer is revoked.
func (a *API) changes(c echo.Context, person caller) error {
	s := &stream{api: a, w: c.Response(), r: c.Request()}
	s.sent, _ = strconv.ParseInt(s.r.Header.Get("Last-Event-ID"), 10, 64) // without a valid one, all topics are sent
	closed, ok := a.config.Changes.open(person.proof.Credential())
	if !ok {
		return echo.NewHTTPError(http.StatusTooManyRequests, fmt.Sprintf("this token has %d open streams; close other pages of the console", MostStreams))
	}
	defer closed()
	a.noteSignIn(s.r, person)
	s.w.Header().Set(echo.HeaderContentType, "text/event-stream")
	web.KeepFlowing(s.w.Header())
	s.w.WriteHeader(http.StatusOK)
	s.w.Flush()
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	s.later = time.NewTimer(accountEvery)
	defer s.later.Stop()
	if s.sendClock() != nil {
		return nil // the status was sent: an error has no receiver
	}
	for {
		wake, err := s.sendChanges(person)
		if err != nil {
			return nil
		}
		select {
		case <-wake:
		case <-s.later.C:
		case <-alive.C:
			if _, err := s.w.Write([]byte(": alive\n\n")); err != nil {
				return nil
			}
			s.w.Flush()
		case <-s.r.Context().Done():
			return nil
		}
		now, err := a.authenticate(s.r, Visitor, a.config.Recheck)
		if isUnknown(err) {
			_ = s.send("ended", s.sent, []byte(`{}`)) // the reader may have gone
		}
		if err != nil { // the page connects again
			return nil
		}
		if now.role != person.role { // the pages are others
			s.sent, person = 0, now
		}
	}
}

// accountEvery is the shortest time between two reads of the account of one stream.
const accountEvery = time.Second

// stream is one open connection.
type stream struct {
	api     *API
	w       *echo.Response
	r       *http.Request
	sent    int64  // revision up to which topics were sent
	account []byte // as it was sent
	me      []byte
	stale   []byte
	noRead  *Stale      // the account cannot be read now
	read    time.Time   // when the account was read
	later   *time.Timer // fires when the account may be read again; it runs while a change was not looked at
}

// topicsOf lists what a role is shown.
var topicsOf = map[Access][]Topic{
	Visitor: {Account},
	Member:  {Account},
	Admin:   {Spaces, Leases, GPUs, People, Audit, Account},
}

// Clock is the event "clock", the first of a stream. A topic may have been read long ago, so pages cannot use its time as now.
type Clock struct {
	Now time.Time `json:"now"` // the host's
}

func (s *stream) sendClock() error {
	text, err := json.Marshal(Clock{s.api.config.Now().UTC()})
	if err != nil {
		return err
	}
	return s.send("clock", s.sent, text)
}

// event is one event of a batch.
type event struct {
	name string
	data []byte
}

func (s *stream) sendChanges(person caller) (wake <-chan struct{}, err error) {
	changed, now, wake := s.api.config.Changes.since(s.sent, topicsOf[person.role])
	var batch []event
	me, err := json.Marshal(s.api.newMe(person))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(me, s.me) {
		s.me = me
		batch = append(batch, event{"me", me})
	}
	for _, topic := range topicsOf[person.role] {
		text, has := changed[topic]
		if topic == Account {
			if wait := accountEvery - time.Since(s.read); wait > 0 {
				s.later.Reset(wait)
				continue
			}
			s.read = time.Now()
			text, has = s.accountOf(person)
		}
		if has {
			batch = append(batch, event{string(topic), text})
		}
	}
	if stale := s.newStale(person); stale != nil {
		batch = append(batch, event{"stale", stale})
	}
	for i, e := range batch {
		id := s.sent
		if i == len(batch)-1 {
			id = now
		}
		if err := s.send(e.name, id, e.data); err != nil {
			return nil, err
		}
	}
	s.sent = now
	return wake, nil
}

// newStale returns which topics cannot be read now: at the beginning, and when that has changed; else nil.
func (s *stream) newStale(person caller) []byte {
	stale := s.api.config.Changes.staleOf(topicsOf[person.role])
	if s.noRead != nil {
		stale[Account] = *s.noRead
	}
	text, err := json.Marshal(stale)
	if err != nil || bytes.Equal(text, s.stale) {
		return nil
	}
	s.stale = text
	return text
}

// accountOf returns the person's account and Spaces if they differ from what was sent. Its remaining times are computed for a
// moment, so they are compared without it. When seconds or runs return, nothing else changes: the account is read again then.
func (s *stream) accountOf(person caller) (text []byte, changed bool) {
	of := views.Subject{Identity: person.who, Viewer: &person.who, Limit: person.proof.SpaceLimit()}
	account, err := s.api.config.Accounts.Account(s.r.Context(), of, views.Query{})
	if err != nil {
		s.markAccount(person, err)
		return nil, false
	}
	s.noRead = nil
	if wait := account.NextReturn(); wait < keepAlive { // a later one is found after the next keepAlive
		s.later.Reset(max(wait, accountEvery))
	}
	person.role = Member // the topic shows also an admin only the own Spaces
	view := OwnView{account, s.api.spacesOf(person), s.api.config.Accounts.Refusals(of)}
	view.Account = account.WithoutMoment()
	same, err := json.Marshal(view)
	if err != nil || bytes.Equal(same, s.account) {
		return nil, false
	}
	s.account = same
	view.Account = account
	text, err = json.Marshal(view)
	return text, err == nil
}

// markAccount notes that the account cannot be read, and reads it again soon. The cause is for the log only.
func (s *stream) markAccount(person caller, err error) {
	s.later.Reset(accountEvery)
	if s.noRead == nil && s.r.Context().Err() == nil {
		s.noRead = &Stale{Since: time.Now().UTC().Truncate(time.Second)}
		s.api.config.Changes.sources.Logger.Warn("an account cannot be read", zap.String("identity", person.who.Key()), zap.Error(err))
	}
}

// OwnView is the topic Account: what a person has used and has left, the Spaces that the person may see, and the last refused calls.
type OwnView struct {
	Account views.Account `json:"account"`
	Spaces  []views.Space `json:"spaces"`

	Refusals []views.Refusal `json:"refusals"` // newest first
}

func (s *stream) send(event string, id int64, data []byte) error {
	if _, err := fmt.Fprintf(s.w, "event: %s\nid: %d\ndata: %s\n\n", event, id, data); err != nil {
		return err
	}
	s.w.Flush()
	return nil
}

package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// The Devices of the host. A drained Device finishes its running calls and gets no new ones.
var (
	ListGPUs  = Endpoint[NoBody, []GPU]{http.MethodGet, "/gpu"}
	DrainGPU  = Endpoint[DrainRequest, DrainAnswer]{http.MethodPost, "/gpu/drain"}
	ReturnGPU = Endpoint[DrainRequest, DrainAnswer]{http.MethodPost, "/gpu/return"}
	// RescanGPUs may last as long as the driver needs to open all GPUs.
	RescanGPUs = Endpoint[RescanRequest, RescanAnswer]{http.MethodPost, "/gpu/rescan"}
)

// RescanRequest asks for the GPUs that the machine has now. Simulate replaces simulated GPUs, such as 2xH200-MIG-3g.71gb.
type RescanRequest struct {
	Simulate string `json:"simulate,omitempty"`
}

// RescanAnswer is what has changed.
type RescanAnswer struct {
	Joined []gpu.Device `json:"joined"`
	Left   []gpu.Device `json:"left"` // their running calls finish
	Stayed int          `json:"stayed"`
}

// RescanRefusedError refuses a rescan. Nothing was done.
type RescanRefusedError struct{ Why string }

func (e *RescanRefusedError) Error() string { return e.Why }

func (a *API) rescanGPUs(c echo.Context) error {
	r, err := bind[RescanRequest](c, `{}`)
	if err != nil {
		return err
	}
	answer, err := a.config.Host.RescanGPUs(c.Request().Context(), r.Simulate)
	if err != nil { // the operator reads why
		return echo.NewHTTPError(http.StatusConflict, err.Error())
	}
	return c.JSON(http.StatusOK, answer)
}

// GPU is one Device with its Slots.
type GPU struct {
	gpu.DeviceStatus
	// DriverErrors are the errors (Xid) that the driver has reported since the host started, or since the Device was returned.
	DriverErrors []lease.DriverError `json:"driverErrors,omitempty"`
	// Uninvited are the processes that use the Device outside any Lease.
	Uninvited []lease.Unleased `json:"uninvited,omitempty"`
	Drained   *lease.Drain     `json:"drained,omitempty"`
	Planned   *lease.Drain     `json:"planned,omitempty"` // a drain that begins later
	Slots     []lease.SlotView `json:"slots"`             // empty for a Device that could not be listed
}

// DrainRequest names a Device by its UUID, the beginning of one, or the number of one of its Slots on the host's own machine, and the reason that
// `spacehost gpu` shows. From and Until are times as ParseTime reads them; empty: from now on, and until the Device is
// returned.
type DrainRequest struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Reason string         `json:"reason,omitempty"`
	From   string         `json:"from,omitempty"`
	Until  string         `json:"until,omitempty"`
}

// DrainAnswer is the request as it was carried out.
type DrainAnswer struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Node   string         `json:"node,omitempty"` // the machine that has the Device; absent: the host's own
	Slots  []int          `json:"slots"`          // all Slots of the Device
	Reason string         `json:"reason,omitempty"`
	From   time.Time      `json:"from,omitzero"`
	Until  time.Time      `json:"until,omitzero"`
}

// drainReason is the reason of a drain without one.
const drainReason = "by an operator's command"

func (a *API) listGPUs(c echo.Context, _ NoBody) ([]GPU, error) {
	return a.GPUs(c.Request().Context(), 0), nil
}

// GPUs returns the Devices with their Slots. Samples of the Devices up to maxAge are used; without one, it blocks as gpu.Inventory does.
func (a *API) GPUs(ctx context.Context, maxAge time.Duration) []GPU {
	slots := map[gpu.DeviceUUID][]lease.SlotView{}
	for _, slot := range a.config.Broker.Slots() {
		slots[slot.Device] = append(slots[slot.Device], slot)
	}
	all := []GPU{}
	drains, planned := a.config.Broker.Drains()
	unleased := a.config.Broker.Unleased()
	for _, status := range a.config.Broker.Sampler().Within(ctx, maxAge) {
		g := GPU{DeviceStatus: status, DriverErrors: a.config.Broker.DriverErrors(status.UUID), Slots: append([]lease.SlotView{}, slots[status.UUID]...)}
		if d, ok := drains[status.UUID]; ok {
			g.Drained = &d
		}
		if d, ok := planned[status.UUID]; ok {
			g.Planned = &d
		}
		for _, u := range unleased {
			if u.Device == status.UUID {
				g.Uninvited = append(g.Uninvited, u)
			}
		}
		all = append(all, g)
	}
	return all
}

func (a *API) drainGPU(c echo.Context) error {
	r, err := a.readDrain(c)
	if err != nil {
		return err
	}
	d := lease.Drain{Reason: cmp.Or(strings.TrimSpace(r.Reason), drainReason)}
	if err := checkReason(d.Reason); err != nil {
		return views.Refuse(c, err)
	}
	if d.From, d.Until, err = readWindow(r, a.config.Now()); err != nil {
		return views.Refuse(c, err)
	}
	return a.answerDrain(c, r.UUID, d, a.config.Broker.Drain(c.Request().Context(), r.UUID, d))
}

func (a *API) returnGPU(c echo.Context) error {
	r, err := a.readDrain(c)
	if err != nil {
		return err
	}
	return a.answerDrain(c, r.UUID, lease.Drain{}, a.config.Broker.Return(c.Request().Context(), r.UUID))
}

// readDrain also finds the UUID of the Device.
func (a *API) readDrain(c echo.Context) (DrainRequest, error) {
	const expected = `{"uuid": ...}`
	r, err := bind[DrainRequest](c, expected)
	if err == nil && r.UUID == "" {
		err = notUnderstood(expected)
	}
	if err == nil {
		r.UUID, err = a.find(r.UUID)
	}
	return r, err
}

// find returns the Device that a request names: by a UUID on any machine, or by the number of a Slot of the host's own. Errors: *echo.HTTPError.
func (a *API) find(name gpu.DeviceUUID) (gpu.DeviceUUID, error) {
	if _, noNumber := strconv.Atoi(string(name)); noNumber == nil {
		return a.findOwn(name)
	}
	return found(gpu.ByPrefix(a.config.Broker.Devices(), string(name)))
}

// findOwn is find on the host's own machine.
func (a *API) findOwn(name gpu.DeviceUUID) (gpu.DeviceUUID, error) {
	return found(a.config.Pool().Find(string(name)))
}

func found(uuid gpu.DeviceUUID, err error) (gpu.DeviceUUID, error) {
	if ambiguous := (*gpu.AmbiguousDeviceError)(nil); errors.As(err, &ambiguous) {
		return "", echo.NewHTTPError(http.StatusBadRequest, err.Error())
	} else if err != nil {
		return "", echo.NewHTTPError(http.StatusNotFound, err.Error())
	}
	return uuid, nil
}

func (a *API) answerDrain(c echo.Context, uuid gpu.DeviceUUID, d lease.Drain, err error) error {
	if err != nil { // the Device is known
		return err
	}
	return c.JSON(http.StatusOK, a.drainAnswer(uuid, d))
}

func (a *API) drainAnswer(uuid gpu.DeviceUUID, d lease.Drain) DrainAnswer {
	answer := DrainAnswer{UUID: uuid, Slots: []int{}, Reason: d.Reason, From: d.From, Until: d.Until}
	for _, slot := range a.config.Broker.Slots() {
		if slot.Device == uuid {
			answer.Node, answer.Slots = slot.Machine, append(answer.Slots, slot.Slot)
		}
	}
	return answer
}

// readWindow returns the times of a drain; the zero time: not given. A beginning that has passed is now. Errors:
// *views.RequestError.
func readWindow(r DrainRequest, now time.Time) (from, until time.Time, err error) {
	if r.From != "" {
		if from, err = ParseTime(r.From, now); err != nil {
			return from, until, views.BadRequest("the beginning of the drain: %v", err)
		}
		if !from.After(now) {
			from = time.Time{}
		}
	}
	if r.Until == "" {
		return from, until, nil
	}
	begin := now
	if !from.IsZero() {
		begin = from.In(now.Location())
	}
	if until, err = ParseTime(r.Until, begin); err != nil {
		return from, until, views.BadRequest("the end of the drain: %v", err)
	}
	if !until.After(begin) {
		return from, until, views.BadRequest("the drain would end at %s, before it begins; give a later end", r.Until)
	}
	return from, until, nil
}

// ParseTime reads a time in the time zone of after: 14:00 (the next one after it), "2026-12-01 14:00", or RFC 3339.
func ParseTime(text string, after time.Time) (time.Time, error) {
	zone := after.Location()
	if clock, err := time.ParseInLocation("15:04", text, zone); err == nil {
		at := time.Date(after.Year(), after.Month(), after.Day(), clock.Hour(), clock.Minute(), 0, 0, zone)
		if !at.After(after) {
			at = time.Date(after.Year(), after.Month(), after.Day()+1, clock.Hour(), clock.Minute(), 0, 0, zone)
		}
		return at, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04", time.RFC3339} {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is not a time; give one such as 14:00, \"2026-12-01 14:00\" or 2026-12-01T14:00:00Z", text)
}

// maxReason bounds the text that an operator gives for the ledger or for a Device.
const maxReason = 200

// checkReason refuses a text that would break a line of a table.
func checkReason(text string) error {
	if len(text) > maxReason || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return views.BadRequest("the reason must be at most %d bytes of printable text", maxReason)
	}
	return nil
}

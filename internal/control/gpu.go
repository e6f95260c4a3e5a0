package control

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// The Devices of the host. A drained Device finishes its running calls and gets no new ones.
var (
	ListGPUs  = Endpoint[NoBody, []GPU]{http.MethodGet, "/gpu"}
	DrainGPU  = Endpoint[DrainRequest, DrainRequest]{http.MethodPost, "/gpu/drain"}
	ReturnGPU = Endpoint[DrainRequest, DrainRequest]{http.MethodPost, "/gpu/return"}
)

// GPU is one Device with its Slots.
type GPU struct {
	gpu.DeviceStatus
	// Uninvited are the processes that use the Device outside any Lease.
	Uninvited []lease.Unleased `json:"uninvited,omitempty"`
	Drained   *lease.Drain     `json:"drained,omitempty"`
	Slots     []lease.SlotView `json:"slots"` // empty for a Device that could not be listed
}

// DrainRequest names a Device, and the reason that `spacehost gpu` shows. The answer repeats it as it was carried out.
type DrainRequest struct {
	UUID   gpu.DeviceUUID `json:"uuid"`
	Reason string         `json:"reason,omitempty"`
}

// drainReason is the reason of a drain without one.
const drainReason = "by an operator's command"

func (a *API) listGPUs(c echo.Context, _ NoBody) ([]GPU, error) {
	slots := map[gpu.DeviceUUID][]lease.SlotView{}
	for _, slot := range a.config.Broker.Slots() {
		slots[slot.Device] = append(slots[slot.Device], slot)
	}
	all, drains := []GPU{}, a.config.Broker.Drains()
	for _, status := range a.config.Pool.Status(c.Request().Context()) {
		g := GPU{DeviceStatus: status, Slots: append([]lease.SlotView{}, slots[status.UUID]...)}
		if d, ok := drains[status.UUID]; ok {
			g.Drained = &d
		}
		for _, u := range a.config.Broker.Unleased() {
			if u.Device == status.UUID {
				g.Uninvited = append(g.Uninvited, u)
			}
		}
		all = append(all, g)
	}
	return all, nil
}

func (a *API) drainGPU(c echo.Context) error {
	r, err := readDrain(c)
	if err != nil {
		return err
	}
	if r.Reason = strings.TrimSpace(r.Reason); r.Reason == "" {
		r.Reason = drainReason
	}
	if err := checkReason(r.Reason); err != nil {
		return views.Refuse(c, err)
	}
	return answerDrain(c, r, a.config.Broker.Drain(c.Request().Context(), r.UUID, r.Reason))
}

func (a *API) returnGPU(c echo.Context) error {
	r, err := readDrain(c)
	if err != nil {
		return err
	}
	r.Reason = ""
	return answerDrain(c, r, a.config.Broker.Return(c.Request().Context(), r.UUID))
}

func readDrain(c echo.Context) (DrainRequest, error) {
	const expected = `{"uuid": ...}`
	r, err := bind[DrainRequest](c, expected)
	if err == nil && r.UUID == "" {
		err = notUnderstood(expected)
	}
	return r, err
}

func answerDrain(c echo.Context, r DrainRequest, err error) error {
	var unknown *gpu.UnknownDeviceError
	if errors.As(err, &unknown) {
		return echo.NewHTTPError(http.StatusNotFound, err.Error())
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, r)
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

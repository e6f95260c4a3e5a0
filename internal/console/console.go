// Package console shows a running host to its operator: JSON for the console address and the CLI's socket.
package console

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/quota"
)

// Config is what the console shows. All fields are required.
type Config struct {
	Spaces func() []SpaceView // all, for the operator
	Public func() []SpaceView // those that anybody may know of
	Pool   *gpu.Pool
	Broker *lease.Broker
	Ledger *quota.Ledger
	// TierOf returns the tier that an account has now.
	TierOf func(context.Context, identity.Identity) (quota.Tier, error)
	Now    func() time.Time // wall clock
}

// SpaceView is one Space.
type SpaceView struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Stage  string `json:"stage"`
	Reason string `json:"reason,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// Gradio is the version that runs, empty before the Space has come up. Native is false, and Why says why,
	// if its own queue does the work: the host does not know its inside.
	Gradio string `json:"gradio,omitempty"`
	Native bool   `json:"native"`
	Why    string `json:"why,omitempty"`
	// Queued counts the Events that wait.
	Queued int `json:"queued"`
}

// Console answers questions about the host. Nothing here changes state.
type Console struct{ config Config }

// New returns the Console.
func New(config Config) *Console { return &Console{config} }

// RegisterHealth mounts what the console address answers.
func (s *Console) RegisterHealth(e *echo.Echo) { e.GET("/healthz", s.health(s.config.Public)) }

// RegisterControl mounts what the CLI asks over its socket.
func (s *Console) RegisterControl(e *echo.Echo) {
	e.GET("/healthz", s.health(s.config.Spaces))
	e.GET("/gpu", s.gpus)
	e.GET("/lease", s.leases)
	e.GET("/lease/changes", s.changes)
	e.GET("/quota", s.balances)
}

// Health is the answer of /healthz.
type Health struct {
	Status string      `json:"status"`
	Spaces []SpaceView `json:"spaces"`
}

func (s *Console) health(spaces func() []SpaceView) echo.HandlerFunc {
	return func(c echo.Context) error {
		return c.JSON(http.StatusOK, Health{Status: "ok", Spaces: append([]SpaceView{}, spaces()...)})
	}
}

// GPU is one Device with the Slots on it.
type GPU struct {
	gpu.DeviceStatus
	// Uninvited are those on it outside any Lease.
	Uninvited []lease.Unleased `json:"uninvited,omitempty"`
	Drained   *lease.Drain      `json:"drained,omitempty"` // who is on it finishes, nobody new gets it
	Slots     []lease.SlotView  `json:"slots"`             // none on one that could not be listed
}

func (s *Console) gpus(c echo.Context) error {
	slots := map[gpu.DeviceUUID][]lease.SlotView{}
	for _, slot := range s.config.Broker.Slots() {
		slots[slot.Device] = append(slots[slot.Device], slot)
	}
	all, drains := []GPU{}, s.config.Broker.Drains()
	for _, status := range s.config.Pool.Status(c.Request().Context()) {
		g := GPU{DeviceStatus: status, Slots: append([]lease.SlotView{}, slots[status.UUID]...)}
		if d, ok := drains[status.UUID]; ok {
			g.Drained = &d
		}
		for _, u := range s.config.Broker.Unleased() {
			if u.Device == status.UUID {
				g.Uninvited = append(g.Uninvited, u)
			}
		}
		all = append(all, g)
	}
	return c.JSON(http.StatusOK, all)
}

// Leases is the open Leases and those that ended last, by the host's clock.
type Leases struct {
	Now   time.Time        `json:"now"`
	Open  []lease.Snapshot `json:"open"`
	Ended []lease.Past     `json:"ended"`
}

func (s *Console) leases(c echo.Context) error {
	limit, err := limitOf(c, 20)
	if err != nil {
		return refuse(c, err)
	}
	past, err := s.config.Broker.Past(c.Request().Context(), limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, Leases{Now: s.config.Now().UTC(), Open: s.config.Broker.List(), Ended: past})
}

// maxRows bounds what one answer lists.
const maxRows = 10_000

// limitOf is how many rows are asked for, the usual number where nothing is said. Errors: *requestError.
func limitOf(c echo.Context, usual int) (int, error) {
	text := c.QueryParam("limit")
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, &requestError{fmt.Errorf("limit=%.40q: say how many rows to list, from 1 to %d", text, maxRows)}
	}
	return min(n, maxRows), nil
}

// Balance is one account in seconds.
type Balance struct {
	Identity       string     `json:"identity"`
	Tier           string     `json:"tier"`
	Unlimited      bool       `json:"unlimited"`
	BaseSeconds    float64    `json:"baseSeconds"`
	ChargedSeconds float64    `json:"chargedSeconds"`
	HeldSeconds    float64    `json:"heldSeconds"`
	LeftSeconds    float64    `json:"leftSeconds"`
	ResetsAt       *time.Time `json:"resetsAt"`
}

func (s *Console) balances(c echo.Context) error {
	all, err := s.all(c.Request().Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, all)
}

func (s *Console) all(ctx context.Context) ([]Balance, error) {
	list, err := s.config.Ledger.List(ctx, s.config.Now())
	if err != nil {
		return nil, err
	}
	all := []Balance{}
	for _, b := range list {
		view, err := s.view(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, view)
	}
	return all, nil
}

func (s *Console) view(ctx context.Context, b quota.Balance) (Balance, error) {
	payer, err := identity.ParseKey(b.Identity)
	if err != nil {
		return Balance{}, err
	}
	tier, err := s.config.TierOf(ctx, payer)
	if err != nil {
		return Balance{}, err
	}
	b = b.For(tier)
	view := Balance{
		Identity: b.Identity, Tier: tier.Name, Unlimited: b.Unlimited, BaseSeconds: b.Base.Seconds(),
		ChargedSeconds: b.Charged.Seconds(), HeldSeconds: b.Held.Seconds(), LeftSeconds: b.Left.Seconds(),
	}
	if b.ResetsAt != nil {
		at := b.ResetsAt.UTC()
		view.ResetsAt = &at
	}
	return view, nil
}

// short keeps what may be shown of a Lease's ID: the whole is a credential.
func short(id string) string { return id[:min(8, len(id))] }

package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/nodes"
	"spacehost/internal/views"
)

// The nodes of a front: other machines that have joined.
var (
	ListNodes       = Endpoint[NoBody, []Node]{http.MethodGet, "/nodes"}
	ListPools       = Endpoint[NoBody, []Pool]{http.MethodGet, "/pools"}
	ExplainNode     = Endpoint[NoBody, NodeExplanation]{http.MethodGet, "/nodes/:name/explain"}
	CreateJoinToken = Endpoint[JoinTokenRequest, JoinToken]{http.MethodPost, "/nodes/token"}
	DrainNode       = Endpoint[DrainNodeRequest, Node]{http.MethodPost, "/nodes/:name/drain"}
	ReturnNode      = Endpoint[NoBody, Node]{http.MethodPost, "/nodes/:name/return"}
	// RevokeNode cuts the connection of the node at once.
	RevokeNode = Endpoint[NoBody, Node]{http.MethodPost, "/nodes/:name/revoke"}
	ForgetNode = Endpoint[NoBody, Node]{http.MethodDelete, "/nodes/:name"}
)

// Node is a machine that has joined.
type Node struct {
	Name        string     `json:"name"`
	State       string     `json:"state"`             // a nodes.State: joined, connected, suspect, lost or revoked
	Drained     *NodeDrain `json:"drained,omitempty"` // absent: in service
	Leaves      *NodeEnd   `json:"leaves,omitempty"`  // absent: no end is known
	GPUs        int        `json:"gpus"`
	Leases      int        `json:"leases"`                // open ones
	Labels      []string   `json:"labels"`                // of --label
	Version     string     `json:"version,omitempty"`     // of its agent
	Address     string     `json:"address,omitempty"`     // of its present or last connection since the start of the host
	ConnectedAt *time.Time `json:"connectedAt"`           // null: not connected
	RTTSeconds  float64    `json:"rttSeconds,omitempty"`  // round trip of the connection; absent: not measured
	SkewSeconds float64    `json:"skewSeconds,omitempty"` // its clock minus that of the host, when it connected
	SeenAt      *time.Time `json:"seenAt"`                // null: never
	JoinedAt    time.Time  `json:"joinedAt"`
	JoinedBy    string     `json:"joinedBy"` // the operator that created the join token
	RevokedAt   *time.Time `json:"revokedAt"`
}

// NodeDrain is why a node is out of service.
type NodeDrain struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// NodeEnd is when and why a node is given back, as its agent has reported it.
type NodeEnd struct {
	At       time.Time `json:"at"`       // until which calls may run there
	Draining bool      `json:"draining"` // its Spaces leave, and none starts there
	Why      string    `json:"why"`
}

// NodeExplanation says in sentences why no Space can start on a node, or no lease be granted there. Reasons is empty if nothing on the
// node prevents it.
type NodeExplanation struct {
	Node    Node     `json:"node"`
	Reasons []string `json:"reasons"`
	Notes   []string `json:"notes"` // what an operator should know, but which prevents nothing
}

// Pool is a pool of jobs of a batch scheduler, which become nodes.
type Pool struct {
	Name     string     `json:"name"`
	Min      int        `json:"min"` // jobs
	Max      int        `json:"max"`
	Removed  bool       `json:"removed,omitempty"` // from the configuration: its jobs are given back
	Trouble  string     `json:"trouble,omitempty"` // a sentence; absent: nothing is wrong
	RetryAt  *time.Time `json:"retryAt,omitempty"` // no job is submitted before; absent: there is no pause
	ListedAt *time.Time `json:"listedAt"`          // when the jobs were listed last; null: they have not been
	Jobs     []PoolJob  `json:"jobs"`              // that have not ended, by ID
}

// PoolJob is a job of a Pool.
type PoolJob struct {
	ID      string    `json:"id"`
	State   string    `json:"state"` // a pools.Phase: pending, starting, serving, lost, leaving or ending
	Since   time.Time `json:"since"` // since when the scheduler has it in its present state
	Machine string    `json:"machine,omitempty"`
	Node    string    `json:"node,omitempty"`   // absent: its agent has not joined
	Reason  string    `json:"reason,omitempty"` // of the scheduler, such as why it is pending
}

// JoinTokenRequest describes a new join token. Absent fields have defaults: any name, 1 use, 1 hour.
type JoinTokenRequest struct {
	Names   string   `json:"names,omitempty"`   // a name, or a prefix and *
	Uses    *int     `json:"uses,omitempty"`    // 0: any number
	Seconds *float64 `json:"seconds,omitempty"` // life
}

// JoinToken is a new join token. Text is shown only in this answer.
type JoinToken struct {
	Text      string    `json:"token"`
	ID        string    `json:"id"`
	Names     string    `json:"names"`
	Uses      int       `json:"uses"` // 0: any number
	ExpiresAt time.Time `json:"expiresAt"`
	Front     string    `json:"front"` // address for --join, as the configuration has it
}

// DrainNodeRequest is the reason that `spacehost node` shows.
type DrainNodeRequest struct {
	Reason string `json:"reason,omitempty"`
}

// Nodes is the part of the host that knows the nodes. Its methods read or write the database, and are called concurrently. Errors:
// *NoFrontError, and those of package nodes.
type Nodes interface {
	Nodes(ctx context.Context) ([]Node, error)
	ExplainNode(ctx context.Context, name string) (NodeExplanation, error)
	// Pools returns the pools by name, as they were when their scheduler was asked last.
	Pools() []Pool
	// CreateJoinToken creates a token. by names the operator.
	CreateJoinToken(ctx context.Context, spec nodes.JoinSpec) (JoinToken, error)
	DrainNode(ctx context.Context, name, reason, by string) (Node, error)
	ReturnNode(ctx context.Context, name string) (Node, error)
	RevokeNode(ctx context.Context, name string) (Node, error)
	// ForgetNode returns the node as it was.
	ForgetNode(ctx context.Context, name string) (Node, error)
}

// NoFrontError is the state of a host that no node can join.
type NoFrontError struct{}

func (*NoFrontError) Error() string {
	return "this host accepts no nodes; add `cluster: {listen: ADDRESS}` to its configuration file and restart it (docs/nodes.md)"
}

// registerNodes mounts the routes of the nodes.
func (a *API) registerNodes(e Routes) {
	handle(e, ListNodes, http.StatusOK, a.listNodes)
	handle(e, ListPools, http.StatusOK, a.listPools)
	handle(e, ExplainNode, http.StatusOK, a.explainNode)
	handle(e, CreateJoinToken, http.StatusCreated, a.createJoinToken)
	handle(e, DrainNode, http.StatusOK, a.drainNode)
	handle(e, ReturnNode, http.StatusOK, a.returnNode)
	handle(e, RevokeNode, http.StatusOK, a.revokeNode)
	handle(e, ForgetNode, http.StatusOK, a.forgetNode)
}

func (a *API) listNodes(c echo.Context, _ NoBody) ([]Node, error) {
	all, err := a.config.Nodes.Nodes(c.Request().Context())
	return append([]Node{}, all...), err
}

func (a *API) listPools(echo.Context, NoBody) ([]Pool, error) {
	return append([]Pool{}, a.config.Nodes.Pools()...), nil
}

func (a *API) explainNode(c echo.Context, _ NoBody) (NodeExplanation, error) {
	e, err := a.config.Nodes.ExplainNode(c.Request().Context(), c.Param("name"))
	e.Reasons, e.Notes = append([]string{}, e.Reasons...), append([]string{}, e.Notes...)
	return e, nodeRefusal(err)
}

// The defaults of a join token.
const (
	DefaultJoinUses = 1
	DefaultJoinLife = time.Hour
)

func (a *API) createJoinToken(c echo.Context, r JoinTokenRequest) (JoinToken, error) {
	ctx := c.Request().Context()
	spec := nodes.JoinSpec{Names: nodes.Pattern(cmp.Or(r.Names, "*")), Uses: DefaultJoinUses, Life: DefaultJoinLife, By: a.config.Host.Operator(ctx)}
	if r.Uses != nil {
		spec.Uses = *r.Uses
	}
	if r.Seconds != nil {
		if !(*r.Seconds >= 1 && *r.Seconds <= nodes.MaxLife.Seconds()) { // a float that is no duration, too
			return JoinToken{}, views.BadRequest("a join token cannot be valid for %g s; give a time from 1s to %gd", *r.Seconds, nodes.MaxLife.Hours()/24)
		}
		spec.Life = time.Duration(*r.Seconds * float64(time.Second))
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	t, err := a.config.Nodes.CreateJoinToken(ctx, spec)
	return t, nodeRefusal(err)
}

func (a *API) drainNode(c echo.Context, r DrainNodeRequest) (Node, error) {
	reason := cmp.Or(strings.TrimSpace(r.Reason), drainReason)
	if err := checkReason(reason); err != nil {
		return Node{}, err
	}
	ctx := c.Request().Context()
	n, err := a.config.Nodes.DrainNode(ctx, c.Param("name"), reason, a.config.Host.Operator(ctx))
	return n, nodeRefusal(err)
}

func (a *API) returnNode(c echo.Context, _ NoBody) (Node, error) {
	n, err := a.config.Nodes.ReturnNode(c.Request().Context(), c.Param("name"))
	return n, nodeRefusal(err)
}

func (a *API) revokeNode(c echo.Context, _ NoBody) (Node, error) {
	n, err := a.config.Nodes.RevokeNode(c.Request().Context(), c.Param("name"))
	return n, nodeRefusal(err)
}

func (a *API) forgetNode(c echo.Context, _ NoBody) (Node, error) {
	n, err := a.config.Nodes.ForgetNode(c.Request().Context(), c.Param("name"))
	return n, nodeRefusal(err)
}

// nodeRefusal gives the errors that an operator can act upon a status.
func nodeRefusal(err error) error {
	unknown, badName, badToken := (*nodes.UnknownError)(nil), (*nodes.BadNameError)(nil), (*nodes.BadTokenError)(nil)
	busy, noFront := (*nodes.BusyError)(nil), (*NoFrontError)(nil)
	switch {
	case errors.As(err, &badName), errors.As(err, &badToken):
		return &views.RequestError{Err: err}
	case errors.As(err, &unknown):
		return echo.NewHTTPError(http.StatusNotFound, unknown.Error())
	case errors.As(err, &busy):
		return echo.NewHTTPError(http.StatusConflict, busy.Error())
	case errors.As(err, &noFront):
		return echo.NewHTTPError(http.StatusConflict, noFront.Error())
	}
	return err
}

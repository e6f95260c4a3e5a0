package control

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/quota"
)

// ShowUsage answers with the usage of a time. UsageQuery is its query; each value may be absent.
var ShowUsage = Endpoint[NoBody, Usage]{http.MethodGet, "/usage"}

// UsageQuery selects usage, and groups it.
type UsageQuery struct {
	From, To time.Time     // of the ends of calls; zero: the last seven days
	By       string        // a quota.Dimension or ByGroup; "": by person
	Part     time.Duration // the length of the parts in Buckets; 0: one part
	Limit    int           // rows; the rest becomes Others. 0: 20
}

// Values returns the query of a request.
func (q UsageQuery) Values() url.Values {
	values := url.Values{}
	for name, at := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !at.IsZero() {
			values.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.By != "" {
		values.Set("by", q.By)
	}
	if q.Part != 0 {
		values.Set("bucket", strconv.FormatFloat(q.Part.Seconds(), 'f', -1, 64))
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return values
}

// Usage is what the calls that ended in a time have used.
type Usage struct {
	From          time.Time  `json:"from"`
	To            time.Time  `json:"to"` // excluded
	By            string     `json:"by"`
	BucketSeconds float64    `json:"bucketSeconds"`
	Total         UsageSums  `json:"total"`
	Rows          []UsageRow `json:"rows"`             // most used first
	Others        *UsageRow  `json:"others,omitempty"` // the sum of the rows that were left out, without a key
	OtherRows     int        `json:"otherRows"`        // how many these are
}

// ByGroup sums usage by the groups that people have in the configuration now. Payers without one are one row.
const ByGroup = "group"

// usageBy are the values of UsageQuery.By.
var usageBy = append(slices.Clone(quota.Dimensions), ByGroup)

// UsageRow is the usage of one payer, Space, function, tier or group.
type UsageRow struct {
	Key   string `json:"key"`             // "": unknown
	Space string `json:"space,omitempty"` // of a function
	UsageSums
	Buckets []UsageSums `json:"buckets"` // one for each part of the time, from From on
}

// UsageSums are sums over calls. A figure that is 0 is absent from the JSON: most buckets are empty.
type UsageSums struct {
	Calls           int     `json:"calls,omitempty"`           // leases that have ended, also those without a GPU
	Refusals        int     `json:"refusals,omitempty"`        // calls that the quota refused
	Kills           int     `json:"kills,omitempty"`           // workers that the host ended: at their deadline, by a drain, or by command
	UsedSeconds     float64 `json:"usedSeconds,omitempty"`     // on a GPU
	DeclaredSeconds float64 `json:"declaredSeconds,omitempty"` // by the functions
	HeldSeconds     float64 `json:"heldSeconds,omitempty"`     // of the quota, at the start of the calls
	ChargedSeconds  float64 `json:"chargedSeconds,omitempty"`  // equals the sum of the ledger's settlements
}

// usageSums adds up durations as integers, because sums must agree with the ledger to the millisecond.
type usageSums struct {
	calls, refusals, kills        int
	used, declared, held, charged time.Duration
}

func (s *usageSums) add(other usageSums) {
	s.calls, s.refusals, s.kills = s.calls+other.calls, s.refusals+other.refusals, s.kills+other.kills
	s.used, s.declared, s.held, s.charged = s.used+other.used, s.declared+other.declared, s.held+other.held, s.charged+other.charged
}

func (s usageSums) view() UsageSums {
	return UsageSums{s.calls, s.refusals, s.kills, nearest(s.used), nearest(s.declared), nearest(s.held), nearest(s.charged)}
}

// nearest returns seconds as the nearest float, so that JSON has 1.507. Duration.Seconds returns 1.5070000000000001.
func nearest(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// usageKey names a row.
type usageKey struct{ key, space string }

// usagePart is a sum of one row in one part of the time.
type usagePart struct {
	usageKey
	part int
	sums usageSums
}

// usageRow collects a UsageRow.
type usageRow struct {
	usageKey
	sum   usageSums
	parts []usageSums
}

func (r *usageRow) add(part int, sums usageSums) {
	r.sum.add(sums)
	r.parts[part].add(sums)
}

func (r *usageRow) view() UsageRow {
	return UsageRow{r.key, r.space, r.sum.view(), views.Each(r.parts, usageSums.view)}
}

// Bounds of a UsageQuery.
const (
	usageRows   = 20
	usageSpan   = 7 * 24 * time.Hour
	maxSpan     = 200 * 365 * 24 * time.Hour // a Duration has 292 years
	maxParts    = 1_000
	minPart     = time.Minute
	maxPartRows = 200_000 // rows times parts in one answer
)

func (a *API) showUsage(c echo.Context, _ NoBody) (Usage, error) {
	q, err := a.usageQuery(c)
	if err != nil {
		return Usage{}, err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return a.usage(c.Request().Context(), q)
}

// usageQuery reads a UsageQuery and replaces what is absent. Errors: *views.RequestError.
func (a *API) usageQuery(c echo.Context) (q UsageQuery, err error) {
	q = UsageQuery{To: a.config.Now(), By: string(quota.ByPerson)}
	if c.QueryParam("to") != "" {
		if q.To, err = queryTime(c, "to"); err != nil {
			return q, err
		}
	}
	q.From = q.To.Add(-usageSpan)
	if c.QueryParam("from") != "" {
		if q.From, err = queryTime(c, "from"); err != nil {
			return q, err
		}
	}
	q.From, q.To = q.From.Truncate(time.Millisecond), q.To.Truncate(time.Millisecond) // as in the database, for the numbers of parts
	if q.To.Sub(q.From) > maxSpan {
		return q, views.BadRequest("from=%s to=%s is more than 200 years; give a shorter time", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	if !q.From.Before(q.To) {
		return q, views.BadRequest("from=%s is not before to=%s; exchange them", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	if by := c.QueryParam("by"); by != "" {
		if q.By = by; !slices.Contains(usageBy, quota.Dimension(by)) {
			return q, views.BadRequest("unknown by=%.40q; give person, space, function, tier or group", by)
		}
	}
	if q.Limit, err = views.Limit(c.QueryParam("limit"), usageRows); err != nil {
		return q, err
	}
	q.Part, err = partOf(c.QueryParam("bucket"), q)
	return q, err
}

// partOf reads the length of the parts in seconds. Errors: *views.RequestError.
func partOf(text string, q UsageQuery) (time.Duration, error) {
	whole := q.To.Sub(q.From)
	if text == "" {
		return whole, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds >= minPart.Seconds()) || seconds > 1e9 {
		return 0, views.BadRequest("bucket=%.40q is not a length in seconds; give at least %g, such as 3600 for an hour", text, minPart.Seconds())
	}
	part := time.Duration(seconds * float64(time.Second)).Truncate(time.Millisecond)
	if parts := int(whole / part); parts > maxParts || parts*q.Limit > maxPartRows {
		return 0, views.BadRequest("bucket=%.40q divides the time into %d parts, with up to %d rows each; give a larger bucket, a shorter time or a smaller limit", text, parts, q.Limit)
	}
	return part, nil
}

func (a *API) usage(ctx context.Context, q UsageQuery) (Usage, error) {
	b := quota.Breakdown{From: q.From, To: q.To, Part: q.Part, By: quota.Dimension(q.By)}
	key := func(text string) string { return text }
	if q.By == ByGroup {
		groups := map[string]string{} // by payer
		b.By, key = quota.ByPerson, func(payer string) string {
			if _, known := groups[payer]; !known {
				groups[payer] = a.groupOf(payer)
			}
			return groups[payer]
		}
	}
	sums, err := a.config.Broker.Sums(ctx, b)
	if err != nil {
		return Usage{}, err
	}
	refusals, err := a.config.Ledger.RefusalCounts(ctx, b)
	if err != nil {
		return Usage{}, err
	}
	parts := make([]usagePart, 0, len(sums)+len(refusals))
	for _, s := range sums {
		parts = append(parts, usagePart{usageKey{key(s.Key), s.Space}, s.Part, usageSums{calls: s.Calls, kills: s.Kills, used: s.Used, declared: s.Declared, held: s.Held, charged: s.Charged}})
	}
	for _, r := range refusals {
		parts = append(parts, usagePart{usageKey{key(r.Key), r.Space}, r.Part, usageSums{refusals: r.Calls}})
	}
	return newUsage(q, b.Parts(), parts), nil
}

// groupOf returns the group of a payer, "" without one.
func (a *API) groupOf(payer string) string {
	who, err := identity.ParseKey(payer)
	if err != nil || who.Kind != identity.User {
		return ""
	}
	return a.config.Host.Standing(who.Name).Group
}

// newUsage adds up parts. The keys beyond the limit become one row, so that the rows add up to the total.
func newUsage(q UsageQuery, number int, parts []usagePart) Usage {
	byKey, total := map[usageKey]usageSums{}, usageSums{}
	for _, p := range parts {
		sum := byKey[p.usageKey]
		sum.add(p.sums)
		byKey[p.usageKey] = sum
		total.add(p.sums)
	}
	keys := slices.SortedFunc(maps.Keys(byKey), func(a, b usageKey) int {
		return cmp.Or(byUse(byKey[a], byKey[b]), cmp.Compare(a.space, b.space), cmp.Compare(a.key, b.key))
	})
	shown, rows := keys[:min(len(keys), q.Limit)], map[usageKey]*usageRow{}
	for _, key := range shown {
		rows[key] = &usageRow{key, usageSums{}, make([]usageSums, number)}
	}
	others := &usageRow{usageKey{}, usageSums{}, make([]usageSums, number)}
	for _, p := range parts {
		cmp.Or(rows[p.usageKey], others).add(p.part, p.sums)
	}
	view := Usage{
		From: q.From.UTC(), To: q.To.UTC(), By: q.By, BucketSeconds: q.Part.Seconds(), Total: total.view(), OtherRows: len(keys) - len(shown),
		Rows: views.Each(shown, func(key usageKey) UsageRow { return rows[key].view() }),
	}
	if view.OtherRows > 0 {
		view.Others = new(others.view())
	}
	return view
}

// byUse orders sums: most used first.
func byUse(a, b usageSums) int {
	return cmp.Or(cmp.Compare(b.used, a.used), cmp.Compare(b.calls, a.calls), cmp.Compare(b.refusals, a.refusals))
}

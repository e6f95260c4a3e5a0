// Package metrics counts Leases and shows Devices, Slots and Spaces for Prometheus, at GET /metrics of the console address.
//
// The host creates [Metrics] first, passes its Changed to the Broker, which reports each change of a Lease, and then registers
// it. Counters are kept in memory and start at zero with the host. Gauges are read at each scrape. No label names a person.
//
// A Device that does not answer within a scrape is shown as unhealthy; the other series stay.
package metrics

import (
	"context"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"spacehost/gpu"
	"spacehost/internal/egress"
	"spacehost/internal/lease"
	"spacehost/internal/views"
)

// Metrics holds the registry and the counters.
type Metrics struct {
	registry *prometheus.Registry
	waits    *prometheus.HistogramVec
	grants   *prometheus.CounterVec
	ends     *prometheus.CounterVec
	kills    *prometheus.CounterVec
	occupied *prometheus.CounterVec
	charged  *prometheus.CounterVec
	xids     *prometheus.CounterVec
	starts   *prometheus.CounterVec
}

// New returns Metrics with all counters at zero. Pass its Changed to the Broker, then call Register.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "spacehost_lease_wait_seconds", Help: "Seconds from the request of a GPU function to its grant.",
			Buckets: []float64{.005, .01, .05, .1, .5, 1, 2, 5, 10, 20, 30, 60, 120},
		}, []string{"tier"}),
		grants:   counter("spacehost_lease_grants_total", "GPU leases granted; warm: the worker process was already running.", "space", "size", "warm"),
		ends:     counter("spacehost_leases_ended_total", "GPU leases ended, by final state.", "space", "state"),
		kills:    counter("spacehost_worker_kills_total", "Processes of Spaces killed by the host: workers whose lease ended, and processes that used a GPU without a lease.", "space", "cause"),
		occupied: counter("spacehost_gpu_occupied_seconds_total", "Seconds of occupied slots, from the grant to the end of the lease.", "space", "size"),
		charged:  counter("spacehost_gpu_charged_seconds_total", "Seconds charged to payers, after the size factor.", "space", "tier"),
		xids:     counter("spacehost_device_xids_total", "Device errors reported by the driver (Xid), by number; errors caused by applications do not drain the device.", "uuid", "xid"),
		starts:   counter("spacehost_space_starts_total", "Starts of a Space's process: the first one, and each restart.", "space"),
	}
	m.registry.MustRegister(m.waits, m.grants, m.ends, m.kills, m.occupied, m.charged, m.xids, m.starts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Changed counts one Change of a Lease. It does not block, and may be called concurrently.
func (m *Metrics) Changed(c lease.Change) {
	switch {
	case c.Again: // already counted at the first grant
	case c.State == lease.Granted:
		m.waits.WithLabelValues(c.Tier).Observe(c.WaitedSeconds)
		m.grants.WithLabelValues(c.Space, c.Size, yesNo(c.Warm)).Inc()
	case c.IsFinal():
		m.ends.WithLabelValues(c.Space, string(c.State)).Inc()
		m.occupied.WithLabelValues(c.Space, c.Size).Add(max(0, c.OccupiedSeconds))
		m.charged.WithLabelValues(c.Space, c.Tier).Add(c.ChargedSeconds)
		if c.Killed() {
			m.kills.WithLabelValues(c.Space, c.Reason).Inc()
		}
	}
}

// Uninvited counts a process of a Space that was ended because it used a GPU outside any Lease.
func (m *Metrics) Uninvited(u lease.Unleased) {
	if u.Ended {
		m.kills.WithLabelValues(u.Space, "uninvited").Inc()
	}
}

// Reported counts a Device error that the driver has reported.
func (m *Metrics) Reported(uuid gpu.DeviceUUID, xid gpu.Xid) {
	m.xids.WithLabelValues(string(uuid), strconv.Itoa(int(xid))).Inc()
}

// SpaceStarted counts a start of a Space's process.
func (m *Metrics) SpaceStarted(space string) { m.starts.WithLabelValues(space).Inc() }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Spaces is what the gauges read about the Spaces of the host. It does not block, and is called concurrently.
type Spaces interface {
	SpaceViews() []views.Space
	// EgressStats returns the traffic of the current start of each Space that has a network of its own, by name.
	EgressStats() map[string]egress.Stats
}

// Config is what the gauges are read from at each scrape. All fields are required.
type Config struct {
	Spaces Spaces
	Pool   *gpu.Pool
	Broker *lease.Broker
	// IsSpace reports whether a Space sent the request with this context. It may take milliseconds, and is called
	// concurrently.
	IsSpace func(ctx context.Context) bool
}

// Register mounts GET /metrics for this machine and the allowed networks. Others, and the Spaces of this host, are refused,
// because the series name all Spaces, private ones included. Call it once.
func (m *Metrics) Register(e *echo.Echo, config Config, allowed []netip.Prefix) {
	m.registry.MustRegister(&machine{config})
	answer := echo.WrapHandler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	e.GET("/metrics", func(c echo.Context) error {
		if !mayScrape(c.Request().RemoteAddr, allowed) {
			return echo.NewHTTPError(http.StatusForbidden, "metrics are readable from this machine and from the networks under `metrics_from`; add yours there")
		}
		if config.IsSpace(c.Request().Context()) {
			return echo.NewHTTPError(http.StatusForbidden, "metrics are not readable for Spaces, because they name private Spaces; read them with a program that spacehost has not started")
		}
		return answer(c)
	})
}

func mayScrape(remote string, allowed []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	return addr.IsLoopback() || slices.ContainsFunc(allowed, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// machine collects the gauges.
type machine struct{ config Config }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	buildInfo       = describe("spacehost_build_info", "Always 1.", "version", "go")
	deviceHealth    = describe("spacehost_device_healthy", "1 if the device can be read and reports no error.", "uuid", "name", "simulated")
	deviceMemory    = describe("spacehost_device_memory_bytes", "Memory of a device, total and used.", "uuid", "kind")
	deviceProcesses = describe("spacehost_device_processes", "Processes on a device.", "uuid")
	uninvited       = describe("spacehost_device_uninvited_processes", "Processes that use a device outside any lease; space is empty for a process of no Space.", "uuid", "space")
	writable        = describe("spacehost_database_writable", "1 if the ledger can be written; at 0 no GPU is granted.")
	slotPhase       = describe("spacehost_slots", "Slots by phase.", "phase")
	openLeases      = describe("spacehost_leases_open", "Open leases, by state: waiting, granted or active.", "tier", "state")
	spaceStage      = describe("spacehost_space_stage", "1 for the current stage of a Space.", "space", "stage")
	spaceQueue      = describe("spacehost_space_events_waiting", "Events of a Space that wait in its queue.", "space")
	egressOpen      = describe("spacehost_space_egress_open", "Connections of a Space to other machines that are open now.", "space")
	egressDials     = describe("spacehost_space_egress_connections_total", "Connections of a Space to other machines since its start: opened, failed, or refused by its rules (lookups of names included).", "space", "result")
	egressLookups   = describe("spacehost_space_egress_lookups_total", "Names that a Space has looked up since its start, without those that its rules refused.", "space")
	egressBytes     = describe("spacehost_space_egress_bytes_total", "Bytes that a Space has sent to and received from other machines since its start.", "space", "direction")
)

// allDescriptions are those that Collect may use.
var allDescriptions = []*prometheus.Desc{
	buildInfo, deviceHealth, deviceMemory, deviceProcesses, uninvited, writable, slotPhase, openLeases, spaceStage, spaceQueue,
	egressOpen, egressDials, egressLookups, egressBytes,
}

// Describe implements prometheus.Collector.
func (s *machine) Describe(to chan<- *prometheus.Desc) {
	for _, d := range allDescriptions {
		to <- d
	}
}

// scrapeTimeout bounds one read of all Devices. A Device that hangs is shown as unhealthy before that.
const scrapeTimeout = 8 * time.Second

// Collect implements prometheus.Collector.
func (s *machine) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		gauge(buildInfo, 1, info.Main.Version, info.GoVersion)
	}
	gauge(writable, oneIf(s.config.Broker.Trouble() == nil))
	s.devices(gauge)
	type use struct{ uuid, space string }
	outside := map[use]float64{}
	for _, u := range s.config.Broker.Unleased() {
		outside[use{string(u.Device), u.Space}]++
	}
	for at, n := range outside {
		gauge(uninvited, n, at.uuid, at.space)
	}
	counts := map[string]float64{}
	for _, slot := range s.config.Broker.Slots() {
		counts[slot.Phase]++
	}
	for phase, n := range counts {
		gauge(slotPhase, n, phase)
	}
	type kind struct{ tier, state string }
	open := map[kind]float64{}
	for _, l := range s.config.Broker.List() {
		open[kind{l.Tier, string(l.State)}]++
	}
	for k, n := range open {
		gauge(openLeases, n, k.tier, k.state)
	}
	for _, space := range s.config.Spaces.SpaceViews() {
		gauge(spaceStage, 1, space.Name, space.Stage)
		gauge(spaceQueue, float64(space.Queued), space.Name)
	}
	s.egress(to)
}

func (s *machine) egress(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, float64(value), labels...)
	}
	for space, traffic := range s.config.Spaces.EgressStats() {
		send(egressOpen, prometheus.GaugeValue, traffic.Open, space)
		send(egressDials, prometheus.CounterValue, traffic.Opened, space, "opened")
		send(egressDials, prometheus.CounterValue, traffic.Failed, space, "failed")
		send(egressDials, prometheus.CounterValue, traffic.Refused, space, "refused")
		send(egressLookups, prometheus.CounterValue, traffic.Lookups, space)
		send(egressBytes, prometheus.CounterValue, traffic.Sent, space, "sent")
		send(egressBytes, prometheus.CounterValue, traffic.Received, space, "received")
	}
}

func (s *machine) devices(gauge func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for _, d := range s.config.Pool.Status(ctx) {
		if d.UUID == "" { // could not be listed
			continue
		}
		uuid := string(d.UUID)
		gauge(deviceHealth, oneIf(d.Error == ""), uuid, d.Name, yesNo(d.Simulated))
		if d.Error == "" {
			gauge(deviceMemory, float64(d.MemoryTotal), uuid, "total")
			gauge(deviceMemory, float64(d.MemoryUsed), uuid, "used")
			gauge(deviceProcesses, float64(len(d.Processes)), uuid)
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

package console

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
	"spacehost/internal/lease"
)

// Metrics counts what becomes of Leases, and shows Devices, Slots and Spaces, for Prometheus. No label names a person.
type Metrics struct {
	registry *prometheus.Registry
	waits    *prometheus.HistogramVec
	grants   *prometheus.CounterVec
	ends     *prometheus.CounterVec
	kills    *prometheus.CounterVec
	occupied *prometheus.CounterVec
	charged  *prometheus.CounterVec
	xids     *prometheus.CounterVec
}

// NewMetrics returns Metrics that have counted nothing: give its Changed to the Broker, then call Register.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "spacehost_lease_wait_seconds", Help: "From a GPU function's request to its grant.",
			Buckets: []float64{.005, .01, .05, .1, .5, 1, 2, 5, 10, 20, 30, 60, 120},
		}, []string{"tier"}),
		grants:   counter("spacehost_lease_grants_total", "GPU leases granted; warm: to a worker that was there already.", "space", "size", "warm"),
		ends:     counter("spacehost_leases_ended_total", "GPU leases that ended, by their last state.", "space", "state"),
		kills:    counter("spacehost_worker_kills_total", "Processes of Spaces that the host ended: workers because their lease was over, others because they used a GPU uninvited.", "space", "cause"),
		occupied: counter("spacehost_gpu_occupied_seconds_total", "Seconds for which a slot was taken, from the grant to the end of the lease.", "space", "size"),
		charged:  counter("spacehost_gpu_charged_seconds_total", "Seconds charged to those who paid, after the size factor.", "space", "tier"),
		xids:     counter("spacehost_device_xids_total", "Errors of a device that the driver has reported, by number; those of applications drain nothing.", "uuid", "xid"),
	}
	m.registry.MustRegister(m.waits, m.grants, m.ends, m.kills, m.occupied, m.charged, m.xids,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Changed counts one Change of a Lease. It does not block, and may be called from any goroutine.
func (m *Metrics) Changed(c lease.Change) {
	switch {
	case c.Again: // counted when it was granted first
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

// Uninvited counts a process of a Space that was ended because it used a GPU outside any lease.
func (m *Metrics) Uninvited(u lease.Uninvited) {
	if u.Ended {
		m.kills.WithLabelValues(u.Space, "uninvited").Inc()
	}
}

// Reported counts an error that the driver has reported.
func (m *Metrics) Reported(uuid gpu.DeviceUUID, xid gpu.Xid) {
	m.xids.WithLabelValues(string(uuid), strconv.Itoa(int(xid))).Inc()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Register mounts GET /metrics, for this machine and the networks of others: it names all Spaces, also private ones.
// config is what the Devices, Slots and Spaces are read from, at each scrape. Call it once.
func (m *Metrics) Register(e *echo.Echo, config Config, others []netip.Prefix) {
	m.registry.MustRegister(&machine{config})
	answer := echo.WrapHandler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	e.GET("/metrics", func(c echo.Context) error {
		if !mayScrape(c.Request().RemoteAddr, others) {
			return echo.NewHTTPError(http.StatusForbidden, "metrics are for this machine and the networks under `metrics_from`")
		}
		return answer(c)
	})
}

func mayScrape(remote string, others []netip.Prefix) bool {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	return addr.IsLoopback() || slices.ContainsFunc(others, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// machine shows what is there now.
type machine struct{ config Config }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	buildInfo     = describe("spacehost_build_info", "Always 1.", "version", "go")
	deviceHealth  = describe("spacehost_device_healthy", "1 if the device could be read and nothing is wrong with it.", "uuid", "name", "simulated")
	deviceMemory  = describe("spacehost_device_memory_bytes", "Memory of a device.", "uuid", "kind")
	deviceSitters = describe("spacehost_device_processes", "Processes on a device.", "uuid")
	uninvited     = describe("spacehost_device_uninvited_processes", "Processes that use a device outside any lease; space is empty for who is no Space's.", "uuid", "space")
	writable      = describe("spacehost_database_writable", "1 if GPU calls can be written down; 0: nobody gets a GPU until they can.")
	slotPhase     = describe("spacehost_slots", "Slots by what they are doing.", "phase")
	openLeases    = describe("spacehost_leases_open", "Leases that wait, are granted or active.", "tier", "state")
	spaceStage    = describe("spacehost_space_stage", "1 for the stage that a Space is in.", "space", "stage")
	spaceQueue    = describe("spacehost_space_events_waiting", "Events of a Space that wait for their function.", "space")
)

// Describe implements prometheus.Collector.
func (s *machine) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, deviceHealth, deviceMemory, deviceSitters, uninvited, writable, slotPhase, openLeases, spaceStage, spaceQueue} {
		to <- d
	}
}

// scrapeTime bounds what one look at the machine may take; a Device that hangs is shown as unhealthy before.
const scrapeTime = 8 * time.Second

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
	type seat struct{ uuid, space string }
	sitters := map[seat]float64{}
	for _, u := range s.config.Broker.Uninvited() {
		sitters[seat{string(u.Device), u.Space}]++
	}
	for at, n := range sitters {
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
	for _, space := range s.config.Spaces() {
		gauge(spaceStage, 1, space.Name, space.Stage)
		gauge(spaceQueue, float64(space.Queued), space.Name)
	}
}

func (s *machine) devices(gauge func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
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
			gauge(deviceSitters, float64(len(d.Processes)), uuid)
		}
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

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
	"spacehost/internal/notify"
	"spacehost/internal/views"
)

// Metrics holds the registry and the counters.
type Metrics struct {
	registry    *prometheus.Registry
	waits       *prometheus.HistogramVec
	grants      *prometheus.CounterVec
	ends        *prometheus.CounterVec
	kills       *prometheus.CounterVec
	occupied    *prometheus.CounterVec
	charged     *prometheus.CounterVec
	xids        *prometheus.CounterVec
	starts      *prometheus.CounterVec
	restarts    *prometheus.CounterVec
	hangs       *prometheus.CounterVec
	uploads     *prometheus.CounterVec
	uploaded    *prometheus.CounterVec
	notices     *prometheus.CounterVec
	webhooks    *prometheus.CounterVec
	connections *prometheus.CounterVec
}

// New returns Metrics with all counters at zero. Pass its Changed to the Broker, then call Register.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "spacehost_lease_wait_seconds", Help: "Seconds from the request of a GPU function to its grant.",
			Buckets: []float64{.005, .01, .05, .1, .5, 1, 2, 5, 10, 20, 30, 60, 120},
		}, []string{"tier"}),
		grants:      counter("spacehost_lease_grants_total", "GPU leases granted; warm: the worker process was already running.", "space", "size", "warm"),
		ends:        counter("spacehost_leases_ended_total", "GPU leases ended, by final state.", "space", "state"),
		kills:       counter("spacehost_worker_kills_total", "Processes of Spaces killed by the host: workers whose lease ended, and processes that used a GPU without a lease.", "space", "cause"),
		occupied:    counter("spacehost_gpu_occupied_seconds_total", "Seconds of occupied slots, from the grant to the end of the lease.", "space", "size"),
		charged:     counter("spacehost_gpu_charged_seconds_total", "Seconds charged to payers, after the size factor.", "space", "tier"),
		xids:        counter("spacehost_device_xids_total", "Device errors reported by the driver (Xid), by number; errors caused by applications do not drain the device.", "uuid", "xid"),
		notices:     counter("spacehost_notices_total", "Notices about the host, by the kind of event that webhooks select.", "kind"),
		webhooks:    counter("spacehost_webhook_notices_total", "Notices at a webhook: delivered, failed after all attempts, or dropped.", "webhook", "result"),
		starts:      counter("spacehost_space_starts_total", "Starts of a Space's process: the first one, and each restart.", "space"),
		restarts:    counter("spacehost_space_restarts_total", "Ends of a Space's process after which it starts again; cause: crash, memory, limit, hung, timeout, start, refused, operator or settings.", "space", "cause"),
		uploads:     counter("spacehost_space_uploads_total", "Requests with which visitors have stored files at a Space.", "space"),
		uploaded:    counter("spacehost_space_upload_bytes_total", "Bytes of these requests.", "space"),
		connections: counter("spacehost_node_connections_total", "Connections of a node to this host since its start: the first one, and each further one after a cut or a start of its agent.", "node"),
		hangs:       counter("spacehost_space_unresponsive_total", "How often a Space has become UNRESPONSIVE; cause: interpreter, loop, server or descriptors.", "space", "cause"),
	}
	for _, kind := range notify.Kinds { // an alert sees the first one as an increase
		m.notices.WithLabelValues(string(kind))
	}
	m.registry.MustRegister(m.waits, m.grants, m.ends, m.kills, m.occupied, m.charged, m.xids, m.starts, m.restarts, m.hangs, m.uploads, m.uploaded, m.notices, m.webhooks, m.connections,
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

// SpaceStarted counts a start of a Space's process. restarts are the causes that SpaceRestarts may count: their series begin at 0, so
// that the increase of the first one is seen.
func (m *Metrics) SpaceStarted(space string, restarts []string) {
	m.starts.WithLabelValues(space).Inc()
	for _, cause := range restarts {
		m.restarts.WithLabelValues(space, cause).Add(0)
	}
	m.uploads.WithLabelValues(space).Add(0)
	m.uploaded.WithLabelValues(space).Add(0)
}

// SpaceRestarts counts the end of a Space's process after which it starts again, by worker.Cause.
func (m *Metrics) SpaceRestarts(space, cause string) { m.restarts.WithLabelValues(space, cause).Inc() }

// Uploaded counts an upload that was stored.
func (m *Metrics) Uploaded(space string, bytes int64) {
	m.uploads.WithLabelValues(space).Inc()
	m.uploaded.WithLabelValues(space).Add(float64(bytes))
}

// SpaceUnresponsive counts a Space that does not answer, by what it lacks (worker.HangCause).
func (m *Metrics) SpaceUnresponsive(space, cause string) { m.hangs.WithLabelValues(space, cause).Inc() }

// NoticeSent counts a notice. It does not block, and may be called concurrently.
func (m *Metrics) NoticeSent(kind notify.Kind) { m.notices.WithLabelValues(string(kind)).Inc() }

// NoticeEnded counts what has become of a notice at a webhook. It does not block, and may be called concurrently.
func (m *Metrics) NoticeEnded(webhook string, r notify.Result) {
	m.webhooks.WithLabelValues(webhook, string(r)).Inc()
}

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
	// UsageStats returns what each Space used when it was measured last, by name.
	UsageStats() map[string]Usage
}

// Usage is what a Space uses.
type Usage struct {
	Memory, Disk int64   // bytes; Disk is -1 until it was measured
	Processes    int     // and threads
	CPUSeconds   float64 // of all starts since the host's start
}

// Config is what the gauges are read from at each scrape. All fields are required.
type Config struct {
	Spaces Spaces
	Broker *lease.Broker
	// Nodes returns the nodes that have joined, and Waiting the Spaces that need a machine and have none. They may read the database.
	Nodes   func() []Node
	Waiting func() (spaces []string)
	// Free returns the bytes that are left on the disk of the state folder.
	Free func() (uint64, error)
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

// ofNode has the descriptions for the other machines of a cluster, with the label node. Series of the host's own machine have no such
// label: their names do not change when the first node joins.
var ofNode = map[*prometheus.Desc]*prometheus.Desc{}

func describePerNode(name, help string, labels ...string) *prometheus.Desc {
	own := describe(name, help, labels...)
	ofNode[own] = describe(name, help, append(slices.Clone(labels), "node")...)
	return own
}

var (
	buildInfo       = describe("spacehost_build_info", "Always 1.", "version", "go")
	deviceHealth    = describePerNode("spacehost_device_healthy", "1 if the device can be read and reports no error.", "uuid", "name", "simulated")
	deviceBusy      = describePerNode("spacehost_device_utilization_ratio", "Share of the last sample period in which a kernel ran on a device, from 0 to 1; absent for MIG instances.", "uuid")
	deviceHeat      = describePerNode("spacehost_device_temperature_celsius", "Temperature of the GPU of a device.", "uuid")
	devicePower     = describePerNode("spacehost_device_power_watts", "Power of the GPU of a device: used, and the limit above which the driver slows it.", "uuid", "kind")
	deviceECC       = describePerNode("spacehost_device_ecc_errors", "Uncorrected memory errors of the GPU of a device since the driver was loaded.", "uuid")
	deviceMemory    = describePerNode("spacehost_device_memory_bytes", "Memory of a device, total and used.", "uuid", "kind")
	deviceProcesses = describePerNode("spacehost_device_processes", "Processes on a device.", "uuid")
	uninvited       = describePerNode("spacehost_device_uninvited_processes", "Processes that use a device outside any lease; space is empty for a process of no Space.", "uuid", "space")
	writable        = describe("spacehost_database_writable", "1 if the ledger can be written; at 0 no GPU is granted.")
	slotPhase       = describePerNode("spacehost_slots", "Slots by phase.", "phase")
	openLeases      = describePerNode("spacehost_leases_open", "Open leases, by state: waiting, granted or active.", "tier", "state")
	stateFree       = describe("spacehost_state_free_bytes", "Bytes free on the disk of the state folder, for users other than root.")
	spaceStage      = describe("spacehost_space_stage", "1 for the current stage of a Space.", "space", "stage")
	spaceQueue      = describe("spacehost_space_events_waiting", "Events of a Space that wait in its queue.", "space")
	spaceWaits      = describe("spacehost_space_waits_for_node", "1 while no machine may run a Space that was visited since, or that has never run.", "space")
	spaceMemory     = describe("spacehost_space_memory_bytes", "Memory and swap of a Space's processes, GPU workers included.", "space")
	spaceCPU        = describe("spacehost_space_cpu_seconds_total", "Seconds of CPU of a Space's processes since the start of the host.", "space")
	spaceDisk       = describe("spacehost_space_disk_bytes", "Bytes of a Space's folders on the disk, uploads included.", "space")
	spaceProcesses  = describe("spacehost_space_processes", "Processes and threads of a Space.", "space")
	egressOpen      = describe("spacehost_space_egress_open", "Connections of a Space to other machines that are open now.", "space")
	egressDials     = describe("spacehost_space_egress_connections_total", "Connections of a Space to other machines since its start: opened, failed, or refused by its rules (lookups of names included).", "space", "result")
	egressLookups   = describe("spacehost_space_egress_lookups_total", "Names that a Space has looked up since its start, without those that its rules refused.", "space")
	egressBytes     = describe("spacehost_space_egress_bytes_total", "Bytes that a Space has sent to and received from other machines since its start.", "space", "direction")
)

// allDescriptions are those that Collect may use, beside those in ofNode.
var allDescriptions = []*prometheus.Desc{
	buildInfo, deviceHealth, deviceMemory, deviceBusy, deviceHeat, devicePower, deviceECC, deviceProcesses, uninvited, writable, stateFree, slotPhase, openLeases, spaceStage, spaceQueue,
	spaceMemory, spaceCPU, spaceDisk, spaceProcesses, egressOpen, egressDials, egressLookups, egressBytes, nodeState, nodeInService, nodeRTT, spaceWaits,
}

// Describe implements prometheus.Collector.
func (s *machine) Describe(to chan<- *prometheus.Desc) {
	for _, d := range allDescriptions {
		to <- d
	}
}

// scrapeTimeout bounds one read of all Devices. A Device that hangs is shown as unhealthy before that.
const scrapeTimeout = 8 * time.Second

// sampleMaxAge is the age up to which a scrape shows the broker's last sample of the Devices, which it takes each two seconds.
const sampleMaxAge = 5 * time.Second

// Collect implements prometheus.Collector.
func (s *machine) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		gauge(buildInfo, 1, info.Main.Version, info.GoVersion)
	}
	gauge(writable, oneIf(s.config.Broker.Trouble() == nil))
	if free, err := s.config.Free(); err == nil {
		gauge(stateFree, float64(free))
	}
	on := func(node string) gauges {
		if node == "" {
			return gauge
		}
		return func(d *prometheus.Desc, value float64, labels ...string) {
			gauge(ofNode[d], value, append(labels, node)...)
		}
	}
	s.devices(on)
	type use struct{ node, uuid, space string }
	outside := map[use]float64{}
	for _, u := range s.config.Broker.Unleased() {
		outside[use{u.Machine, string(u.Device), u.Space}]++
	}
	for at, n := range outside {
		on(at.node)(uninvited, n, at.uuid, at.space)
	}
	type phase struct{ node, phase string }
	counts := map[phase]float64{}
	for _, slot := range s.config.Broker.Slots() {
		counts[phase{slot.Machine, slot.Phase}]++
	}
	for at, n := range counts {
		on(at.node)(slotPhase, n, at.phase)
	}
	type kind struct{ node, tier, state string }
	open := map[kind]float64{}
	for _, l := range s.config.Broker.List() {
		open[kind{l.Machine, l.Tier, string(l.State)}]++
	}
	for k, n := range open {
		on(k.node)(openLeases, n, k.tier, k.state)
	}
	for _, space := range s.config.Spaces.SpaceViews() {
		gauge(spaceStage, 1, space.Name, space.Stage)
		gauge(spaceQueue, float64(space.Queued), space.Name)
	}
	for name, used := range s.config.Spaces.UsageStats() {
		gauge(spaceMemory, float64(used.Memory), name)
		gauge(spaceProcesses, float64(used.Processes), name)
		if used.Disk >= 0 {
			gauge(spaceDisk, float64(used.Disk), name)
		}
		to <- prometheus.MustNewConstMetric(spaceCPU, prometheus.CounterValue, used.CPUSeconds, name)
	}
	s.egress(to)
	s.nodes(gauge)
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

// gauges sends the value of a gauge.
type gauges func(d *prometheus.Desc, value float64, labels ...string)

func (s *machine) devices(on func(node string) gauges) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for _, d := range s.config.Broker.Sampler().Within(ctx, sampleMaxAge) {
		if d.UUID == "" { // could not be listed
			continue
		}
		uuid, gauge := string(d.UUID), on(d.Node)
		gauge(deviceHealth, oneIf(d.Error == ""), uuid, d.Name, yesNo(d.Simulated))
		if d.Error == "" {
			gauge(deviceMemory, float64(d.MemoryTotal), uuid, "total")
			gauge(deviceMemory, float64(d.MemoryUsed), uuid, "used")
			gauge(deviceProcesses, float64(len(d.Processes)), uuid)
			sensors(gauge, d.Sensors, uuid)
		}
	}
}

// sensors leaves out what the driver does not report.
func sensors(gauge gauges, s gpu.Sensors, uuid string) {
	if s.Utilization != nil {
		gauge(deviceBusy, float64(*s.Utilization)/100, uuid)
	}
	if s.Temperature != nil {
		gauge(deviceHeat, float64(*s.Temperature), uuid)
	}
	if s.Power != nil {
		gauge(devicePower, *s.Power, uuid, "used")
	}
	if s.PowerLimit != nil {
		gauge(devicePower, *s.PowerLimit, uuid, "limit")
	}
	if s.ECCErrors != nil {
		gauge(deviceECC, float64(*s.ECCErrors), uuid)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

package machine

import (
	"encoding/json"
	"time"

	"spacehost/gpu"
	"spacehost/internal/lease"
)

// Protocol is the version of the messages of this package. A front refuses a node with another one.
const Protocol = 2

// Hello is what a node reports about its Devices and processes when it connects.
type Hello struct {
	Protocol int    `json:"protocol"`
	Run      string `json:"run"` // changes with each start of the agent
	CPUs     int    `json:"cpus"`
	Memory   uint64 `json:"memory"` // bytes
	Devices
	Report lease.MachineReport `json:"report,omitzero"`
}

// Devices are the Devices of a node at one time.
type Devices struct {
	Slots      []gpu.Slot `json:"slots"`
	LendsNodes bool       `json:"lendsNodes,omitempty"` // lease.Machine.LendsNodes
}

// The operations, by their direction. Calls have an answer; the others are one-way.
const (
	opClear     = "clear"     // front, call: clearRequest
	opClaim     = "claim"     // front, call: claimRequest -> lease.Worker
	opFreeze    = "freeze"    // front, call: lease.Worker -> bool
	opResume    = "resume"    // front, call: resumeRequest
	opEnd       = "end"       // front, call: endRequest
	opShow      = "show"      // front, call: showRequest
	opHolders   = "holders"   // front, call: -> map[gpu.DeviceUUID][]int
	opOutsiders = "outsiders" // front, call: outsidersRequest -> []lease.Outsider
	opDescribe  = "describe"  // front, call: int -> lease.ProcessInfo
	opStatus    = "status"    // front, call: -> []statusRow

	opConfine = "confine" // front: confineRequest
	opOccupy  = "occupy"  // front: occupyRequest
	opArm     = "arm"     // front, also as a call: armRequest
	opDisarm  = "disarm"  // front: the ID of a lease
	opWatch   = "watch"   // front: lease.Worker; opExit follows

	opExit    = "exit"    // node: exit
	opXid     = "xid"     // node: xid
	opDevices = "devices" // node: Devices
)

type clearRequest struct {
	Device gpu.DeviceUUID `json:"device"`
	Self   lease.Worker   `json:"self,omitzero"`
	Beside []lease.Worker `json:"beside,omitempty"`
}

type resumeRequest struct {
	armRequest
	Device gpu.DeviceUUID `json:"device"`
	Beside []lease.Worker `json:"beside,omitempty"`
}

type claimRequest struct {
	Instance string `json:"instance"`
	PID      int    `json:"pid"`
}

type confineRequest struct {
	Instance string       `json:"instance"`
	Worker   lease.Worker `json:"worker"`
}

type occupyRequest struct {
	Device gpu.DeviceUUID `json:"device"`
	Worker lease.Worker   `json:"worker"`
}

type endRequest struct {
	Worker lease.Worker  `json:"worker"`
	Grace  time.Duration `json:"graceNanoseconds"`
}

type showRequest struct {
	Space   string           `json:"space"`
	Devices []gpu.DeviceUUID `json:"devices"`
}

type outsidersRequest struct {
	Uses    []lease.ProcessUse                `json:"uses"`
	Workers map[gpu.DeviceUUID][]lease.Worker `json:"workers"`
}

type armRequest struct {
	Lease  string        `json:"lease"`
	Worker lease.Worker  `json:"worker"`
	Left   time.Duration `json:"leftNanoseconds"`
}

// exit is the exit of a worker that the front watches.
type exit struct {
	Worker lease.Worker `json:"worker"`
	// Overstayed means that the guard of the node has ended it at its deadline.
	Overstayed bool `json:"overstayed,omitempty"`
}

type xid struct {
	Device gpu.DeviceUUID `json:"device"`
	Xid    gpu.Xid        `json:"xid"`
}

// statusRow is a gpu.DeviceStatus with its Cause.
type statusRow struct {
	gpu.DeviceStatus
	Cause json.RawMessage `json:"cause,omitempty"` // a *link.RemoteError
}

func encodeStatus(rows []gpu.DeviceStatus) []statusRow {
	all := make([]statusRow, len(rows))
	for i, row := range rows {
		all[i] = statusRow{DeviceStatus: row}
		if row.Cause != nil {
			all[i].Cause, _ = json.Marshal(encodeError(row.Cause)) // plain data
		}
	}
	return all
}

func decodeStatus(rows []statusRow, node string) []gpu.DeviceStatus {
	all := make([]gpu.DeviceStatus, len(rows))
	for i, row := range rows {
		all[i] = row.DeviceStatus
		all[i].Node = node
		if row.Cause != nil {
			all[i].Cause = decodeErrorText(row.Cause)
		}
	}
	return all
}

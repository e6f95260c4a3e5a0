package gpu

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// AmbiguousDeviceError reports a prefix that several UUIDs have.
type AmbiguousDeviceError struct {
	Prefix  string
	Matches []DeviceUUID
}

func (e *AmbiguousDeviceError) Error() string {
	return fmt.Sprintf("%s is the beginning of %d UUIDs (%s); give more digits", e.Prefix, len(e.Matches), joinUUIDs(e.Matches))
}

func joinUUIDs(all []DeviceUUID) string {
	texts := make([]string, len(all))
	for i, uuid := range all {
		texts[i] = string(uuid)
	}
	return strings.Join(texts, ", ")
}

// Find returns the Device of a Slot's number, of a UUID, or of the beginning of one UUID. Errors: *UnknownDeviceError,
// *AmbiguousDeviceError.
func (p *Pool) Find(name string) (DeviceUUID, error) {
	if index, err := strconv.Atoi(name); err == nil {
		slots := p.Slots()
		if at := slices.IndexFunc(slots, func(s Slot) bool { return s.Index == index }); at >= 0 {
			return slots[at].Device.UUID, nil
		}
		return "", &UnknownDeviceError{UUID: DeviceUUID(name)}
	}
	return ByPrefix(p.devices, name)
}

// ByPrefix returns the Device whose UUID is name, or the only one whose UUID begins with it. Errors: *UnknownDeviceError,
// *AmbiguousDeviceError.
func ByPrefix(devices []Device, name string) (DeviceUUID, error) {
	var matches []DeviceUUID
	for _, d := range devices {
		if string(d.UUID) == name {
			return d.UUID, nil
		}
		if name != "" && strings.HasPrefix(strings.ToLower(string(d.UUID)), strings.ToLower(name)) {
			matches = append(matches, d.UUID)
		}
	}
	switch len(matches) {
	case 0:
		return "", &UnknownDeviceError{UUID: DeviceUUID(name)}
	case 1:
		return matches[0], nil
	}
	return "", &AmbiguousDeviceError{Prefix: name, Matches: matches}
}

// NotSelectableError reports a name in the list of Devices to use that no Device of this machine has.
type NotSelectableError struct {
	Name  string
	Found []Device
}

func (e *NotSelectableError) Error() string {
	var known []string
	for _, d := range e.Found {
		known = append(known, fmt.Sprintf("%d (%s)", d.Index, d.UUID))
	}
	return fmt.Sprintf("this machine has no GPU %s; its GPUs are %s", e.Name, strings.Join(known, ", "))
}

// CheckSelection returns an error for text that cannot name a Device: neither an index of the driver nor the beginning of
// a UUID.
func CheckSelection(name string) error {
	if index, err := strconv.Atoi(name); err == nil && index >= 0 || strings.HasPrefix(name, "GPU-") || strings.HasPrefix(name, "MIG-") {
		return nil
	}
	return fmt.Errorf("%.60q names no GPU; use an index such as 0 or a UUID such as GPU-9a4c6130, as nvidia-smi -L lists them", name)
}

// selectDevices keeps the Devices that only names, in the order of their index; all of them if only is empty. An index
// selects all MIG instances of its GPU. Errors: *NotSelectableError, *AmbiguousDeviceError.
func selectDevices(devices []Device, missing *MissingError, only []string) ([]Device, *MissingError, error) {
	if len(only) == 0 {
		return devices, missing, nil
	}
	indexes, uuids := map[int]bool{}, map[DeviceUUID]bool{}
	for _, name := range only {
		if index, err := strconv.Atoi(name); err == nil {
			isMissing := missing != nil && missing.Reasons[index] != nil
			if !isMissing && !slices.ContainsFunc(devices, func(d Device) bool { return d.Index == index }) {
				return nil, nil, &NotSelectableError{Name: name, Found: devices}
			}
			indexes[index] = true
			continue
		}
		uuid, err := ByPrefix(devices, name)
		if _, ambiguous := err.(*AmbiguousDeviceError); ambiguous {
			return nil, nil, err
		} else if err != nil {
			return nil, nil, &NotSelectableError{Name: name, Found: devices}
		}
		uuids[uuid] = true
	}
	chosen := slices.DeleteFunc(slices.Clone(devices), func(d Device) bool { return !indexes[d.Index] && !uuids[d.UUID] })
	if missing != nil {
		missing = &MissingError{Reasons: maps.Clone(missing.Reasons)}
		maps.DeleteFunc(missing.Reasons, func(index int, _ error) bool { return !indexes[index] })
		if len(missing.Reasons) == 0 {
			missing = nil
		}
	}
	return chosen, missing, nil
}

package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"spacehost/internal/lazyregexp"
)

// Limits bound the resources of one Space. A field that is 0 is not set, and the host's default applies.
type Limits struct {
	Memory      int64         // bytes
	Processes   int           // processes and threads
	CPU         float64       // cores
	Disk        int64         // bytes in the folders of the Space
	Connections int           // connections to the host at a time
	Output      int64         // bytes of stdout and stderr per second
	UploadSize  int64         // bytes of one uploaded file
	UploadKeep  time.Duration // how long an upload stays that no open session refers to; Forever: without a limit
	LogSize     int64         // bytes of the run and build logs together
}

const (
	// Forever is the value of UploadKeep that removes no upload.
	Forever = time.Duration(math.MaxInt64)
	// DefaultUploadKeep is the value of UploadKeep that is not set.
	DefaultUploadKeep = 24 * time.Hour
	// minLogSize lets each of the eight files of a Space's logs have a megabyte (package spacelog).
	minLogSize = 8 << 20
	// minHostLog lets each of the five files of the host's log have a megabyte.
	minHostLog = 5 << 20
)

// KeepsUploads returns how long an upload stays that no open session refers to.
func (l Limits) KeepsUploads() time.Duration { return orDefault(l.UploadKeep, DefaultUploadKeep) }

// limitParsers hold, for each key of `limits`, the function that parses and stores its value.
var limitParsers = map[string]func(l *Limits, text string) error{
	"memory": func(l *Limits, text string) error { return parseSize(text, "", 64<<20, &l.Memory) },
	"processes": func(l *Limits, text string) error {
		return parseCount(text, 16, 4<<20, &l.Processes) // Gradio and uvicorn alone start more than ten threads
	},
	"cpu":         func(l *Limits, text string) error { return parseCores(text, &l.CPU) },
	"disk":        func(l *Limits, text string) error { return parseSize(text, "", 1<<20, &l.Disk) },
	"connections": func(l *Limits, text string) error { return parseCount(text, 1, 1<<20, &l.Connections) },
	"output":      func(l *Limits, text string) error { return parseSize(text, "/s", 1000, &l.Output) },
	"upload_size": func(l *Limits, text string) error { return parseSize(text, "", 1<<10, &l.UploadSize) },
	"upload_keep": func(l *Limits, text string) error { return parseUploadKeep(text, &l.UploadKeep) },
	"log_size":    func(l *Limits, text string) error { return parseSize(text, "", minLogSize, &l.LogSize) },
}

// LimitKeys returns the keys of `limits`, sorted.
func LimitKeys() []string { return slices.Sorted(maps.Keys(limitParsers)) }

// totalKeys are the keys of `total_limits`: those that have a sum over all Spaces.
var totalKeys = []string{"cpu", "disk", "log_size", "memory", "processes"}

// Set parses the value of one key. In an error, the value keeps its former content.
func (l *Limits) Set(key, text string) error {
	parse, ok := limitParsers[key]
	if !ok {
		return fmt.Errorf("unknown limit %.40q; %s", key, suggest(key, LimitKeys(), "use one of "))
	}
	return parse(l, text)
}

// Parse parses KEY=VALUE, such as memory=8GiB, and returns the key.
func (l *Limits) Parse(text string) (key string, err error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return key, fmt.Errorf("%.40q is not KEY=VALUE; give one such as memory=8GiB", text)
	}
	err = l.Set(key, value)
	if _, known := limitParsers[key]; known && err != nil {
		err = fmt.Errorf("%s: %w", key, err)
	}
	return key, err
}

// String lists the limits that are set, in the notation of --limit.
func (l Limits) String() string {
	var all []string
	add := func(key string, isSet bool, value string) {
		if isSet {
			all = append(all, key+"="+value)
		}
	}
	add("memory", l.Memory > 0, FormatSize(l.Memory))
	add("processes", l.Processes > 0, strconv.Itoa(l.Processes))
	add("cpu", l.CPU > 0, strconv.FormatFloat(l.CPU, 'g', -1, 64))
	add("disk", l.Disk > 0, FormatSize(l.Disk))
	add("connections", l.Connections > 0, strconv.Itoa(l.Connections))
	add("output", l.Output > 0, FormatSize(l.Output)+"/s")
	add("upload_size", l.UploadSize > 0, FormatSize(l.UploadSize))
	add("upload_keep", l.UploadKeep > 0, uploadKeepText(l.UploadKeep))
	add("log_size", l.LogSize > 0, FormatSize(l.LogSize))
	return strings.Join(all, ",")
}

// or returns the limits with the values of defaults where none is set.
func (l Limits) or(defaults Limits) Limits {
	return Limits{
		Memory: orDefault(l.Memory, defaults.Memory), Processes: orDefault(l.Processes, defaults.Processes), CPU: orDefault(l.CPU, defaults.CPU),
		Disk: orDefault(l.Disk, defaults.Disk), Connections: orDefault(l.Connections, defaults.Connections), Output: orDefault(l.Output, defaults.Output),
		UploadSize: orDefault(l.UploadSize, defaults.UploadSize), UploadKeep: orDefault(l.UploadKeep, defaults.UploadKeep), LogSize: orDefault(l.LogSize, defaults.LogSize),
	}
}

func orDefault[T comparable](value, other T) T {
	var zero T
	if value == zero {
		return other
	}
	return value
}

var (
	sizeRule  = lazyregexp.New(`^(\d+(?:\.\d+)?) ?([kKMGTP]?i?B)$`)
	sizeUnits = map[string]float64{
		"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50,
	}
)

// parseSize parses a number of bytes with a unit, and a rate if per is "/s". A bare number is a mistake, because readers
// disagree about its unit.
func parseSize(text, per string, least int64, into *int64) error {
	digits, hasRate := strings.CutSuffix(text, per)
	found := sizeRule.FindStringSubmatch(digits)
	if found != nil && hasRate && sizeUnits[found[2]] > 0 {
		number, err := strconv.ParseFloat(found[1], 64)
		if size := number * sizeUnits[found[2]]; err == nil && size >= float64(least) && size < 1<<60 {
			*into = int64(size)
			return nil
		}
	}
	if per != "" {
		return fmt.Errorf("must be a rate of at least %s%s, such as 1MB%[2]s, not %.40[3]q", FormatSize(least), per, text)
	}
	return fmt.Errorf("must be a size of at least %s with its unit, such as 8GiB or 500MB, not %.40q", FormatSize(least), text)
}

// FormatSize returns a size in the largest unit that divides it, as Limits parses it.
func FormatSize(size int64) string {
	best := "B"
	for unit, bytes := range sizeUnits {
		if unit != "KB" && size >= int64(bytes) && size%int64(bytes) == 0 && bytes > sizeUnits[best] {
			best = unit
		}
	}
	return fmt.Sprintf("%d%s", size/int64(sizeUnits[best]), best)
}

func parseCount(text string, least, most int, into *int) error {
	number, err := strconv.Atoi(text)
	if err != nil || number < least || number > most {
		return fmt.Errorf("must be a whole number from %d to %d, not %.40q", least, most, text)
	}
	*into = number
	return nil
}

const (
	minCores = 0.1
	maxCores = 4096
)

func parseCores(text string, into *float64) error {
	cores, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(cores) || cores < minCores || cores > maxCores {
		return fmt.Errorf("must be a number of cores from %g to %d, such as 4 or 0.5, not %.40q", minCores, maxCores, text)
	}
	*into = cores
	return nil
}

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/printable"
	"spacehost/internal/prune"
)

// errStopping ends a removal before the host waits for it.
var errStopping = &control.PruneRefusedError{Reason: "the host is stopping, and what was not removed yet stays; run `spacehost prune` again when it has ended"}

// Prune implements control.Host. Spaces that a reload has removed and that still end count. It ends when the Spaces are told to end.
// A reload and the end of the host wait for it no longer than a rename takes.
func (h *Host) Prune(ctx context.Context, r control.PruneRequest) (control.PruneAnswer, error) {
	select {
	case <-h.started:
	default:
		return control.PruneAnswer{}, &control.PruneRefusedError{Reason: "the host is still starting; try again when it answers"}
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(h.running.spaces, func() { end(errStopping) })()
	answer, err := h.pruneOn(ctx, r)
	h.log.Info("pruned", zap.String("by", h.Operator(ctx)), zap.String("node", r.Node), zap.Bool("dryRun", r.DryRun), zap.Int("items", len(answer.Items)), zap.Int64("bytes", answer.Bytes), zap.Error(err))
	return answer, err
}

// pruneOn prunes the state folder of the host or of a node.
func (h *Host) pruneOn(ctx context.Context, r control.PruneRequest) (answer control.PruneAnswer, err error) {
	if r.Node == "" {
		return h.pruneRunning(ctx, r, func(do func(spaces, folders []string)) {
			h.reloading.Lock()
			defer h.reloading.Unlock()
			do(h.known())
		})
	}
	l, err := h.linkTo(r.Node)
	if err != nil {
		return answer, &control.PruneRefusedError{Reason: fmt.Sprintf("no node %s is connected; `spacehost node` lists the nodes", printable.Reason(r.Node))}
	}
	spaces, _ := h.known() // any of them may have its files there
	if err = l.Call(ctx, opPrune, PruneOrder{r, spaces}, &answer); err == nil {
		return answer, nil
	}
	if _, stopping := errors.AsType[*control.PruneRefusedError](err); stopping {
		return answer, err
	}
	return answer, &control.PruneRefusedError{Reason: fmt.Sprintf("the node %s has not finished: %s; run the command again", r.Node, printable.Reason(err.Error()))}
}

// pruneRunning prunes the state folder of a host or a node whose Spaces run.
func (h *Host) pruneRunning(ctx context.Context, r control.PruneRequest, locked func(do func(spaces, folders []string))) (control.PruneAnswer, error) {
	h.pruning.Lock() // the former one ends with the host, too
	defer h.pruning.Unlock()
	c := pruneConfig(h.state.dir, r)
	c.Running, c.Now, c.Locked = true, time.Now(), locked // the times of files are those of the machine, also under an advanced clock
	c.Locked(func(spaces, folders []string) { c.Spaces, c.Folders = spaces, folders })
	return pruned(ctx, c)
}

// PruneOrder is what a front demands of a node. Spaces are those of its configuration.
type PruneOrder struct {
	control.PruneRequest
	Spaces []string
}

// pruneState prunes the state folder of the node. A Space that was not prepared yet since the start of the agent keeps its files, too.
func (n *node) pruneState(ctx context.Context, order PruneOrder) (control.PruneAnswer, error) {
	return n.host.pruneRunning(ctx, order.PruneRequest, func(do func(spaces, folders []string)) {
		n.mu.Lock()
		defer n.mu.Unlock()
		spaces, folders := n.host.known()
		for name := range n.received { // a reload has added it meanwhile, and its folder has arrived
			spaces = append(spaces, name)
		}
		do(append(spaces, order.Spaces...), folders)
	})
}

// known returns the names and the folders of all Spaces.
func (h *Host) known() (spaces, folders []string) {
	for _, s := range h.all() {
		spaces, folders = append(spaces, s.space().Name), append(folders, s.settings().Dir)
	}
	return spaces, folders
}

// PruneStopped removes what no Space refers to from a state folder on which no host runs. It keeps the Spaces of the configuration
// file; "": of the file that the state folder was served with last, if there is one. Errors: *InUseError, those of
// config.Load, and others in a sentence.
func PruneStopped(ctx context.Context, state, file string, r control.PruneRequest) (control.PruneAnswer, error) {
	if _, err := os.Stat(state); err != nil {
		return control.PruneAnswer{}, fmt.Errorf("no state folder: %w; name it with --state", err)
	}
	locked, err := OpenState(state)
	if err != nil {
		return control.PruneAnswer{}, err
	}
	defer locked.Close()
	c := pruneConfig(state, r)
	c.Now = time.Now()
	if file == "" {
		if file, err = lastConfiguration(state); err != nil {
			return control.PruneAnswer{}, err
		}
	}
	if file != "" {
		settings, _, err := config.Load(file, state)
		if err != nil {
			return control.PruneAnswer{}, err
		}
		all, _ := settings.OpenOrUnread()
		for i, opened := range all {
			c.Spaces, c.Folders = append(c.Spaces, opened.Name), append(c.Folders, settings.Spaces[i].Dir)
		}
	}
	return pruned(ctx, c)
}

func pruneConfig(state string, r control.PruneRequest) prune.Config {
	return prune.Config{
		State: state, Environments: EnvironmentsIn(state), Keep: time.Duration(r.KeepSeconds * float64(time.Second)), DryRun: r.DryRun, Data: r.Data, Usage: usageOf,
	}
}

func pruned(ctx context.Context, c prune.Config) (control.PruneAnswer, error) {
	items, err := prune.Run(ctx, c)
	answer := control.PruneAnswer{DryRun: c.DryRun, Items: []control.PrunedItem{}, Kept: []control.PrunedItem{}}
	for _, item := range items {
		one := control.PrunedItem{Kind: string(item.Kind), Path: item.Path, Bytes: item.Bytes, Why: item.Why}
		if !item.LastUsed.IsZero() {
			one.LastUsed = new(item.LastUsed.UTC())
		}
		if item.Kept {
			answer.Kept = append(answer.Kept, one)
			continue
		}
		if item.Err != nil {
			one.Error = item.Err.Error()
		} else {
			answer.Bytes += item.Bytes
		}
		answer.Items = append(answer.Items, one)
	}
	return answer, err
}

// configurationName is the file in the state folder that names the configuration with which the folder was served last.
const configurationName = "configuration"

// noteConfiguration records the configuration file for PruneStopped.
func (h *Host) noteConfiguration() error {
	if !h.settings().IsServe() {
		return nil
	}
	file, err := filepath.Abs(h.settings().File)
	if err == nil {
		err = os.WriteFile(h.state.path(configurationName), []byte(file+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note the configuration file: %w", err)
	}
	return nil
}

// lastConfiguration returns the file that noteConfiguration has recorded; "": none.
func lastConfiguration(state string) (file string, err error) {
	text, err := os.ReadFile(filepath.Join(state, configurationName))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read which configuration the state folder belongs to: %w", err)
	}
	file = strings.TrimSuffix(string(text), "\n")
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("the state folder %s was served with %s, which cannot be read: %w; name its new path with --config, or remove the file %s if the folder has no configuration any more",
			state, file, config.WithoutPath(err), filepath.Join(state, configurationName))
	}
	return file, nil
}

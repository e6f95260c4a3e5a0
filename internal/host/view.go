package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"spacehost/internal/config"
	"spacehost/internal/sandbox"
	"spacehost/worker"
)

// systemFolders are the parts of the machine that every Space sees, read-only: programs, libraries and their public
// configuration. /run and /var/run are not among them: sockets there accept the groups of the host's user.
var systemFolders = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys", "/nix/store", "/run/opengl-driver"}

// systemConfiguration are the files of /etc without secrets that programs need.
var systemConfiguration = []string{
	"ssl/certs", "ssl/openssl.cnf", "pki/ca-trust", "pki/tls/certs", "ca-certificates", "ca-certificates.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"localtime", "alternatives", "mime.types", "fonts", "nsswitch.conf", "protocols", "services", "magic", "OpenCL", "vulkan", "ImageMagick-6", "python3*",
}

// hiddenInSys are parts of /sys with facts about other processes, or for root alone.
var hiddenInSys = []string{"/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/fs/bpf", "/sys/fs/pstore", "/sys/firmware"}

// view collects the mounts of one start. The first error is kept.
type view struct {
	mounts []sandbox.Mount
	slot   int // worker.StartInfo.Slot
	err    error
}

// tmpLayer is the layer of /tmp. A standby has another one than the current start.
func tmpLayer(slot int) string { return "tmp" + slotSuffix(slot) }

func slotSuffix(slot int) string {
	if slot == 0 {
		return ""
	}
	return fmt.Sprint(".", slot)
}

// sandboxView returns the mounts of a start (docs/isolation.md, "Files").
func (s *spaceRun) sandboxView(start worker.StartInfo) ([]sandbox.Mount, error) {
	v := &view{}
	v.system()
	v.etc(s.home(), s.hostsFile(start.Instance))
	v.slot = start.Slot
	v.fresh(s.layer(tmpLayer(start.Slot)))
	v.writable(s.layer(tmpLayer(start.Slot)), "/tmp")
	v.owned(start.Runner)
	// Only the file, which Start creates: the run folder contains the mount point of the new root.
	marker := filepath.Join(start.RunDir, markerFile)
	v.add(sandbox.Mount{Kind: sandbox.ReadOnly, Source: marker, Target: marker, Owned: true})
	v.writable(s.home(), s.home())
	v.hubCache(s)
	for _, folder := range s.interpreterFolders {
		v.interpreter(s, start, folder)
	}
	if !slices.ContainsFunc(s.interpreterFolders, func(folder string) bool { return isBelow(start.Python, folder) }) {
		v.owned(start.Python) // a script of the operator that starts the interpreter
	}
	v.source(s)
	for _, path := range certificatePaths() {
		v.same(sandbox.ReadOnly, path)
	}
	if s.settings().Data.Keep {
		v.writable(s.dataFolder(), "/data")
	}
	for _, m := range s.settings().Mounts {
		kind := sandbox.ReadOnly
		if m.Write {
			kind = sandbox.ReadWrite
		}
		v.add(sandbox.Mount{Kind: kind, Source: m.Path, Target: m.Path})
	}
	v.gpus(s)
	return v.mounts, v.err
}

// markerFile is the file from which the spaces package reads its cgroup (worker.Start).
const markerFile = "cgroup"

func (v *view) add(m sandbox.Mount) { v.mounts = append(v.mounts, m) }

// same mounts a path under its own name, if it exists.
func (v *view) same(kind sandbox.MountKind, path string) {
	if _, err := os.Stat(path); err == nil {
		v.add(sandbox.Mount{Kind: kind, Source: path, Target: path})
	}
}

// owned mounts a path of the host's for reading, if it exists. At level users the Space's user reads it as its owner does:
// the host may have created it with a umask that excludes other users.
func (v *view) owned(path string) {
	if _, err := os.Stat(path); err == nil {
		v.add(sandbox.Mount{Kind: sandbox.ReadOnly, Source: path, Target: path, Owned: true})
	}
}

// writable creates a folder and mounts it.
func (v *view) writable(folder, target string) {
	v.make(folder)
	v.add(sandbox.Mount{Kind: sandbox.ReadWrite, Source: folder, Target: target})
}

func (v *view) make(folders ...string) {
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o700); err != nil && v.err == nil {
			v.err = fmt.Errorf("make the Space's folders: %w", err)
		}
	}
}

// fresh removes what an earlier start has written.
func (v *view) fresh(layer string) {
	if err := sandbox.RemoveLayer(layer); err != nil && v.err == nil {
		v.err = err
	}
}

// overlay mounts shared with a layer for changes, or without one where the file system of the state folder cannot hold a
// layer.
func (v *view) overlay(s *spaceRun, shared, layer string) {
	if !s.canLayer() {
		v.owned(shared)
		return
	}
	work := layer + ".work" + slotSuffix(v.slot) // two mounts must not share one
	v.make(layer, work)
	v.add(sandbox.Mount{Kind: sandbox.Overlay, Source: shared, Target: shared, Upper: layer, Work: work})
}

// system mounts what belongs to the machine. A link such as /bin stays a link.
func (v *view) system() {
	for _, path := range systemFolders {
		if to, err := os.Readlink(path); err == nil {
			v.add(sandbox.Mount{Kind: sandbox.Link, Source: to, Target: path})
		} else {
			v.same(sandbox.ReadOnly, path)
		}
	}
	for _, path := range hiddenInSys {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			v.add(sandbox.Mount{Kind: sandbox.Empty, Target: path})
		}
	}
}

// etc mounts the public configuration, and files of the Space's own where the machine's would name other users and hosts.
func (v *view) etc(home, hosts string) {
	for _, pattern := range systemConfiguration {
		found, _ := filepath.Glob(filepath.Join("/etc", pattern)) // the patterns are well formed
		for _, path := range found {
			v.same(sandbox.ReadOnly, path)
		}
	}
	for name, text := range map[string]string{
		"resolv.conf": "nameserver 127.0.0.1\n",
		"hosts":       hosts,
		"hostname":    "space\n",
		"passwd":      fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\nuser:x:%d:%d::%s:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", sandbox.InsideID, sandbox.InsideID, home),
		"group":       fmt.Sprintf("root:x:0:\nuser:x:%d:\nnogroup:x:65534:\n", sandbox.InsideID),
	} {
		v.add(sandbox.Mount{Kind: sandbox.Text, Target: "/etc/" + name, Text: text})
	}
}

// hubCache gives the Space a HF_HOME of its own. Below it, the models of the host's user are shared; downloads go to a
// layer. The user's token is never there.
func (v *view) hubCache(s *spaceRun) {
	shared := hubHome()
	if shared == "" {
		return
	}
	v.writable(s.layer("hf"), shared)
	models := filepath.Join(shared, "hub")
	if _, err := os.Stat(models); err == nil && !s.settings().PrivateCache && s.canLayer() {
		v.overlay(s, models, s.layer("hub"))
	}
}

// interpreter mounts a folder of the interpreter. Changes, for example by pip, go to a layer that ends with the start, as
// on the Hub.
func (v *view) interpreter(s *spaceRun, start worker.StartInfo, folder string) {
	switch {
	case isBelow(folder, "/usr") || folder == "/":
	case folder == s.env().Dir:
		v.overlay(s, folder, filepath.Join(start.RunDir, "environment"))
	default:
		v.owned(folder)
	}
}

// source mounts the Space's folder. Its layer is emptied at each start, as on the Hub, so no old copy hides a new app.py.
func (v *view) source(s *spaceRun) {
	switch mode := s.settings().SourceAt(s.level(), s.host.settings().IsServe()); {
	case mode == config.SourceReadWrite:
		v.same(sandbox.ReadWrite, s.space().Dir)
		v.protectGit(s.space().Dir)
	case mode == config.SourceOverlay:
		layer := s.layer("source")
		v.fresh(layer)
		v.overlay(s, s.space().Dir, layer)
	default:
		v.owned(s.space().Dir)
	}
}

// protectGit keeps the Space from writing hooks and configuration that git would run outside, as the user. A link, which an
// earlier start may have put there, is not followed.
func (v *view) protectGit(dir string) {
	path := filepath.Join(dir, ".git")
	if info, err := os.Lstat(path); err == nil && (info.IsDir() || info.Mode().IsRegular()) {
		v.add(sandbox.Mount{Kind: sandbox.ReadOnly, Source: path, Target: path})
	}
}

// certificatePaths lists the certificates and libraries that passed variables name.
func certificatePaths() (all []string) {
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "PIP_CERT"} {
		for _, path := range filepath.SplitList(os.Getenv(name)) {
			if filepath.IsAbs(path) && path != "/" && !isBelow(path, "/usr") {
				all = append(all, path)
			}
		}
	}
	return all
}

// gpus mounts the nodes of the GPUs.
func (v *view) gpus(s *spaceRun) {
	for _, m := range s.host.nodeMounts() {
		m.OnDemand = s.settings().NodesByLease
		v.add(m)
	}
	// Without its rights nvidia-modprobe fails, and with it the start of CUDA (containers/bubblewrap#328).
	if _, err := os.Stat("/usr/bin/nvidia-modprobe"); err == nil && !s.host.simulated() {
		v.add(sandbox.Mount{Kind: sandbox.ReadOnly, Source: "/bin/true", Target: "/usr/bin/nvidia-modprobe"})
	}
}

// isBelow reports whether path is folder or below it.
func isBelow(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// layer is a folder of the Space's own in the state folder.
func (s *spaceRun) layer(name string) string {
	return s.host.state.path("spaces", s.space().Name, name)
}

func (s *spaceRun) dataFolder() string {
	if s.settings().Data.Path != "" {
		return s.settings().Data.Path
	}
	return s.layer("data")
}

// prepareView reads what all starts of the Space share.
func (s *spaceRun) prepareView(ctx context.Context) (err error) {
	if s.level() == config.IsolationNone {
		return nil
	}
	s.warnOfOwnInterpreter()
	s.interpreterFolders, err = s.env().Folders(ctx)
	return err
}

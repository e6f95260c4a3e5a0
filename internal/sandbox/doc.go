// Package sandbox confines the processes of Spaces.
//
// # Terms
//
//   - A level is a set of promises: `none`, `files`, `namespaces`, `users`.
//   - Level `files` confines a process by Landlock (files, signals, TCP ports) and by seccomp (system calls). The
//     process shares everything else with the machine.
//   - Level `namespaces` gives the process users, mounts, pids, a network, IPC and a host name of its own. It sees only
//     what the Spec names, and ends with the host.
//   - Level `users` is level `namespaces` with a uid of the Space's own (Spec.User), for a host that is root.
//   - A sandbox is one start at level `namespaces` or `users`. Init is its process 1: this program, started again. The interpreter is
//     a child of init. The host is the process that called New.
//   - A layer is a folder that receives the changes of an overlay.
//   - A node on demand is a device node that the host shows and hides while the Space runs (Show, nodes.go).
//   - A tree is a detached mount: a descriptor of a folder that is mounted nowhere.
//   - The helper is this program, started in place of the Space's interpreter. It confines its own thread and is then
//     replaced by the interpreter (execve). The pid stays.
//
// # Types and callers
//
//   - FilesSpec describes one start at level `files`. Package worker calls Confine on the command of the interpreter.
//   - ProbeFiles, Probe and ProbeUser try a level in a process of its own. Packages internal/host and internal/doctor call them.
//   - Sandbox is the host's end of one sandbox: New, Begin, Dial, HostPID, Show, Close. Package worker calls it.
//   - MaybeRun is called first in main: it runs init, the holder of a user namespace, the helper and the probe.
//
// # Life of a sandbox
//
//	New             Cmd.Start           network, view           Begin: go           started
//	---> prepared ------------> first steps --------> waiting ----------> last steps ------> running
//	                               |                     |                    |                 | interpreter exits, Close,
//	                               | step fails          | host is gone       | step fails      | host is gone, init is killed
//	                               +---------------------+--------------------+-----------------+--> ended: the kernel kills every process
//
// The steps of init are a table in init.go. A socket belongs to the network in which it was created: init opens the
// sockets of the Spec and hands them to the host, and connects for the host (Dial). The host therefore knows the owner of
// each connection without a lookup, and no byte is copied.
//
// # Files at level users
//
// Init runs with the Space's uid and cannot walk to the folders of the host. New therefore opens every mount of the Spec as
// a tree, which init inherits and attaches. On disk all files keep their owner: in an idmapped tree, the files of the
// owner of Source have the Space's uid, and new files get that owner on disk. Files of other owners show as nobody's. An
// overlay is mounted by init from idmapped trees (Linux 5.19). All trees are private: no mount of a sandbox propagates to
// the machine, whose mounts systemd makes shared.
//
// # Steps of the helper
//
//	read the rules -> limits -> kernel settings -> capabilities -> Landlock -> seccomp -> execve
//
// # Limits of level files
//
// A process at level `files` can do the following, whatever the kernel:
//
//   - read the names and command lines of other processes in /proc, and the names, sizes and dates of all files;
//   - change mode, owner, dates and extended attributes of the host user's files anywhere (chmod, chown, utime, setxattr);
//   - change priority and CPUs of the host user's processes, unless the host is root;
//   - use the System V shared memory, semaphores and message queues of the host user;
//   - raise the oom_score_adj of the host user's processes, if Write contains /proc;
//   - send UDP anywhere, and listen on a TCP port that the kernel chooses (listen without bind);
//   - use the shared memory of the host user in /dev/shm, if Write contains it;
//   - connect to named unix sockets (before Linux 7.1), some of which run programs, such as the user's service manager.
//
// Restrictions that an older kernel lacks are named by FilesProbe.Left.
//
// # Failure handling
//
// If any step of the helper fails, the helper reports the step with the kernel's error and exits with code 125. The
// interpreter does not start. No step is skipped.
package sandbox

// Package proctree identifies, contains and ends the processes of Spaces.
//
// # Terms
//
//   - The runner is the Python process of a Space. It is the root of the Space's tree, or the child of the root if the Space
//     runs in a sandbox (package sandbox): then process 1 of the sandbox is the root.
//   - A worker is a process forked from the runner that holds a GPU.
//   - A tree is the runner, its descendants, and the processes with the marker of its start.
//   - A subtree is a worker, its descendants, and the members of its process group.
//   - The marker is a path in the environment of every process of one start (MarkerVariable). It identifies a process
//     that has left its parent, its process group and its session.
//   - An external process belongs to no Space.
//
// # Types and callers
//
//   - Processes keeps the tree of each instance of a Space. Package internal/host creates it and calls Contain, Run and EndOrphans,
//     SpaceAt for local connections, and Untrusted for clients of the control socket. Package worker registers each start. Package lease uses it as
//     lease.Processes: FromInside, Confine, Freeze, Thaw, Wait, End, SpaceOf and Within.
//     Package internal/host also asks it which processes hold a device node open (Holders).
//   - Tree is one start of a Space. Package worker ends it with Kill after the runner has exited.
//   - Process is a pid with its start time. Signals go through a pidfd, so that a reused pid is never hit.
//   - PortCheck finds out whether a tree listens at a port that its Space names. Package worker calls Owner for each
//     connection to the Space.
//   - Cgroups creates the cgroups of a start. Package worker calls Begin before the app's first line runs.
//   - Limits are the limits of a start. Package worker calls Cgroups.Limit, and Tree.MemoryAbove where no cgroup enforces
//     the limit of memory.
//   - OOMWatch finds out whether the kernel's out-of-memory killer caused a SIGKILL. It reports a KilledError.
//
// # Life of a worker
//
//	           fork      /allow: FromInside, Confine     End                 all exited
//	runner ----------> child ----------------------> worker ----> ending ---------------> ended
//	                                                   |             ^
//	                                                   | exits       | End of what it started
//	                                                   +-------------+
//
//	ending, in order:
//	 1. SIGTERM to the subtree, if there is a grace; wait at most grace for the worker
//	 2. cgroup.kill, if the worker has a cgroup
//	 3. SIGSTOP to the worker and its process group
//	 4. SIGKILL to all other members, until none is left or 600 ms are over
//	 5. SIGKILL to the process group, then to all members, for at most 5 s
//
// # Containment
//
// Contain selects one of two modes. With cgroups (version 2, Linux 5.14), each start has this layout:
//
//	spacehost-<instance>/app                   the runner and its descendants
//	spacehost-<instance>/gpu-<pid>-<start>     one worker from its /allow on, and its later descendants
//
// With controllers, all starts are below spacehost-all-<pid of the host>, whose limits apply to their sum (LimitTotal).
// Limits are set on spacehost-<instance>, so that they apply to the sum of its processes. They need the controllers memory,
// pids and cpu, which Contain delegates to the cgroups below Base. A cgroup with processes cannot delegate. Therefore this
// process moves to Base/host if it is alone in Base.
//
// A worker between two calls is frozen (Freeze). Its cgroup alone is frozen, so that the rest of the Space continues.
//
// Without cgroups, each worker is the subreaper of its descendants, and Run records the members of each subtree every
// second. In both modes this process is a subreaper and reaps orphaned zombies.
//
// # Failure handling
//
//   - Begin fails: the start runs without a cgroup, and its workers become subreapers.
//   - Confine fails: the worker is watched as a subtree.
//   - Thaw fails: package lease ends the worker.
//   - A frozen worker is asked to exit by its own Space: Run kills it.
//   - A controller cannot be delegated: Limit leaves its limit to the caller.
//   - No descriptor is free: a process that cannot be read counts as running, and is not signalled until it can be
//     identified. End continues once descriptors are free.
//   - Processes survive SIGKILL: End logs them and returns false after 5 s. Package lease then keeps the Slot closed.
//   - The host crashes: the next host calls EndOrphans for each recorded marker. Cgroups of a start that was not
//     recorded are removed a minute later, if they are empty.
//   - The kernel does not report sockets: SpaceAt returns "", and logs a warning once.
package proctree

// Package sandbox confines the processes of Spaces.
//
// # Terms
//
//   - A level is a set of promises: `none`, `files`, `namespaces`.
//   - Level `files` confines a process by Landlock (files, signals, TCP ports) and by seccomp (system calls). The
//     process shares everything else with the machine.
//   - Level `namespaces` gives the process users, mounts, pids, a network, IPC and a host name of its own. It sees only
//     what the Spec names, and ends with the host.
//   - A sandbox is one start at level `namespaces`. Init is its process 1: this program, started again. The interpreter is
//     a child of init. The host is the process that called New.
//   - A layer is a folder that receives the changes of an overlay.
//   - The helper is this program, started in place of the Space's interpreter. It confines its own thread and is then
//     replaced by the interpreter (execve). The pid stays.
//
// # Types and callers
//
//   - FilesSpec describes one start at level `files`. Package worker calls Confine on the command of the interpreter.
//   - ProbeFiles and Probe try a level in a process of its own. Packages internal/host and internal/check call them.
//   - Sandbox is the host's end of one start at level `namespaces`: New, Begin, Dial, HostPID, Close. Package worker calls it.
//   - MaybeRun is called first in main: it runs init, the helper and the probe.
//
// # Life of a sandbox
//
//	New             Cmd.Start            Begin: go         started
//	---> prepared ------------> waiting ----------> steps ---------> running
//	                               |                  |                 | interpreter exits, Close,
//	                               | host is gone     | step fails      | host is gone, init is killed
//	                               +------------------+-----------------+-----> ended: the kernel kills every process
//
// The steps of init are a table in init.go. A socket belongs to the network in which it was created: init opens the
// sockets of the Spec and hands them to the host, and connects for the host (Dial). The host therefore knows the owner of
// each connection without a lookup, and no byte is copied.
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

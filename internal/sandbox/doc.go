// Package sandbox confines the processes of Spaces.
//
// # Terms
//
//   - A level is a set of promises: `none`, `files`, `namespaces`.
//   - Level `files` confines a process by Landlock (files, signals, TCP ports) and by seccomp (system calls). The
//     process shares everything else with the machine.
//   - The helper is this program, started in place of the Space's interpreter. It confines its own thread and is then
//     replaced by the interpreter (execve). The pid stays.
//
// # Types and callers
//
//   - FilesSpec describes one start at level `files`. Package worker calls Confine on the command of the interpreter.
//   - ProbeFiles tries the level in a process of its own.
//   - MaybeRun is called first in main: it runs the helper and the probe.
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
//   - change mode, owner and dates of the host user's files anywhere (chmod, chown, utime);
//   - raise the oom_score_adj of the host user's processes, if Write contains /proc;
//   - send UDP anywhere, and listen on a TCP port that the kernel chooses (listen without bind);
//   - use the shared memory of the host user in /dev/shm, if Write contains it.
//
// Restrictions that an older kernel lacks are named by FilesProbe.Left.
//
// # Failure handling
//
// If any step of the helper fails, the helper reports the step with the kernel's error and exits with code 125. The
// interpreter does not start. No step is skipped.
package sandbox

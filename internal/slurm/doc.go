// Package slurm submits, lists and cancels the pilot jobs of a front in Slurm, and writes their script.
//
// # Terms
//
//   - A pilot job is a batch job that runs the agent of a node, and nothing else. Its GPUs are those of the node.
//   - A [Job] is a pilot job as Slurm lists it.
//
// # Types and callers
//
// [Script] is the text of a pilot job: package host makes one for each job of a pool, and `spacehost node script slurm` prints one. A
// [Client] runs the commands sbatch, squeue and scancel of this machine. It implements the scheduler of package pools.
//
// # States of a job
//
//	Pending ──▶ Running ──▶ Ending ──▶ Ended
//	   └──────────────────────────────▲
//
// Slurm has more states; parseState maps them. Slurm forgets an ended job after some minutes (MinJobAge).
//
// # Failures
//
// A command that fails, or does not end within half a minute, is a *[CommandError] with what it has printed. After such an error of sbatch the job may have been
// accepted all the same: the next list shows it by the name of the job.
package slurm

// Package pools keeps pilot jobs in a batch scheduler, so that a front has nodes while Spaces and calls wait for GPUs, and gives them back
// when nobody uses them.
//
// # Terms
//
//   - A pool is an entry of `pools` in the configuration: how many jobs there may be, and when they are added and given back ([Rules]).
//   - A [Member] is a job of a pool with its node. The node has the name of the pool, a hyphen and the ID of the job.
//   - A node is in service if Spaces may start on it. It is idle if no visitor and no lease uses a Space on it.
//   - The demand is since when a Space or a lease has waited for a machine.
//
// # Types and callers
//
// Package host runs a [Pool] for each entry and implements [Front]. [Decide] is a pure function. Package slurm implements [Scheduler].
//
// # States of a member
//
//	submit ──▶ pending ──▶ starting ──▶ serving ◀──▶ lost
//	              │            │           │           │
//	              │            │        drained        │
//	              │            │           ▼           │
//	              │            │        leaving        │
//	              └── cancel ──┴─ cancel ──┴─ job ends ┴──▶ ending ──▶ (none)
//
// # Rules
//
// In this order:
//
//  1. A job whose agent has not connected in 10 minutes is cancelled. So is one whose node was drained by the pool and is empty.
//  2. Below Min, one job is submitted.
//  3. If the demand is older than Wait, one job is submitted, unless one is pending or starting, or a node in service is empty: a Space that
//     waits could start there.
//  4. There are never more than Max jobs. If Max was lowered, the least used are given back.
//  5. Above Min and without demand, one node that has been idle for Idle is drained. So is a job cancelled that has been pending for Idle.
//
// # Failures
//
// No decision is made while the list of jobs is unknown, so no job is submitted twice: the jobs of an earlier start of the front, and one
// whose submission seemed to fail, are in the list. A failed submission, and a job that ends before its agent has connected, delay the next
// one by growing pauses. [Status] has the cause as a sentence. The end of the front ends no job.
package pools

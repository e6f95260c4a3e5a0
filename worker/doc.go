// Package worker starts the Python process of a Space, exchanges frames with it, and restarts it after an exit.
//
// # Terms
//
//   - The runner is the Space's Python process: the interpreter on app.py with the modules of worker/runner in it.
//   - A start is one run of the runner. Its instance name is unique and names its run folder.
//   - The channel is a socketpair between host and runner. Descriptor 3 is the runner's end.
//   - A Frame is one unit on the channel: two lengths, a JSON header and raw payload bytes.
//   - A report is the header of a Frame from the runner.
//   - A breach is a report that violates the protocol. It ends the Space.
//   - A worker is a process forked from the runner that holds a GPU (package proctree).
//
// # Types and callers
//
//   - Supervisor keeps one Space running. Package internal/host creates it and calls Prepare and Run. Package queue
//     uses it as queue.Runner: Start, Cancel and Gone. Package gradioapi uses Upstream.
//   - Place starts the processes of a Space on one machine, from a Spec. Supervisor calls it, and sees each start as a Start.
//   - Local is the Place of the host's own machine. Package internal/host creates it, and calls Install before each Run.
//   - Process is one start on Local: the runner, the channel and the tree of processes.
//   - Reporter receives what a start reports. session implements it: it translates the reports of the runner to calls of the
//     Queue. Process calls it.
//   - InstallRunner writes the embedded runner to disk. Package internal/host calls it.
//
// # Frames
//
//	host                          runner
//	  |<------------- hello ---------|   first and only once: protocol version, pid, Python version
//	  |-------------- config ------->|   the answer, with a descriptor of memory for stacks: secrets, port and key of the Space, public URL, device port,
//	  |                              |   whether GPUs are simulated, whether workers become subreapers
//	  |                              |
//	  |<------------ manifest -------|   at every Queue.start of Gradio: number, port, endpoints, files, GPU functions
//	  |<------------ unknown --------|   instead of manifest, if the runner does not know this Gradio's internals
//	  |<------------- server --------|   instead of manifest, if the app serves no Gradio (FastAPI alone)
//	  |<------------ changed --------|   Gradio has rebuilt an app's config: the host drops its copy
//	  |<------------ static ---------|   new list of static paths of the process (gr.set_static_paths)
//	  |<------------ closed ---------|   the app has called close(): queued calls wait for its next launch
//	  |                              |
//	  |-------------- start -------->|   a Job: events with their requests and bodies
//	  |<------------- fact ----------|   an observation, if the start is observed (internal/check)
//	  |<------------ calls ----------|   how the app's endpoints can be called, if the host has requested it
//	  |                              |
//	  |<----------- admitted --------|   an event that only the Space could admit (validator, cache)
//	  |<------------ message* -------|   a message of Gradio, byte for byte
//	  |<------------- done ----------|   once per event: the error, the average duration
//	  |<---------- failure ----------|   a known failure: rule, place, values (failures.go)
//	  |-------------- stack -------->|   the start takes too long: report a failure with the main thread's place
//	  |-------------- cancel ------->|   end one event
//	  |-------------- gone --------->|   the client of these events has left
//	  |                              |
//	  |-------------- probe -------->|   is the Space alive? (liveness.go)
//	  |<------------- alive ---------|   two answers: of the thread of the channel, and of the event loop
//	  |-------------- stacks ------->|   write the stacks of all threads to the memory that came with config
//
// A payload may have 320 MiB (docs/design/0021-large-payloads.md). A frame counts only for events that run in this start.
// An event accepts messages until process_completed. It ends with done, which is accepted in both phases:
//
//	     start, or                message
//	admitted (cached)             process_completed             done
//	------------------> running -----------------> completed ----> over
//	                    |  ^  |                                     ^
//	            message +--+  +-------------------- done -----------+
//
// # Stages of a Space
//
//	            Prepare                 manifest, unknown
//	BUILDING -------------> APP_STARTING ----------------> RUNNING
//	                          ^      |                        |
//	                pause, or |      | start fails,           | exit
//	                  Restart |      | exit, startup timeout, |
//	                          |      | error of Started       |
//	                          |      v                        |
//	                         RUNTIME_ERROR <------------------+
//
//	APP_STARTING, RUNNING   Restart                       -> APP_STARTING
//	APP_STARTING, RUNNING   ctx of Run ends               -> STOPPED
//	RUNNING                 no answer to probes           -> UNRESPONSIVE, and RUNNING when it answers again
//	UNRESPONSIVE            no answer for RestartAfter    -> APP_STARTING
//	RUNNING                 closed                        -> RUNNING, without a port
//	RUNNING                 manifest, unknown (relaunch)  -> RUNNING
//	any without a process   NotRunning                    -> the given stage: BUILDING, BUILD_ERROR, RUNTIME_ERROR ...
//
// RUNTIME_ERROR leads to a restart only if the Space has been RUNNING before. Otherwise Run returns a *StartError.
// The pause before a restart doubles from 250 ms to 30 s. It is reset if the start ran for a minute.
//
// # Failure handling
//
//   - The exit of the runner is detected by wait, never by the end of a pipe: a forked worker can keep a pipe open.
//   - After the exit, Process kills the whole tree. Then the Queue fails the events of this start with the reason.
//   - The port of a report belongs to another program: Dial refuses, and the operator reads the cause once per start.
//   - A known failure of the app is shown in one sentence after its traceback (failures.go).
//   - A start that fails and prints what the failed start before has printed: its output is not shown (repeat.go).
//   - Output above 1 MB per second: lines are left out and counted. The tail of the report has the last lines.
//   - No hello within a minute: the start is killed. The interpreter did not load the runner from PYTHONPATH.
//   - A running Space does not answer probes: it is UNRESPONSIVE, its queue pauses, and it starts again without a drain.
//   - The app has closed the descriptors of its process: the runner writes its stacks to memory, and exits.
//   - A breach: the start is killed, and the reason is the breach.
//   - The channel closes while the process runs: the start is killed after a second.
//   - SIGKILL from outside: Process reports a proctree.KilledError with the evidence for the out-of-memory killer.
//   - The host exits: the runner sees the end of the channel, ends its workers and exits.
package worker

package nodessh

// The scripts of sh(1). Each is one line without a backslash (remoteCommand). A line for Add begins with mark, because the startup files of a
// shell may print lines of their own.
const mark = "@spacehost "

// probeScript prints what the machine has. Arguments: the unit, the folder of a running systemd, the program of the unit.
const probeScript = `unit=$1 systemd=$2 packaged=$3; ` +
	`echo "` + mark + `system $(uname -s) $(uname -m)"; ` +
	`echo "` + mark + `name $(uname -n)"; ` +
	`echo "` + mark + `state ${XDG_STATE_HOME:-$HOME/.local/state}"; ` +
	`copy=$HOME/.local/share/spacehost/spacehost; echo "` + mark + `copy $copy"; ` +
	`for at in "$(command -v spacehost)" "$packaged" /usr/local/bin/spacehost "$HOME/.local/bin/spacehost" "$copy"; do ` +
	`if [ -f "$at" ] && [ -x "$at" ]; then echo "` + mark + `program $at $("$at" version --json 2>/dev/null | tr -d "[:cntrl:]")"; fi; done; ` +
	`if [ -d "$systemd" ] && [ -f "$unit" ] && sudo -n true 2>/dev/null; then echo "` + mark + `sudo"; fi`

// copyScript writes stdin to a program and prints its version. Argument: the path.
const copyScript = `set -e; umask 077; mkdir -p "$(dirname "$1")"; new=$1.$$; trap "rm -f $new" EXIT; ` +
	`cat >"$new"; chmod 755 "$new"; version=$("$new" version --json | tr -d "[:cntrl:]"); ` +
	`if [ -z "$version" ]; then echo "the copy does not run on this machine" >&2; exit 1; fi; ` +
	`mv "$new" "$1"; echo "` + mark + `program $1 $version"`

// alreadyRuns is the exit code of the scripts that start an agent if there is one.
const alreadyRuns = 44

// processScript starts an agent in a session of its own and prints its pid. stdin is the token, or empty. Arguments: the state folder, and
// the command line of the agent. The agent holds a lock of the file node/lock (nodeagent).
const processScript = `set -e; state=$1; shift; umask 077; mkdir -p "$state"; cd "$state"; ` +
	`if [ -f node/lock ] && command -v flock >/dev/null && ! flock -n node/lock true; then exit 44; fi; ` +
	`text=$(cat); if [ -n "$text" ]; then echo "$text" >node.token; fi; ` +
	`nohup setsid "$@" >node.log 2>&1 </dev/null & echo $! >node.pid; echo "` + mark + `pid $(cat node.pid)"`

// serviceScript starts the packaged unit. stdin is the token; an empty one leaves an earlier file as it is. Arguments: node.env,
// node.token, and the values of the two variables of node.env.
const serviceScript = `set -e; env=$1 token=$2 join=$3 flags=$4; ` +
	`case "$(systemctl show -p SubState spacehost-node.service)" in SubState=dead|SubState=failed|SubState=auto-restart*) ;; *) exit 44;; esac; ` +
	`text=$(cat); if [ -n "$text" ]; then sudo -n install -o spacehost -g spacehost -m 600 /dev/null "$token"; ` +
	`echo "$text" | sudo -n tee "$token" >/dev/null; fi; ` +
	`if [ -f "$env" ]; then sudo -n cp -p "$env" "$env.old"; fi; ` +
	`{ echo "SPACEHOST_JOIN=$join"; echo "SPACEHOST_NODE_FLAGS=$flags"; } | sudo -n tee "$env" >/dev/null; sudo -n chmod 644 "$env"; ` +
	`sudo -n systemctl enable --quiet spacehost-node.service; sudo -n systemctl restart --no-block spacehost-node.service`

// untilClosed begins a script that loops until stdin is closed, which the end of the connection does. Otherwise the loop would
// outlast it.
const untilClosed = `exec 3<&0; cat <&3 >/dev/null & open=$!; while kill -0 $open 2>/dev/null; do `

// watchProcessScript ends, with a line, when a process has exited. A process that nothing waits for counts as exited. Argument: the pid.
const watchProcessScript = untilClosed +
	`case "$(cat "/proc/$1/stat" 2>/dev/null)" in ""|*") Z "*) echo "` + mark + `exited"; kill $open; break;; esac; sleep 1; done`

// watchServiceScript ends, with a line, when the unit waits for its next start or has failed. It is dead until systemd has begun its start.
const watchServiceScript = `n=0; ` + untilClosed +
	`sub=$(systemctl show -p SubState spacehost-node.service); case "${sub#SubState=}" in ` +
	`auto-restart*|failed) echo "` + mark + `exited"; kill $open; break;; ` +
	`dead) n=$((n+1)); if [ $n -gt 20 ]; then echo "` + mark + `exited"; kill $open; break; fi;; esac; sleep 1; done`

// The scripts that print the end of the agent's log, after a line with a mark. Argument of the first: the state folder.
const (
	processLogScript = `echo "` + mark + `log"; tail -n 12 "$1/node.log"`
	serviceLogScript = `echo "` + mark + `log"; sudo -n journalctl -u spacehost-node.service -n 12 --no-pager -o cat`
)

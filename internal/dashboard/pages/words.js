// All sentences of the console, and how it writes numbers and times.
import { hostNow } from "./clock.js";

const two = (n) => String(n).padStart(2, "0");

// clock writes a duration in seconds as 1:02:03. It rounds up: it never shows 0:00:00 while time is missing.
export function clock(seconds) {
	const s = Math.max(0, Math.ceil(seconds));
	return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

// countdown writes the time until seconds return, as the host does: from 0:00:01 to 24:00:00. It stays 0:00:01 until the reset.
export const countdown = (seconds) => clock(Math.min(86400, Math.max(1, seconds)));

// seconds writes a number of seconds. The host leaves out some figures that are 0.
export const seconds = (n = 0) => (n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " s";
const number = (n) => n.toLocaleString("en");
export const bytes = (n) => (n >= 2 ** 30 ? (n / 2 ** 30).toFixed(1) + " GiB" : (n / 2 ** 20).toFixed(0) + " MiB");
export const size = (n) => (n < 2 ** 20 ? (n / 2 ** 10).toFixed(0) + " KiB" : bytes(n));

// written returns a function that writes a time. Its formatter is made once: toLocaleString makes one for each call, which takes longer than
// the rest of a table's cell.
function written(options) {
	const format = new Intl.DateTimeFormat(undefined, options);
	return (at) => {
		const date = new Date(at);
		return isNaN(date) ? String(date) : format.format(date);
	};
}

export const time = written({ hour: "numeric", minute: "numeric", second: "numeric", hour12: false });
export const moment = written({ hour12: false, dateStyle: "short", timeStyle: "medium" });
export const day = written({ month: "short", day: "numeric" });
export const hour = written({ hour: "2-digit", minute: "2-digit", hour12: false });
const exactHour = written({ hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// duration writes how long something has lasted, such as "3 d 4 h". It rounds down.
export function duration(seconds) {
	const s = Math.max(0, Math.floor(seconds));
	if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
	if (s >= 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
	return s >= 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${s} s`;
}

const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
const relation = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

// relative writes how long ago a time is by the host's clock, or how far ahead: "3 days ago", "in 2 hours".
export function relative(at) {
	const ahead = (Date.parse(at) - hostNow()) / 1000;
	const [unit, size] = units.find(([, size]) => Math.abs(ahead) >= size) ?? [];
	if (unit) return relation.format(Math.round(ahead / size), unit);
	return ahead > 0 ? "in less than a minute" : "just now";
}
export const person = (key) => key.replace(/^user:/, "");

export const words = {
	title: "spacehost",
	titleOf: (page) => `${page} · spacehost`,
	pages: { home: "Home", ledger: "Ledger", spaces: "Spaces", tokens: "Tokens", gpus: "GPUs", nodes: "Nodes", line: "Line", people: "People", usage: "Usage", audit: "Audit", settings: "Settings" },
	skip: "Skip to the content",
	signIn: "Sign in with a token of this host.",
	token: "Token (sph_…)",
	tokenHint: "The operator of this host creates it with “spacehost token create NAME”. This tab keeps it until you close it.",
	enter: "Sign in",
	leave: "Sign out",
	loading: "Loading …",
	retry: "Try again",
	lost: (received, why) => `The connection to the host is lost${why ? ` (${why})` : ""}. Retrying; the page shows the state of ${time(received)}.`,
	unreachable: (why) => `The host does not answer${why ? `: ${why}` : ""}. Retrying …`,
	topics: { spaces: "Spaces", leases: "calls", gpus: "GPUs", people: "people", account: "your account", audit: "the audit log" },
	stale: (topics) => `The host cannot read ${Object.entries(topics).map(([topic, { since, error }]) => `${words.topics[topic] ?? topic} (since ${time(since)}${error ? `: ${error}` : ""})`).join(", ")}. The page shows their last state.`,
	table: "Table",
	rowsShown: (n, all) => `The first ${n} of ${number(all)} rows are shown.`, showAll: (n) => `Show all ${number(n)}`,
	notDrawn: "The chart cannot be drawn: its program did not load.",
	broken: "This page has failed. The console of the browser has the details.",
	ended: "Your token is no longer valid. Sign in again.",

	left: "GPU time left",
	unlimited: "no limit",
	ofBase: (base) => `of ${seconds(base)} in 24 hours`,
	resetsIn: "all of it returns in",
	unused: "The 24 hours begin with the first call.",
	runs: (r) => `${r.remaining} of ${r.limit} GPU calls left`,
	longest: (s) => `One call may take ${seconds(s)} at most.`,
	held: (s) => `${seconds(s)} are reserved by calls that wait or run.`,
	resetsAt: (at) => `at ${moment(at)}`,
	creditsLeft: (s) => `${seconds(s)} of prepaid credits are used after that.`,
	runsLeft: "GPU calls left",
	runsOf: (r) => `of ${r.limit} in any 24 hours${r.enforced ? "" : "; this host does not enforce it"}`,
	runsReserved: (n) => (n === 1 ? "1 call that waits has reserved one." : `${n} are reserved by calls that wait.`),
	runReturns: "the next one returns in",
	tier: "Your tier",
	together: (n) => (n === 1 ? "One of your calls may have a GPU at a time." : `${n} of your calls may have a GPU at a time.`),
	when: "When",
	startsIn: (rank, text) => `number ${rank + 1} in line, starts in ${text} at the latest`,
	startUnknown: (rank) => `number ${rank + 1} in line, the start cannot be predicted`,
	startIsLate: (rank) => `number ${rank + 1} in line, the start is late`,
	endsIn: (text) => `ends in ${text} at the latest`,
	endIsLate: "the end is late",
	refusals: "Your refused calls",
	refusalsNone: "No call was refused since the host started.",
	refusedTimes: (n, at) => (n === 1 ? moment(at) : `${n} times, last ${moment(at)}`),
	refusedBy: (via) => `, called by ${via}`,
	never: "Waiting does not help: declare a shorter duration in the function, or ask the operator of this host for a longer maximum.",
	againFrom: (text, at) => `The call could fit from ${moment(at)}, in ${text}; or ask the operator of this host for a grant.`,
	againNow: "The call fits now: call again.",
	againPerhaps: "The call could fit now: call again.",
	againUnknown: "The call does not fit now: ask the operator of this host for a grant.",
	varies: "varies",
	callsInTurn: (n) => (n >= 1000 ? "1000 or more" : String(n)), // the host counts no further (quota.MostInTurn)
	fits: "Calls that still fit",
	fitNone: "No Space has a GPU function.",
	open: "Your calls now",
	openNone: "None of your calls waits or runs.",
	charges: "Your latest calls",
	chargesNone: "No call yet.",
	advice: "Advice",
	columns: {
		space: "Space", function: "Function", declared: "Declared", used: "Used", charged: "Charged", together: "At the same time", inTurn: "One after another",
		state: "State", at: "At", kind: "Kind", held: "Reserved", returned: "Returned", reason: "Reason", waitsFor: "Waits for", who: "Payer", place: "Place", start: "Starts by", tier: "Tier", priority: "Priority", left: "Ends by", actions: "Actions",
		name: "Name", created: "Created", gpu: "GPU",
	},

	ledgerNone: "Your ledger has no line yet.",
	download: "Download as CSV",
	ledger: {
		filters: "Lines to show", none: "No line matches these filters.", lines: "Lines", more: "Show older lines", all: "Each line that matches is shown.",
		space: "Space", function: "Function", kind: "Kind", any: "all",
		kinds: { hold: "reserved", settle: "settled", grant: "granted", reset: "reset", credit: "credit" },
		declared: "Declared against used", declaredNone: "No call of these functions has ended in this time.",
		key: "Outline: declared. Filled: half of the calls used less; lighter: 98 % used less. Mark: the longest call.",
		bar: (o) => `${o.function} of ${o.space}: declared ${seconds(o.declaredSeconds)}, half of the calls used up to ${seconds(o.medianSeconds)}, 98 % up to ${seconds(o.mostSeconds)}, the longest ${seconds(o.longestSeconds)}`,
		figures: (o) => `${o.calls === 1 ? "1 call" : `${o.calls} calls`}: declared ${seconds(o.declaredSeconds)}, half used up to ${seconds(o.medianSeconds)}, 98 % up to ${seconds(o.mostSeconds)}, the longest ${seconds(o.longestSeconds)}`,
		ended: (n, s) => `${n === 1 ? "1 call was" : `${n} calls were`} ended at the deadline: declare ${s} s.`,
		declare: (s, n) => `Declare ${s} s: all ${n} calls took less, and you queue less.`,
		tight: (s, n) => `Declare ${s} s: 98 % of ${n} calls took less, and you queue less. The longer ones would have been ended.`,
		fine: "The declaration is fine.", few: "Too few calls for an advice.",
		simulated: "The GPUs are simulated: these are seconds of this machine's CPU. Measure on a GPU before you declare less.",
	},
	times: { label: "Time", day: "24 hours", week: "7 days", month: "30 days", all: "all", dates: "dates", from: "First day", to: "Last day" },

	queued: (n) => (n === 1 ? "1 call waits" : `${n} calls wait`),
	openSpace: "Open",
	enterSpace: (name) => `Open as ${name}`,
	restart: "Restart",
	restarted: (name, drain) => `${name} restarts. Running calls may end within ${seconds(drain)}.`,
	spacesNone: "You see no Space of this host.",

	spaces: {
		all: "All Spaces",
		unknown: (name) => `You see no Space “${name}”.`,
		manage: "Manage",
		useApi: "Use by API",
		stages: "Stages",
		stage: (code) => ({
			NO_APP_FILE: "App file missing", CONFIG_ERROR: "README.md is wrong", BUILDING: "Building", BUILD_ERROR: "Build failed", APP_STARTING: "Starting", RUNNING: "Running",
			RUNTIME_ERROR: "Stopped with an error", PAUSED: "Paused", SLEEPING: "Sleeping", UNRESPONSIVE: "Does not answer", STOPPED: "Stopped",
		})[code] ?? code.toLowerCase().replaceAll("_", " "),
		runsOn: (node) => (node === "host" ? "runs on the host" : `runs on ${node}`),
		hardware: (name, sizes) => name + (sizes?.length ? ` (${sizes.join(", ")})` : ""),

		commands: "Commands",
		restartNow: "Restart now",
		rebuild: "Rebuild",
		rebuilding: "The environment is built again. The Space answers meanwhile.",
		notRebuilt: (why) => `The Space was not rebuilt, and continues as it was: ${why}`,
		rebuildLost: "The connection to the host was lost during the build. The list of stages shows whether the Space has restarted.",
		step: (s) => `${s.text}: ${s.state}${s.seconds ? ` after ${seconds(s.seconds)}` : ""}`,
		restartQuestion: "Running calls get time to finish, and the Space does not answer until it has started.",
		restartNowQuestion: "Running calls end at once with an error.",
		rebuildQuestion: "The environment is built again, then the Space restarts.",
		pause: "Pause",
		pauseText: "Running calls get time to finish. Then the Space does not answer until it is resumed.",
		pauseReason: "Reason for the visitors",
		pausedNow: (name, drain) => (drain ? `${name} is paused once its running calls have ended, within ${seconds(drain)} at most.` : `${name} is paused.`),
		pausedBy: (p) => `Paused by ${person(p.by)} at ${moment(p.at)}.`,
		resume: "Resume",
		resumed: (name) => `${name} starts.`,

		usage: "Use of the machine in the last hour",
		usageNone: "Nothing was measured yet.",
		memory: "Memory",
		cpu: "CPU",
		cores: (n) => `${n} cores`,
		processes: "Processes and threads",
		disk: "Disk",
		unmeasured: "not measured yet",
		ofLimit: (limit) => `of ${limit}`,

		restarts: (n) => `${n === 0 ? "No restart" : n === 1 ? "1 restart" : `${n} restarts`} in the last day.`,
		stripLabel: (n) => `The stages of the last day: ${n === 1 ? "1 restart" : `${n} restarts`}. The table below lists them.`,
		changes: (n) => (n === 1 ? "1 change" : `${n} changes`),
		now: "now",
		stagesNone: "No stage was recorded yet.",
		stageColumn: "Stage",
		lasted: "Lasted",
		cause: "Cause",
		causes: {
			crash: "its process ended", memory: "out of memory", limit: "limit exceeded", hung: "did not answer", timeout: "did not launch in time", start: "could not be started",
			refused: "refused by the host", operator: "restarted by an operator", settings: "other settings", node: "other machine", pause: "paused by an operator", host: "host stopped",
		},
		duration: (s) => (s < 60 ? seconds(s) : clock(s)),

		log: "Log",
		logKind: "Kind of log",
		logKinds: { run: "App", build: "Builds" },
		search: "Search in the log",
		stream: "Stream",
		allStreams: "All streams",
		level: "Level",
		allLevels: "All levels",
		levels: { error: "Errors", warning: "Warnings" },
		follow: "Follow",
		older: "Older lines",
		lines: (n) => (n === 1 ? "1 line" : `${n} lines`),
		gap: "Older lines are no longer shown here.",
		logStale: (why) => `New lines cannot be read (${why}). Retrying …`,
		logNone: "Nothing was printed yet.",
		logNoMatch: "No line contains this text.",

		calls: "Call it from a program",
		callsNone: "This Space has no function with a name.",
		callsUnknown: "The functions of this Space are not known: it does not run, or its app has a login or routes of its own.",
		callsToken: "Replace sph_... with a token of yours. Without one, a call is charged to your address.",
		endpoint: "Function",
		language: "Language",
		snippet: "Snippet",
		copy: "Copy",
		copied: "Copied",
	},

	gpuFree: "free",
	gpuWarm: (space) => `free; ${space} keeps a warm worker`,
	gpuHeld: (l) => `${l.space}: ${l.function || "a call"} of ${person(l.identity)}`,
	drained: (d) => `drained${d.until ? ` until ${moment(d.until)}` : ""}: ${d.reason}`,
	planned: (d) => `drained from ${moment(d.from)}${d.until ? ` until ${moment(d.until)}` : ""}: ${d.reason}`,
	cancel: "Cancel the drain",
	drain: "Drain",
	return: "Return",
	drainReason: "Reason for the visitors",
	uninvited: (n) => `${n === 1 ? "1 process uses" : `${n} processes use`} this GPU without a lease`,
	timeline: "Timeline",
	spans: { 600: "10 minutes", 3600: "Hour", 21600: "6 hours", 86400: "Day", 604800: "Week" },
	timelineNone: "No call had a GPU in this time.",
	timelineTick: (at, step) => (step >= 86400e3 ? day : step < 60e3 ? exactHour : hour)(at),
	gpus: {
		none: "This host has no GPU.", gpu: (n) => `GPU ${n}`, instance: "MIG instance", slot: (n) => `slot ${n}:`,
		memory: "Memory", utilization: "Utilization", temperature: "Temperature", power: "Power", unknown: "not reported",
		healthy: "healthy", unreadable: "cannot be read", faulty: "hardware error", drained: "drained", occupied: "used without a lease", simulated: "simulated", noECC: "no memory errors", ecc: (n) => (n === 1 ? "1 memory error" : `${n} memory errors`),
		xid: (e) => `The driver reports Xid ${e.xid}${e.count > 1 ? ` (${e.count} times)` : ""}, last at ${moment(e.at)}: ${e.condemns ? "a hardware error. Check dmesg, then return the GPU." : "an error of the program that used the GPU."}`,
		faults: (all) => `Simulated fault: ${all.join(", ")}`, ofSpace: (name) => `of Space ${name}`, foreign: "of no Space", since: (at) => `since ${at}`, ending: "the host ends it", until: (at) => `until ${at}`,
		drainTitle: (name) => `Drain ${name}`, drainText: "Running calls finish, and no new call gets the GPU. Visitors read the reason.", from: "Begin (empty: now)", untilField: "End (empty: until it is returned)", returned: (name) => `${name} is lent again.`,
		span: "Span of the timeline", move: "Move the timeline", earlier: "Earlier", later: "Later", zoomIn: "Zoom in", zoomOut: "Zoom out", now: "Now",
		plot: (from, to) => (from ? `Timeline of the GPUs from ${moment(from)} to ${moment(to)}` : "Timeline of the GPUs"),
		legend: "Legend: how calls ended",
		kinds: { running: "running", released: "released", failed: "raised an error", deadline: "killed at its deadline", operator: "ended by an operator", drain: "ended with its Space or the host", crash: "crash", cancelled: "cancelled by the visitor", unclaimed: "never started" },
		missed: { timeout: "no GPU within the queue timeout", refused: "refused by the quota (by the minute)" }, missedCalls: "Calls without a GPU",
		keys: "Each bar is a call: filled for the time it used, framed for the time it declared. Drag to move, turn the wheel to zoom, drag with Shift to select a period. Keys: arrows choose a call, + and − zoom, Page Up and Page Down move, End shows now.",
		asTable: "Show as a table", listed: (n, all) => `The latest ${n} of ${all} entries. Zoom in for the others.`,
		calls: (n) => (n === 1 ? "1 call" : `${n} calls`), callsName: "Calls", killed: (n) => (n === 1 ? "1 call was ended by the host" : `${n} calls were ended by the host`),
		busy: (b) => `${seconds(b.busy / 1000)} in ${seconds((b.end - b.start) / 1000)}, ${seconds(b.declared / 1000)} declared`,
		usedOf: (n, declared) => `used ${seconds(n)} of ${seconds(declared)} declared`,
		into: "Click, then zoom in for each call.", zoomTo: "Zoom to these calls", period: "Period", granted: "Granted", ended: "Ended", lease: "Lease", details: "Details", close: "Close", toLine: "Open in the line",
	},

	nodes: {
		intro: "Nodes are other machines whose agents have joined this host. The pages of GPUs, Spaces and the line name the node of each.",
		none: "No node has joined yet.", all: "All nodes", unknown: (name) => `There is no node ${name}.`,
		columns: { node: "Node", gpus: "GPUs", leases: "Leases", spaces: "Spaces", rtt: "Round trip", seen: "Last seen", pool: "Pool", jobs: "Jobs", least: "At least", most: "At most", listed: "Listed", job: "Job", machine: "Machine" },
		states: { joined: "joined", connected: "connected", suspect: "suspect", lost: "lost", revoked: "revoked" },
		milliseconds: (s) => `${(1000 * s).toFixed(1)} ms`, now: "now", never: "never",
		drained: (d) => `drained by ${person(d.by)} ${relative(d.at)}: ${d.reason}`,
		leaves: (text, why) => `leaves in ${text}: ${why}`, left: (why) => `has left: ${why}`,
		drainOne: (name) => `Drain the node ${name}`, drainText: "Its calls and leases finish, and its Spaces start elsewhere if they can. It stays connected.", reason: "Reason for other operators",
		isDrained: (name) => `The node ${name} is drained.`, returnOne: (name) => `Return the node ${name}`, returned: (name) => `The node ${name} is in service again.`,
		revoke: "Revoke", revokeOne: (name) => `Revoke the node ${name}`, revokeQuestion: "Its connection ends at once, and its agent is refused for good.", revoked: (name) => `The node ${name} is revoked.`,
		forget: "Forget", forgetOne: (name) => `Forget the node ${name}`, forgetQuestion: "It is removed from the list. Its agent needs a new token to join again.", forgotten: (name) => `The node ${name} is forgotten.`,
		why: "Can a Space start there?", inService: "Yes: nothing on this node prevents it.",
		labels: "Labels", version: "Agent", address: "Address", connected: "Connected", since: (text) => `for ${text}`, skew: "Clock ahead", seen: "Last seen", joined: "Joined", by: (when, who) => `${when}, token of ${who}`, wasRevoked: "Revoked",
		join: "Add a node", joinHint: "“spacehost node add HOST” installs an agent by ssh. Or create a join token here, write it to a file on the other machine that only its user can read, and run the command there.",
		create: "Create a join token", once: (until) => `Copy the token now: it is shown once. One node may join with it until ${until}.`, token: "Token", command: "Command on the other machine",
		pools: "Pools", jobs: "Jobs", removed: "removed from the configuration", retry: (text) => `The next job is submitted in ${text} at the earliest.`,
		jobStates: { pending: "pending", starting: "starting", serving: "serving", lost: "lost", leaving: "leaving", ending: "ending" },
	},

	waitsFor: (l) => (l.reason === "node" ? "a GPU" : l.limit === "space" ? "another call of its Space" : "another call of its payer"),
	lineNone: "No call waits.",
	runningNone: "No call has a GPU.",
	waiting: "Waiting",
	running: "Running",
	line: {
		maintenance: "State of the GPUs", states: { open: "open", partly: "partly closed", closed: "closed" },
		state: (state, closed, all) => ({ open: all === 1 ? "The GPU is lent." : `All ${all} GPUs are lent.`, partly: `${closed} of ${all} GPUs are drained.`, closed: "No call gets a GPU. Waiting calls read the reason." })[state],
		drainAll: "Drain all GPUs", returnAll: "Return all GPUs", waits: "Waiting time", whole: "whole GPU", via: (space) => `through ${space}`, unknown: "unknown", starts: "starting",
		priorityHint: "Head start for the tier and the score. The call with the earliest effective time goes first.", score: (n) => `score ${n.toFixed(2)}`, share: (n) => `${Math.round(100 * n)} % of the declared time`,
		hint: "Priority: the head start for tier and score, and the effective time, which orders the line. Starts assume that running calls use all their declared time.",
		end: "End …", endOf: (l) => `End the call of ${person(l.identity)}`, endTitle: (l) => `End ${l.function || "the call"} of ${person(l.identity)}?`, endConfirm: "End the call",
		endText: (l) => (l.state === "waiting" ? "The call leaves the line with an error. Nothing is charged." : "Its worker is killed, and the call fails with your reason. Nothing is charged."),
		drainText: (n, closed) => `${n === 1 ? "1 GPU is" : `${n} GPUs are`} drained${closed ? `; ${closed === 1 ? "1 GPU is drained already and stays as it is" : `${closed} GPUs are drained already and stay as they are`}` : ""}. Running calls finish, and no new call gets a GPU. Visitors read the reason.`,
		drainedAll: (n) => (n === 1 ? "1 GPU is drained." : `${n} GPUs are drained.`),
		returnText: (n, kept) => `The drain of ${n === 1 ? "1 GPU" : `${n} GPUs`} ends.${kept.length ? ` Hardware errors keep closed: ${kept.join(", ")}. Return each of them on its card after a check.` : ""}`,
		returnedAll: (n) => (n === 1 ? "1 GPU is lent again." : `${n} GPUs are lent again.`),
		refused: (done, all, refusals) => `${done} of ${all} GPUs were changed. Refused: ${refusals.join("; ")}`,
		ended: (e) => `The call of ${person(e.identity)} in ${e.space} is ended.`,
	},
	peopleNone: "No person is declared. Add one with “spacehost user add NAME”, or in the configuration.",

	changing: {
		cancel: "Cancel", copy: "Copy", copied: "Copied",
		readOnly: "You have signed in with a token that only reads. Sign in with a token of scope “Everything” to make changes.",
	},

	tokens: {
		intro: "A token calls Spaces as you, from any program: gradio_client, @gradio/client or curl.",
		local: "You are the local visitor: calls from this machine need no token. Add a person with “spacehost user add NAME”, and create a token with “spacehost token create NAME”.",
		columns: { label: "Name", scope: "Allows", spaces: "Spaces", expires: "Expires", used: "Last used" },
		unnamed: "without a name",
		current: "this page",
		labelHint: "such as laptop",
		scopes: {
			call: { name: "Calls", text: "Call Spaces, open their pages and sign a browser in at them." },
			read: { name: "Calls and reading", text: "Also read your account and the pages of this console." },
			all: { name: "Everything", text: "Also change what you may change here, such as tokens. It cannot be limited to Spaces." },
		},
		at: (spaces) => `only at ${spaces.join(", ")}`,
		everywhere: "at all Spaces",
		allSpaces: "None is selected: the token is valid at all Spaces, also at future ones.",
		onlyThese: "The token is valid at the selected Spaces only.",
		lives: [[1, "in a day"], [7, "in 7 days"], [30, "in 30 days"], [90, "in 90 days"], [365, "in a year"], [0, "never"]],
		never: "never",
		createdBy: (id) => `by token ${id}`,
		valid: "valid",
		declared: "valid, from the configuration",
		revoked: (when) => `revoked ${when}`,
		expired: "expired",
		none: "No valid token.",
		ended: (n) => (n === 1 ? "1 ended token" : `${n} ended tokens`),
		create: "Create a token",
		revoke: "Revoke",
		revokeOne: (name) => `Revoke ${name}`,
		revokeQuestion: "Calls and pages with it end at once.",
		revokeCurrent: "It is the token of this page: you will be signed out.",
		cannotRevoke: "in the configuration file",
		declaredHint: "The configuration file of this host declares some tokens. They are removed there; an admin can revoke them at once.",
		declaredAdmin: "The configuration file declares some tokens. A revoked one stays revoked, even if the file still lists it.",
		made: (name) => `Your new token ${name}`,
		once: "Copy it now: the host keeps only its hash and cannot show it again.",
		saved: "I have saved it",
		python: (url, token) => `Client("${url}", headers={"Authorization": "Bearer ${token}"})`,
		javascript: (url, token) => `await Client.connect("${url}", { headers: { Authorization: "Bearer ${token}" } })`,
		curl: (url, token) => `curl -H "Authorization: Bearer ${token}" ${url}`,
		curlCall: (url, token) => `curl -H "Authorization: Bearer ${token}" ${url.replace(/\/$/, "")}/gradio_api/info`,
	},

	people: {
		all: "All people",
		unknown: (name) => `This host has no person ${name}.`,
		filter: "Filter by name, tier or group",
		noMatch: "No person matches.",
		removed: (n) => (n === 1 ? "1 removed person" : `${n} removed people`),
		admin: "admin",
		sources: {
			operator: { name: "added here", why: "" },
			config: { name: "configuration", why: "The configuration file declares this person. Change the tier, the overrides and the tokens there, and reload it. Seconds can be granted here." },
			former: { name: "removed", why: "This person was removed and has no valid token. The account stays in the ledger, and belongs to the person again once the name is added." },
		},
		left: "Left",
		day: "Last 24 h",
		week: "Last 7 days",
		tokens: "Tokens",
		seen: "Last seen",
		never: "never",
		unused: "unused",
		overridden: "with overrides",
		calls: (n) => (n === 1 ? "1 call" : `${n} calls`),
		leftOf: (left, base) => `${seconds(left)} of ${seconds(base)} left`,
		add: "Add a person",
		added: (name) => `${name} is added and has no token yet.`,
		open: (name) => `Open ${name}`,
		nameRule: "1 to 64 of a-z, 0-9, “.”, “_” and “-”, beginning with a letter or a digit",
		since: (when, by) => `Since ${when}, by ${by}.`,
		private: (spaces) => `Private Spaces: ${spaces.join(", ")}.`,
		account: "Account",
		resets: "All returns at",
		granted: "Granted",
		credits: "Prepaid",
		runs: "Runs",
		kind: "Give",
		kinds: {
			grant: { name: "Grant seconds", unit: "Seconds", amount: (name) => `Seconds to grant: ${name}`, said: (name, n) => `${name} has ${seconds(n)} more until the reset.` },
			credit: { name: "Add credits", unit: "Seconds", amount: (name) => `Seconds of credits to add: ${name}`, said: (name, n) => `${name} has ${seconds(n)} more prepaid.` },
			runs: { name: "Grant runs", unit: "Runs", amount: (name) => `Runs to grant: ${name}`, said: (name, n) => `${name} has ${n === 1 ? "1 run" : n + " runs"} more.` },
		},
		reset: "Reset the account",
		resetOne: (name) => `Reset the account of ${name}`,
		resetQuestion: "All used seconds of these 24 hours return.",
		wasReset: (name) => `The account of ${name} is reset.`,
		allowance: "Tier and overrides",
		overrides: { quotaSeconds: "Seconds in 24 hours", longestSeconds: "Longest call in seconds", runs: "Runs in 24 hours", priority: "Priority, 0 to 100", concurrency: "Calls at a time" },
		ofTier: (value) => `tier: ${value}`,
		noLimit: "no limit",
		empty: "An empty field uses the value of the tier. 0 runs or calls at a time mean no limit.",
		save: "Save",
		remove: "Remove this person",
		removeHint: "All tokens are revoked for good, and pages and calls with them end at once. The ledger stays.",
		removeOne: (name) => `Remove this person: ${name}`,
		removeQuestion: (name) => `Remove ${name} and revoke all tokens?`,
	},

	usage: {
		by: "Rows", dimensions: { person: "person", space: "Space", function: "function", tier: "tier", group: "group" },
		figure: "Figure of the chart",
		figures: { usedSeconds: "Used seconds", chargedSeconds: "Charged seconds", declaredSeconds: "Declared seconds", calls: "Calls", refusals: "Refused calls", kills: "Killed workers" },
		headings: { person: "Payer", space: "Space", function: "Function", tier: "Tier", group: "Group" },
		calls: "Calls", refused: "Refused", killed: "Killed", ofDeclared: "Used of declared", share: "Share",
		total: "Total", others: (n) => (n === 1 ? "1 other" : `${n} others`), unknown: "unknown", noGroup: "no group",
		none: "No call has ended, and none was refused, in this time.",
		note: "A call counts at its end. Used: seconds on a GPU. Charged: seconds of the quota, twice as many for xlarge. Killed: the host ended the worker at its deadline, for a drain or by command.",
		chart: (figure, by, top) => `Bars of ${figure.toLowerCase()} over time by ${by}${top ? `; most: ${top}` : ""}. The table below has the sums.`,
		over: (at, rows) => `${at}: ${rows.length ? rows.map(([name, text]) => `${name} ${text}`).join(", ") : "nothing"}`,
		hover: "Point at a bar to read its figures.",
	},

	audit: {
		intro: "Changes by operators and people, including refused ones. No entry contains a token.",
		columns: { actor: "Who", origin: "From", action: "Action", object: "On", values: "Values", result: "Result" },
		origin: { cli: "command line", console: "console", host: "host", node: "node" },
		token: (id) => `token ${id}`,
		origins: [["", "everywhere"], ["cli", "command line"], ["console", "console"], ["host", "host (reloads)"], ["node", "node (joins)"]],
		results: [["", "all"], ["no", "done"], ["yes", "refused"]],
		period: "Period",
		periods: [[1, "24 hours"], [7, "7 days"], [30, "30 days"], [0, "all"]],
		filter: "Filter",
		filterHint: "Person, action, object or value",
		done: "done",
		refused: (status) => `refused (${status})`,
		count: (shown, all) => (shown === all ? (all === 1 ? "1 entry" : `${all} entries`) : `${shown} of ${all} entries`),
		more: (limit) => `The latest ${limit} are shown; choose a shorter period for older ones.`,
		none: "Nothing was changed in this period.",
		noMatch: "No entry matches the filters.",
	},

	settings: {
		version: "Version", release: "Release", commit: "Commit", built: "Committed",
		process: "Process", runs: "Runs for", started: "Started", command: "Command", user: "User", pid: "Process id", at: (user, machine) => (machine ? `${user} on ${machine}` : user),
		state: "State folder", folder: "Folder", free: "Free on its disk", database: "Database", measure: "Measure its folders", measureAgain: "Measure again", measuring: "Measuring. Large folders take a while.", total: (size) => `${size} in total`,
		reload: "Reload of the configuration", file: "File", inForce: "in force", inFile: "in the file", same: "The file contains what is in force. A reload would change nothing.",
		noFile: "“spacehost run” has no configuration file. Its settings are flags, which a new start can change.",
		effects: { "at once": "takes effect at once", restart: "restarts the Space", host: "needs a restart of the host" },
		failed: (f) => `${f.space}: ${f.reason}. ${f.kept ? "It keeps its former files." : "It is added, and tried again."}`,
		apply: "Apply", applying: "Applying …", readAgain: "Read the file again",
		reloaded: (a) => `Configuration ${a.digest} is in force, changes: ${a.changes.length}.${a.failed.length ? ` Not reloaded: ${a.failed.map((f) => f.space).join(", ")}.` : ""}`,
		configuration: "Configuration in force", filter: "Filter by key, value, Space or person", nothing: "No key matches.", keys: (n) => (n === 1 ? "1 key" : `${n} keys`),
		subjects: { host: "Host", tier: "Tier", person: "Person", webhook: "Webhook", space: "Space" }, key: "Key", value: "Value", hidden: "set, not shown", unset: "not set",
		machine: "Checks of the machine", machineHint: "The checks of “spacehost doctor”. They change nothing and take some seconds.", check: "Check the machine", checking: "Checking …",
		levels: { ok: "✓ ok", note: "· note", warning: "! warning", problem: "✗ problem" },
		found: (all, at) => {
			const count = (level) => all.filter((f) => f.level === level).length;
			const several = (level) => `${count(level)} ${level}${count(level) === 1 ? "" : "s"}`;
			return `${time(at)}: ${count("ok")} ok, ${several("note")}, ${several("warning")}, ${several("problem")}`;
		},
	},
};

// The nodes of a front: other machines that lend their GPUs, one of them as a page of its own, and the pools whose jobs become nodes.
import { html, useEffect, useState } from "./vendor/htm-preact-3.1.1.js";
import { Ask } from "./ask.js";
import { Act, Confirm, Copied, ReadOnly, Refused, Two, useChange } from "./changing.js";
import { Facts, Failure, Loading, Reading, Table, useNow, usePeriod, useRead } from "./parts.js";
import { request } from "./session.js";
import { clock, duration, moment, person, relative, words } from "./words.js";

const w = words.nodes;

// EVERY is the time between two reads, in milliseconds. Connections change without a commit to the database, so no event reports them.
const EVERY = 5000;

export function Nodes({ data, detail, may, act }) {
	const [changes, changed] = useState(0);
	const count = usePeriod(EVERY) + changes;
	const nodes = useLast(useRead("admin/nodes", [count]));
	const pools = useLast(useRead("admin/pools", [count]));
	const change = async (...of) => {
		const answer = await act(...of);
		changed((n) => n + 1);
		return answer;
	};
	const parts = { data, may, act: change };
	return html`
		<${ReadOnly} may=${may} />
		<${Last} of=${nodes} show=${(all) => (detail ? html`<${Detail} key=${detail} name=${detail} node=${all.find((n) => n.name === detail)} count=${count} ...${parts} />` : html`<${All} nodes=${all} ...${parts} />`)} />
		${!detail && may && html`<${Join} />`}
		${!detail && html`<${Last} of=${pools} show=${(all) => html`<${Pools} pools=${all} />`} />`}
	`;
}

// useLast keeps the value of a useRead when a later read fails.
function useLast(read) {
	const [last, keep] = useState();
	useEffect(() => void (read.value !== undefined && keep(read.value)), [read.value]);
	return { ...read, value: read.value ?? last };
}

// Last shows a result of useLast, with the error above the value.
const Last = ({ of, show }) => html`<div>${of.error && html`<${Failure} ...${of} />`}${of.value !== undefined ? show(of.value) : of.error ? "" : html`<${Loading} />`}</div>`;

const linkOf = (name) => html`<a href=${"#nodes/" + encodeURIComponent(name)}><bdi>${name}</bdi></a>`;
const spacesOn = (data, name) => (data.spaces ?? []).filter((s) => s.node === name);
const SpaceLinks = ({ of }) => of.map((s, i) => html`${i > 0 && ", "}<a href=${"#spaces/" + encodeURIComponent(s.name)}><bdi>${s.name}</bdi></a>`);

function All({ nodes, data, may, act }) {
	const now = useNow();
	const actions = may ? [[words.columns.actions, (n) => html`<${Switch} node=${n} act=${act} />`]] : [];
	return html`<div>
		<p>${w.intro}</p>
		<${Table} none=${w.none} rows=${nodes} columns=${[
			[w.columns.node, (n) => html`<${Two} first=${linkOf(n.name)} second=${n.labels.length > 0 && html`<bdi>${n.labels.join(", ")}</bdi>`} />`],
			[words.columns.state, (n) => html`<${State} node=${n} now=${now} />`],
			[w.columns.gpus, (n) => n.gpus, "number"],
			[w.columns.leases, (n) => n.leases, "number"],
			[w.columns.spaces, (n) => html`<${SpaceLinks} of=${spacesOn(data, n.name)} />`],
			[w.columns.rtt, (n) => (n.rttSeconds ? w.milliseconds(n.rttSeconds) : ""), "number"],
			[w.columns.seen, (n) => (n.connectedAt ? w.now : n.seenAt ? html`<time datetime=${n.seenAt} title=${moment(n.seenAt)}>${relative(n.seenAt)}</time>` : w.never)],
			...actions,
		]} />
	</div>`;
}

// badge returns the colour of a node's state.
const badge = (n) => ({ connected: n.drained || n.leaves?.draining ? "warn" : "good", suspect: "warn", lost: "bad", revoked: "bad" })[n.state] ?? "";

// State shows whether a node is connected, why it is out of service, and when it leaves.
function State({ node, now }) {
	const left = node.leaves && (Date.parse(node.leaves.at) - now) / 1000;
	return html`<div><span class=${"badge " + badge(node)}>${w.states[node.state] ?? node.state}</span>
		${node.drained && html`<br /><small>${w.drained(node.drained)}</small>`}
		${node.leaves && html`<br /><small>${left > 0 ? w.leaves(clock(left), node.leaves.why) : w.left(node.leaves.why)}</small>`}
	</div>`;
}

// Switch drains a node, or puts it back into service.
function Switch({ node, act }) {
	const at = "/nodes/" + encodeURIComponent(node.name);
	if (node.revokedAt) return "";
	if (node.drained) return html`<${Act} class="plain" aria-label=${w.returnOne(node.name)} run=${() => act(at + "/return", {}, (n) => w.returned(n.name))}>${words.return}<//>`;
	return html`<${Ask} open=${words.drain} label=${w.drainOne(node.name)} title=${w.drainOne(node.name)} text=${w.drainText} fields=${[["reason", w.reason, { maxlength: 200 }]]} confirm=${words.drain}
		act=${({ reason }) => act(at + "/drain", { reason }, (n) => w.isDrained(n.name))} />`;
}

// Detail shows one node: what keeps it from service, its facts, and the commands that end it.
function Detail({ name, node, data, count, may, act }) {
	const why = useRead(node ? `admin/nodes/${encodeURIComponent(name)}/explain` : "", [count]);
	const now = useNow();
	if (!node) return html`<p role="alert">${w.unknown(name)} <a href="#nodes">${w.all}</a></p>`;
	const at = "/nodes/" + encodeURIComponent(name);
	const forget = async () => {
		const turned = new Promise((done) => addEventListener("hashchange", done, { once: true }));
		location.hash = "nodes";
		await turned; // a new page begins without a notice
		await act(() => request("api/spacehost/admin" + at, undefined, "DELETE"), undefined, () => w.forgotten(name));
	};
	return html`<div>
		<p><a href="#nodes">← ${w.all}</a></p>
		<section class="card">
			<h2><bdi>${name}</bdi></h2>
			<${State} node=${node} now=${now} />
			<${Facts} of=${factsOf(node, now, spacesOn(data, name))} />
			${may && html`<div class="actions">
				<${Switch} node=${node} act=${act} />
				${!node.revokedAt && html`<${Confirm} name=${w.revoke} label=${w.revokeOne(name)} question=${w.revokeQuestion} yes=${w.revoke} run=${() => act(at + "/revoke", {}, (n) => w.revoked(n.name))} />`}
				<${Confirm} name=${w.forget} label=${w.forgetOne(name)} question=${w.forgetQuestion} yes=${w.forget} run=${forget} />
			</div>`}
		</section>
		<h2>${w.why}</h2>
		<${Reading} of=${why} show=${(e) => html`<div>
			${e.reasons.length === 0 ? html`<p>${w.inService}</p>` : html`<ul>${e.reasons.map((text) => html`<li class="reason">${text}</li>`)}</ul>`}
			${e.notes.length > 0 && html`<ul>${e.notes.map((text) => html`<li>${text}</li>`)}</ul>`}
		</div>`} />
	</div>`;
}

function factsOf(n, now, spaces) {
	return [
		[w.columns.gpus, n.gpus],
		[w.columns.leases, n.leases],
		[w.columns.spaces, spaces.length > 0 && html`<${SpaceLinks} of=${spaces} />`],
		[w.labels, n.labels.length > 0 && html`<bdi>${n.labels.join(", ")}</bdi>`],
		[w.version, n.version && html`<bdi>${n.version}</bdi>`],
		[w.address, n.address && html`<code>${n.address}</code>`],
		[w.connected, n.connectedAt && w.since(duration((now - Date.parse(n.connectedAt)) / 1000))],
		[w.columns.rtt, n.rttSeconds ? w.milliseconds(n.rttSeconds) : ""],
		[w.skew, n.skewSeconds ? w.milliseconds(n.skewSeconds) : ""],
		[w.seen, n.seenAt && moment(n.seenAt)],
		[w.joined, w.by(moment(n.joinedAt), person(n.joinedBy))],
		[w.wasRevoked, n.revokedAt && moment(n.revokedAt)],
	];
}

// Join creates a join token for one node, and shows the command with it. The token is in a file there: a command line is visible to all
// users of a machine.
function Join() {
	const change = useChange();
	const [token, show] = useState();
	const create = async () => {
		const made = await change.send("POST", "admin/nodes/token", {});
		if (made) show(made);
	};
	return html`<section class="card"><h2>${w.join}</h2>
		<p>${w.joinHint}</p>
		<p class="actions"><${Act} class="plain" run=${create}>${w.create}<//></p>
		<${Refused} of=${change} />
		${token && html`<div role="status"><p>${w.once(moment(token.expiresAt))}</p><${Copied} title=${w.token} text=${token.token} /><${Copied} title=${w.command} text=${`spacehost agent --join ${token.front} --token-file FILE`} /></div>`}
	</section>`;
}

function Pools({ pools }) {
	const now = useNow();
	if (pools.length === 0) return html`<div></div>`;
	const jobs = pools.flatMap((p) => p.jobs.map((job) => ({ ...job, pool: p.name })));
	return html`<div>
		<h2>${w.pools}</h2>
		<${Table} caption=${w.pools} rows=${pools} columns=${[
			[w.columns.pool, (p) => html`<${Two} first=${html`<bdi>${p.name}</bdi>`} second=${p.removed && w.removed} />`],
			[w.columns.jobs, (p) => p.jobs.length, "number"],
			[w.columns.least, (p) => p.min, "number"],
			[w.columns.most, (p) => p.max, "number"],
			[w.columns.listed, (p) => (p.listedAt ? html`<time datetime=${p.listedAt} title=${moment(p.listedAt)}>${relative(p.listedAt)}</time>` : w.never)],
		]} />
		${pools.filter((p) => p.trouble).map((p) => html`<p key=${p.name} class="reason"><bdi>${p.name}</bdi>: ${p.trouble}${p.retryAt && Date.parse(p.retryAt) > now && " " + w.retry(clock((Date.parse(p.retryAt) - now) / 1000))}</p>`)}
		${jobs.length > 0 && html`<${Table} caption=${w.jobs} rows=${jobs} columns=${[
			[w.columns.job, (j) => html`<${Two} first=${html`<code>${j.id}</code>`} second=${html`<bdi>${j.pool}</bdi>`} />`],
			[words.columns.state, (j) => html`<${Two} first=${w.jobStates[j.state] ?? j.state} second=${relative(j.since)} />`],
			[w.columns.machine, (j) => html`<bdi>${j.machine ?? ""}</bdi>`],
			[w.columns.node, (j) => (j.node ? linkOf(j.node) : "")],
			[words.columns.reason, (j) => html`<bdi>${j.reason ?? ""}</bdi>`],
		]} />`}
	</div>`;
}

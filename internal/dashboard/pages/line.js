// The line: the calls that wait, those that have a GPU, and whether the GPUs are open.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Ask, Question, drainFields, drainRequest } from "./ask.js";
import { ReadOnly, Two, useBusy } from "./changing.js";
import { Loading, Meter, Table, useNow } from "./parts.js";
import { request } from "./session.js";
import { clock, person, seconds, time, words } from "./words.js";

export function Line({ data, may, act }) {
	const now = useNow();
	const [ending, setEnding] = useState(null); // the lease of the dialog, which stays open while the lease moves from one table to the other
	const dialog = useRef(null);
	const [busy, once] = useBusy();
	useEffect(() => void dialog.current?.showModal(), [ending?.lease]);
	if (!data.leases || !data.gpus) return html`<${Loading} />`;
	const c = words.columns;
	const w = words.line;
	const waiting = data.leases.open.filter((l) => l.state === "waiting").sort((a, b) => a.rank - b.rank);
	const running = data.leases.open.filter((l) => l.state !== "waiting");
	const left = (at) => clock((Date.parse(at) - now) / 1000);
	const end = (l) => html`<button class="plain" aria-label=${w.endOf(l)} disabled=${busy} onClick=${() => setEnding(l)}>${w.end}</button>`;
	const actions = may ? [[c.actions, end]] : [];
	const asked = data.leases.open.find((l) => l.lease === ending?.lease) ?? ending;
	return html`
		<${ReadOnly} may=${may} />
		<${Maintenance} gpus=${data.gpus} may=${may} act=${act} />
		<h2>${words.waiting} <span class="soft">${waiting.length || ""}</span></h2>
		<${Table} none=${words.lineNone} rows=${waiting} columns=${[
			[c.place, (l) => l.rank + 1, "number"],
			[c.who, (l) => html`<span>${person(l.identity)} <span class="soft">${l.tier}</span></span>`],
			[c.space, (l) => html`<span>${l.space}${l.via && html` <small class="soft">${w.via(l.via)}</small>`}</span>`],
			[c.function, (l) => l.function],
			[c.declared, (l) => html`<span>${seconds(l.declaredSeconds)}${l.size === "xlarge" ? html` <small class="soft">${w.whole}</small>` : ""}</span>`, "number"],
			[w.waits, (l) => clock((now - Date.parse(l.admitted)) / 1000), "number"],
			[c.priority, (l) => html`<${Two} first=${html`<span title=${w.priorityHint}>+${seconds(l.headStartSeconds)}</span>`} second=${`${w.score(l.score)}, ${time(l.effectiveTime)}`} />`],
			[c.waitsFor, words.waitsFor],
			[c.start, (l) => (l.earliestStart ? html`<${Two} first=${time(l.earliestStart)} second=${left(l.earliestStart)} />` : html`<span class="soft">${w.unknown}</span>`)],
			...actions,
		]} />
		<p class="soft">${w.hint}</p>
		<h2>${words.running} <span class="soft">${running.length || ""}</span></h2>
		<${Table} none=${words.runningNone} rows=${running} columns=${[
			[c.gpu, (l) => gpuOf(l, data.gpus)],
			[c.who, (l) => html`<span>${person(l.identity)} <span class="soft">${l.tier}</span></span>`],
			[c.space, (l) => l.space],
			[c.function, (l) => l.function],
			[c.state, (l) => l.state],
			[c.declared, (l) => seconds(l.declaredSeconds), "number"],
			[c.used, (l) => (l.active ? html`<div>${seconds(Math.max(0, now - Date.parse(l.active)) / 1000)}<${Meter} share=${(now - Date.parse(l.active)) / 1000 / l.declaredSeconds} label=${w.share((now - Date.parse(l.active)) / 1000 / l.declaredSeconds)} /></div>` : html`<span class="soft">${w.starts}</span>`), "number"],
			[c.left, (l) => (l.deadline ? html`<${Two} first=${time(l.deadline)} second=${left(l.deadline)} />` : "")],
			...actions,
		]} />
		${asked && html`<${Question} key=${asked.lease} dialog=${dialog} title=${w.endTitle(asked)} text=${w.endText(asked)} fields=${[["reason", words.drainReason, { maxlength: 200 }]]} confirm=${w.endConfirm} danger=${true}
			closed=${() => setEnding(null)} act=${({ reason }) => once(() => act("/lease/end", { lease: asked.lease, reason }, (ended) => w.ended(ended)))} />`}
	`;
}

// gpuOf names the GPU of a lease.
function gpuOf(lease, gpus) {
	const gpu = gpus.find((g) => g.uuid === lease.device);
	const name = gpu ? (gpu.uuid.startsWith("MIG-") ? `MIG ${lease.slot}` : `GPU ${gpu.index}`) : lease.slot;
	return lease.node ? `${lease.node} ${name}` : name;
}

const nameOf = (gpu) => (gpu.node ? gpu.node + " " : "") + (gpu.uuid.startsWith("MIG-") ? gpu.uuid : words.gpus.gpu(gpu.index));

// isFaulty reports whether the host itself keeps a GPU closed, for a hardware error. A drain of an operator may hide that of the host, and
// a return would end both.
const isFaulty = (gpu) => Boolean(gpu.drained && !gpu.drained.operator) || Boolean(gpu.driverErrors?.some((e) => e.condemns));

// choose returns the GPUs that a drain of all drains, those that a return of all returns, and those that it leaves closed.
export function choose(gpus) {
	const closed = gpus.filter((g) => g.drained || g.planned);
	return { drain: gpus.filter((g) => !g.drained), return: closed.filter((g) => !isFaulty(g)), keep: closed.filter(isFaulty) };
}

// sendEach sends a change for each GPU, also after a refusal, and fails with all refusals.
export async function sendEach(gpus, send) {
	const refusals = [];
	for (const gpu of gpus) await send(gpu).catch((error) => refusals.push(`${nameOf(gpu)}: ${error.message}`));
	if (refusals.length > 0) throw new Error(words.line.refused(gpus.length - refusals.length, gpus.length, refusals));
	return gpus;
}

// Maintenance shows whether the GPUs are lent, and drains or returns all of them.
function Maintenance({ gpus, may, act }) {
	const w = words.line;
	const all = gpus.filter((g) => g.uuid);
	const closed = all.filter((g) => g.drained);
	const planned = all.filter((g) => g.planned);
	const chosen = choose(all);
	const state = closed.length === 0 ? "open" : closed.length < all.length ? "partly" : "closed";
	const each = (of, path, body, said) => act(() => sendEach(of, (gpu) => request("api/spacehost/admin" + path, { uuid: gpu.uuid, ...body })), undefined, (sent) => said(sent.length));
	return html`<section class="card maintenance" aria-label=${w.maintenance}>
		<p><span class=${"badge " + { open: "good", partly: "warn", closed: "bad" }[state]}>${w.states[state]}</span> ${w.state(state, closed.length, all.length)}</p>
		${[...new Set(closed.map((g) => words.drained(g.drained)))].map((text) => html`<p class="reason">${text}</p>`)}
		${[...new Set(planned.map((g) => words.planned(g.planned)))].map((text) => html`<p class="reason">${text}</p>`)}
		${may && html`<div class="actions">
			${chosen.drain.length > 0 && html`<${Ask} open=${w.drainAll} title=${w.drainAll} text=${w.drainText(chosen.drain.length, closed.length)} fields=${drainFields()} confirm=${w.drainAll} act=${(values) => each(chosen.drain, "/gpu/drain", drainRequest(values), w.drainedAll)} />`}
			${chosen.return.length > 0 && html`<${Ask} open=${w.returnAll} title=${w.returnAll} text=${w.returnText(chosen.return.length, chosen.keep.map(nameOf))} confirm=${w.returnAll} act=${() => each(chosen.return, "/gpu/return", {}, w.returnedAll)} />`}
		</div>`}
	</section>`;
}

import { html } from "./vendor/htm-preact-3.1.1.js";
import { Loading, Meter, Table, useNow } from "./parts.js";
import { clock, countdown, moment, seconds, words } from "./words.js";

const c = words.columns;

export function Home({ data }) {
	const a = data.account?.account;
	const now = useNow();
	if (!a) return html`<${Loading} />`;
	const until = (at) => countdown((Date.parse(at) - now) / 1000);
	return html`
		${a.maintenance && html`<p class="reason" role="status">${a.maintenance}.</p>`}
		<section class="cards">
			<${Left} a=${a} until=${until} />
			${a.runs && html`<${Runs} runs=${a.runs} until=${until} />`}
			<article class="card">
				<h2>${words.tier}</h2>
				<p class="figure">${a.tier}</p>
				<p>${words.longest(a.longestSeconds)}</p>
				${a.concurrency > 0 && html`<p>${words.together(a.concurrency)}</p>`}
			</article>
		</section>
		<h2>${words.open}</h2>
		<${Table} none=${words.openNone} rows=${a.open} columns=${[
			[c.space, (o) => o.space],
			[c.function, (o) => o.function],
			[c.state, (o) => o.state],
			[c.held, (o) => seconds(o.heldSeconds), "number"],
			[words.when, (o) => when(o, now)],
		]} />
		<h2>${words.refusals}</h2>
		<${Refusals} all=${data.account.refusals ?? []} a=${a} now=${now} />
		<h2>${words.fits}</h2>
		<${Table} none=${words.fitNone} rows=${a.functions.map((f) => ({ ...f, id: f.space + " " + f.function + " " + f.size }))} columns=${[
			[c.space, (f) => f.space],
			[c.function, (f) => f.function],
			[c.declared, (f) => (f.declaredSeconds ? seconds(f.declaredSeconds) : words.varies), "number"],
			[c.together, (f) => f.calls ?? (a.unlimited ? words.unlimited : ""), "number"],
			[c.inTurn, (f) => (f.callsInTurn === null ? "" : words.callsInTurn(f.callsInTurn)), "number"],
		]} />
		${a.advice.some((one) => one.declareSeconds) && html`<h2>${words.advice}</h2><ul>${a.advice.filter((one) => one.declareSeconds).map((one) => html`<li>${one.space}: ${one.text}.</li>`)}</ul>`}
		<h2>${words.charges}</h2>
		<${Table} none=${words.chargesNone} rows=${a.charges} columns=${[
			[c.at, (o) => moment(o.at)],
			[c.space, (o) => o.space],
			[c.function, (o) => o.function],
			[c.declared, (o) => seconds(o.declaredSeconds), "number"],
			[c.used, (o) => seconds(o.usedSeconds), "number"],
			[c.charged, (o) => seconds(o.chargedSeconds), "number"],
			[c.reason, (o) => o.reason],
		]} />
	`;
}

function Left({ a, until }) {
	const share = a.baseSeconds > 0 ? a.leftSeconds / a.baseSeconds : 0;
	return html`<article class="card">
		<h2>${words.left}</h2>
		<p class="figure">${a.unlimited ? words.unlimited : seconds(a.leftSeconds)}</p>
		${!a.unlimited && html`
			<${Meter} share=${share} label=${`${Math.round(100 * share)} %`} />
			<p>${words.ofBase(a.baseSeconds)}</p>
			<p>${a.resetsAt ? html`${words.resetsIn} <time class="countdown" datetime=${a.resetsAt}>${until(a.resetsAt)}</time>, <small>${words.resetsAt(a.resetsAt)}</small>` : words.unused}</p>
		`}
		${a.creditSeconds > 0 && html`<p>${words.creditsLeft(a.creditSeconds)}</p>`}
		${a.heldSeconds > 0 && html`<p>${words.held(a.heldSeconds)}</p>`}
	</article>`;
}

function Runs({ runs, until }) {
	return html`<article class="card">
		<h2>${words.runsLeft}</h2>
		<p class="figure">${runs.remaining}</p>
		<${Meter} share=${runs.limit > 0 ? runs.remaining / runs.limit : 0} label=${words.runs(runs)} />
		<p>${words.runsOf(runs)}</p>
		${runs.reserved > 0 && html`<p>${words.runsReserved(runs.reserved)}</p>`}
		${runs.resetsAt && html`<p>${words.runReturns} <time class="countdown" datetime=${runs.resetsAt}>${until(runs.resetsAt)}</time>, <small>${words.resetsAt(runs.resetsAt)}</small></p>`}
	</article>`;
}

// when describes the start of a waiting call, or the end of a running one. Unlike a reset, they can be late.
export function when(open, now) {
	const left = (Date.parse(open.deadline ?? open.earliestStart) - now) / 1000;
	if (open.deadline) return left > 0 ? words.endsIn(clock(left)) : words.endIsLate;
	if (open.rank === undefined) return "";
	if (!open.earliestStart) return words.startUnknown(open.rank);
	return left > 0 ? words.startsIn(open.rank, clock(left)) : words.startIsLate(open.rank);
}

// remedyOf describes what to do after a refusal, by the account of now: it may have been used or granted more meanwhile. What a call
// through another Space may use is not in the account.
export function remedyOf(r, a, now) {
	if (!r.again) return words.never;
	const isShort = !a.unlimited && r.requestedSeconds > a.leftSeconds + (r.via ? 0 : a.creditSeconds);
	const noRun = Boolean(a.runs?.enforced) && a.runs.remaining <= 0;
	if (!isShort && !noRun && !r.via) return words.againNow;
	const again = Date.parse(r.again);
	const at = again > now ? again : Math.max(...[isShort && a.resetsAt, noRun && a.runs.resetsAt].filter(Boolean).map((at) => Date.parse(at)));
	if (at > now) return words.againFrom(clock((at - now) / 1000), at);
	return isShort || noRun ? words.againUnknown : words.againPerhaps;
}

// Refusals shows why calls were refused, and what to do. Equal ones are one.
function Refusals({ all, a, now }) {
	if (all.length === 0) return html`<p class="none">${words.refusalsNone}</p>`;
	const groups = new Map();
	for (const r of all) {
		const key = JSON.stringify([r.space, r.function, r.via, r.text]);
		if (groups.has(key)) groups.get(key).times++;
		else groups.set(key, { ...r, times: 1 }); // the newest comes first
	}
	return html`<ul class="refusals">${[...groups.values()].map((r) => html`<li>
		<p><strong>${r.space}${r.function && `: ${r.function}`}</strong>${r.via && words.refusedBy(r.via)} <small>${words.refusedTimes(r.times, r.at)}</small></p>
		<p class="reason">${r.text}</p>
		<p>${remedyOf(r, a, now)}</p>
	</li>`)}</ul>`;
}

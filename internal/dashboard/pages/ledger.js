import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Failure, Loading, Reading, Table, useEvery, useRead } from "./parts.js";
import { download, request } from "./session.js";
import { useTimes } from "./times.js";
import { moment, seconds, words } from "./words.js";

const PAGE = 100;
const c = words.columns;
const w = words.ledger;
const columns = [
	[c.at, (e) => moment(e.at)],
	[c.kind, (e) => w.kinds[e.kind] ?? e.kind],
	[c.space, (e) => e.space ?? ""],
	[c.function, (e) => e.function ?? ""],
	[c.declared, (e) => (e.declaredSeconds ? seconds(e.declaredSeconds) : ""), "number"],
	[c.used, (e) => (e.kind === "settle" ? seconds(e.usedSeconds) : ""), "number"],
	[c.held, (e) => (e.kind === "hold" ? seconds(e.heldSeconds) : ""), "number"],
	[c.charged, (e) => (e.kind === "settle" ? seconds(e.chargedSeconds) : ""), "number"],
	[c.returned, (e) => (e.returnedSeconds ? seconds(e.returnedSeconds) : ""), "number"],
	[c.reason, (e) => [e.reason, e.via && `via ${e.via}`, e.by && `by ${e.by}`].filter(Boolean).join(", ")],
];

// Ledger shows the person's own lines, and compares what the functions declared with what they used.
export function Ledger({ data, fail }) {
	const times = useTimes(["day", "week", "month", "all", "dates"], "week");
	const [chosen, choose] = useState({ space: "", function: "", kind: "" });
	const filters = Object.fromEntries(Object.entries({ ...chosen, from: times.from, to: times.to }).filter(([, value]) => value));
	const query = new URLSearchParams(filters).toString();
	const lines = useLines(query, data.account);
	const { kind, ...ofFunctions } = filters; // an advice has no kind
	const again = useEvery(5000, data.account); // it reads all calls of the time
	const advice = useRead("advice?" + new URLSearchParams({ from: "1970-01-01T00:00:00Z", ...ofFunctions }), [again]);
	const select = (name, values, text = (v) => v) => html`<label class="field">${w[name]}
		<select value=${chosen[name]} onChange=${(e) => choose({ ...chosen, [name]: e.target.value })}>
			<option value="">${w.any}</option>${values.map((v) => html`<option value=${v}>${text(v)}</option>`)}
		</select></label>`;
	const known = useKnown(data, lines.all ?? [], advice.value ?? []);
	return html`
		<section class="filters" aria-label=${w.filters}>
			${times.control}
			${select("space", known.spaces)}
			${select("function", known.functionsOf(chosen.space))}
			${select("kind", Object.keys(w.kinds), (v) => w.kinds[v])}
		</section>
		<h2>${w.declared}</h2>
		<${Reading} of=${advice} show=${(all) => html`<${Declared} all=${all} />`} />
		<div class="heading"><h2>${w.lines}</h2><button class="plain" onClick=${() => download("api/spacehost/ledger.csv?" + query, "ledger.csv").catch(fail)}>${words.download}</button></div>
		${lines.error && html`<${Failure} error=${lines.error} retry=${lines.retry} />`}
		${lines.all ? html`<div class="ledger"><${Table} none=${query ? w.none : words.ledgerNone} rows=${lines.all.map(({ lease, ...line }) => line)} columns=${columns} whole /></div>` : !lines.error && html`<${Loading} />`}
		${lines.all?.length > 0 && (lines.more ? html`<p><button class="plain" onClick=${lines.older}>${w.more}</button></p>` : html`<p class="none"><small>${w.all}</small></p>`)}
	`;
}

// useLines reads the lines that match a query, newest first, and older ones when asked. It reads the newest again when the account has
// changed. Lines never change.
function useLines(query, account) {
	const [state, set] = useState({});
	const [again, setAgain] = useState(0);
	const asked = useRef("");
	const page = (more, signal) => request(`api/spacehost/ledger?limit=${PAGE}&${query}${more}`, undefined, "GET", signal);
	useEffect(() => {
		const stop = new AbortController();
		const wait = asked.current === query ? 500 : 0; // several changes of the account are one request
		asked.current = query;
		const timer = setTimeout(
			() => page("", stop.signal).then((newest) => set((old) => merge(old, query, newest)), (error) => stop.signal.aborted || set((old) => ({ ...old, query, error }))),
			wait,
		);
		return () => {
			clearTimeout(timer);
			stop.abort();
		};
	}, [query, account, again]);
	const shown = state.query === query ? state : {};
	const older = () =>
		page("&before=" + shown.all.at(-1).id).then(
			(next) => set((old) => (old.query === query ? { ...old, error: undefined, all: [...old.all, ...next.filter((e) => e.id < old.all.at(-1).id)], more: next.length === PAGE } : old)),
			(error) => set((old) => ({ ...old, error })),
		);
	return { ...shown, older, retry: () => setAgain(again + 1) };
}

// merge puts the newest page before the lines that were read. Without a line in common there may be a gap, so only the page stays.
export function merge(old, query, newest) {
	const last = newest.at(-1)?.id ?? 0;
	const meets = old.query === query && old.all && (newest.length < PAGE || old.all.some((e) => e.id >= last));
	if (!meets || newest.length < PAGE) return { query, all: newest, more: newest.length === PAGE };
	return { query, all: [...newest, ...old.all.filter((e) => e.id < last)], more: old.more };
}

// useKnown returns the Spaces and functions that the filters offer: those that were seen in any answer so far.
function useKnown(data, lines, advice) {
	const seen = useRef(new Map());
	for (const { space, function: name, name: own } of [...(data.account?.spaces ?? []), ...(data.account?.account.functions ?? []), ...lines, ...advice]) {
		const of = space ?? own;
		if (!of) continue;
		if (!seen.current.has(of)) seen.current.set(of, new Set());
		if (name) seen.current.get(of).add(name);
	}
	return {
		spaces: [...seen.current.keys()].sort(),
		functionsOf: (space) => [...new Set([...seen.current].filter(([of]) => !space || of === space).flatMap(([, names]) => [...names]))].sort(),
	};
}

// Declared compares the declaration of each function with the use of its calls, as bars on one scale.
function Declared({ all }) {
	if (all.length === 0) return html`<p class="none">${w.declaredNone}</p>`;
	const longest = Math.max(...all.map((o) => Math.max(o.declaredSeconds, o.longestSeconds)));
	const width = (s) => ({ width: `${(100 * s) / longest}%` });
	return html`
		<p class="none"><small>${w.key}</small></p>
		<ul class="declared">${all.map((o) => html`<li key=${o.space + " " + o.function + " " + o.size}>
			<p><strong>${o.function}</strong> <span class="soft">${o.space}${o.size !== "large" && `, ${o.size}`}</span></p>
			<div class="against" role="img" aria-label=${w.bar(o)}>
				<span class="declaration" style=${width(o.declaredSeconds)}></span><span class="most" style=${width(o.mostSeconds)}></span>
				<span class="median" style=${width(o.medianSeconds)}></span><span class="longest" style=${{ left: `${(100 * o.longestSeconds) / longest}%` }}></span>
			</div>
			<p><small>${w.figures(o)}</small></p>
			${remedies(o).map((text) => html`<p>${text}</p>`)}
		</li>`)}</ul>
		${all.some((o) => o.simulated && o.declareSeconds) && html`<p class="none"><small>${w.simulated}</small></p>`}
	`;
}

// remedies are the sentences about one function.
function remedies(o) {
	if (o.overstayed > 0) return [w.ended(o.overstayed, o.declareSeconds)];
	const texts = [];
	if (o.tightSeconds) texts.push(w.tight(o.tightSeconds, o.calls));
	if (o.declareSeconds) texts.push(w.declare(o.declareSeconds, o.calls));
	return texts.length > 0 ? texts : [o.calls < 3 ? w.few : w.fine];
}

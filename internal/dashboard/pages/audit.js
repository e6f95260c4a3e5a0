import { html, useMemo, useState } from "./vendor/htm-preact-3.1.1.js";
import { Two } from "./changing.js";
import { Reading, Table, saveCSV, useRead } from "./parts.js";
import { visible } from "./visible.js";
import { moment, person, relative, words } from "./words.js";

const w = words.audit;
const LIMIT = 2000;

// values writes the fields of an entry. A caller has chosen their names, which parse leaves as they are.
const values = (e) => visible(Object.entries(e.fields).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" "));
const wasRefused = (e) => e.status >= 400;
const result = (e) => (wasRefused(e) ? w.refused(e.status) : w.done);

// Audit shows what operators have changed. A new entry is read when the host reports one.
export function Audit({ data }) {
	const [days, setDays] = useState(7);
	const [filter, setFilter] = useState({ text: "", origin: "", refused: "" });
	const since = useMemo(() => (days ? new Date(Date.now() - days * 86400e3).toISOString() : ""), [days]);
	const entries = useRead(`admin/audit?limit=${LIMIT}${since && "&since=" + since}`, [data.audit?.latest]);
	const set = (name) => (e) => setFilter({ ...filter, [name]: e.target.value });
	const wanted = filter.text.toLowerCase();
	const matches = (e) =>
		(!filter.origin || e.origin === filter.origin) &&
		(!filter.refused || wasRefused(e) === (filter.refused === "yes")) &&
		[e.actor, e.token ?? "", e.action, e.object, e.detail ?? "", values(e)].some((text) => text.toLowerCase().includes(wanted));
	const choice = (label, value, onChange, options) => html`<label class="field"><span>${label}</span><select value=${value} onChange=${onChange}>${options.map(([key, text]) => html`<option value=${key} selected=${String(key) === String(value)}>${text}</option>`)}</select></label>`;
	return html`
		<p>${w.intro}</p>
		<form class="filters" role="search" onSubmit=${(e) => e.preventDefault()}>
			<label class="field wide"><span>${w.filter}</span><input type="search" placeholder=${w.filterHint} value=${filter.text} onInput=${set("text")} /></label>
			${choice(w.period, days, (e) => setDays(Number(e.target.value)), w.periods)}
			${choice(w.columns.origin, filter.origin, set("origin"), w.origins)}
			${choice(w.columns.result, filter.refused, set("refused"), w.results)}
		</form>
		<${Reading} of=${entries} show=${(all) => {
			const shown = all.filter(matches);
			return html`
				<p class="choices between"><span role="status">${w.count(shown.length, all.length)}${all.length === LIMIT ? " " + w.more(LIMIT) : ""}</span>
				<button class="plain" onClick=${() => saveCSV("audit.csv", ["id", "at", "actor", "token", "origin", "action", "object", "values", "status", "detail"], shown.map((e) => ({ ...e, values: values(e) })))}>${words.download}</button></p>
				<${Table} none=${all.length ? w.noMatch : w.none} rows=${shown} columns=${columns} />`;
		}} />
	`;
}

const columns = [
	[words.columns.at, (e) => html`<time datetime=${e.at} title=${relative(e.at)}>${moment(e.at)}</time>`, "fixed"],
	[w.columns.actor, (e) => html`<${Two} first=${person(e.actor)} second=${(w.origin[e.origin] ?? e.origin) + (e.token ? ", " + w.token(e.token) : "")} />`, "fixed"],
	[w.columns.action, (e) => html`<code>${e.action}</code>`, "fixed"],
	[w.columns.object, (e) => person(e.object)],
	[w.columns.values, (e) => html`<span class="values">${values(e)}</span>`],
	[w.columns.result, (e) => (wasRefused(e) ? html`<${Two} first=${html`<span class="bad">${result(e)}</span>`} second=${e.detail} />` : result(e))],
];

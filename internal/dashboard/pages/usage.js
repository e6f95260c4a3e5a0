import { html, useEffect, useMemo, useState } from "./vendor/htm-preact-3.1.1.js";
import { Reading, Table, saveCSV, useEvery, useRead } from "./parts.js";
import { Chart, color } from "./chart.js";
import { request } from "./session.js";
import { useTimes } from "./times.js";
import { day, hour, moment, person, seconds, words } from "./words.js";

const w = words.usage;
const SERIES = 6; // rows with a colour of their own; the others are one bar
const MOST = 10000; // rows of a CSV file: the limit of the host
const isTime = (figure) => figure.endsWith("Seconds");
const write = (figure, n) => (isTime(figure) ? seconds(n) : String(n));

// nameOf is what a reader calls a row.
const nameOf = (row, by) => (row.space ? `${row.space}: ${row.key || w.unknown}` : by === "person" ? person(row.key) : row.key) || (by === "group" ? w.noGroup : w.unknown);

// Usage shows the sums of the calls that have ended in a time. It reads them again after ends, but not after each one
// of a busy host, and each half minute for refusals.
export function Usage({ data, fail }) {
	const times = useTimes(["day", "week", "month", "dates"], "day");
	const [by, group] = useState("person");
	const [figure, draw] = useState("usedSeconds");
	const again = useEvery(3000, data.leases?.ended[0]?.lease);
	const [period, tick] = useState(0); // no event announces a refused call
	useEffect(() => {
		const timer = setInterval(() => tick((n) => n + 1), 30000);
		return () => clearInterval(timer);
	}, []);
	const query = (more) => "admin/usage?" + new URLSearchParams({ by, from: times.from, to: times.to, ...more });
	const usage = useRead(query({ bucket: times.bucket, limit: 50 }), [again, period]);
	const csv = () =>
		request("api/spacehost/" + query({ limit: MOST })).then(
			(u) => saveCSV("usage.csv", ["key", "space", "calls", "refusals", "kills", "declaredSeconds", "usedSeconds", "heldSeconds", "chargedSeconds"], rowsOf(u).map((row) => ({ calls: 0, refusals: 0, kills: 0, declaredSeconds: 0, usedSeconds: 0, heldSeconds: 0, chargedSeconds: 0, ...row }))),
			fail,
		);
	return html`
		<section class="filters">
			${times.control}
			<div class="choices" role="group" aria-label=${w.by}>${Object.entries(w.dimensions).map(([d, name]) => html`<button type="button" class="plain" aria-pressed=${d === by} onClick=${() => group(d)}>${name}</button>`)}</div>
			<label class="field">${w.figure} <select value=${figure} onChange=${(e) => draw(e.target.value)}>${Object.entries(w.figures).map(([f, name]) => html`<option value=${f}>${name}</option>`)}</select></label>
			<button type="button" class="plain" onClick=${csv}>${words.download}</button>
		</section>
		<${Reading} of=${usage} show=${(u) => (u.rows.length === 0 ? html`<p class="none">${w.none}</p>` : html`<${Bars} u=${u} figure=${figure} days=${times.days} /><${Sums} u=${u} />`)} />
		<p class="none"><small>${w.note}</small></p>
	`;
}

// rowsOf returns all rows with the names that a reader calls them, and the rest as one.
function rowsOf(u) {
	const rows = u.rows.map((row, i) => ({ ...row, id: `${row.space ?? ""} ${row.key}`, label: nameOf(row, u.by), color: i < SERIES ? `--series-${i + 1}` : "--series-0" }));
	return u.others ? [...rows, { ...u.others, id: "others", label: w.others(u.otherRows), color: "--series-0" }] : rows;
}

// Bars draws a figure over time, stacked.
function Bars({ u, figure, days }) {
	const [over, setOver] = useState(null);
	const dark = useDark();
	const rows = rowsOf(u);
	const { series, data, drawn } = useMemo(() => stack(rows, u, figure, days), [u, figure]);
	const options = {
		height: 240, legend: { show: false }, padding: [8, 24, 0, 0],
		cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
		scales: { x: { range: () => [Date.parse(u.from) / 1000, Date.parse(u.to) / 1000] }, y: { range: (_, _low, high) => [0, Math.max(high * 1.05, isTime(figure) ? 1 : 4)] } },
		axes: [axis({ values: (_, all, __, ___, step) => all.map((at) => tick(at * 1000, step)) }), axis({ size: 64, values: (_, all) => all.map((n) => (isTime(figure) ? (n >= 3600 ? `${+(n / 3600).toFixed(1)} h` : `${n} s`) : Number.isInteger(n) ? n : "")) })],
		series: [{}, ...series.map((name) => ({ fill: color(name), width: 0, points: { show: false }, paths: (chart, ...at) => globalThis.uPlot.paths.bars({ size: [0.8, 60], align: 1 })(chart, ...at) }))],
		hooks: { setCursor: [(chart) => setOver(chart.cursor.idx ?? null)] },
	};
	const names = over === null || over === undefined ? null : drawn.map((row) => [row.label, row.values[over]]).filter(([, n]) => n > 0).map(([name, n]) => [name, write(figure, n)]);
	return html`
		<${Chart} id=${[u.by, u.from, u.to, figure, series.length, dark].join()} label=${w.chart(w.figures[figure], w.dimensions[u.by], rows[0]?.label)} options=${options} data=${data} />
		<p class="over" aria-hidden="true">${names && data[0][over] ? w.over(moment(data[0][over] * 1000), names) : w.hover}</p>
	`;
}

// tick writes a time below the chart: a day, or within days the hour.
const tick = (at, step) => (step >= 86400 || new Date(at).getHours() === 0 ? day(at) : hour(at));

// stack returns the bars of a chart: the sums of the first rows up to each, the tallest first, because each is drawn over the one before.
// days are the begins of the bars, where they are not the parts of u.
export function stack(rows, u, figure, days) {
	const parts = rows[0].buckets.map((_, i) => Date.parse(u.from) / 1000 + i * u.bucketSeconds);
	const times = days ?? parts;
	const bars = parts.map((part) => times.findLastIndex((at) => at <= part)); // the bar of each part
	const add = (sums, row) => (row.buckets.forEach((b, i) => (sums[bars[i]] += b[figure] ?? 0)), sums);
	const values = (row) => add(times.map(() => 0), row);
	const drawn = rows.slice(0, SERIES).map((row) => ({ label: row.label, color: row.color, values: values(row) }));
	const rest = rows.slice(SERIES);
	if (rest.length > 0) {
		const sums = rest.reduce(add, times.map(() => 0));
		drawn.push({ label: w.others(rest.length - 1 + (u.otherRows || 1)), color: "--series-0", values: sums });
	}
	const sums = [];
	for (const row of drawn) sums.push(row.values.map((n, i) => n + (sums.at(-1)?.[i] ?? 0)));
	return { drawn, series: drawn.map((row) => row.color).reverse(), data: [times, ...sums.reverse()] };
}

const axis = (more) => ({ stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 }, font: "12px system-ui, sans-serif", ...more });

// useDark reports whether the theme is dark: a canvas is drawn again when it changes.
function useDark() {
	const query = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
	const [dark, set] = useState(query.matches);
	useEffect(() => {
		const turn = () => set(query.matches);
		query.addEventListener("change", turn);
		return () => query.removeEventListener("change", turn);
	}, []);
	return dark;
}

function Sums({ u }) {
	const total = u.total.usedSeconds ?? 0;
	const time = (name) => (row) => seconds(row[name] ?? 0);
	const share = (row) => (total > 0 ? (row.usedSeconds ?? 0) / total : 0);
	const percent = (n) => `${(100 * n).toFixed(1)} %`;
	return html`<div class="usage"><${Table} rows=${[...rowsOf(u), { ...u.total, id: "total", label: w.total, color: "" }]} columns=${[
		[w.headings[u.by], (row) => html`<span class="name">${row.color && html`<span class="swatch" style=${{ background: `var(${row.color})` }}></span>`}${row.id === "total" ? html`<strong>${row.label}</strong>` : row.label}</span>`],
		[w.calls, (row) => row.calls ?? 0, "number"],
		[w.refused, (row) => row.refusals ?? 0, "number"],
		[w.killed, (row) => row.kills ?? 0, "number"],
		[words.columns.declared, time("declaredSeconds"), "number"],
		[words.columns.used, time("usedSeconds"), "number"],
		[words.columns.charged, time("chargedSeconds"), "number"],
		[w.ofDeclared, (row) => (row.declaredSeconds ? percent((row.usedSeconds ?? 0) / row.declaredSeconds) : ""), "number"],
		[w.share, (row) => html`<span class="share"><span class="meter"><span style=${{ width: `${100 * share(row)}%` }}></span></span><span class="percent">${percent(share(row))}</span></span>`, "number"],
	]} /></div>`;
}

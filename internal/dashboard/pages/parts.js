// Parts that several pages share.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { hostNow } from "./clock.js";
import { request, save } from "./session.js";
import { words } from "./words.js";

// useNow returns the host's time in milliseconds, once a second.
export function useNow() {
	const [, tick] = useState(0);
	useEffect(() => {
		const timer = setInterval(() => tick((n) => n + 1), 1000);
		return () => clearInterval(timer);
	}, []);
	return hostNow();
}

// FIRST is the number of rows that a long table shows at first. The browser lays out all rows of a table together, and the page of the line
// draws them each second.
const FIRST = 100;

// Table shows rows; columns are [heading, cell of a row, class]. On a narrow screen each row is a block with its headings. A long table
// shows its first rows, and the others when the reader asks for them. A page that bounds its rows itself sets whole.
export function Table({ caption, columns, rows, none, whole }) {
	const [all, showAll] = useState(false);
	const body = useRef(null);
	useLayoutEffect(() => { // the button is gone: the focus goes on to the first row that it has shown
		const next = all && body.current?.rows[FIRST];
		if (!next) return;
		next.tabIndex = -1;
		next.focus({ preventScroll: true });
	}, [all]);
	if (rows.length === 0) return html`<p class="none">${none}</p>`;
	const drawn = all || whole ? rows : rows.slice(0, FIRST);
	return html`<div class="scroll" tabindex="0" role="group" aria-label=${caption ?? words.table}><table>
		${caption && html`<caption>${caption}</caption>`}
		<thead><tr>${columns.map(([heading, , kind]) => html`<th scope="col" class=${kind ?? ""}>${heading}</th>`)}</tr></thead>
		<tbody ref=${body}>${drawn.map((row) => html`<tr key=${row.lease ?? row.name ?? row.id}>
			${columns.map(([heading, cell, kind]) => html`<td class=${kind ?? ""} data-heading=${heading}>${cell(row)}</td>`)}
		</tr>`)}</tbody>
	</table>
	${drawn.length < rows.length && html`<p class="none">${words.rowsShown(drawn.length, rows.length)} <button type="button" class="plain" onClick=${() => showAll(true)}>${words.showAll(rows.length)}</button></p>`}</div>`;
}

// Meter shows a share from 0 to 1.
export const Meter = ({ share, label }) => html`<div class="meter" role="img" aria-label=${label}><span style=${{ width: `${100 * Math.min(1, Math.max(0, share))}%` }}></span></div>`;

export const Loading = () => html`<p class="none" role="status">${words.loading}</p>`;

// Stale names the topics that the host cannot read, and since when their values are old.
export const Stale = ({ topics = {} }) => Object.keys(topics).length > 0 && html`<p class="stale" role="status">${words.stale(topics)}</p>`;

// Failure shows why a view cannot be read, and tries again.
export const Failure = ({ error, retry }) => html`<p role="alert">${error.message} <button class="plain" onClick=${retry}>${words.retry}</button></p>`;

// useRead reads JSON from a path of the API: { value, error, retry, refresh }. Both are empty while it loads, and after retry. A change of
// `deps` and refresh keep the value until the new one arrives; "" as path reads nothing.
export function useRead(path, deps = []) {
	const [state, set] = useState({});
	const [again, read] = useState(0);
	const refresh = () => read((n) => n + 1);
	useEffect(() => {
		if (!path) return;
		const stop = new AbortController();
		request("api/spacehost/" + path, undefined, "GET", stop.signal).then(
			(value) => stop.signal.aborted || set({ path, value }), // a request that is aborted in its answer has an empty value
			(error) => stop.signal.aborted || set({ path, error }),
		);
		return () => stop.abort();
	}, [path, again, ...deps]);
	return { ...(state.path === path && state), retry: () => (set({}), refresh()), refresh };
}

// Facts is a list of names and values; an empty value is left out.
export const Facts = ({ of }) => html`<dl class="facts">${of.filter(([, value]) => value || value === 0).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

// usePeriod returns a number that grows while the page is visible, so that values which no change announces are read again.
export function usePeriod(milliseconds) {
	const [n, tick] = useState(0);
	useEffect(() => {
		const turn = () => document.hidden || tick((n) => n + 1);
		const timer = setInterval(turn, milliseconds);
		document.addEventListener("visibilitychange", turn);
		return () => {
			clearInterval(timer);
			document.removeEventListener("visibilitychange", turn);
		};
	}, []);
	return n;
}

// useEvery returns a number that changes after value has changed, and at most once in so many milliseconds.
export function useEvery(pause, value) {
	const [count, set] = useState(0);
	const timer = useRef(0);
	const first = useRef(true);
	useEffect(() => {
		if (first.current) first.current = false;
		else timer.current ||= setTimeout(() => ((timer.current = 0), set((n) => n + 1)), pause);
	}, [value]);
	useEffect(() => () => clearTimeout(timer.current), []);
	return count;
}

// Reading shows a result of useRead: the states of loading and of an error, or what show returns for the value. It is always one element:
// the vendored Preact moves several elements that replace one to the end of the page.
export function Reading({ of, show }) {
	return html`<div>${of.error ? html`<${Failure} ...${of} />` : of.value === undefined ? html`<${Loading} />` : show(of.value)}</div>`;
}

// saveCSV offers rows as a file. A leading =, +, - or @ would be a formula in a spreadsheet.
export function saveCSV(name, fields, rows) {
	const cell = (value) => {
		const text = String(value ?? "");
		return '"' + (/^[=+\-@]/.test(text) ? "'" + text : text).replaceAll('"', '""') + '"';
	};
	const lines = [fields.join(","), ...rows.map((row) => fields.map((f) => cell(row[f])).join(","))];
	save(name, new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
}

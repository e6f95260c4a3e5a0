// The log of a Space: its last lines, older ones by pages, and new ones while it is followed.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { useBusy } from "./changing.js";
import { Failure, Loading } from "./parts.js";
import { request } from "./session.js";
import { words } from "./words.js";

const w = words.spaces;
const PAGE = 300;
const KEPT = 3000; // lines in the page: older ones are read again
const PAUSE = 1000; // between two looks for new lines, in milliseconds

export function Log({ space }) {
	const [kind, setKind] = useState("run");
	const [stream, setStream] = useState("");
	const [level, setLevel] = useState("");
	const [text, setText] = useState("");
	const [search, setSearch] = useState("");
	useEffect(() => {
		const timer = setTimeout(() => setSearch(text), 300);
		return () => clearTimeout(timer);
	}, [text]);
	const path = `api/spacehost/admin/space/log?${new URLSearchParams({ space: space.name, kind, limit: PAGE, ...(stream && { stream }), ...(level && { level }), ...(search && { text: search }) })}`;
	return html`<section aria-labelledby="log"><h2 id="log">${w.log}</h2>
		<div class="choices bar">
			<span class="choices" role="group" aria-label=${w.logKind}>${["run", "build"].map((k) => html`<button class="plain" aria-pressed=${kind === k} onClick=${() => setKind(k)}>${w.logKinds[k]}</button>`)}</span>
			<input type="search" aria-label=${w.search} placeholder=${w.search} value=${text} onInput=${(e) => setText(e.target.value)} />
			<select aria-label=${w.stream} value=${stream} onChange=${(e) => setStream(e.target.value)}>
				<option value="">${w.allStreams}</option>${["stdout", "stderr", "host", "build"].map((s) => html`<option value=${s}>${s}</option>`)}
			</select>
			<select aria-label=${w.level} value=${level} onChange=${(e) => setLevel(e.target.value)}>
				<option value="">${w.allLevels}</option>${["error", "warning"].map((l) => html`<option value=${l}>${w.levels[l]}</option>`)}
			</select>
		</div>
		<${Lines} key=${path} path=${path} marked=${search} />
	</section>`;
}

function Lines({ path, marked }) {
	const [log, setLog] = useState(null); // { lines, before, after, gap }
	const [error, setError] = useState(null);
	const [again, setAgain] = useState(0);
	const [follow, setFollow] = useState(true);
	const [busy, once] = useBusy();
	const box = useRef(null);
	const place = useRef(null); // what the next drawing does with the scroll position

	useEffect(() => {
		const stop = new AbortController();
		place.current = "end";
		request(path, undefined, "GET", stop.signal).then((page) => (setLog({ ...page, lines: numbered(page.lines) }), setError(null)), (wrong) => stop.signal.aborted || setError(wrong));
		return () => stop.abort();
	}, [path, again]);

	const after = log?.after;
	useEffect(() => { // the next look follows the answer of the one before
		if (!follow || !after) return;
		const stop = new AbortController();
		let timer;
		const look = async () => {
			try {
				if (!document.hidden) {
					const page = await request(`${path}&after=${after}`, undefined, "GET", stop.signal);
					if (page.after !== after) {
						place.current = "end";
						setError(null);
						return setLog((old) => grown(old, page));
					}
				}
			} catch (wrong) {
				if (stop.signal.aborted) return;
				setError(wrong);
			}
			timer = setTimeout(look, PAUSE);
		};
		timer = setTimeout(look, log.more ? 0 : PAUSE);
		return () => {
			stop.abort();
			clearTimeout(timer);
		};
	}, [path, after, follow]);

	const older = () =>
		once(async () => {
			try {
				const page = await request(`${path}&before=${log.before}`);
				place.current = box.current.scrollHeight - box.current.scrollTop;
				setFollow(false);
				setLog((old) => ({ ...old, before: page.before, gap: page.gap, lines: [...numbered(page.lines), ...old.lines] }));
				setError(null);
			} catch (wrong) {
				setError(wrong);
			}
		});
	useEffect(() => {
		const b = box.current;
		if (!b || place.current === null) return;
		b.scrollTop = place.current === "end" ? b.scrollHeight : b.scrollHeight - place.current;
		place.current = null;
	}, [log]);

	// The page is drawn again with each event of the host, and these may be thousands of lines.
	const list = useMemo(() => html`<div>${log?.lines.map((l) => html`<${Line} key=${l.id} line=${l} marked=${marked} />`)}</div>`, [log?.lines, marked]);

	if (!log) return error ? html`<${Failure} error=${error} retry=${() => (setError(null), setAgain(again + 1))} />` : html`<${Loading} />`;
	const scrolled = () => {
		const b = box.current;
		if (follow && place.current === null && b.scrollHeight - b.scrollTop - b.clientHeight > 60) setFollow(false);
	};
	return html`<div>
		${error && html`<p class="stale" role="status">${w.logStale(error.message)}</p>`}
		<div class="log" role="log" aria-live="off" aria-label=${w.log} tabindex="0" ref=${box} onScroll=${scrolled}>
			${log.gap && html`<p class="none">${w.gap}</p>`}
			${log.before && html`<button class="plain" disabled=${busy} onClick=${older}>${w.older}</button>`}
			${log.lines.length === 0 && html`<p class="none">${marked ? w.logNoMatch : w.logNone}</p>`}
			${list}
		</div>
		<p class="choices bar"><label class="check"><input type="checkbox" checked=${follow} onChange=${(e) => ((place.current = "end"), setFollow(e.target.checked), setLog({ ...log }))} /> ${w.follow}</label><small>${w.lines(log.lines.length)}</small></p>
	</div>`;
}

let serial = 0;
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "numeric", second: "numeric", hour12: false });
const calendar = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" });

// numbered gives each line its key, and writes its times once.
const numbered = (lines) =>
	lines.map((l) => {
		const at = new Date(l.time);
		return { ...l, id: ++serial, clock: clock.format(at), moment: calendar.format(at) };
	});

// grown adds new lines, and forgets the oldest ones above KEPT. Their page is no longer known then, so older ones are not offered.
function grown(old, page) {
	const lines = [...old.lines, ...numbered(page.lines)];
	const cut = lines.length > KEPT;
	return { ...old, after: page.after, more: page.more, before: cut ? "" : old.before, gap: old.gap || page.gap || cut, lines: cut ? lines.slice(-KEPT) : lines };
}

function Line({ line, marked }) {
	return html`<div class=${"line " + (line.level ?? "")}><time datetime=${line.time} title=${line.moment}>${line.clock}</time> <span class=${"source " + line.stream}>${line.stream}</span> <span class="text">${mark(line.text, marked)}</span></div>`;
}

// mark highlights what was searched for.
function mark(text, marked) {
	if (!marked) return text;
	const [low, wanted, parts] = [text.toLowerCase(), marked.toLowerCase(), []];
	let from = 0;
	for (let at = low.indexOf(wanted); at >= 0 && low.length === text.length; at = low.indexOf(wanted, from)) {
		parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + wanted.length)}</mark>`);
		from = at + wanted.length;
	}
	return [...parts, text.slice(from)];
}

// The page of the host itself: version and process, what a reload would change, the configuration in force, and the checks of the machine.
import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { request } from "./session.js";
import { ReadOnly } from "./changing.js";
import { Facts, Failure, Loading, Meter, Reading, Table, useNow, useRead } from "./parts.js";
import { bytes, duration, moment, words } from "./words.js";

export function Settings({ may, act }) {
	const [applied, setApplied] = useState(0);
	const host = useRead("admin/host", [applied]);
	return html`
		<${ReadOnly} may=${may} />
		<div><${Reading} of=${host} show=${(info) => html`<div>
			<${Host} info=${info} />
			<${Reload} info=${info} may=${may} act=${act} applied=${() => setApplied(applied + 1)} />
		</div>`} /></div>
		<${Configuration} version=${applied} />
		<${Machine} />
	`;
}

function Host({ info }) {
	const w = words.settings;
	const now = useNow();
	return html`<div class="cards">
		<section class="card"><h2>${w.version}</h2><${Facts} of=${[
			[w.release, info.build.version],
			[w.commit, info.build.commit && html`<code>${info.build.commit.slice(0, 12)}${info.build.commit.endsWith("-dirty") ? "-dirty" : ""}</code>`],
			[w.built, info.build.date && moment(info.build.date)],
			["Go", info.build.go.replace(/^go/, "")],
			["SQLite", info.build.sqlite],
		]} /></section>
		<section class="card"><h2>${w.process}</h2><${Facts} of=${[
			[w.runs, html`<time>${duration((now - Date.parse(info.startedAt)) / 1000)}</time>`],
			[w.started, html`<time datetime=${info.startedAt}>${moment(info.startedAt)}</time>`],
			[w.command, html`<code>spacehost ${info.command}</code>`],
			[w.user, w.at(info.user, info.machine)],
			[w.pid, info.pid],
		]} /></section>
		<section class="card"><h2>${w.state}</h2><${Facts} of=${[
			[w.folder, html`<code>${info.state}</code>`],
			[w.free, info.freeBytes > 0 && bytes(info.freeBytes)],
			[w.database, bytes(info.databaseBytes)],
		]} /><${State} /></section>
	</div>`;
}

// useAsked reads a path only when it is asked for: { value, error, busy, ask }.
function useAsked(path) {
	const [state, set] = useState({});
	const ask = async () => {
		set({ busy: true });
		try {
			set({ value: await request("api/spacehost/" + path), at: Date.now() });
		} catch (error) {
			set({ error });
		}
	};
	return { ...state, ask };
}

// State measures the state folder on demand: it has to read every folder.
function State() {
	const w = words.settings;
	const sizes = useAsked("admin/state");
	if (sizes.error) return html`<${Failure} error=${sizes.error} retry=${sizes.ask} />`;
	if (sizes.busy) return html`<p class="none" role="status">${w.measuring}</p>`;
	if (!sizes.value) return html`<p><button class="plain" onClick=${sizes.ask}>${w.measure}</button></p>`;
	const all = sizes.value.toSorted((a, b) => b.bytes - a.bytes);
	const sum = all.reduce((total, one) => total + one.bytes, 0);
	return html`<h3>${w.total(bytes(sum))}</h3><ul class="shares">${all.filter((one, i) => i < 8 || one.error).map((one) => html`<li>
		<span class="share"><code>${one.name}</code><span>${bytes(one.bytes)}</span></span>
		<${Meter} share=${sum ? one.bytes / sum : 0} label=${`${one.name}: ${bytes(one.bytes)}`} />
		${one.error && html`<p class="reason">${one.error}</p>`}
	</li>`)}</ul><p><button class="plain" onClick=${sizes.ask}>${w.measureAgain}</button></p>`;
}

// saysEffect reports whether the text of a change ends with its effect.
const saysEffect = (c) => c.change === "changed" && c.effect !== "at once" && (c.subject === "space" || c.effect === "host");

// Reload shows what a reload would change now, and applies it.
function Reload({ info, may, act, applied }) {
	const w = words.settings;
	const preview = useRead(info.command === "serve" ? "admin/reload" : "");
	const [busy, setBusy] = useState(false);
	const apply = async () => {
		setBusy(true);
		await act("/reload", { dryRun: false }, (answer) => w.reloaded(answer));
		setBusy(false);
		applied();
		preview.retry();
	};
	return html`<section><h2>${w.reload}</h2>
		${info.command !== "serve" ? html`<p class="none">${w.noFile}</p>` : html`<${Reading} of=${preview} show=${(next) => html`<div>
			<p>${w.file} <code>${next.file}</code> · ${w.inForce} <code>${info.digest}</code>${next.digest !== info.digest && html` · ${w.inFile} <code>${next.digest}</code>`}</p>
			${next.changes.length === 0 ? html`<p class="none">${w.same}</p>` : html`<ul class="changes">${next.changes.map((c) => html`<li class=${c.change}>
				<code>${c.text}</code>${!saysEffect(c) && html` <small class=${c.effect === "host" ? "reason" : "soft"}>${w.effects[c.effect] ?? c.effect}</small>`}
			</li>`)}</ul>`}
			${next.failed.map((f) => html`<p class="reason">${w.failed(f)}</p>`)}
			${next.warnings.map((text) => html`<p class="reason">${text}</p>`)}
			${next.refused && html`<p role="alert">${next.refused}</p>`}
			<p class="choices">
				${may && html`<button disabled=${busy || Boolean(next.refused) || (next.changes.length === 0 && next.failed.length === 0)} onClick=${apply}>${busy ? w.applying : w.apply}</button>`}
				<button class="plain" disabled=${busy} onClick=${preview.retry}>${w.readAgain}</button>
			</p>
		</div>`} />`}
	</section>`;
}

// Configuration lists every key with its value, by subject. A filter opens what it finds.
function Configuration({ version }) {
	const w = words.settings;
	const values = useRead("admin/settings", [version]);
	const [filter, setFilter] = useState("");
	return html`<section><h2>${w.configuration}</h2>
		<${Reading} of=${values} show=${(all) => {
			const part = filter.trim().toLowerCase();
			const shown = all.filter((v) => !part || `${v.subject} ${v.name ?? ""} ${v.key} ${v.hidden ? "" : v.value}`.toLowerCase().includes(part));
			const groups = Map.groupBy(shown, (v) => `${w.subjects[v.subject] ?? v.subject}${v.name ? " " + v.name : ""}`);
			return html`<div>
				<input type="search" class="search" aria-label=${w.filter} placeholder=${w.filter} value=${filter} onInput=${(e) => setFilter(e.target.value)} />
				${groups.size === 0 && html`<p class="none">${w.nothing}</p>`}
				${[...groups].map(([name, rows], i) => html`<details key=${name} open=${Boolean(part) || i === 0} class="group">
					<summary>${name} <small class="soft">${w.keys(rows.length)}</small></summary>
					<${Table} rows=${rows.map((v) => ({ ...v, name: undefined, id: v.key }))} columns=${[
						[w.key, (v) => html`<code>${v.key}</code>`],
						[w.value, (v) => (v.hidden ? html`<span class="soft">${w.hidden}</span>` : v.value ? html`<code>${v.value}</code>` : html`<span class="soft">${w.unset}</span>`)],
					]} />
				</details>`)}
			</div>`;
		}} />
	</section>`;
}

// Machine runs the checks of "spacehost doctor" on demand.
function Machine() {
	const w = words.settings;
	const checks = useAsked("admin/doctor");
	return html`<section class="machine"><h2>${w.machine}</h2>
		<p>${w.machineHint}</p>
		<p><button class="plain" disabled=${checks.busy} onClick=${checks.ask}>${checks.busy ? w.checking : w.check}</button></p>
		${checks.busy && html`<${Loading} />`}
		${checks.error && html`<${Failure} error=${checks.error} retry=${checks.ask} />`}
		${checks.value && html`<p role="status">${w.found(checks.value, checks.at)}</p>
			<ul class="findings">${checks.value.map((f) => html`<li class=${f.level}>
				<span class="level">${w.levels[f.level] ?? f.level}</span><span class="check">${f.check}</span>
				<div><p>${f.text}</p>${f.do && html`<p class="soft">→ ${f.do}</p>`}</div>
			</li>`)}</ul>`}
	</section>`;
}

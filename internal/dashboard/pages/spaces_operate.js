// What an admin does with a Space, and sees of it: commands, use of the machine, stages and log.
import { html, useEffect, useMemo, useState } from "./vendor/htm-preact-3.1.1.js";
import { Chart, color } from "./chart.js";
import { hostNow } from "./clock.js";
import { Act, Confirm, ReadOnly, useBusy } from "./changing.js";
import { Reading, Table, useRead } from "./parts.js";
import { parse, streamOf } from "./session.js";
import { Log } from "./spaces_log.js";
import { moment, size, time, words } from "./words.js";

const w = words.spaces;

export function Operate({ space, may, act, fail }) {
	const [tick, setTick] = useState(0);
	useEffect(() => { // samples come each ten seconds
		const timer = setInterval(() => setTick((n) => n + 1), 10000);
		return () => clearInterval(timer);
	}, []);
	const read = useRead("admin/space?space=" + encodeURIComponent(space.name), [tick, space.stage]);
	return html`<div>
		${may ? html`<${Commands} space=${space} act=${act} fail=${fail} />` : html`<${ReadOnly} may=${may} />`}
		<div><${Reading} of=${read} show=${(d) => html`<div><${Usage} detail=${d} /><${Stages} changes=${d.stages} /></div>`} /></div>
		<${Log} space=${space} />
	</div>`;
}

function Commands({ space, act, fail }) {
	const [pausing, setPausing] = useState(false);
	const [reason, setReason] = useState("");
	const [build, setBuild] = useState(null); // the steps of a rebuild that runs
	const { name } = space;
	const [busy, once] = useBusy();
	const restart = (now) => once(() => act("/restart", { space: name, now }, (a) => words.restarted(name, a.drainSeconds)));
	const pause = async (event) => {
		event.preventDefault();
		if (await once(() => act("/space/pause", { space: name, reason }, (a) => w.pausedNow(name, a.drainSeconds)))) setPausing(false);
	};
	const rebuild = async () => {
		setBuild([]);
		try {
			let ended = false;
			for await (const event of streamOf("api/spacehost/admin/rebuild", { space: name })) {
				const p = parse(event.data);
				if (p.error) throw new Error(w.notRebuilt(p.error));
				if (p.step) setBuild((steps) => [...steps.filter((s) => s.index !== p.step.index), p.step]);
				ended ||= Boolean(p.done);
			}
			if (!ended) throw new Error(w.rebuildLost);
			setBuild(null);
		} catch (error) {
			setBuild(null);
			fail(error);
		}
	};
	if (space.paused) return html`<section class="commands"><p>${w.pausedBy(space.paused)}</p><p><${Act} run=${() => act("/space/resume", { space: name }, () => w.resumed(name))}>${w.resume}<//></p></section>`;
	return html`<section class="commands" aria-label=${w.commands}>
		<p class="choices">
			<${Confirm} name=${words.restart} question=${w.restartQuestion} yes=${words.restart} busy=${busy} run=${() => restart(false)} />
			<${Confirm} name=${w.restartNow} question=${w.restartNowQuestion} yes=${w.restartNow} busy=${busy} run=${() => restart(true)} />
			<${Confirm} name=${w.rebuild} question=${w.rebuildQuestion} yes=${w.rebuild} busy=${busy || build !== null} run=${() => void rebuild()} />
			<button class="plain" disabled=${busy} aria-expanded=${pausing} onClick=${() => setPausing(!pausing)}>${w.pause}</button>
		</p>
		${pausing && html`<div><p>${w.pauseText}</p><form class="inline" onSubmit=${pause}>
			<input aria-label=${w.pauseReason} placeholder=${w.pauseReason} maxlength="200" value=${reason} onInput=${(e) => setReason(e.target.value)} />
			<button disabled=${busy}>${w.pause}</button>
		</form></div>`}
		${build && html`<div role="status"><p>${w.rebuilding}</p><ol class="steps">${build.map((s) => html`<li key=${s.index}>${w.step(s)}</li>`)}</ol></div>`}
	</section>`;
}

// Usage draws the last hour. A sample is there each ten seconds.
function Usage({ detail }) {
	const all = detail.usage;
	const data = useMemo(() => { // a new array would draw the chart again
		const at = all.map((s) => Date.parse(s.at) / 1000);
		const of = (value) => [at, all.map(value)];
		return { memory: of((s) => s.memory), cores: of((s) => s.cores), processes: of((s) => s.processes), disk: of((s) => (s.disk < 0 ? null : s.disk)) };
	}, [all]);
	if (all.length < 2) return html`<section><h2>${w.usage}</h2><p class="none">${w.usageNone}</p></section>`;
	const last = all.at(-1);
	const limit = (value, write) => (value > 0 ? ` ${w.ofLimit(write(value))}` : "");
	const cores = (n) => n.toFixed(2);
	return html`<section><h2>${w.usage}</h2><div class="cards small">
		<${Series} name=${w.memory} now=${size(last.memory) + limit(detail.limits.memory, size)} data=${data.memory} write=${size} />
		<${Series} name=${w.cpu} now=${w.cores(cores(last.cores)) + limit(detail.limits.cpu, String)} data=${data.cores} write=${cores} least=${0.1} />
		<${Series} name=${w.processes} now=${last.processes + limit(detail.limits.processes, String)} data=${data.processes} write=${(n) => n.toFixed(0)} least=${4} />
		<${Series} name=${w.disk} now=${last.disk < 0 ? w.unmeasured : size(last.disk) + limit(detail.limits.disk, size)} data=${data.disk} write=${size} />
	</div></section>`;
}

// Series draws one value. least is the top of its axis while all values are small.
function Series({ name, now, data, write, least = 2 ** 20 }) {
	const options = {
		height: 110,
		legend: { show: false },
		cursor: { show: false },
		scales: { y: { range: (_, __, max) => [0, Math.max(least, max * 1.15)] } },
		axes: [
			{ stroke: () => color("--text"), grid: { show: false }, ticks: { show: false }, size: 24, space: 90, values: (_, ticks) => ticks.map((t) => time(1000 * t)) },
			{ stroke: () => color("--text"), grid: { stroke: () => color("--line"), width: 1 }, ticks: { show: false }, size: 66, space: 32, values: (_, ticks) => ticks.map(write) },
		],
		series: [{}, { stroke: () => color("--bar"), width: 1.5, fill: () => color("--bar").replace("rgb(", "rgba(").replace(")", ", .2)"), points: { show: false } }],
	};
	return html`<article class="card"><h3>${name}</h3><p class="now">${now}</p><${Chart} id=${name} label=${`${name}: ${now}`} options=${options} data=${data} /></article>`;
}

const DAY = 24 * 3600 * 1000;

// Stages shows the last day as a strip, and each change in a table.
function Stages({ changes }) {
	const c = words.columns;
	const now = hostNow();
	const spans = changes.map((change, i) => ({ ...change, id: `${change.at} ${i}`, begin: Date.parse(change.at), end: i === 0 ? now : Date.parse(changes[i - 1].at) }));
	const begin = Math.max(now - DAY, spans.at(-1)?.begin ?? now);
	const shown = spans.filter((s) => s.end > begin).reverse();
	const restarts = shown.filter((s) => s.cause && !["host", "pause"].includes(s.cause)).length;
	return html`<section><h2>${w.stages}</h2>
		${shown.length > 0 && html`<p>${w.restarts(restarts)}</p>
			<div class="strip" role="img" aria-label=${w.stripLabel(restarts)}>${shown.map((s) => html`<span key=${s.id} class=${s.stage} title=${`${w.stage(s.stage)}, ${moment(s.at)}`} style=${{ flexGrow: Math.max(s.end - Math.max(s.begin, begin), (now - begin) / 400) }}></span>`)}</div>
			<p class="ends"><small>${moment(begin)}</small><small>${w.now}</small></p>`}
		<details class="stages"><summary>${w.changes(changes.length)}</summary>
		<${Table} none=${w.stagesNone} rows=${spans} columns=${[
			[c.at, (s) => moment(s.at)],
			[w.stageColumn, (s) => html`<span class=${"badge " + s.stage} title=${s.stage}>${w.stage(s.stage)}</span>`],
			[w.lasted, (s) => w.duration((s.end - s.begin) / 1000), "number"],
			[w.cause, (s) => (s.cause ? w.causes[s.cause] ?? s.cause : "") + (s.by ? ` (${s.by})` : "")],
			[c.reason, (s) => html`<bdi>${s.reason ?? ""}</bdi>`],
		]} /></details></section>`;
}

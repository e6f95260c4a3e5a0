// The GPUs of the host as cards, and their timeline.
import { html } from "./vendor/htm-preact-3.1.1.js";
import { Loading, Meter } from "./parts.js";
import { Act, ReadOnly } from "./changing.js";
import { Ask, drainFields, drainRequest } from "./ask.js";
import { Timeline } from "./timeline.js";
import { bytes, time, words } from "./words.js";

export function GPUs({ data, may, act }) {
	if (!data.gpus || !data.leases) return html`<${Loading} />`;
	if (data.gpus.length === 0) return html`<p class="none">${words.gpus.none}</p>`;
	return html`
		<${ReadOnly} may=${may} />
		<section class="cards" aria-label=${words.pages.gpus}>${data.gpus.map((g) => html`<${GPU} key=${g.uuid || (g.node ?? "") + "index" + g.index} gpu=${g} leases=${data.leases.open} may=${may} act=${act} />`)}</section>
		<${Timeline} data=${data} act=${act} />
	`;
}

function GPU({ gpu, leases, may, act }) {
	const w = words.gpus;
	const kind = (gpu.node ? gpu.node + " " : "") + (gpu.uuid.startsWith("MIG-") ? w.instance : w.gpu(gpu.index));
	return html`<article class="card gpu">
		<h2>${kind} <span class="soft">${gpu.name}</span></h2>
		<p class="health"><${Health} gpu=${gpu} /></p>
		${!gpu.error && html`<div class="figures">
			<${Figure} wide name=${w.memory} value=${`${bytes(gpu.memoryUsed)} / ${bytes(gpu.memoryTotal)}`} share=${gpu.memoryUsed / gpu.memoryTotal} />
			<${Figure} name=${w.utilization} value=${gpu.utilization === undefined ? null : gpu.utilization + " %"} share=${gpu.utilization / 100} />
			<${Figure} name=${w.temperature} value=${gpu.temperature === undefined ? null : gpu.temperature + " °C"} share=${gpu.temperature / 100} />
			<${Figure} name=${w.power} value=${gpu.power === undefined ? null : gpu.powerLimit ? `${Math.round(gpu.power)} / ${Math.round(gpu.powerLimit)} W` : `${Math.round(gpu.power)} W`} share=${gpu.power / gpu.powerLimit} />
		</div>`}
		<ul class="slots">${gpu.slots.map((s) => html`<li key=${s.slot}><span class=${"dot " + s.phase} aria-hidden="true"></span> ${gpu.slots.length > 1 && html`<span class="soft">${w.slot(s.slot)} </span>`}${describe(s, leases)}</li>`)}</ul>
		${gpu.uninvited && html`<div class="reason"><p>${words.uninvited(gpu.uninvited.length)}:</p><ul class="processes">${gpu.uninvited.map((u) => html`<li key=${u.pid}><strong>pid ${u.pid}</strong>, ${u.space ? w.ofSpace(u.space) : w.foreign}${u.user && `, ${u.user}`}${u.memory ? `, ${bytes(u.memory)}` : ""}, ${w.since(time(u.since))}${u.ended ? `, ${w.ending}` : ""}${u.command && html`<br /><code>${u.command}</code>`}</li>`)}</ul></div>`}
		${gpu.driverErrors?.map((e) => html`<p key=${e.xid} class="reason">${w.xid(e)}</p>`)}
		${gpu.faults?.length > 0 && html`<p class="reason">${w.faults(gpu.faults)}</p>`}
		${gpu.planned && html`<p class="reason">${words.planned(gpu.planned)}</p>`}
		${gpu.drained && html`<p class="reason">${words.drained(gpu.drained)}</p>`}
		${may && gpu.uuid && html`<div class="actions">
			${gpu.planned && html`<${Act} class="plain" run=${() => act("/gpu/return", { uuid: gpu.uuid })}>${words.cancel}<//>`}
			${gpu.drained
				? html`<${Act} class="plain" run=${() => act("/gpu/return", { uuid: gpu.uuid }, () => w.returned(kind))}>${words.return}<//>`
				: html`<${Ask} open=${words.drain} title=${w.drainTitle(kind)} text=${w.drainText} fields=${drainFields()} confirm=${words.drain} act=${(values) => act("/gpu/drain", { uuid: gpu.uuid, ...drainRequest(values) })} />`}
		</div>`}
		<p class="uuid"><small><code>${gpu.uuid}</code></small></p>
	</article>`;
}

// Health is the state of a GPU in one line.
function Health({ gpu }) {
	const w = words.gpus;
	if (gpu.error) return html`<span class="badge bad">${w.unreadable}</span> ${gpu.error}`;
	if (gpu.driverErrors?.some((e) => e.condemns)) return html`<span class="badge bad">${w.faulty}</span>`;
	if (gpu.eccErrors > 0) return html`<span class="badge warn">${w.ecc(gpu.eccErrors)}</span>`;
	if (gpu.drained) return html`<span class="badge warn">${w.drained}</span>`;
	if (gpu.uninvited) return html`<span class="badge warn">${w.occupied}</span>`;
	const notes = [gpu.eccErrors === 0 && w.noECC, gpu.simulated && w.simulated].filter(Boolean);
	return html`<span class="badge good">${w.healthy}</span> <small class="soft">${notes.join(" · ")}</small>`;
}

// Figure is a measurement; without a value the driver does not report it.
function Figure({ name, value, share, wide }) {
	return html`<div class=${"measure" + (wide ? " wide" : "")}><span class="soft">${name}</span> <span class="number">${value ?? words.gpus.unknown}</span>${value !== null && Number.isFinite(share) ? html`<${Meter} share=${share} label=${`${name}: ${value}`} />` : html`<div class="meter" aria-hidden="true"></div>`}</div>`;
}

function describe(slot, leases) {
	const holder = leases.find((l) => l.lease === slot.lease);
	if (holder) return html`${words.gpuHeld(holder)}${holder.deadline && html` <span class="soft">${words.gpus.until(time(holder.deadline))}</span>`}`;
	if (slot.phase === "warm") return words.gpuWarm(slot.space);
	return slot.reason || (slot.phase === "free" ? words.gpuFree : slot.phase);
}

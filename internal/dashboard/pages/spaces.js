// The Spaces of the host as cards, and one of them as a page of its own.
import { html } from "./vendor/htm-preact-3.1.1.js";
import { Loading } from "./parts.js";
import { choiceOf, signIn } from "./session.js";
import { Calls } from "./spaces_calls.js";
import { Operate } from "./spaces_operate.js";
import { words } from "./words.js";

const w = words.spaces;

export function Spaces({ data, detail, may, act, fail }) {
	const all = data.spaces ?? data.account?.spaces;
	if (!all) return html`<${Loading} />`;
	const one = all.find((s) => s.name === detail);
	if (detail && !one) return html`<p role="alert">${w.unknown(detail)} <a href="#spaces">${w.all}</a></p>`;
	if (one) return html`<${Space} key=${one.name} space=${one} data=${data} may=${may} act=${act} fail=${fail} />`;
	if (all.length === 0) return html`<p class="none">${words.spacesNone}</p>`;
	return html`<section class="cards">${all.map((s) => html`<${Card} key=${s.name} space=${s} data=${data} fail=${fail} />`)}</section>`;
}

// The colours of the Hub's palette, as its cards use them.
const PALETTE = { red: "#dc2626", yellow: "#ca8a04", green: "#16a34a", blue: "#2563eb", indigo: "#4f46e5", purple: "#9333ea", pink: "#db2777", gray: "#4b5563" };

const Banner = ({ space }) => html`<div class="banner" aria-hidden="true" style=${{ background: `linear-gradient(100deg, ${PALETTE[space.colorFrom] ?? PALETTE.gray}, ${PALETTE[space.colorTo] ?? PALETTE[space.colorFrom] ?? PALETTE.blue})` }}>
	<span>${space.emoji || "🚀"}</span>
</div>`;

const Stage = ({ space }) => html`<span class=${"badge " + space.stage} title=${space.stage}>${w.stage(space.stage)}</span>`;

function Card({ space, data, fail }) {
	return html`<article class="card space">
		<${Banner} space=${space} />
		<h2><a href=${"#spaces/" + encodeURIComponent(space.name)}><bdi>${space.title || space.name}</bdi></a></h2>
		<p><${Stage} space=${space} />${space.queued > 0 && html` ${words.queued(space.queued)}`}</p>
		${space.shortDescription && html`<p><bdi>${space.shortDescription}</bdi></p>`}
		${space.reason && html`<p class="reason"><bdi>${space.reason}</bdi></p>`}
		<p class="facts"><small>${facts(space).join(" · ")}</small></p>
		<${Open} space=${space} data=${data} fail=${fail} />
	</article>`;
}

// The host names the node to admins only, and only if it has nodes.
const facts = (s) => [s.name, s.node ? w.runsOn(s.node) : "", w.hardware(s.hardware, s.sizes), s.gradio || s.sdkVersion ? `Gradio ${s.gradio || s.sdkVersion}` : "", s.visibility === "public" ? "" : s.visibility].filter(Boolean);

const Open = ({ space, data, fail }) => html`<p class="choices">
	<button disabled=${Boolean(space.paused)} onClick=${() => signIn(choiceOf(space)).catch(fail)}>${words.enterSpace(data.me.name)}</button>
	<a class="button plain" href=${space.page} rel="noopener">${words.openSpace}</a>
	<a class="button plain" href=${"#spaces/" + encodeURIComponent(space.name)} aria-label=${`${data.me.role === "admin" ? w.manage : w.useApi}: ${space.name}`}>${data.me.role === "admin" ? w.manage : w.useApi}</a>
</p>`;

function Space({ space, data, may, act, fail }) {
	const isAdmin = data.me.role === "admin";
	const more = isAdmin ? [...facts(space), `isolation ${space.isolation}`, space.pid ? `pid ${space.pid}` : ""].filter(Boolean) : facts(space);
	return html`<div>
		<p><a href="#spaces">← ${w.all}</a></p>
		<section class="card space">
			<${Banner} space=${space} />
			<h2><bdi>${space.title || space.name}</bdi></h2>
			<p><${Stage} space=${space} /> ${space.queued > 0 && words.queued(space.queued)}</p>
			${space.shortDescription && html`<p><bdi>${space.shortDescription}</bdi></p>`}
			${space.reason && html`<p class="reason"><bdi>${space.reason}</bdi></p>`}
			${isAdmin && space.egressRefused && html`<p class="reason"><bdi>${space.egressRefused}</bdi></p>`}
			<p class="facts"><small>${more.join(" · ")}</small></p>
			<p class="choices">
				<button disabled=${Boolean(space.paused)} onClick=${() => signIn(choiceOf(space)).catch(fail)}>${words.enterSpace(data.me.name)}</button>
				<a class="button plain" href=${space.page} rel="noopener">${words.openSpace}</a>
			</p>
		</section>
		${isAdmin && html`<${Operate} space=${space} may=${may} act=${act} fail=${fail} />`}
		<${Calls} space=${space} />
	</div>`;
}

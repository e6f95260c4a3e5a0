import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Reading, Table, useRead } from "./parts.js";
import { Confirm, Copied, ReadOnly, Refused, Two, useChange } from "./changing.js";
import { hostNow } from "./clock.js";
import { moment, relative, words } from "./words.js";

const w = words.tokens;
const DAY = 24 * 3600;

// Tokens shows the person's own tokens.
export function Tokens({ data }) {
	const [round, refresh] = useState(0);
	const tokens = useRead("tokens", [round, data.audit?.latest]);
	useEffect(() => {
		const timer = setInterval(() => refresh((n) => n + 1), 30000); // last uses, and ends
		return () => clearInterval(timer);
	}, []);
	if (data.me.identity === "local") return html`<p class="none">${w.local}</p>`;
	const may = data.me.scope === "all";
	const again = () => refresh((n) => n + 1);
	return html`
		<p>${w.intro}</p>
		<${ReadOnly} may=${may} />
		${may && html`<${NewToken} path="tokens" spaces=${data.account?.spaces ?? []} done=${again} />`}
		<${Reading} of=${tokens} show=${(all) => html`<${TokenTable} tokens=${all} may=${may} path="tokens/" done=${again} />`} />
	`;
}

// NewToken creates a token at a path of the API and shows its secret. spaces are those at which it may be valid.
export function NewToken({ path, spaces, done }) {
	const [made, setMade] = useState(null);
	const [creating, setCreating] = useState(false);
	const created = (token) => {
		setMade(token);
		setCreating(false);
		done?.();
	};
	return html`<div>
		${made && html`<${Made} token=${made} space=${spaces.find((s) => !made.spaces || made.spaces.includes(s.name))} close=${() => setMade(null)} />`}
		${creating ? html`<${Create} path=${path} spaces=${spaces} done=${created} close=${() => setCreating(false)} />` : html`<p><button onClick=${() => setCreating(true)}>${w.create}</button></p>`}
	</div>`;
}

export const hasEnded = (t) => Boolean(t.revokedAt) || (t.expiresAt !== null && Date.parse(t.expiresAt) <= hostNow());

// TokenTable lists tokens, those that have ended on request only. path is followed by the ID of a token to revoke it.
export function TokenTable({ tokens, may, path, done, declaredToo }) {
	const [all, showAll] = useState(false);
	const change = useChange();
	const ended = tokens.filter(hasEnded).length;
	const columns = [
		[w.columns.label, (t) => html`<${Two} first=${html`${t.label || html`<span class="soft">${w.unnamed}</span>`} ${t.current && html`<span class="tag">${w.current}</span>`}`} second=${html`<code>${t.id}</code>`} />`],
		[w.columns.scope, (t) => html`<${Two} first=${w.scopes[t.scope].name} second=${t.spaces ? w.at(t.spaces) : w.everywhere} />`],
		[words.columns.created, (t) => html`<${Two} first=${html`<time datetime=${t.createdAt} title=${moment(t.createdAt)}>${relative(t.createdAt)}</time>`} second=${t.createdBy && w.createdBy(t.createdBy)} />`],
		[w.columns.expires, (t) => (t.expiresAt ? html`<time datetime=${t.expiresAt} title=${moment(t.expiresAt)}>${relative(t.expiresAt)}</time>` : w.never)],
		[w.columns.used, (t) => (t.lastUsedAt ? html`<time datetime=${t.lastUsedAt} title=${moment(t.lastUsedAt)}>${relative(t.lastUsedAt)}</time>` : w.never)],
		[words.columns.state, (t) => state(t)],
	];
	if (may) columns.push([words.columns.actions, (t) => actions(t)]);
	const state = (t) => {
		if (t.revokedAt) return html`<span class="soft" title=${moment(t.revokedAt)}>${w.revoked(relative(t.revokedAt))}</span>`;
		if (hasEnded(t)) return html`<span class="soft">${w.expired}</span>`;
		return t.declared ? w.declared : w.valid;
	};
	const actions = (t) => {
		if (hasEnded(t)) return "";
		if (t.declared && !declaredToo) return html`<small>${w.cannotRevoke}</small>`;
		return html`<${Confirm} name=${w.revoke} label=${w.revokeOne(t.label || t.id)} question=${t.current ? w.revokeCurrent : w.revokeQuestion} yes=${w.revoke} busy=${change.busy}
			run=${async () => (await change.send("DELETE", path + t.id)) && done()} />`;
	};
	const shown = all ? tokens : tokens.filter((t) => !hasEnded(t));
	return html`<div>
		<${Refused} of=${change} />
		<${Table} none=${w.none} rows=${shown} columns=${columns} />
		${ended > 0 && html`<p><button class="plain" aria-pressed=${all} onClick=${() => showAll(!all)}>${w.ended(ended)}</button></p>`}
		${tokens.some((t) => t.declared && !hasEnded(t)) && html`<p><small>${declaredToo ? w.declaredAdmin : w.declaredHint}</small></p>`}
	</div>`;
}

// Create asks for the rights of a new token.
function Create({ path, spaces, done, close }) {
	const change = useChange();
	const [scope, setScope] = useState("call");
	const [chosen, choose] = useState([]);
	const [life, setLife] = useState(90 * DAY);
	const first = useRef(null);
	useEffect(() => first.current?.focus(), []);
	const create = async (event) => {
		event.preventDefault();
		const body = { label: event.target.label.value.trim(), scope };
		if (scope !== "all" && chosen.length) body.spaces = chosen;
		if (life) body.expiresInSeconds = life;
		const token = await change.send("POST", path, body);
		if (token) done(token);
	};
	return html`<form class="card fields" aria-label=${w.create} onSubmit=${create} onKeyDown=${(e) => e.key === "Escape" && close()}>
		<div class="field"><label for="label">${w.columns.label}</label><input id="label" name="label" ref=${first} maxlength="100" autocomplete="off" placeholder=${w.labelHint} /></div>
		<fieldset><legend>${w.columns.scope}</legend>
			${Object.entries(w.scopes).map(([value, s]) => html`<label class="choice"><input type="radio" name="scope" value=${value} checked=${scope === value} onChange=${() => setScope(value)} /> <span><strong>${s.name}</strong><br /><small>${s.text}</small></span></label>`)}
		</fieldset>
		${scope !== "all" && spaces.length > 0 && html`<fieldset><legend>${w.columns.spaces}</legend>
			<p><small>${chosen.length ? w.onlyThese : w.allSpaces}</small></p>
			<div class="choices">${spaces.map(({ name }) => html`<label class="choice"><input type="checkbox" value=${name} checked=${chosen.includes(name)} onChange=${(e) => choose(e.target.checked ? [...chosen, name] : chosen.filter((n) => n !== name))} /> ${name}</label>`)}</div>
		</fieldset>`}
		<div class="field"><label for="life">${w.columns.expires}</label>
			<select id="life" onChange=${(e) => setLife(Number(e.target.value))}>${w.lives.map(([days, text]) => html`<option value=${days * DAY} selected=${days * DAY === life}>${text}</option>`)}</select>
		</div>
		<${Refused} of=${change} />
		<p class="choices"><button disabled=${change.busy}>${w.create}</button><button type="button" class="plain" onClick=${close}>${words.changing.cancel}</button></p>
	</form>`;
}

// Made shows the secret of a new token, once.
function Made({ token, space, close }) {
	const heading = useRef(null);
	useEffect(() => heading.current?.focus(), [token.id]);
	const url = space?.url ?? location.origin;
	return html`<section class="card fresh" aria-labelledby="made">
		<h2 id="made" tabindex="-1" ref=${heading}>${w.made(token.label || token.id)}</h2>
		<p class="reason">${w.once}</p>
		<${Copied} text=${token.token} />
		<${Copied} title="Python" text=${w.python(url, token.token)} />
		<${Copied} title="JavaScript" text=${w.javascript(url, token.token)} />
		<${Copied} title="curl" text=${token.scope === "call" ? w.curlCall(url, token.token) : w.curl(new URL("api/spacehost/quota", location.href).href, token.token)} />
		<p><button class="plain" onClick=${close}>${w.saved}</button></p>
	</section>`;
}

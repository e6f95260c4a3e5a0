import { html, useEffect, useMemo, useState } from "./vendor/htm-preact-3.1.1.js";
import { Loading, Meter, Reading, Table, usePeriod, useRead } from "./parts.js";
import { Confirm, Refused, Two, useChange } from "./changing.js";
import { NewToken, TokenTable } from "./tokens.js";
import { moment, relative, seconds, words } from "./words.js";

const w = words.people;

// useUsage returns the sums of each account over the last days, by key. It is empty until they are read.
function useUsage(days, period) {
	const from = useMemo(() => new Date(Date.now() - days * 86400e3).toISOString(), [days, period]);
	const read = useRead(`admin/usage?by=person&limit=10000&from=${from}`);
	const [kept, keep] = useState({});
	useEffect(() => void (read.value && keep(Object.fromEntries(read.value.rows.map((row) => [row.key, row])))), [read.value]);
	return kept;
}

// People lists the people of the host, or shows the one that the address names.
export function People({ data, detail }) {
	const period = usePeriod(15000);
	const balances = useRead("admin/quota", [data.audit?.latest, period]);
	const tiers = useRead("admin/tiers");
	const day = useUsage(1, period), week = useUsage(7, period);
	if (!data.people) return html`<${Loading} />`;
	const may = data.me.scope === "all";
	const used = (name) => ({ day: day["user:" + name], week: week["user:" + name] });
	if (detail) {
		const person = data.people.find((p) => p.name === detail);
		if (!person) return html`<p class="none">${w.unknown(detail)} <a href="#people">${w.all}</a></p>`;
		return html`<${Person} key=${detail} person=${person} data=${data} may=${may} tiers=${tiers.value ?? []} used=${used(detail)} period=${period} />`;
	}
	const left = Object.fromEntries((balances.value ?? []).map((b) => [b.identity, b]));
	return html`<div>
		<${List} people=${data.people} left=${left} used=${used} />
		${may && html`<${Add} tiers=${tiers.value ?? []} />`}
	</div>`;
}

function List({ people, left, used }) {
	const [text, search] = useState("");
	const [removed, showRemoved] = useState(false);
	const former = people.filter((p) => p.source === "former").length;
	const shown = people.filter((p) => (removed || p.source !== "former") && [p.name, p.tier, p.group].join(" ").includes(text.toLowerCase()));
	return html`<section>
		<p class="filters">
			<input class="find" type="search" aria-label=${w.filter} placeholder=${w.filter} value=${text} onInput=${(e) => search(e.target.value)} />
			${former > 0 && html`<button class="plain" aria-pressed=${removed} onClick=${() => showRemoved(!removed)}>${w.removed(former)}</button>`}
		</p>
		<${Table} none=${people.length ? w.noMatch : words.peopleNone} rows=${shown} columns=${[
			[words.columns.name, (p) => html`<span><a href=${"#people/" + encodeURIComponent(p.name)}>${p.name}</a> <${Badges} of=${p} /></span>`],
			[words.columns.tier, (p) => html`<${Two} first=${p.tier} second=${[p.group, overridden(p) && w.overridden].filter(Boolean).join(", ")} />`],
			[w.left, (p) => html`<${Left} of=${left["user:" + p.name]} />`, "number"],
			[w.day, (p) => amount(used(p.name).day), "number"],
			[w.week, (p) => amount(used(p.name).week), "number"],
			[w.tokens, (p) => p.tokens ?? 0, "number"],
			[w.seen, (p) => (p.lastSeenAt ? html`<time datetime=${p.lastSeenAt} title=${moment(p.lastSeenAt)}>${relative(p.lastSeenAt)}</time>` : w.never)],
		]} />
	</section>`;
}

const overridden = (p) => ["quotaSeconds", "longestSeconds", "priority", "concurrency", "runs"].some((f) => p[f] !== null);
const amount = (u) => (u ? html`<${Two} first=${seconds(u.usedSeconds ?? 0)} second=${w.calls(u.calls ?? 0)} />` : html`<span class="soft">–</span>`);

const Badges = ({ of }) => html`
	${of.admin && html`<span class="tag">${w.admin}</span>`}
	${of.source !== "operator" && html`<span class="tag quiet" title=${w.sources[of.source].why}>${w.sources[of.source].name}</span>`}
`;

function Left({ of }) {
	if (!of) return html`<span class="soft">${w.unused}</span>`;
	if (of.unlimited) return words.unlimited;
	return html`<span>${seconds(of.leftSeconds)}<${Meter} share=${of.leftSeconds / of.baseSeconds} label=${w.leftOf(of.leftSeconds, of.baseSeconds)} /></span>`;
}

function Add({ tiers }) {
	const change = useChange();
	const [added, setAdded] = useState("");
	const add = async (event) => {
		event.preventDefault();
		const form = event.target;
		const person = await change.send("POST", "admin/people", { name: form.person.value.trim(), tier: form.tier.value });
		if (!person) return;
		form.reset();
		setAdded(person.name);
	};
	return html`<section>
		<h2>${w.add}</h2>
		<${Refused} of=${change} />
		${added && html`<p class="notice" role="status">${w.added(added)} <a href=${"#people/" + encodeURIComponent(added)}>${w.open(added)}</a></p>`}
		<form class="filters" onSubmit=${add}>
			<label class="field"><span>${words.columns.name}</span><input name="person" required maxlength="64" pattern="[a-z0-9][a-z0-9._\\-]*" title=${w.nameRule} autocomplete="off" spellcheck="false" /></label>
			<${TierChoice} tiers=${tiers} value="free" />
			<button disabled=${change.busy}>${w.add}</button>
		</form>
	</section>`;
}

const TierChoice = ({ tiers, value, disabled, onChange }) => html`<label class="field"><span>${words.columns.tier}</span><select name="tier" disabled=${disabled} onChange=${onChange}>
	${!tiers.some((t) => t.name === value) && html`<option value=${value} selected>${value}</option>`}
	${tiers.map((t) => html`<option value=${t.name} selected=${t.name === value}>${t.name}</option>`)}
</select></label>`;

// Person shows one person, and what an admin may change of it.
function Person({ person, data, may, tiers, used, period }) {
	const identity = "user:" + person.name;
	const account = useRead("admin/account?identity=" + encodeURIComponent(identity), [data.audit?.latest, period, person.tier]);
	const tokens = useRead(`admin/people/${encodeURIComponent(person.name)}/tokens`, [data.audit?.latest, period]);
	const managed = person.source === "operator";
	return html`<div class="people">
		<p><a href="#people">${w.all}</a></p>
		<h2 class="title">${person.name} <${Badges} of=${person} /></h2>
		<p><small>${w.since(moment(person.createdAt), person.createdBy)}${person.spaces ? " " + w.private(person.spaces) : ""}</small></p>
		${!managed && html`<p class="notice quiet">${w.sources[person.source].why}</p>`}
		<section class="cards">
			<div class="card"><h3>${w.account}</h3>
				<${Reading} of=${account} show=${(a) => html`<${Account} a=${a} person=${person} used=${used} />`} />
				${may && person.source !== "former" && html`<${Adjust} identity=${identity} name=${person.name} />`}
			</div>
			<div class="card"><h3>${w.allowance}</h3><${Allowance} key=${JSON.stringify([person.name, person.tier, ...overrides.map(([field]) => person[field])])} person=${person} tiers=${tiers} may=${may && managed} /></div>
		</section>
		<section><h3>${w.tokens}</h3>
		${may && managed && html`<${NewToken} path=${`admin/people/${encodeURIComponent(person.name)}/tokens`} spaces=${data.spaces ?? []} />`}
		<${Reading} of=${tokens} show=${(all) => html`<${TokenTable} tokens=${all} may=${may} path="admin/tokens/" done=${tokens.refresh} declaredToo />`} /></section>
		${may && managed && html`<section><h3>${w.remove}</h3><${Remove} name=${person.name} /></section>`}
	</div>`;
}

function Account({ a, person, used }) {
	const row = (name, value) => html`<dt>${name}</dt><dd>${value}</dd>`;
	return html`<div>
		<p class="figure">${a.unlimited ? words.unlimited : seconds(a.leftSeconds)}</p>
		${!a.unlimited && html`<${Meter} share=${a.leftSeconds / a.baseSeconds} label=${w.leftOf(a.leftSeconds, a.baseSeconds)} /><p><small>${words.ofBase(a.baseSeconds)}</small></p>`}
		<dl>
			${a.resetsAt && row(w.resets, html`<time datetime=${a.resetsAt}>${moment(a.resetsAt)}</time>`)}
			${a.grantedSeconds > 0 && row(w.granted, seconds(a.grantedSeconds))}
			${a.creditSeconds > 0 && row(w.credits, seconds(a.creditSeconds))}
			${a.runs && row(w.runs, words.runs(a.runs))}
			${a.heldSeconds > 0 && row(words.columns.held, seconds(a.heldSeconds))}
			${row(w.day, amount(used.day))}${row(w.week, amount(used.week))}
			${row(w.seen, person.lastSeenAt ? relative(person.lastSeenAt) : w.never)}
		</dl>
	</div>`;
}

// Adjust grants seconds or runs, adds credits, and resets the account.
function Adjust({ identity, name }) {
	const change = useChange();
	const [kind, setKind] = useState("grant");
	const [said, say] = useState("");
	const adjust = async (event) => {
		event.preventDefault();
		const form = event.target, amount = Number(form.amount.value);
		const body = { identity, reason: form.reason.value.trim() };
		body[kind === "runs" ? "runs" : "seconds"] = amount;
		say("");
		if (!(await change.send("POST", kind === "credit" ? "admin/credit" : "admin/grant", body))) return;
		say(w.kinds[kind].said(name, amount));
		form.reset();
		setKind("grant");
	};
	return html`<div>
		<form class="filters" onSubmit=${adjust}>
			<label class="field"><span>${w.kind}</span><select onChange=${(e) => setKind(e.target.value)}>${Object.entries(w.kinds).map(([value, k]) => html`<option value=${value} selected=${value === kind}>${k.name}</option>`)}</select></label>
			<label class="field short"><span>${w.kinds[kind].unit}</span><input name="amount" type="number" min="1" step="1" required aria-label=${w.kinds[kind].amount(name)} /></label>
			<label class="field"><span>${words.columns.reason}</span><input name="reason" maxlength="200" autocomplete="off" /></label>
			<button disabled=${change.busy}>${w.kinds[kind].name}</button>
		</form>
		<${Refused} of=${change} />
		${said && html`<p class="notice" role="status">${said}</p>`}
		<p><${Confirm} name=${w.reset} label=${w.resetOne(name)} question=${w.resetQuestion} yes=${w.reset} busy=${change.busy}
			run=${async () => (await change.send("POST", "admin/reset", { identity })) && say(w.wasReset(name))} /></p>
	</div>`;
}

// overrides are the values that replace those of the tier: the field of a person and of a tier, and the name to go back.
const overrides = [
	["quotaSeconds", "quota"],
	["longestSeconds", "longest"],
	["runs", "runs"],
	["priority", "priority"],
	["concurrency", "concurrency"],
];

// Allowance changes the tier and the overrides of a person. An empty field is the value of the tier. The draft has what was chosen and
// typed: the form is drawn again with each event of the host.
function Allowance({ person, tiers, may }) {
	const change = useChange();
	const [draft, setDraft] = useState({});
	const edit = (field) => ({ target: { value } }) => setDraft((old) => ({ ...old, [field]: value }));
	const shown = (field) => draft[field] ?? person[field] ?? "";
	const tier = tiers.find((t) => t.name === person.tier);
	const save = async (event) => {
		event.preventDefault();
		const body = {}, back = [];
		if (shown("tier") !== person.tier) body.tier = shown("tier");
		for (const [field, name] of overrides) {
			const text = String(shown(field));
			if (text === "" && person[field] !== null) back.push(name);
			if (text !== "" && Number(text) !== person[field]) body[field] = Number(text);
		}
		if (back.length) body.back = back;
		if (Object.keys(body).length) await change.send("PATCH", "admin/people/" + encodeURIComponent(person.name), body);
	};
	return html`<form class="fields" onSubmit=${save}>
		<${TierChoice} tiers=${tiers} value=${shown("tier")} disabled=${!may} onChange=${edit("tier")} />
		${overrides.map(([field]) => html`<label class="field"><span>${w.overrides[field]}</span>
			<input name=${field} type="number" min=${field.endsWith("Seconds") ? 1 : 0} step="1" disabled=${!may} value=${shown(field)} onInput=${edit(field)} placeholder=${tier ? w.ofTier(ofTier(tier, field)) : ""} />
		</label>`)}
		${may && html`<p><small>${w.empty}</small></p><${Refused} of=${change} /><p><button disabled=${change.busy}>${w.save}</button></p>`}
	</form>`;
}

// ofTier writes a value of a tier.
const ofTier = (tier, field) => ((field === "quotaSeconds" && tier.unlimited) || (["runs", "concurrency"].includes(field) && !tier[field]) ? w.noLimit : tier[field]);

function Remove({ name }) {
	const change = useChange();
	return html`<div><p><small>${w.removeHint}</small></p><${Refused} of=${change} />
		<p><${Confirm} name=${w.remove} label=${w.removeOne(name)} question=${w.removeQuestion(name)} yes=${w.remove} busy=${change.busy}
			run=${async () => (await change.send("DELETE", "admin/people/" + encodeURIComponent(name))) && (location.hash = "people")} /></p></div>`;
}

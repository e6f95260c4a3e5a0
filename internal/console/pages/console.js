// The console's page. It keeps a bearer as long as its tab is open, and signs its user in at a Space.
import { forget, hasBearer, redeemLink, request, setBearer, signIn } from "./app/session.js";

const at = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.search);

function showError(error) {
	at("trouble").textContent = error.message;
}

// Shows why no GPU is lent, to all visitors of the page.
async function showMaintenance() {
	const { maintenance } = await request("healthz");
	at("maintenance").textContent = maintenance ? maintenance + "." : "";
}

async function show() {
	if (!hasBearer()) return showForm();
	let me;
	try {
		me = await request("login/me");
	} catch (error) {
		if (error.status === 401) forget();
		showError(error);
		return showForm();
	}
	at("enter").hidden = true;
	at("known").hidden = false;
	at("who").textContent = me.identity === "local" ? "the local visitor" : me.identity.replace(/^user:/, "");
	at("spaces").replaceChildren(...choices(me).map(entry));
	at("spaces").querySelector("button")?.focus();
	const quota = await request("api/spaces/zero-gpu/quota");
	const unlimited = quota.base === 2 ** 31 - 1; // the Hub's JSON has no value for it
	const time = unlimited ? "Your GPU time has no limit." : `${quota.current} of ${quota.base} seconds of GPU time are left.`;
	const runs = quota.runs ? ` ${quota.runs.remaining} of ${quota.runs.limit} GPU calls in 24 hours are left.` : "";
	at("quota").textContent = time + runs;
}

// A visit from a Space offers that Space alone. Any other visit offers all visible Spaces.
function choices(me) {
	const space = wanted.get("space");
	if (!space) return me.spaces.map((s) => ({ space: s.name, origin: s.origin, path: s.path, to: s.page }));
	return [{ space, origin: wanted.get("origin") ?? "", path: wanted.get("path") ?? "", to: wanted.get("to") ?? "/" }];
}

function entry(choice) {
	const line = document.createElement("li");
	const name = document.createElement("span");
	const go = document.createElement("button");
	name.textContent = `${choice.space}, at ${choice.origin}${choice.path}`;
	go.textContent = "Sign in to " + choice.space;
	go.addEventListener("click", () => signIn(choice).catch(showError));
	line.append(name, go);
	return line;
}

function showForm() {
	at("known").hidden = true;
	at("enter").hidden = false;
	if (wanted.get("space")) at("why").textContent = `Sign in to the Space ${wanted.get("space")} with a token of this host.`;
	at("token").focus();
}

at("enter").addEventListener("submit", (event) => {
	event.preventDefault();
	at("trouble").textContent = "";
	setBearer(at("token").value.trim());
	at("token").value = "";
	show().catch(showError);
});
at("forget").addEventListener("click", () => {
	forget();
	showForm();
});

showMaintenance().catch(showError);
redeemLink().catch(showError).finally(() => show().catch(showError));

// The console's page. It keeps a bearer as long as its tab is open, and signs its user in at a Space.
const at = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.search);

async function request(path, body) {
	const headers = {};
	const bearer = sessionStorage.getItem("bearer");
	if (bearer) headers["X-Hf-Authorization"] = "Bearer " + bearer;
	if (body) headers["Content-Type"] = "application/json";
	const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit" });
	const json = await answer.json();
	if (!answer.ok) throw Object.assign(new Error(json.detail ?? answer.statusText), { status: answer.status });
	return json;
}

function showError(error) {
	at("trouble").textContent = error.message;
}

// Redeems the one-time code of the link that the host prints, and removes it from the address bar.
async function redeemLink() {
	const code = new URLSearchParams(location.hash.slice(1)).get("code");
	if (!code) return;
	history.replaceState(null, "", location.pathname + location.search);
	const { bearer } = await request("/login/link", { code });
	sessionStorage.setItem("bearer", bearer);
}

async function show() {
	if (!sessionStorage.getItem("bearer")) return showForm();
	let me;
	try {
		me = await request("/login/me");
	} catch (error) {
		if (error.status === 401) sessionStorage.removeItem("bearer");
		showError(error);
		return showForm();
	}
	at("enter").hidden = true;
	at("known").hidden = false;
	at("who").textContent = me.identity === "local" ? "the local visitor" : me.identity.replace(/^user:/, "");
	at("spaces").replaceChildren(...choices(me).map(entry));
	at("spaces").querySelector("button")?.focus();
	const quota = await request("/api/spaces/zero-gpu/quota");
	const unlimited = quota.base === 2 ** 31 - 1; // the Hub's JSON has no value for it
	const time = unlimited ? "Your GPU time has no limit." : `${quota.current} of ${quota.base} seconds of GPU time are left.`;
	const runs = quota.runs ? ` ${quota.runs.remaining} of ${quota.runs.limit} GPU calls in 24 hours are left.` : "";
	at("quota").textContent = time + runs;
}

// A visit from a Space offers that Space alone. Any other visit offers all visible Spaces.
function choices(me) {
	const space = wanted.get("space");
	if (!space) return me.spaces.map((s) => ({ space: s.name, origin: s.url, path: "", to: s.page }));
	return [{ space, origin: wanted.get("origin") ?? "", path: wanted.get("path") ?? "", to: wanted.get("to") ?? "/" }];
}

function entry(choice) {
	const line = document.createElement("li");
	const name = document.createElement("span");
	const go = document.createElement("button");
	name.textContent = `${choice.space}, at ${choice.origin}${choice.path}`;
	go.textContent = "Sign in to " + choice.space;
	go.addEventListener("click", () => open(choice).catch(showError));
	line.append(name, go);
	return line;
}

// Sends the code in a form, because a URL is kept in the history.
async function open({ space, origin, path, to }) {
	const { action, code } = await request("/login/code", { space, origin, path });
	const form = document.createElement("form");
	form.method = "post";
	form.action = action;
	for (const [name, value] of Object.entries({ code, to })) {
		const field = document.createElement("input");
		Object.assign(field, { type: "hidden", name, value });
		form.append(field);
	}
	document.body.append(form);
	form.submit();
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
	sessionStorage.setItem("bearer", at("token").value.trim());
	at("token").value = "";
	show().catch(showError);
});
at("forget").addEventListener("click", () => {
	sessionStorage.removeItem("bearer");
	showForm();
});

redeemLink().catch(showError).finally(() => show().catch(showError));

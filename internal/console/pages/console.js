// The console's page: it keeps a bearer for as long as its tab is open, and takes a sign-in to a Space.
const at = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.search);

async function ask(path, body) {
	const headers = {};
	const bearer = sessionStorage.getItem("bearer");
	if (bearer) headers["X-Hf-Authorization"] = "Bearer " + bearer;
	if (body) headers["Content-Type"] = "application/json";
	const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), credentials: "omit" });
	const said = await answer.json();
	if (!answer.ok) throw Object.assign(new Error(said.detail ?? answer.statusText), { status: answer.status });
	return said;
}

function complain(error) {
	at("trouble").textContent = error.message;
}

// The link that the host prints: its code is good once, and does not stay in the address.
async function enterByLink() {
	const code = new URLSearchParams(location.hash.slice(1)).get("code");
	if (!code) return;
	history.replaceState(null, "", location.pathname + location.search);
	const { bearer } = await ask("/login/link", { code });
	sessionStorage.setItem("bearer", bearer);
}

async function show() {
	if (!sessionStorage.getItem("bearer")) return showForm();
	let me;
	try {
		me = await ask("/login/me");
	} catch (error) {
		if (error.status === 401) sessionStorage.removeItem("bearer");
		complain(error);
		return showForm();
	}
	at("enter").hidden = true;
	at("known").hidden = false;
	at("who").textContent = me.identity === "local" ? "the local visitor" : me.identity.replace(/^user:/, "");
	at("spaces").replaceChildren(...choices(me).map(entry));
	at("spaces").querySelector("button")?.focus();
	const quota = await ask("/api/spaces/zero-gpu/quota");
	const unlimited = quota.base === 2 ** 31 - 1; // the Hub's shape has no word for it
	at("quota").textContent = unlimited ? "Your GPU time has no limit." : `${quota.current} of ${quota.base} seconds of GPU time are left.`;
}

// Somebody who came from a Space goes back there; somebody else chooses.
function choices(me) {
	const space = wanted.get("space");
	if (!space) return me.spaces.map((s) => ({ space: s.name, origin: s.url, to: "/" }));
	return [{ space, origin: wanted.get("origin") ?? "", to: wanted.get("to") ?? "/" }];
}

function entry(choice) {
	const line = document.createElement("li");
	const name = document.createElement("span");
	const go = document.createElement("button");
	name.textContent = `${choice.space}, at ${choice.origin}`;
	go.textContent = "Sign in to " + choice.space;
	go.addEventListener("click", () => open(choice).catch(complain));
	line.append(name, go);
	return line;
}

// In a form, so that the code stands in no address.
async function open({ space, origin, to }) {
	const { action, code } = await ask("/login/code", { space, origin });
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
	show().catch(complain);
});
at("forget").addEventListener("click", () => {
	sessionStorage.removeItem("bearer");
	showForm();
});

enterByLink().catch(complain).finally(() => show().catch(complain));

// The console: state, connection, navigation. Each page is a function of the state.
import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/htm-preact-3.1.1.js";
import { hasBearer, setBearer, forget, redeemLink, request, stream } from "./session.js";
import { words } from "./words.js";
import { setHostNow } from "./clock.js";
import { pagesOf, routeOf } from "./pages.js";
import { Failure, Loading, Stale } from "./parts.js";

function App({ failed }) {
	const [data, setData] = useState({});
	const [link, setLink] = useState({ state: "live" });
	const [known, setKnown] = useState(hasBearer() ? 1 : 0); // the count of sign-ins, 0 without one
	const [page, setPage] = useState(routeOf(location.hash));
	const [trouble, setTrouble] = useState(failed);
	const [notice, setNotice] = useState("");

	const enter = () => {
		setTrouble("");
		setData({});
		setKnown((n) => n + 1);
	};

	useEffect(() => {
		const turn = async () => {
			setTrouble("");
			setNotice("");
			try {
				if (await redeemLink()) enter(); // a link that is pasted into an open tab loads no page
			} catch (error) {
				setTrouble(error.message);
			}
			setPage(routeOf(location.hash));
		};
		addEventListener("hashchange", turn);
		return () => removeEventListener("hashchange", turn);
	}, []);
	useEffect(() => {
		if (!known) return;
		const stop = new AbortController();
		stream(
			(topic, value) => {
				const now = topic === "clock" ? value.now : value.account?.now; // those of other topics may be old
				if (now) setHostNow(now);
				setData((old) => ({ ...old, [topic]: value, received: Date.now() }));
			},
			(state, why) => {
				setLink({ state, why });
				if (state === "ended") {
					forget();
					setKnown(0);
					setData({});
					setTrouble(words.ended);
				}
			},
			stop.signal,
		);
		return () => stop.abort();
	}, [known]);

	// act sends a change and shows the host's answer in words. Instead of a path, it takes a function that sends several requests.
	const act = async (path, body, said) => {
		setTrouble("");
		setNotice("");
		try {
			const answer = typeof path === "function" ? await path() : await request("api/spacehost/admin" + path, body);
			if (said) setNotice(said(answer));
			return answer;
		} catch (error) {
			setTrouble(error.message);
		}
	};
	const leave = () => {
		forget();
		setData({});
		setKnown(0);
	};

	if (!known) return html`<${SignIn} trouble=${trouble} done=${enter} />`;
	if (!data.me) return html`<main class="narrow"><h1>${words.title}</h1>${link.state === "lost" ? html`<p role="alert">${words.unreachable(link.why)}</p><p><button class="plain" onClick=${leave}>${words.leave}</button></p>` : html`<${Loading} />`}</main>`;
	const allowed = pagesOf(data.me);
	const shown = allowed.find((p) => p.name === page.name) ?? allowed[0];
	document.title = words.titleOf(words.pages[shown.name]);
	return html`
		<a class="skip" href="#content" onClick=${(e) => (e.preventDefault(), document.getElementById("content").focus())}>${words.skip}</a>
		<header>
			<strong>${words.title}</strong>
			<nav aria-label="Pages">${allowed.map((p) => html`<a href=${"#" + p.name} aria-current=${p === shown ? "page" : null}>${words.pages[p.name]}</a>`)}</nav>
			<span class="who"><span><bdi>${data.me.name}</bdi>, ${data.me.role}</span> <button class="plain" onClick=${leave}>${words.leave}</button></span>
		</header>
		${link.state === "lost" && html`<p class="stale" role="status">${words.lost(data.received, link.why)}</p>`}
		<${Stale} topics=${data.stale} />
		${trouble && html`<p role="alert">${trouble}</p>`}
		${notice && html`<p class="notice" role="status">${notice}</p>`}
		<main id="content" class=${"page-" + shown.name} tabindex="-1"><h1>${words.pages[shown.name]}</h1><${Page} key=${shown.name} of=${shown} detail=${page.name === shown.name ? page.detail : ""} data=${data} may=${data.me.scope === "all"} act=${act} fail=${(error) => setTrouble(error.message)} /></main>
	`;
}

// Page loads the module of a page and shows it.
function Page({ of, ...props }) {
	const [state, set] = useState({});
	const open = () => of.load().then((View) => set({ View }), (error) => set({ error }));
	const [broken, reset] = useErrorBoundary((error) => reportError(error)); // a fault of one page leaves the others usable
	useEffect(() => void open(), []);
	if (broken) return html`<${Failure} error=${{ message: words.broken }} retry=${reset} />`;
	if (state.error) return html`<${Failure} error=${state.error} retry=${() => (set({}), open())} />`;
	return state.View ? html`<${state.View} ...${props} />` : html`<${Loading} />`;
}

function SignIn({ trouble, done }) {
	const [error, setError] = useState("");
	const [busy, setBusy] = useState(false);
	const enter = async (event) => {
		event.preventDefault();
		if (busy) return;
		setBusy(true);
		setBearer(event.target.token.value.trim());
		try {
			await request("login/me"); // refuses an insecure connection and too many wrong tokens
			await request("api/spacehost/me"); // refuses a token that may not read
			done();
		} catch (wrong) {
			forget();
			setError(wrong.message);
			setBusy(false);
		}
	};
	return html`<main class="narrow">
		<h1>${words.title}</h1>
		${(error || trouble) && html`<p role="alert">${error || trouble}</p>`}
		<form onSubmit=${enter}>
			<p>${words.signIn}</p>
			<label for="token">${words.token}</label>
			<input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required aria-describedby="hint" />
			<p id="hint"><small>${words.tokenHint}</small></p>
			<button disabled=${busy}>${words.enter}</button>
		</form>
	</main>`;
}

let failed = "";
try {
	await redeemLink();
} catch (error) {
	failed = error.message;
}
render(html`<${App} failed=${failed} />`, document.getElementById("app"));

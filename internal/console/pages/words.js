// All sentences of the bar on a Space's pages, and how it writes numbers and times.

const two = (n) => String(n).padStart(2, "0");

// clock writes a duration in seconds as 2:03 or 1:02:03. It rounds up: it never shows 0:00 while time is missing.
export function clock(seconds) {
	const s = Math.max(0, Math.ceil(seconds));
	const hours = Math.floor(s / 3600);
	return hours > 0 ? `${hours}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

// amount writes GPU time. It rounds down: a call of the shown length fits.
export const amount = (seconds) => (seconds < 100 ? `${Math.floor(seconds * 10) / 10} s` : `${Math.floor(seconds)} s`);

const call = (c) => c.function ?? "A call";

export const words = {
	label: "Your GPU time",
	loading: "GPU time …",
	lost: "No connection to the host",
	lostHint: "The connection to the host is lost. Trying again; what you see may be old.",
	open: (text) => `${text}. Show details`,
	close: (text) => `${text}. Hide details`,
	left: (b) => (b.unlimited ? "no limit" : `${amount(b.leftSeconds + b.creditSeconds)} left`),
	place: (rank, wait) => (wait === null ? `place ${rank + 1}` : `place ${rank + 1}, ${clock(wait)}`),
	running: "on a GPU",
	you: (b) => (b.signedIn ? `Signed in as ${b.name}` : b.unattached ? `You are ${b.name}` : `Not signed in: ${b.name.replace(/^ip:/, "your address ")} pays`),
	unattached: "Calls from this page pay by address, as on the Hub: the page is open at its own address.",
	attach: "Open inside the page that stands for the Hub",
	quota: (b) => (b.unlimited ? "GPU time has no limit." : `${amount(b.leftSeconds)} of ${amount(b.baseSeconds)} GPU time left in 24 hours.`),
	credits: (b) => `${amount(b.creditSeconds)} of credits left.`,
	resets: (wait) => `All of it returns in ${clock(wait)}.`,
	runs: (r) => `${r.remaining} of ${r.limit} GPU calls left.`,
	waits: (c, wait) => `${call(c)} waits for a GPU: place ${c.rank + 1}${wait === null ? "" : `, starts in ${clock(wait)} or earlier`}.`,
	runsNow: (c, left) => `${call(c)} is on a GPU${left === null ? "" : `, for ${clock(left)} at most`}.`,
	announce: (c) => `${call(c)}: place ${c.rank + 1} in the line`,
	starts: "Your call is on a GPU",
	signIn: "Sign in",
	signOut: "Sign out",
	console: "Console",
	hide: "Hide until the next visit",
};

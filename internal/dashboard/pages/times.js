// The choice of a time: the last day, week or month, or two dates. It begins and ends with a whole hour or day of the reader's clock.
import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { words } from "./words.js";

const HOUR = 3600;
const DAY = 24 * HOUR;
const MOST = 1000; // parts into which the host divides a time (maxParts of package control)

// midnight returns the begin of the day that is a number of days after that of a time.
function midnight(at, days) {
	const day = new Date(at);
	day.setHours(0, 0, 0, 0);
	day.setDate(day.getDate() + days);
	return day;
}

const iso = (at) => at.toISOString().replace(/\.\d+Z/, "Z");

// unevenDays returns the begins of the days between two midnights in seconds, if one has not 24 hours: summer time begins or ends on it.
function unevenDays(first, end) {
	const begins = [];
	for (let day = first; day < end; day = midnight(day, 1)) begins.push(day / 1000);
	return begins.some((at, i) => (begins[i + 1] ?? end / 1000) - at !== DAY) && begins;
}

// timesOf returns { from, to, bucket, days }: two times of RFC 3339 ("" without a bound), and the seconds of a part of the sums, which is a
// bar in a chart. The host knows no time zone, and its parts have one length. So where summer time begins or ends, the parts are hours, and
// days has the begins of the bars in seconds. A time of more than six weeks would have too many hours: its later bars are an hour off.
export function timesOf(name, dates, now = Date.now()) {
	if (name === "all") return { from: "", to: "", bucket: DAY };
	if (name === "day") {
		const end = Math.floor(now / (HOUR * 1000) + 1) * HOUR * 1000;
		return { from: iso(new Date(end - DAY * 1000)), to: iso(new Date(end)), bucket: HOUR };
	}
	let [first, last] = [midnight(now, name === "week" ? -6 : -29), midnight(now, 0)];
	if (name === "dates" && dates.from && dates.to) {
		[first, last] = [dates.from, dates.to].sort().map((date) => midnight(`${date}T12:00`, 0));
	}
	const end = midnight(last, 1);
	const hours = (end - first) / (HOUR * 1000);
	const days = hours > 50 && hours <= MOST && unevenDays(first, end);
	const bucket = hours <= 50 || days ? HOUR : Math.ceil(hours / 24 / 400) * DAY;
	return { from: iso(first), to: iso(end), bucket, ...(days && { days }) };
}

// useTimes returns the chosen time with its name, and the control that chooses it. names are the choices.
export function useTimes(names, first) {
	const [name, choose] = useState(first);
	const [dates, setDates] = useState({ from: "", to: "" });
	const t = words.times;
	const field = (end) => html`<label class="field">${t[end]} <input type="date" value=${dates[end]} onInput=${(e) => setDates({ ...dates, [end]: e.target.value })} /></label>`;
	const control = html`
		<div class="choices" role="group" aria-label=${t.label}>${names.map((n) => html`<button type="button" class="plain" aria-pressed=${n === name} onClick=${() => choose(n)}>${t[n]}</button>`)}</div>
		${name === "dates" && html`${field("from")}${field("to")}`}`;
	return { name, ...timesOf(name, dates), control };
}

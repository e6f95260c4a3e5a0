// Charts of series, drawn by uPlot, which loads with the first chart.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { Failure } from "./parts.js";
import { words } from "./words.js";

let loading; // the one load of uPlot; empty after a failure, so that the next chart tries again

function load() {
	return (loading ??= new Promise((done, failed) => {
		const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "app/vendor/uplot-1.6.32.css" });
		const script = Object.assign(document.createElement("script"), { src: "app/vendor/uplot-1.6.32.js", onload: () => done(globalThis.uPlot) });
		script.onerror = () => {
			style.remove();
			script.remove();
			loading = undefined;
			failed(new Error(words.notDrawn));
		};
		document.head.append(style, script);
	}));
}

// Chart shows series over time. data is as uPlot takes it: the times in seconds, then one array for each series. options are those of
// uPlot without the width; a change of `id` draws anew, a change of data only its values. label describes the chart in words, because a canvas has none.
export function Chart({ id, label, options, data }) {
	const box = useRef(null);
	const drawn = useRef(null);
	const [error, setError] = useState(null);
	useEffect(() => {
		if (error) return;
		let gone = false;
		let watch;
		load().then((uPlot) => {
			if (gone) return;
			drawn.current = new uPlot({ height: 220, ...options, width: box.current.clientWidth }, data, box.current);
			watch = new ResizeObserver(() => drawn.current.setSize({ width: box.current.clientWidth, height: drawn.current.height }));
			watch.observe(box.current);
		}, (wrong) => gone || setError(wrong));
		return () => {
			gone = true;
			watch?.disconnect();
			drawn.current?.destroy();
			drawn.current = null;
		};
	}, [id, error]);
	useEffect(() => drawn.current?.setData(data), [data]);
	if (error) return html`<${Failure} error=${error} retry=${() => setError(null)} />`;
	return html`<div class="chart" role="img" aria-label=${label} ref=${box}></div>`;
}

// color returns a colour of the theme, for a canvas.
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

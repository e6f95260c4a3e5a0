package main

import (
	"net/http"
	"slices"
)

// fidelityCases are ordered by page, so that a browser opens each page once.
var fidelityCases = []fidelityCase{
	{name: "text", page: "components/text", covers: "Textbox, TextArea, Number, Slider, Checkbox, ColorPicker, DateTime, Button",
		args: `["ä \"q\" <b>", "two\nlines", 0.1, 7, false, "#abcdef", "2024-02-03 04:05:06"]`,
		do:   []string{"type #in-text textarea, #in-text input = by hand", "click #go-text"}, want: "text "},
	{name: "choice", page: "components/text", covers: "Radio, Dropdown, CheckboxGroup",
		args: `["b", "c", [1, 2], ["x"]]`, do: []string{"click #in-radio label:nth-of-type(2) input", "click #go-choice"}, want: "choice ("},
	{name: "markup", page: "components/text", covers: "JSON, Code, HTML, Markdown, HighlightedText, Label, ParamViewer",
		args: `["three more words"]`, want: "markup "},
	{name: "table", page: "components/text", covers: "Dataframe, List, Matrix, Numpy",
		args: `[{"headers":["name","n"],"data":[["cy",3]],"metadata":null}, {"headers":["1"],"data":[["z"]],"metadata":null}, {"headers":["1","2"],"data":[[9,8]],"metadata":null}, {"headers":["1"],"data":[[7]],"metadata":null}]`, want: "table ["},
	{name: "dialogue", page: "components/text", covers: "Dialogue", lines: "v5 v6",
		args: `[[{"speaker":"Bob","text":"so"}]]`, want: "dialogue "},

	{name: "image", page: "components/media", covers: "Image, AnnotatedImage",
		args: `[{"$file":"other.png"}]`, want: "image "},
	{name: "slider2", page: "components/media", covers: "ImageSlider", lines: "v5 v6",
		args: `[[{"$file":"other.png"},{"$file":"pixel.png"}]]`, want: "slider2 "},
	{name: "editor", page: "components/media", covers: "ImageEditor, ImageMask, Paint, Sketchpad", lines: "v5 v6",
		args: `[{"background":{"$file":"other.png"},"layers":[],"composite":{"$file":"other.png"}},null,null,null]`, want: "editor "},
	{name: "editor", page: "components/media", covers: "ImageEditor, ImageMask, Paint, Sketchpad", lines: "v4", noPage: true, // its page sends no value before the first stroke
		args: `[{"background":{"$file":"other.png"},"layers":[],"composite":{"$file":"other.png"}},null,null,null]`, want: "editor "},
	{name: "audio", page: "components/media", covers: "Audio, Microphone",
		args: `[{"$file":"tone.wav"}, null]`, want: "audio "},
	{name: "video", page: "components/media", covers: "Video, PlayableVideo", lines: "v6",
		args: `[{"$file":"clip.mp4"}, null]`, want: "video "},
	{name: "video", page: "components/media", covers: "Video, PlayableVideo", lines: "v4 v5",
		args: `[{"video":{"$file":"clip.mp4"}}, null]`, want: "video "},
	{name: "gallery", page: "components/media", covers: "Gallery",
		args: `[[{"image":{"$file":"other.png"},"caption":"mine"}]]`, want: "gallery "},
	{name: "model3d", page: "components/media", covers: "Model3D",
		args: `[{"$file":"shape.obj"}]`, want: "model3d "},

	{name: "file", page: "components/files", covers: "File, Files, UploadButton, DownloadButton",
		args: `[{"$file":"shape.obj"}, [{"$file":"note.txt"}], null]`, want: "file "},
	{name: "uploaded", page: "components/files", covers: "UploadButton, upload, POST A/upload",
		args: `[{"$file":"note.txt"}]`, do: []string{"upload input[data-testid=up-upload-button] = note.txt"}, want: "uploaded "},
	{name: "explorer", page: "components/files", covers: "FileExplorer, POST A/component_server",
		args: `[[["note.txt"]]]`, want: "explorer "},
	{name: "chosen", page: "components/files", covers: "Dataset",
		args: `[0]`, do: []string{"click #in-dataset tbody tr:nth-child(2) td, #in-dataset button:nth-of-type(2)"}, want: "chosen "},
	{name: "examples", page: "components/files", covers: "Dataset, Examples",
		args: `["eve"]`, do: []string{"click #in-examples tbody tr:nth-child(1) td, #in-examples button:nth-of-type(1)", "until #in-picked textarea, #in-picked input = ann", "click #go-examples"}, want: "examples "},
	{name: "buttons", page: "components/files", covers: "ClearButton, DuplicateButton, DeepLinkButton",
		args: `["pressed"]`, do: []string{"click #in-clear", "until #in-kept textarea, #in-kept input = ", "click #go-buttons"}, want: "buttons "},

	{name: "plots", page: "components/plots", covers: "Plot, LinePlot, ScatterPlot, BarPlot", lines: "v5 v6", args: `[3]`, want: "plots "},
	{name: "plots", page: "components/plots", covers: "Plot, LinePlot, ScatterPlot, BarPlot", lines: "v4", noPage: true, args: `[3]`, want: "plots "},

	{name: "layout", page: "components/layout", covers: "Row, Column, Group, Accordion, Tab, Tabs, Sidebar, Draggable, Walkthrough, Step",
		args: `["outside"]`, want: "layout "},
	{name: "visible", page: "components/layout", covers: "Column", args: `[true]`, want: "visible "},
	{name: "render", page: "components/layout", covers: "gr.render",
		do: []string{"click #in-rendered"}, out: "#out-rendered", want: "rendered for 2"},
	{name: "state", page: "components/layout", covers: "State, BrowserState, session state, State.change", args: `[5]`, want: "state "},
	{name: "timer", page: "components/layout", covers: "Timer", want: "timer 2"},

	{name: "chatbot", page: "components/chat", covers: "Chatbot, MultimodalTextbox",
		args: `[{"text":"hey","files":[{"$file":"note.txt"}]}, []]`, want: "chatbot "},
	{name: "chat", page: "components/talk", covers: "ChatInterface",
		args: `["hey"]`, do: []string{"type textarea = hey\r"}, out: ".chatbot, [role=log]", want: "hey 0 ..."},
	{name: "predict", page: "components/interface", covers: "Interface, cached examples",
		args: `["cy", 2]`, noPage: true, want: "hello cy!!"},
	{name: "badge", page: "components/badge", covers: "Component", args: `["gold"]`, noPage: true, want: "badge gold"},
	{name: "upper", page: "components/tabbed", covers: "TabbedInterface", args: `["loud"]`, noPage: true, want: "LOUD"},
	{name: "back", page: "components/tabbed", covers: "TabbedInterface", args: `["drow"]`, noPage: true, want: "word"},

	{name: "greet", page: "protocol", covers: "process_completed", args: `["you"]`, out: "#out", want: "hello "},
	{name: "count", page: "protocol", covers: "process_generating, diffs of a generator", args: `[3]`, out: "#answer", want: "2"},
	{name: "plain_error", page: "protocol", covers: "an error", args: `["x"]`, out: ".toast-wrap", want: "plain "},
	{name: "titled_error", page: "protocol", covers: "an error with a title", args: `["x"]`, noPage: true, want: "said x"},
	{name: "late_error", page: "protocol", covers: "an error after a step", args: `["x"]`, noPage: true, want: "late x"},
	{name: "toasts", page: "protocol", covers: "log", args: `["x"]`, out: "#out", want: "toasts "},
	{name: "steps", page: "protocol", covers: "progress", args: `["x"]`, out: "#out", want: "steps "},
	{name: "batched", page: "protocol", covers: "a batch", args: `["x"]`, out: "#out", want: " of 1"},
	{name: "remember", page: "protocol", covers: "State, session state", args: `["x"]`, out: "#out", want: " 1"},
	{name: "direct", page: "protocol", covers: "a direct call, POST A/run/{api_name}", args: `["x"]`, out: "#out", want: "direct "},
	{name: "direct_error", page: "protocol", covers: "a direct call", args: `["x"]`, noPage: true, want: "said x"},
	{name: "chain", page: "protocol", covers: "then and success", args: `["x"]`, out: "#out", want: "first ",
		do: []string{"click #go-chain", "until #out textarea = first typed, then, success"}},
	{name: "in_js", page: "protocol", covers: "JavaScript before a function", args: `["x"]`, out: "#out", want: "python "},
	{name: "only_js", page: "protocol", covers: "JavaScript alone", out: "#out", want: "js alone: typed"},
	{name: "load", page: "protocol", covers: "load", do: []string{}, want: "loaded"},
	{name: "html", page: "protocol", covers: "HTML, a template of gr.HTML", lines: "v6", do: []string{}, want: "templated"},
	{name: "validated", page: "protocol", covers: "a validator", lines: "v5 v6", args: `["long enough"]`, out: "#out", want: "validated "},
	{name: "cached", page: "protocol", covers: "gr.cache", lines: "v6", args: `["x"]`, out: "#out", want: "cached "},
	{name: "sounds", page: "protocol", covers: "HLS", lines: "v6", args: `[]`, noPage: true, want: "playlist.m3u8"},
	{name: "second", page: "protocol/second", covers: "pages, Navbar", lines: "v5 v6", do: []string{"click #go-second"}, want: "second two"},
	{name: "who by http", page: "protocol", covers: "gr.Request", requests: withHeaders(joined("who", "[]", "?from=join"), http.Header{"Accept-Language": {"de"}, "X-Own": {"own"}, "Cookie": {"a=b"}}), want: `"from":"join"`},

	{name: "messages of a quick call", page: "protocol", covers: "estimation, process_starts, process_completed, close_stream, POST A/queue/join, GET A/queue/data", requests: joined("greet", `["x"]`, ""), want: `"hello x"`},
	{name: "messages of a generator", page: "protocol", covers: "process_generating, diffs of a generator", requests: joined("count", `[3]`, ""), want: `["append",[],"1 "]`},
	{name: "messages of an error", page: "protocol", covers: "an error", requests: joined("plain_error", `["x"]`, ""), want: `"success":false`},
	{name: "messages of a titled error", page: "protocol", covers: "an error with a title", requests: joined("titled_error", `["x"]`, ""), want: "said x"},
	{name: "messages of a late error", page: "protocol", covers: "an error after a step", requests: joined("late_error", `["x"]`, ""), want: "late x"},
	{name: "messages of toasts", page: "protocol", covers: "log", requests: joined("toasts", `["x"]`, ""), want: `"level":"warning"`},
	{name: "messages of progress", page: "protocol", covers: "progress", requests: joined("steps", `["x"]`, ""), want: `"desc":"half"`},
	{name: "messages of a batch", page: "protocol", covers: "a batch", requests: joined("batched", `["x"]`, ""), want: "x of 1"},
	{name: "messages of a selection", page: "protocol", covers: "event data", requests: []httpRequest{
		send("A/queue/join", `{"data":[],"fn_index":{fn:picked},"session_hash":"{session}","event_data":{"index":1,"value":"b"},"trigger_id":null}`), data}, want: "picked 1 b"},
	{name: "messages of a wrong number of inputs", page: "protocol", covers: "an error", requests: joined("greet", `[]`, ""), want: `"success":false`},
	{name: "messages of a cached call", page: "protocol", covers: "gr.cache", lines: "v6", requests: append(joined("cached", `["y"]`, ""), joined("cached", `["y"]`, "")...), want: `"used_cache":"full"`},
	{name: "messages of a state", page: "protocol", covers: "State, session state", requests: append(joined("remember", `["y",null]`, ""), joined("remember", `["y",null]`, "")...), want: `"y 2"`},
	{name: "join without a session", page: "protocol", covers: "a join refused", requests: []httpRequest{send("A/queue/join", `{"data":["x"],"fn_index":{fn:greet}}`)}, want: " -> "},
	{name: "join without a function", page: "protocol", covers: "a join refused", requests: []httpRequest{send("A/queue/join", `{"data":["x"],"session_hash":"{session}"}`)}, want: " -> "},
	{name: "join an unknown function", page: "protocol", covers: "a join refused", lines: "v4 v6", requests: []httpRequest{send("A/queue/join", `{"data":["x"],"fn_index":9999,"session_hash":"{session}"}`)}, want: " -> 500"},
	{name: "join an unknown function", page: "protocol", covers: "a join refused", lines: "v5", requests: []httpRequest{send("A/queue/join", `{"data":["x"],"fn_index":9999,"session_hash":"{session}"}`)}, want: " -> 500", unlike: "Gradio 5 returns a traceback, which contains frames of the runner"},
	{name: "join without data", page: "protocol", covers: "a join refused", requests: []httpRequest{send("A/queue/join", `{"fn_index":0,"session_hash":"{session}"}`)}, want: " -> 422"},
	{name: "join with no JSON", page: "protocol", covers: "a join refused", requests: []httpRequest{send("A/queue/join", `no json`)}, want: " -> 422"},
	{name: "join what is not valid", page: "protocol", covers: "a validator, a join refused", lines: "v5 v6", requests: joined("validated", `["x"]`, "")[:1], want: "too short"},
	{name: "data of no session", page: "protocol", covers: "unexpected_error, GET A/queue/data", requests: []httpRequest{{method: "GET", path: "A/queue/data?session_hash=nobody"}}, want: "unexpected_error"},
	{name: "data without a session", page: "protocol", covers: "GET A/queue/data", requests: gets("A/queue/data"), want: " -> 422"},
	{name: "status", page: "protocol", covers: "GET A/queue/status", requests: gets("A/queue/status"), want: `"queue_size":0`},
	{name: "cancel", page: "protocol", covers: "POST A/cancel, cancel", requests: []httpRequest{
		joined("forever", `["x"]`, "")[0], {method: "GET", path: "A/queue/data?session_hash={session}", frames: 3, open: true},
		send("A/cancel", `{"session_hash":"{session}","fn_index":{fn:forever},"event_id":"{event}"}`), {resume: true}}, want: `"success":true`},
	{name: "cancel without fields", page: "protocol", covers: "POST A/cancel", requests: []httpRequest{send("A/cancel", `{}`)}, want: " -> 422"},
	{name: "reset", page: "protocol", covers: "POST A/reset", requests: []httpRequest{send("A/reset", `{"event_id":"x"}`), send("A/reset/", `{"event_id":"x"}`), send("A/reset", `{}`)}, want: `{"success":true}`},
	{name: "heartbeat", page: "protocol", covers: "GET A/heartbeat/{session_hash}, unload at a session's end", requests: []httpRequest{
		{method: "GET", path: "A/heartbeat/{session}9", frames: 1}, joined("await_leaving", "[]", "")[0], data}, want: "somebody left: True"},
	{name: "a long wait", page: "protocol", covers: "heartbeat", slow: true, requests: []httpRequest{
		joined("forever", `["x"]`, "")[0], {method: "GET", path: "A/queue/data?session_hash={session}", frames: 4}}, want: `"msg":"heartbeat"`},
	{name: "chunks in", page: "protocol", covers: "streaming input (process_streaming), POST A/stream/{event_id}, POST A/stream/{event_id}/close", lines: "v5 v6", requests: []httpRequest{
		send("A/queue/join", chunk), {method: "GET", path: "A/queue/data?session_hash={session}", frames: 3, open: true},
		send("A/stream/{event}", chunk), {resume: true, frames: 1}, send("A/stream/{event}/close", `{}`), {resume: true},
		send("A/stream/nothing", chunk), send("A/stream/nothing/close", `{}`)}, want: "process_streaming"},
	{name: "chunks out", page: "protocol", covers: "HLS, GET A/stream/{session_hash}/{run}/{component_id}/playlist.m3u8, GET A/stream/{session_hash}/{run}/{component_id}/playlist-file, GET A/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}", lines: "v5 v6", requests: []httpRequest{
		joined("sounds", "[]", "")[0], {method: "GET", path: "A/queue/data?session_hash={session}", keep: `stream=/stream/([^"]+)/playlist.m3u8`},
		{method: "GET", path: "A/stream/{stream}/playlist.m3u8", keep: `segment=(?m)^([0-9a-f-]+)\.aac`}, {method: "GET", path: "A/stream/{stream}/{segment}.aac"},
		{method: "GET", path: "A/stream/{stream}/playlist-file"}, {method: "GET", path: "A/stream/{stream}/{segment}.mp3"}, {method: "GET", path: "A/stream/no/no/1/playlist.m3u8"}}, want: "first chunk"},
	{name: "bytes out", page: "protocol", covers: "a stream of bytes, GET A/stream/{session_hash}/{run}/{component_id}", lines: "v4", requests: []httpRequest{
		joined("sounds", "[]", "")[0], {method: "GET", path: "A/queue/data?session_hash={session}", keep: `stream=stream/(\w+/\w+/\d+)`}, {method: "GET", path: "A/stream/{stream}"}, {method: "GET", path: "A/stream/no/1/1"}}, want: "first chunk"},
	{name: "a websocket of nothing", page: "protocol", covers: "a websocket, * A/stream/{event_id}", lines: "v5", requests: []httpRequest{{method: "GET", path: "A/stream/nothing", header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}, frames: 1}}, want: " -> "},
	{name: "call", page: "protocol", covers: "POST A/call/{api_name}, GET A/call/{api_name}/{event_id}", requests: slices.Concat(called("greet", `["ä"]`), called("count", "[2]"), called("titled_error", `["x"]`), called("plain_error", `["x"]`), called("remember", `["x"]`)), want: "event: complete"},
	{name: "call nothing", page: "protocol", covers: "POST A/call/{api_name}", requests: []httpRequest{send("A/call/nothing", `{"data":[]}`), {method: "GET", path: "A/call/greet/nothing"}}, want: " -> 500"},
	{name: "call by names", page: "protocol", covers: "POST A/call/v2/{api_name}, GET A/call/v2/{api_name}/{event_id}", lines: "v6", requests: []httpRequest{
		send("A/call/v2/greet", `{"name":"x"}`), {method: "GET", path: "A/call/v2/greet/{event}"}, send("A/call/v2/greet", `{"wrong":"x"}`)}, want: `"hello x"`},
	{name: "run", page: "protocol", covers: "POST A/run/{api_name}, POST A/api/{api_name}, a direct call", requests: []httpRequest{
		send("A/run/direct", `{"data":["x"]}`), send("A/api/direct", `{"data":["x"]}`), send("A/run/direct_count/", `{"data":[]}`), send("A/run/direct_error", `{"data":["x"]}`),
		send("A/run/greet", `{"data":["x"]}`)}, want: "direct x"},
	{name: "run nothing", page: "protocol", covers: "POST A/run/{api_name}", requests: []httpRequest{send("A/run/nothing", `{"data":["x"]}`)}, want: "Could not infer",
		unlike: "Gradio returns 500; the host names the cause"},

	{name: "shell", page: "protocol", covers: "GET /, HEAD /", requests: []httpRequest{{method: "GET", path: "/"}, {method: "HEAD", path: "/"}, {method: "GET", path: "/?__theme=dark"}}, want: "gradio_config"},
	{name: "second page", page: "protocol", covers: "pages", lines: "v5 v6", requests: gets("/second", "/second/", "/config?page=second", "A/info?page=second"), want: "gradio_config"},
	{name: "frontend", page: "protocol", covers: "GET /static/{path}, GET /assets/{path}", requests: []httpRequest{
		{method: "GET", path: "/", keep: `asset=assets/([^"]+\.js)`}, {method: "GET", path: "/assets/{asset}"}, {method: "GET", path: "/static/img/logo.svg"}, {method: "GET", path: "/static/nothing"}}, want: " -> 200"},
	{name: "svelte", page: "protocol", covers: "GET /svelte/{path}", lines: "v5 v6", requests: gets("/svelte/nothing.js"), want: " -> 404"},
	{name: "theme", page: "protocol", covers: "GET /theme.css, GET A/theme.css", requests: gets("/theme.css", "A/theme.css?v=1"), want: "text/css"},
	{name: "icons", page: "protocol", covers: "GET /favicon.ico, GET /robots.txt, GET /manifest.json, GET /pwa_icon, GET /pwa_icon/{size}", requests: gets("/favicon.ico", "/robots.txt", "/manifest.json", "/pwa_icon", "/pwa_icon/16"), want: "User-agent"},
	{name: "config with a slash", page: "protocol", covers: "GET /config", requests: gets("/config", "/config/"), want: `"protocol"`},
	{name: "info with a slash", page: "protocol", covers: "GET A/info", requests: gets("A/info", "A/info/"), want: "/greet"},
	{name: "openapi", page: "protocol", covers: "GET A/openapi.json", requests: gets("A/openapi.json"), want: "openapi"},
	{name: "nobody logged in", page: "protocol", covers: "GET A/user, GET A/login_check, GET A/token, POST /login, GET /logout", requests: append(
		gets("A/user", "A/user/", "A/login_check", "A/login_check/", "A/token", "A/token/", "/logout"), form("/login", "username=ann&password=open")), want: "null"},
	{name: "app_id", page: "protocol", covers: "GET A/app_id", requests: []httpRequest{{method: "GET", path: "A/app_id"}, {method: "GET", path: "A/app_id/"}}, want: "app_id"},
	{name: "monitoring", page: "protocol", covers: "GET /monitoring, GET /monitoring/{key}", requests: gets("/monitoring", "/monitoring/wrong"), want: "See console"},
	{name: "monitoring in numbers", page: "protocol", covers: "GET /monitoring/summary", lines: "v5 v6", noPage: true, requests: append(joined("greet", `["x"]`, ""), gets("/monitoring/summary")...), want: `"greet":{"success_rate":`},
	{name: "startup-events", page: "protocol", covers: "GET A/startup-events", requests: gets("A/startup-events"), want: " -> 404", unlike: "Gradio alone uses it; a request from outside would start a second queue"},
	{name: "dev reload", page: "protocol", covers: "GET A/dev/reload", requests: []httpRequest{{method: "GET", path: "A/dev/reload", frames: 1}}, want: " -> 404", unlike: "access to code reloads often means the right to change the code, and the host has no editor"},
	{name: "proxy", page: "protocol", covers: "GET A/proxy={url_path}, HEAD A/proxy={url_path}", requests: []httpRequest{{method: "GET", path: "A/proxy=https://example.com/x"}, {method: "HEAD", path: "A/proxy=https://example.com/x"}}, want: " -> 403", unlike: "the host returns 403 for every forbidden address; Gradio returns 400"},
	{name: "component server", page: "components/files", covers: "POST A/component_server", noPage: true, requests: []httpRequest{
		{method: "GET", path: "/config", keep: `component="id":(\d+),"type":"fileexplorer"`},
		send("A/component_server", `{"data":[[]],"component_id":{component},"fn_name":"ls","session_hash":"{session}"}`),
		send("A/component_server/", `{"data":[[]],"component_id":{component},"fn_name":"nothing","session_hash":"{session}"}`)}, want: "note.txt"},
	{name: "custom component", page: "components/badge", covers: "GET A/custom_component/{id}/{environment}/{type}/{file_name}", lines: "v5 v6", requests: []httpRequest{
		{method: "GET", path: "/config", keep: `badge="component_class_id":"(\w+)"`},
		{method: "GET", path: "A/custom_component/{badge}/client/component/index.js"}, {method: "GET", path: "A/custom_component/{badge}/client/component/style.css"},
		{method: "GET", path: "A/custom_component/{badge}/client/component/nothing"}, {method: "GET", path: "A/custom_component/none/client/component/index.js"}}, want: "export default"},
	{name: "custom component", page: "components/badge", covers: "GET A/custom_component/{id}/{type}/{file_name}", lines: "v4", requests: []httpRequest{
		{method: "GET", path: "/config", keep: `badge="component_class_id":"(\w+)"`}, {method: "GET", path: "/custom_component/{badge}/component/index.js"}}, want: "export default"},
	{name: "deep link", page: "protocol", covers: "GET A/deep_link", lines: "v5 v6", requests: append(joined("greet", `["linked"]`, ""), gets("A/deep_link?session_hash={session}", "/config?deep_link=none")...), want: " -> 200"},
	{name: "run history", page: "protocol", covers: "GET A/runs, GET A/run-history/buckets, GET A/run-history/records, GET A/run-history/records/{endpoint}/{record_id}/assets/{asset_id}, POST A/run-history/connect", lines: "v6", requests: append(gets("A/runs", "A/run-history/buckets", "A/run-history/records", "A/run-history/records/x/y/assets/z"), send("A/run-history/connect", `{}`)), want: " -> "},
	{name: "extras", page: "protocol", covers: "POST A/process_recording", lines: "v5 v6", requests: append(gets("A/profiling/summary"), send("A/process_recording", `{}`)), want: " -> "},
	{name: "editor routes", page: "protocol", covers: "GET A/vibe-code, POST A/vibe-code, POST A/vibe-edit, POST A/undo-vibe-edit, POST A/vibe-starter-queries", lines: "v5 v6", requests: append(
		gets("A/vibe-code"), send("A/vibe-code", `{}`), send("A/vibe-edit", `{}`), send("A/undo-vibe-edit", `{}`), send("A/vibe-starter-queries", `{}`)), want: " -> 404", unlike: "they show and change the app's code"},
	{name: "upload", page: "protocol", covers: "POST A/upload, GET A/file={path_or_url}, HEAD A/file={path_or_url}, GET A/file/{path}, upload, a range of a file", requests: []httpRequest{
		upload("a b#ä.txt", "uploaded"), {method: "GET", path: "A/file={path}"}, {method: "HEAD", path: "A/file={path}"}, {method: "GET", path: "A/file{path}"},
		{method: "GET", path: "A/file={path}", header: http.Header{"Range": {"bytes=2-"}}}, send("A/upload", `{}`), form("A/upload", "a=b")}, want: " -> 200"},
	{name: "upload progress", page: "protocol", covers: "GET A/upload_progress", requests: []httpRequest{
		{method: "GET", path: "A/upload_progress?upload_id=never"}, {method: "GET", path: "A/upload_progress"}}, want: " -> "},
	{name: "files", page: "protocol", covers: "GET A/file={path_or_url}, files that may be had, files that may not", requests: gets("A/file=allowed/page.html", "A/file=allowed/digits.txt", "A/file=allowed/blocked/secret.txt", "A/file=app.py", "A/file=/etc/passwd", "A/file=allowed"), want: " -> 403"},
	{name: "cors", page: "protocol", covers: "CORS", requests: []httpRequest{
		{method: "GET", path: "A/queue/status", header: http.Header{"Origin": {"http://localhost:3000"}}}, {method: "GET", path: "A/queue/status", header: http.Header{"Origin": {"http://other.example"}}},
		{method: "OPTIONS", path: "A/queue/join", header: http.Header{"Origin": {"http://localhost:3000"}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"x-own"}}},
		{method: "OPTIONS", path: "A/queue/join"}}, want: "http://<host>"},
	{name: "nothing there", page: "protocol", covers: "nothing there", requests: append(gets("/nothing", "A/nothing", "A/queue/join"), send("/config", `{}`)), want: `{"detail":"Not Found"}`},
	{name: "mcp", page: "protocol", covers: "* A/mcp, MCP", lines: "v5 v6", requests: []httpRequest{
		tool(`"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"1"}}`), tool(`"method":"tools/list"`),
		tool(`"method":"tools/call","params":{"name":"{tool}","arguments":{"name":"tool"}}`), {method: "GET", path: "A/mcp/schema"}}, want: "hello tool"},
	{name: "whom a dependency lets in", page: "components/asked", covers: "auth_dependency", requests: slices.Concat(gets("/", "/config", "A/user"), withHeaders(slices.Concat(
		gets("A/user", "A/login_check", "A/queue/status", "/logout"), joined("asked", "[]", "")), http.Header{"X-User": {"eve"}})), want: "asked by eve"},
	{name: "sign in", page: "components/signin", covers: "OAuth, LoginButton, LogoutButton", requests: []httpRequest{
		{method: "GET", path: "/config"}, {method: "GET", path: "/login/huggingface?_target_url=/x", keep: "cookies"}, {method: "GET", path: "/login/callback?code=c&state=wrong", header: http.Header{"Cookie": {"{cookies}"}}},
		{method: "GET", path: "/logout"}}, want: "/authorize?"},
	{name: "signed_in", page: "components/signin", covers: "OAuth", args: `[]`, noPage: true, want: "nobody"},
	{name: "workflow", page: "components/workflow", covers: "Workflow, WorkflowCanvas", lines: "v6", requests: gets("/config", "A/info", "/"), want: "workflowcanvas"},
	{name: "own routes beside the apps", page: "components", covers: "mount_gradio_app", requests: gets("/own?q=1", "/config", "/text", "/text/nothing"), want: `{"own":"1"}`},

	{name: "a login", page: "guarded", covers: "auth, POST /login, GET /logout", requests: []httpRequest{
		{method: "GET", path: "/"}, {method: "GET", path: "/config"}, {method: "GET", path: "A/user"}, {method: "GET", path: "A/login_check"}, {method: "GET", path: "A/queue/data?session_hash=x"},
		send("A/queue/join", `{"data":["x"],"fn_index":0,"session_hash":"{session}"}`), form("/login", "username=ann&password=wrong"), {method: "POST", path: "/login", body: "username=ann&password=open", header: formType, keep: "cookies"},
		cookie("/config"), cookie("A/user"), cookie("A/login_check"), cookie("/"), cookie("/logout")}, want: `"ann"`},
	{name: "calls of a user", page: "guarded", covers: "auth, gr.Request", requests: withHeaders(slices.Concat(
		[]httpRequest{{method: "POST", path: "/login", body: "username=ann&password=open", header: formType, keep: "cookies"}}, joined("secret", `["x"]`, ""), joined("fail", `["x"]`, ""),
		[]httpRequest{send("A/run/secret", `{"data":["x"]}`)}), http.Header{"Cookie": {"{cookies}"}}), want: "secret x of ann"},
	{name: "a full queue", page: "guarded", covers: "a full queue, a join refused", requests: withHeaders([]httpRequest{
		{method: "POST", path: "/login", body: "username=ann&password=open", header: formType, keep: "cookies"},
		joined("hold", "[]", "")[0], {method: "GET", path: "A/queue/data?session_hash={session}", frames: 2, open: true},
		send("A/queue/join", `{"data":[],"fn_index":{fn:hold},"session_hash":"{session}2"}`), send("A/queue/join", `{"data":[],"fn_index":{fn:hold},"session_hash":"{session}3"}`),
		{method: "GET", path: "A/queue/status"}, send("A/run/release", `{"data":[]}`), {resume: true},
		{method: "GET", path: "A/queue/data?session_hash={session}2", frames: 2, open: true}, send("A/run/release", `{"data":[]}`), {resume: true}}, http.Header{"Cookie": {"{cookies}"}}), want: "503"},
	{name: "secret", page: "guarded", covers: "auth", args: `["x"]`, auth: []string{"ann", "open"}, do: []string{
		"type input[type=text], label:nth-of-type(1) input, label:nth-of-type(1) textarea = ann", "type input[type=password] = open", "click button.primary, button.lg", "click #go-secret"}, want: "secret "},

	{name: "hello", page: "server", covers: "gr.Server", lines: "v6", args: `["x"]`, noPage: true, want: "hello x"},
	{name: "numbers", page: "server", covers: "gr.Server", lines: "v6", args: `[3]`, noPage: true, want: "2"},
	{name: "own page", page: "server", covers: "gr.Server", lines: "v6", do: []string{}, out: "#own", want: "own page"},
	{name: "own routes", page: "server", covers: "gr.Server", lines: "v6", requests: append(gets("/", "/items/3?q=x", "/items/x", "/openapi.json", "/docs", "A/openapi.json"), send("/echo", `{"a":[1.0]}`)), want: `"item":3`},
	{name: "server's tools", page: "server", covers: "gr.Server, MCP, * A/mcp", lines: "v6", requests: []httpRequest{
		tool(`"method":"tools/list"`), tool(`"method":"tools/call","params":{"name":"{tool}","arguments":{"text":"loud"}}`)}, want: "LOUD"},
}

var (
	formType = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	data     = httpRequest{method: "GET", path: "A/queue/data?session_hash={session}"}
)

// joined makes one call through the queue in the case's own session, and reads its messages.
func joined(name, values, query string) []httpRequest {
	return []httpRequest{send("A/queue/join"+query, `{"data":`+values+`,"fn_index":{fn:`+name+`},"session_hash":"{session}"}`), data}
}

func called(name, values string) []httpRequest {
	return []httpRequest{send("A/call/"+name, `{"data":`+values+`}`), {method: "GET", path: "A/call/" + name + "/{event}"}}
}

// send posts JSON and keeps the event_id of the response.
func send(path, body string) httpRequest {
	return httpRequest{method: "POST", path: path, body: body, keep: `event="event_id":"(\w+)"`}
}

func gets(paths ...string) (all []httpRequest) {
	for _, path := range paths {
		all = append(all, httpRequest{method: "GET", path: path})
	}
	return all
}

func cookie(path string) httpRequest {
	return httpRequest{method: "GET", path: path, header: http.Header{"Cookie": {"{cookies}"}}}
}

func form(path, body string) httpRequest {
	return httpRequest{method: "POST", path: path, body: body, header: formType}
}

func upload(name, body string) httpRequest {
	part := "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"" + name + "\"\r\nContent-Type: text/plain\r\n\r\n" + body + "\r\n--x--\r\n"
	return httpRequest{method: "POST", path: "A/upload", body: part, header: http.Header{"Content-Type": {"multipart/form-data; boundary=x"}}, keep: `path=^\["([^"]+)"`}
}

// chunk is the body of one chunk of a streaming input.
const chunk = `{"data":[{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mM4ISeHFTEMLQkAkL9BAc9woTwAAAAASUVORK5CYII=","path":null,"meta":{"_type":"gradio.FileData"}}],"fn_index":{fn:chunks},"session_hash":"{session}"}`

// tool sends a message to the MCP server and keeps the name of the last tool.
func tool(message string) httpRequest {
	return httpRequest{method: "POST", path: "A/mcp/", body: `{"jsonrpc":"2.0","id":1,` + message + `}`, keep: `tool="name":\s?"(\w*(?:greet|shout))"`,
		header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}}
}

func withHeaders(requests []httpRequest, header http.Header) []httpRequest {
	for i := range requests {
		headers := header.Clone()
		for name, values := range requests[i].header {
			headers[name] = values
		}
		requests[i].header = headers
	}
	return requests
}

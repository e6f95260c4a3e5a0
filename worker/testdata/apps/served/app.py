"""Serves one page with uvicorn, which handles SIGTERM, and without Gradio."""
import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


uvicorn.run(app, host="0.0.0.0", port=7860, lifespan="off", log_level="warning")

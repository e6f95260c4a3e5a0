"""Has one function for each public report that public_reports_test.go repeats."""
import gradio as gr
import httpx


def call_itself():
    """Returns the status of this app's own API at the address that Gradio names."""
    return httpx.get(f"{demo.local_api_url}info").status_code


with gr.Blocks() as demo:
    number = gr.Number()
    gr.Button().click(call_itself, None, number, api_name="call_itself")

demo.queue(max_size=50)
demo.launch()

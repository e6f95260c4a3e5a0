import gradio as gr


def first(text):
    return f"first {text}"


def swap():
    """Closes the first demo and launches another in its place."""
    import threading

    threading.Thread(target=change).start()


def change():
    one.close()
    gr.Interface(lambda text: f"third {text}", "text", "text", api_name="third").launch(prevent_thread_lock=True)


with gr.Blocks() as one:
    text = gr.Textbox()
    text.submit(first, text, text, api_name="first")
    gr.Button().click(swap, None, None, api_name="swap")

one.launch(prevent_thread_lock=True)
gr.Interface(lambda text: f"second {text}", "text", "text", api_name="second").launch()

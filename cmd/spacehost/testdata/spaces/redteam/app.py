"""Attacks the machine, the host and the other Spaces, by the name of the attack."""
import json
import os

import gradio as gr
import spaces

import attack
import attacks_daemons  # noqa: F401: registers its attacks
import attacks_files  # noqa: F401
import attacks_kernel  # noqa: F401
import attacks_network  # noqa: F401
import attacks_processes  # noqa: F401


def attack_here(facts, request: gr.Request):
    return json.dumps(attack.run_all(json.loads(facts), request.headers.get("x-ip-token", "")))


@spaces.GPU(duration=30)
def in_worker(facts, token):
    return json.dumps(attack.run_all(json.loads(facts), token))


def attack_in_worker(facts, request: gr.Request):
    return in_worker(facts, request.headers.get("x-ip-token", ""))


with gr.Blocks() as demo:
    text = gr.Textbox()
    gr.Button().click(attack_here, text, text)
    gr.Button().click(attack_in_worker, text, text)

demo.launch(allowed_paths=[os.getcwd()])

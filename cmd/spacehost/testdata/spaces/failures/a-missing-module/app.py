import gradio as gr
import spaces

import einops_not_there.layers

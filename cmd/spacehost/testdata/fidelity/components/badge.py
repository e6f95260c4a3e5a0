import hashlib

from gradio.components.base import Component


class Badge(Component):
    """A component that brings its own frontend."""

    EVENTS = ["change"]
    TEMPLATE_DIR = "templates"
    FRONTEND_DIR = "templates"

    @classmethod
    def get_component_class_id(cls):
        return hashlib.sha256(b"badge").hexdigest()  # Gradio's own id depends on the folder

    def preprocess(self, payload):
        return payload

    def postprocess(self, value):
        return None if value is None else f"[{value}]"

    def api_info(self):
        return {"type": "string"}

    def example_payload(self):
        return "badge"

    def example_value(self):
        return "badge"

    def read(self, payload=None):
        return payload

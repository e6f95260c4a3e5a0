"""Connects by name, as an external client: HF_ENDPOINT is the host's console. Argument: a token. Prints one JSON line."""
import inspect
import json
import sys

import huggingface_hub
from gradio_client import Client

token = sys.argv[1]
signed = {"token" if "token" in inspect.signature(Client.__init__).parameters else "hf_token": token}


def of(what):
    try:
        return what()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


print(json.dumps({
    "whoami": of(lambda: huggingface_hub.whoami(token=token)["name"]),
    "stranger": of(lambda: huggingface_hub.whoami(token="hf_stranger")),
    "predict": of(lambda: Client("somebody/space-b", verbose=False, **signed).predict(0.1, api_name="/work")),
    "without": of(lambda: Client("somebody/Space-B", verbose=False).predict(0.1, api_name="/work")),
    "nowhere": of(lambda: Client("somebody/nowhere", verbose=False)),
    "stage": of(lambda: huggingface_hub.get_space_runtime("somebody/space-b").stage),
    "quota": of(lambda: huggingface_hub.utils.get_session().get(huggingface_hub.constants.ENDPOINT + "/api/spaces/zero-gpu/quota",
                                                                headers={"Authorization": f"Bearer {token}"}).json()["base"]),
    "model": of(lambda: huggingface_hub.model_info("somebody/model").id),
    "file": of(lambda: huggingface_hub.hf_hub_download("somebody/model", "config.json")),
    "write": of(lambda: huggingface_hub.HfApi(token=token).create_repo("somebody/model").url),
}))
